package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
)

var unknownField = regexp.MustCompile(`^line (\d+): field (\S+) not found in type .*$`)
var wrongType = regexp.MustCompile("^line (\\d+): cannot unmarshal !!(\\S+) (?:`(.*)` )?into (.+)$")

// oneLine turns what the YAML decoder says into one line an operator can act on; further mistakes show when the first
// is mended.
func oneLine(path string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if te := new(yaml.TypeError); errors.As(err, &te) {
		msg = te.Errors[0]
	}
	msg, _, _ = strings.Cut(msg, "\n")
	if m := unknownField.FindStringSubmatch(msg); m != nil {
		return fmt.Errorf("%s:%s: unknown key %q; remove it or mend its spelling (lastgasp-listener run --help lists the keys)", path, m[1], m[2])
	}
	if m := wrongType.FindStringSubmatch(msg); m != nil {
		what := plainTag(m[2])
		if m[3] != "" {
			what = strconv.Quote(m[3]) + " is " + what
		} else {
			what = "this is " + what
		}
		return fmt.Errorf("%s:%s: %s, want %s", path, m[1], what, plainType(m[4]))
	}
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		return fmt.Errorf("%s:%s", path, rest)
	}
	return fmt.Errorf("%s: %s", path, msg)
}

// lineOf finds the line of a key like act.corroborate; false if the config does not have it.
func lineOf(b []byte, key string) (int, bool) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil || len(doc.Content) == 0 {
		return 0, false
	}
	at, line := doc.Content[0], 0
	for part := range strings.SplitSeq(key, ".") {
		i := 0
		for ; i < len(at.Content) && at.Content[i].Value != part; i += 2 {
		}
		if at.Kind != yaml.MappingNode || i >= len(at.Content) {
			return line, line > 0
		}
		at, line = at.Content[i+1], at.Content[i].Line
	}
	return line, true
}

// plainTag is what a YAML tag without its exclamation marks means.
func plainTag(tag string) string {
	switch tag {
	case "seq":
		return "a list"
	case "map":
		return "a group of keys"
	case "str":
		return "a text"
	case "int", "float":
		return "a number"
	case "bool":
		return "true or false"
	}
	return "something else"
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
	what := strconv.Quote(n.Value)
	switch n.Kind {
	case yaml.SequenceNode:
		what = "a list"
	case yaml.MappingNode:
		what = "a group of keys"
	}
	return fmt.Errorf("line %d: %s is not %s", n.Line, what, want)
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
	if err := a.UnmarshalText([]byte(n.Value)); err != nil || a.Authority < detect.Kernel {
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

// rule is one of the user's, proved with its own examples.
type rule detect.Rule

func (r *rule) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: a rule is a group of keys; write cause, verdict, match, title and examples", n.Line)
	}
	for i := 0; i < len(n.Content); i += 2 { // a decoder called from here does not know that unknown keys are errors
		switch key := n.Content[i]; key.Value {
		case "cause", "match", "title", "remedy", "examples", "counterexamples":
		case "verdict":
			if new(detect.Verdict).UnmarshalText([]byte(n.Content[i+1].Value)) != nil {
				return wrong(n.Content[i+1], "a verdict; write dying, oops or sick")
			}
		default:
			return fmt.Errorf("line %d: field %s not found in type rule", key.Line, key.Value)
		}
	}
	if err := n.Decode((*detect.Rule)(r)); err != nil {
		return err
	}
	if err := (*detect.Rule)(r).Compile(); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}

type shipTo string

func (s *shipTo) UnmarshalYAML(n *yaml.Node) error {
	if n.Value != Stdout && !filepath.IsAbs(n.Value) {
		return wrong(n, "where records can be shipped to; write stdout or the path of a file, from / on")
	}
	*s = shipTo(n.Value)
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
