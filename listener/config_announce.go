package listener

import (
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Announce says where the listener announces its address to nodes. It is off without a parameter.
type Announce struct {
	Parameter string // in SSM's Parameter Store; {cluster}, {region} and {az-id} are filled in
	Address   string // host:port as nodes reach the listener; with an empty host, this machine's own address
	Zone      string // id of its availability zone, empty for that of the metadata service
}

// complete fills in the address: the first socket's port, and its host if that is one machine's address. With an error it returns the
// key that is wrong.
func (a *Announce) complete(c Config) (key string, err error) {
	switch {
	case *a == (Announce{}):
		return "", nil
	case a.Parameter == "":
		return "announce", errors.New("ssm is missing; name the parameter in which nodes look up the listener")
	case !strings.Contains(a.Parameter, "{cluster}"):
		// A literal name would do for one cluster, and be copied to the next one with the rest of the config.
		return "announce.ssm", errors.New("{cluster} is missing, and another cluster's listeners would overwrite the parameter; write one like /lastgasp/{cluster}/endpoint")
	case c.Cluster == "":
		return "announce.ssm", errors.New("{cluster} is unknown; set cluster")
	case a.Address != "":
		return "", nil
	}
	host, port, err := net.SplitHostPort(c.Listen[0])
	if err != nil {
		return "listen", err // it was checked when it was read
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsGlobalUnicast() {
		host = ""
	}
	a.Address = net.JoinHostPort(host, port)
	return "", nil
}

// https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html
var parameterForm = regexp.MustCompile(`^(/([a-zA-Z0-9_.-]|\{cluster\}|\{region\}|\{az-id\})+){1,15}$`)

func parameterName(text string) (string, bool) { return text, parameterForm.MatchString(text) }

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z])?\.?$`)

func reachable(text string) (string, bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", false
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return "", false
	}
	ip, err := netip.ParseAddr(host)
	return text, err == nil && ip.IsGlobalUnicast() || err != nil && hostName.MatchString(host)
}

var zoneForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)

func zoneID(text string) (string, bool) { return text, zoneForm.MatchString(text) }
