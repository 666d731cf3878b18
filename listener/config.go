package listener

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
)

// DefaultConfigFile is read when no other is named; it may be absent.
const DefaultConfigFile = "/etc/lastgasp/listener.yaml"

// Config is what listener.yaml says, checked.
type Config struct {
	Listen      []string // addresses of the UDP sockets
	Admin       string   // address of the HTTP side, empty for none
	Kubernetes  bool     // false: records go to a directory and nothing is acted on
	Kubeconfig  string   // empty: the pod's own service account
	Records     string   // directory for records without a cluster
	Policy      cleanup.Policy
	Judge       detect.Config
	Annotations Annotations
}

// Annotations are the keys under which a pod is told why it died, empty for ours.
type Annotations struct{ Reason, Code, By string }

// file is listener.yaml as it is written.
type file struct {
	Listen     []hostPort `yaml:"listen"`
	Admin      *hostPort  `yaml:"admin"`
	Cluster    mode       `yaml:"cluster"`
	Kubeconfig string     `yaml:"kubeconfig"`
	Records    string     `yaml:"records"`
	Act        struct {
		At          authority `yaml:"at"`
		Corroborate duration  `yaml:"corroborate"`
		Distrust    duration  `yaml:"distrust"`
	} `yaml:"act"`
	Limits struct {
		Nodes   *count   `yaml:"nodes"`
		Percent *count   `yaml:"percent"`
		Window  duration `yaml:"window"`
	} `yaml:"limits"`
	Node nodeVerb `yaml:"node"`
	Pods struct {
		Keep duration `yaml:"keep"`
	} `yaml:"pods"`
	ControlPlane bool `yaml:"controlPlane"`
	Annotations  struct {
		Reason annotationKey `yaml:"reason"`
		Code   annotationKey `yaml:"code"`
		By     annotationKey `yaml:"by"`
	} `yaml:"annotations"`
}

// LoadConfig reads a config file. A missing DefaultConfigFile is an empty one; any other missing file is an error.
func LoadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && path == DefaultConfigFile {
		b, err = nil, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	return ParseConfig(path, b)
}

// ParseConfig checks a config. Its errors are one line each: file, line, what is wrong and what to do.
func ParseConfig(path string, b []byte) (Config, error) {
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, oneLine(path, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%s: only one YAML document is read; remove what follows the first `---`", path)
	}
	c := Config{
		Listen:     []string{":6666"},
		Admin:      "127.0.0.1:9666",
		Kubernetes: f.Cluster == "kubernetes",
		Kubeconfig: f.Kubeconfig,
		Records:    "/var/lib/lastgasp",
		Policy:     cleanup.DefaultPolicy(),
		Annotations: Annotations{
			Reason: string(f.Annotations.Reason), Code: string(f.Annotations.Code), By: string(f.Annotations.By),
		},
	}
	if f.Listen != nil {
		c.Listen = nil
		for _, a := range f.Listen {
			c.Listen = append(c.Listen, string(a))
		}
	}
	if f.Admin != nil {
		c.Admin = string(*f.Admin)
	}
	if f.Records != "" {
		c.Records = f.Records
	}
	p := &c.Policy
	p.ControlPlane = f.ControlPlane
	if f.Act.At.set {
		p.ActAt = f.Act.At.Authority
	}
	if f.Node != "" {
		p.NodeVerb = cleanup.NodeVerb(f.Node)
	}
	for _, d := range []struct {
		to   *time.Duration
		from duration
	}{
		{&p.Corroborate, f.Act.Corroborate}, {&p.Distrust, f.Act.Distrust},
		{&p.Window, f.Limits.Window}, {&p.KeepPods, f.Pods.Keep},
	} {
		if d.from.set {
			*d.to = d.from.Duration
		}
	}
	for _, n := range []struct {
		to   *int
		from *count
	}{{&p.MaxNodes, f.Limits.Nodes}, {&p.MaxPercent, f.Limits.Percent}} {
		if n.from != nil {
			*n.to = int(*n.from)
		}
	}
	if err := p.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

var unknownField = regexp.MustCompile(`^line (\d+): field (\S+) not found in type .*$`)
var wrongType = regexp.MustCompile("^line (\\d+): cannot unmarshal !!(\\S+) (?:`(.*)` )?into (\\S+)$")

// oneLine turns what the YAML decoder says into one line an operator can act on; further mistakes show when the first
// is mended.
func oneLine(path string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if te := new(yaml.TypeError); errors.As(err, &te) {
		msg = te.Errors[0]
	}
	msg, _, _ = strings.Cut(msg, "\n")
	if m := unknownField.FindStringSubmatch(msg); m != nil {
		return fmt.Errorf("%s:%s: unknown key %q; remove it or mend its spelling (lastgasp-listener --help lists the keys)", path, m[1], m[2])
	}
	if m := wrongType.FindStringSubmatch(msg); m != nil {
		return fmt.Errorf("%s:%s: %q is a %s, want %s", path, m[1], m[3], m[2], plainType(m[4]))
	}
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		return fmt.Errorf("%s:%s", path, rest)
	}
	return fmt.Errorf("%s: %s", path, msg)
}

