package configurator

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// keys maps every dotted key to what sets it. Decoding by hand rather than into a struct is what lets each refusal name
// the file, the line, the key and the remedy; yaml.v3 gives no line for a value that a type refuses.
func (c *Config) keys(origin string) map[string]func(n *yaml.Node) error {
	return map[string]func(n *yaml.Node) error{
		"endpoint.static": func(n *yaml.Node) (err error) {
			list, err := endpoint.FromNode(n)
			if err == nil {
				c.Endpoint.Static, c.Endpoint.StaticOrigin = list, origin
			}
			return err
		},
		"endpoint.ssm":    func(n *yaml.Node) error { return setNames(&c.Endpoint.SSM, n) },
		"endpoint.dns":    func(n *yaml.Node) error { return setSRV(&c.Endpoint.DNS, n) },
		"endpoint.within": func(n *yaml.Node) error { return setPrefixes(&c.Endpoint.Within, n) },
		"endpoint.key":    func(n *yaml.Node) error { return setKey(&c.Endpoint.Key, n) },
		"cluster":         func(n *yaml.Node) error { return setCluster(&c.Cluster, n) },
		"targets":         func(n *yaml.Node) error { return setInt(&c.Targets, n, 1, 8) },
		"localPort":       func(n *yaml.Node) error { return setPort(&c.LocalPort, n) },
		"canary.interval": func(n *yaml.Node) error { return setDuration(&c.Canary.Interval, n, 10*time.Second, 24*time.Hour) },
		"canary.timeout": func(n *yaml.Node) error {
			return setDuration(&c.Canary.Timeout, n, 100*time.Millisecond, 20*time.Second)
		},
		"queues":               func(n *yaml.Node) error { return setBool(&c.Queues, n) },
		"panic.hold":           func(n *yaml.Node) error { return setBool(&c.Panic.Hold, n) },
		"panic.kdumpNotifiers": func(n *yaml.Node) error { return setBool(&c.Panic.KdumpNotifiers, n) },
		"enroll.kubeconfig":    func(n *yaml.Node) error { return setPath(&c.Enroll.Kubeconfig, n) },
		"panic.timeout": func(n *yaml.Node) error {
			// Below 0 the kernel resets at once and truncates its last words.
			var seconds int
			if err := setInt(&seconds, n, 0, 3600); err != nil {
				return err
			}
			c.Panic.Timeout = &seconds
			return nil
		},
	}
}

// merge reads one file over c.
func (c *Config) merge(file string, data []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // empty, or nothing but comments
	} else if err != nil {
		return syntaxError(file, err)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			return syntaxError(file, err)
		}
		return &ConfigError{Origin: file, Line: second.Line, Err: errors.New("a second document would be ignored; remove this ---")}
	}
	return walk(file, "", doc.Content[0], c.keys(file))
}

// mergeEnviron reads LASTGASP_ENDPOINT_STATIC and its like over c: the key in capitals with _ for the dots. Lists are
// separated by commas.
func (c *Config) mergeEnviron(environ []string) error {
	known := map[string]string{"LASTGASP_CONFIG": ""} // that one is the command's
	for key := range c.keys("") {
		known[envName(key)] = key
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "LASTGASP_") {
			continue
		}
		key, ok := known[name]
		switch {
		case !ok:
			return &ConfigError{Origin: "environment", Key: name,
				Err: fmt.Errorf("is not a variable of lastgasp-configurator; use %s", strings.Join(envNames(known), ", "))}
		case key == "" || value == "":
			continue
		}
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
		if err := c.keys("environment " + name)[key](n); err != nil {
			return &ConfigError{Origin: "environment", Key: name, Err: err}
		}
	}
	return nil
}

