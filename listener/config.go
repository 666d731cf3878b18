package listener

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
)

// DefaultConfigFile is read when no other is named; it may be absent.
const DefaultConfigFile = "/etc/lastgasp/listener.yaml"

// Stdout is the Config.Ship that means standard output.
const Stdout = "stdout"

// Config is what listener.yaml says, checked.
type Config struct {
	Listen      []string // addresses of the UDP sockets
	Admin       string   // address of the HTTP side, empty for none
	Kubernetes  bool     // false: records go to a directory and nothing is acted on
	Kubeconfig  string   // empty: the pod's own service account
	Records     string   // directory for records without a cluster
	Policy      cleanup.Policy
	Judge       detect.Config
	Ship        string // where all kernel records go as JSON lines: Stdout, a file, or empty for nowhere
	Annotations Annotations
	Announce    Announce
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
	Keep struct {
		Records *count   `yaml:"records"`
		For     duration `yaml:"for"`
	} `yaml:"keep"`
	NodeTimeout  duration `yaml:"nodeTimeout"`
	ControlPlane bool     `yaml:"controlPlane"`
	Rules        []rule   `yaml:"rules"`
	Ship         struct {
		To shipTo `yaml:"to"`
	} `yaml:"ship"`
	Annotations struct {
		Reason annotationKey `yaml:"reason"`
		Code   annotationKey `yaml:"code"`
		By     annotationKey `yaml:"by"`
	} `yaml:"annotations"`
	Announce announce `yaml:"announce"`
	EC2      struct {
		AfterPanic afterPanic `yaml:"afterPanic"`
	} `yaml:"ec2"`
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
		Ship:       string(f.Ship.To),
		Annotations: Annotations{
			Reason: string(f.Annotations.Reason), Code: string(f.Annotations.Code), By: string(f.Annotations.By),
		},
	}
	if f.Listen != nil {
		if len(f.Listen) == 0 {
			return Config{}, fmt.Errorf("%s: listen: the list is empty; name an address, or leave the key out for :6666", path)
		}
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
	if f.EC2.AfterPanic != "" {
		p.AfterPanic = cleanup.AfterPanic(f.EC2.AfterPanic)
	}
	for _, d := range []struct {
		to   *time.Duration
		from duration
	}{
		{&p.Corroborate, f.Act.Corroborate}, {&p.Distrust, f.Act.Distrust},
		{&p.Window, f.Limits.Window}, {&p.KeepPods, f.Pods.Keep}, {&p.AwaitTimeout, f.NodeTimeout},
		{&p.KeepRecordsFor, f.Keep.For},
	} {
		if d.from.set {
			*d.to = d.from.Duration
		}
	}
	for _, n := range []struct {
		to   *int
		from *count
	}{{&p.MaxNodes, f.Limits.Nodes}, {&p.MaxPercent, f.Limits.Percent}, {&p.KeepRecords, f.Keep.Records}} {
		if n.from != nil {
			*n.to = int(*n.from)
		}
	}
	if err := p.Validate(); err != nil {
		return Config{}, at(path, b, err)
	}
	announce, err := f.Announce.config(c.Listen)
	if err != nil {
		return Config{}, at(path, b, err)
	}
	c.Announce = announce
	for _, r := range f.Rules {
		c.Judge.Rules = append(c.Judge.Rules, detect.Rule(r))
	}
	if err := c.Judge.Compile(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// at puts before err, which begins with a key, where that stands.
func at(path string, b []byte, err error) error {
	key, _, _ := strings.Cut(err.Error(), ":")
	if line, ok := lineOf(b, key); ok {
		path = fmt.Sprintf("%s:%d", path, line)
	}
	return fmt.Errorf("%s: %w", path, err)
}