func plainType(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case goType == "bool":
		return "true or false"
	case goType == "string":
		return "a text"
	}
	return "a group of keys"
}

// The scalar types below read one YAML value each and name its line when it is wrong.

func wrong(n *yaml.Node, want string) error {
	return fmt.Errorf("line %d: %q is not %s", n.Line, n.Value, want)
}

type hostPort string

func (h *hostPort) UnmarshalYAML(n *yaml.Node) error {
	const want = `an address to bind; write [host]:port, for instance ":6666" or "127.0.0.1:9666"`
	host, port, err := net.SplitHostPort(n.Value)
	if err != nil {
		return wrong(n, want)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return wrong(n, want)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return wrong(n, want)
	}
	*h = hostPort(n.Value)
	return nil
}

type mode string

func (m *mode) UnmarshalYAML(n *yaml.Node) error {
	if n.Value != "kubernetes" && n.Value != "none" {
		return wrong(n, "a cluster; write kubernetes or none")
	}
	*m = mode(n.Value)
	return nil
}

type nodeVerb string

func (v *nodeVerb) UnmarshalYAML(n *yaml.Node) error {
	switch cleanup.NodeVerb(n.Value) {
	case cleanup.NodeDelete, cleanup.NodeAwait, cleanup.NodeAnnotate:
		*v = nodeVerb(n.Value)
		return nil
	}
	return wrong(n, "what to do with the node; write delete, await or annotate")
}

type authority struct {
	detect.Authority
	set bool
}

func (a *authority) UnmarshalYAML(n *yaml.Node) error {
	if err := a.UnmarshalText([]byte(n.Value)); err != nil || a.Authority == detect.Text {
		return wrong(n, "an authority to act at; write kernel, boot or pinned")
	}
	a.set = true
	return nil
}

type duration struct {
	time.Duration
	set bool
}

func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	var err error
	if d.Duration, err = time.ParseDuration(n.Value); err != nil || d.Duration < 0 {
		return wrong(n, "a duration; write a number and a unit, for instance 15s or 10m")
	}
	d.set = true
	return nil
}

type count int

func (c *count) UnmarshalYAML(n *yaml.Node) error {
	v, err := strconv.ParseUint(n.Value, 10, 31)
	if err != nil {
		return wrong(n, "a whole number from 0")
	}
	*c = count(v)
	return nil
}

type annotationKey string

var qualifiedName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

func (k *annotationKey) UnmarshalYAML(n *yaml.Node) error {
	if !qualifiedName.MatchString(n.Value) {
		return wrong(n, "an annotation key; write [domain/]name")
	}
	*k = annotationKey(n.Value)
	return nil
}