func envName(key string) string {
	return "LASTGASP_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func envNames(known map[string]string) []string {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// walk calls the setter of every key in the mapping n, whose own key is prefix.
func walk(file, prefix string, n *yaml.Node, keys map[string]func(*yaml.Node) error) error {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		return &ConfigError{Origin: file, Line: n.Line, Key: strings.TrimSuffix(prefix, "."),
			Err: fmt.Errorf("must have keys below it; known are %s", knownBelow(prefix, keys))}
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + name.Value
		fail := func(line int, err error) error {
			return &ConfigError{Origin: file, Line: line, Key: key, Err: err}
		}
		if seen[name.Value] {
			return fail(name.Line, errors.New("is here twice; remove one"))
		}
		seen[name.Value] = true
		set, ok := keys[key]
		if !ok && knownBelow(key+".", keys) != "" {
			if err := walk(file, key+".", value, keys); err != nil {
				return err
			}
			continue
		}
		if !ok {
			return fail(name.Line, fmt.Errorf("unknown key; known here are %s", knownBelow(prefix, keys)))
		}
		if err := set(resolve(value)); err != nil {
			line := value.Line
			var nodeErr *endpoint.NodeError
			if errors.As(err, &nodeErr) {
				line = nodeErr.Line
			}
			return fail(line, err)
		}
	}
	return nil
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// knownBelow lists the names directly below prefix, for people.
func knownBelow(prefix string, keys map[string]func(*yaml.Node) error) string {
	var names []string
	for key := range keys {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// syntaxError passes on what the parser says, which names the line in its own words.
func syntaxError(file string, err error) error {
	return &ConfigError{Origin: file, Err: fmt.Errorf("is not YAML: %s; correct it", strings.TrimPrefix(err.Error(), "yaml: "))}
}

func setCluster(to *string, n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || !netconsole.ValidCluster(n.Value) {
		return fmt.Errorf("%s is not the name of a cluster; use letters, digits, dots, hyphens and underscores", show(n))
	}
	*to = n.Value
	return nil
}

// setKey reads an Ed25519 public key as lastgasp-listener prints it: base64 of its 32 bytes.
func setKey(to *ed25519.PublicKey, n *yaml.Node) error {
	key, err := base64.StdEncoding.DecodeString(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("%s is not an Ed25519 public key; write its 32 bytes in base64", show(n))
	}
	*to = key
	return nil
}

func setPrefixes(to *[]netip.Prefix, n *yaml.Node) error {
	texts, err := texts(n)
	if err != nil {
		return err
	}
	var list []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text.Value)
		if err != nil {
			return &endpoint.NodeError{Line: text.Line, Err: fmt.Errorf("%q is not a network; write it like 10.0.2.0/24", text.Value)}
		}
		list = append(list, prefix.Masked())
	}
	if len(list) == 0 {
		return errors.New("has no network; write one like 10.0.2.0/24, or remove the key")
	}
	*to = list
	return nil
}

func setBool(to *bool, n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && (n.Value == "true" || n.Value == "false") {
		*to = n.Value == "true"
		return nil
	}
	return fmt.Errorf("%s is not true or false; write one of them", show(n))
}

func setInt(to *int, n *yaml.Node, low, high int) error {
	i, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || i < low || i > high {
		return fmt.Errorf("%s is not a number from %d to %d; write one", show(n), low, high)
	}
	*to = i
	return nil
}

func setPort(to *uint16, n *yaml.Node) error {
	var i int
	if err := setInt(&i, n, sourcePorts+1, 65535); err != nil { // those below it are used as well
		return err
	}
	*to = uint16(i)
	return nil
}

func setDuration(to *time.Duration, n *yaml.Node, low, high time.Duration) error {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d < low || d > high {
		return fmt.Errorf("%s is not a time from %s to %s; write it like 30s or 10m", show(n), low, high)
	}
	*to = d
	return nil
}

// ssmName is what Parameter Store takes for a name, and the templates we fill in.
var ssmName = regexp.MustCompile(`^/?(?:[A-Za-z0-9_.-]|/|\{region\}|\{az-id\}|\{cluster\})+(?::[A-Za-z0-9_.-]+)?$`)

func setNames(to *[]string, n *yaml.Node) error {
	texts, err := texts(n)
	if err != nil {
		return err
	}
	var names []string
	for _, text := range texts {
		if !ssmName.MatchString(text.Value) {
			return &endpoint.NodeError{Line: text.Line, Err: fmt.Errorf("%q is not the name of an SSM parameter; use letters, digits, /_.-, {region}, {az-id} and {cluster}", text.Value)}
		}
		names = append(names, text.Value)
	}
	if len(names) == 0 || len(names) > 10 {
		// One GetParameters call takes ten names.
		return fmt.Errorf("has %d names; write one to ten", len(names))
	}
	*to = names
	return nil
}

// texts are the items of a list of plain texts, or of one text with commas.
func texts(n *yaml.Node) ([]yaml.Node, error) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	var list []yaml.Node
	for _, item := range items {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, &endpoint.NodeError{Line: item.Line, Err: errors.New("must be a list of plain texts; write one a line")}
		}
		for text := range strings.SplitSeq(item.Value, ",") {
			list = append(list, yaml.Node{Line: item.Line, Value: strings.TrimSpace(text)})
		}
	}
	return list, nil
}

// srvName is _service._proto.domain (RFC 2782).
var srvName = regexp.MustCompile(`^_[A-Za-z0-9-]+\._udp(\.[A-Za-z0-9_-]+)+\.?$`)

func setSRV(to *string, n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || !srvName.MatchString(n.Value) {
		return fmt.Errorf("%s is not the name of a UDP SRV record; write it like _lastgasp._udp.example.internal", show(n))
	}
	*to = n.Value
	return nil
}

// show is n as it may stand in a message.
func show(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		return strconv.Quote(n.Value)
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a mapping"
	}
}
