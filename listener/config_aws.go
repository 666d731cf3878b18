package listener

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// Announce is where the listener tells nodes how to find it. It is off without a parameter.
type Announce struct {
	Parameter string // in SSM's Parameter Store; {region} and {az-id} are filled in
	Address   string // host:port as nodes reach the listener; with an empty host, this machine's own address
	Zone      string // id of its availability zone, empty for that of the metadata service
}

// announce is Announce as it is written.
type announce struct {
	SSM     parameterName `yaml:"ssm"`
	Address reachable     `yaml:"address"`
	Zone    zoneID        `yaml:"zone"`
}

// config is a with its defaults: the port is that of the first socket, and so is the host if it is one machine's.
func (a announce) config(listen []string) (Announce, error) {
	if a.SSM == "" {
		if a != (announce{}) {
			return Announce{}, fmt.Errorf("announce: ssm is missing; name the parameter that nodes look up")
		}
		return Announce{}, nil
	}
	c := Announce{Parameter: string(a.SSM), Address: string(a.Address), Zone: string(a.Zone)}
	if c.Address == "" {
		host, port, err := net.SplitHostPort(listen[0])
		if err != nil {
			return Announce{}, err // checked before
		}
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsGlobalUnicast() {
			host = ""
		}
		c.Address = net.JoinHostPort(host, port)
	}
	return c, nil
}

type parameterName string

// https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html
var parameterPath = regexp.MustCompile(`^(/([a-zA-Z0-9_.-]|\{region\}|\{az-id\})+){1,15}$`)

func (p *parameterName) UnmarshalYAML(n *yaml.Node) error {
	if !parameterPath.MatchString(n.Value) {
		return wrong(n, "the name of a parameter; write one like /lastgasp/{region}/endpoint")
	}
	*p = parameterName(n.Value)
	return nil
}

type reachable string

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z])?\.?$`)

func (r *reachable) UnmarshalYAML(n *yaml.Node) error {
	const want = "an address that nodes can reach; write host:port, for instance 10.0.2.10:6666"
	host, port, err := net.SplitHostPort(n.Value)
	if err != nil {
		return wrong(n, want)
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return wrong(n, want)
	}
	if ip, err := netip.ParseAddr(host); err == nil && !ip.IsGlobalUnicast() || err != nil && !hostName.MatchString(host) {
		return wrong(n, want)
	}
	*r = reachable(n.Value)
	return nil
}

type zoneID string

var zoneForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)

func (z *zoneID) UnmarshalYAML(n *yaml.Node) error {
	if !zoneForm.MatchString(n.Value) {
		return wrong(n, "the id of an availability zone; write one like euw1-az1")
	}
	*z = zoneID(n.Value)
	return nil
}

type afterPanic string

func (a *afterPanic) UnmarshalYAML(n *yaml.Node) error {
	switch cleanup.AfterPanic(n.Value) {
	case cleanup.LeaveInstance, cleanup.RebootInstance, cleanup.TerminateInstance:
		*a = afterPanic(n.Value)
		return nil
	}
	return wrong(n, "what to do with the instance; write none, reboot or terminate")
}
