package configurator

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/yamlkeys"
)

// keys returns every key there is. A key that is absent leaves c as it is. origin is the file or variable being read.
func (c *Config) keys(origin string) yamlkeys.Keys {
	port := int(c.LocalPort)
	return yamlkeys.Keys{
		"endpoint.static": func(n *yaml.Node) error {
			list, err := endpoint.FromNode(n)
			if err == nil {
				c.Endpoint.Static, c.Endpoint.StaticOrigin = list, origin
			}
			return err
		},
		"endpoint.ssm":    readNames(&c.Endpoint.SSM),
		"endpoint.dns":    yamlkeys.Value(&c.Endpoint.DNS, "the name of a UDP SRV record; write it like _lastgasp._udp.example.internal", srvName),
		"endpoint.within": readNetworks(&c.Endpoint.Within),
		"endpoint.key":    yamlkeys.Value(&c.Endpoint.Key, "an Ed25519 public key; write its 32 bytes in base64", publicKey),
		"cluster":         yamlkeys.Value(&c.Cluster, "the name of a cluster; use letters, digits, dots, hyphens and underscores", clusterName),
		"targets":         yamlkeys.Int(&c.Targets, 1, 8),
		"localPort": func(n *yaml.Node) error {
			err := yamlkeys.Int(&port, sourcePorts+1, 65535)(n) // the ports below it are used, too
			c.LocalPort = uint16(port)
			return err
		},
		"canary.interval":      yamlkeys.Duration(&c.Canary.Interval, 10*time.Second, 24*time.Hour),
		"canary.timeout":       yamlkeys.Duration(&c.Canary.Timeout, 100*time.Millisecond, 20*time.Second),
		"queues":               yamlkeys.Bool(&c.Queues),
		"panic.hold":           yamlkeys.Bool(&c.Panic.Hold),
		"panic.kdumpNotifiers": yamlkeys.Bool(&c.Panic.KdumpNotifiers),
		"panic.timeout": func(n *yaml.Node) error {
			// With a negative value the kernel resets at once and truncates its last records.
			var seconds int
			if err := yamlkeys.Int(&seconds, 0, 3600)(n); err != nil {
				return err
			}
			c.Panic.Timeout = &seconds
			return nil
		},
		"lastBoot.pstore":   yamlkeys.Value(&c.LastBoot.KeepPstore, "keep or remove; write one of these", keepOrRemove),
		"enroll.kubeconfig": yamlkeys.Value(&c.Enroll.Kubeconfig, "an absolute path; write one", absolutePath),
	}
}

func (c *Config) merge(file string, data []byte) error {
	_, err := yamlkeys.Read(file, data, c.keys(file))
	return err
}

// mergeEnviron merges variables like LASTGASP_ENDPOINT_STATIC over c: a key in capitals with _ for the dots. Lists are
// separated by commas.
func (c *Config) mergeEnviron(environ []string) error {
	known := map[string]string{"LASTGASP_CONFIG": ""} // read by the command itself
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

func keepOrRemove(text string) (keep, ok bool) {
	return text == "keep", text == "keep" || text == "remove"
}

func absolutePath(text string) (string, bool) { return text, filepath.IsAbs(text) }

func clusterName(text string) (string, bool) { return text, netconsole.ValidCluster(text) }

// publicKey reads an Ed25519 public key: base64 of its 32 bytes.
func publicKey(text string) (ed25519.PublicKey, bool) {
	key, err := base64.StdEncoding.DecodeString(text)
	return key, err == nil && len(key) == ed25519.PublicKeySize
}

func readNetworks(to *[]netip.Prefix) func(*yaml.Node) error {
	network := func(text string) (netip.Prefix, bool) {
		prefix, err := netip.ParsePrefix(text)
		return prefix.Masked(), err == nil && !prefix.Addr().Is4In6() // which no listener's address would be in
	}
	return func(n *yaml.Node) error {
		if err := yamlkeys.CommaValues(to, "a network; write it like 10.0.2.0/24", network)(n); err != nil {
			return err
		}
		if len(*to) == 0 {
			return errors.New("has no network; write one like 10.0.2.0/24, or remove the key")
		}
		return nil
	}
}

// ssmForm matches the names that Parameter Store accepts, and the templates we fill in.
var ssmForm = lazyregexp.New(`^/?(?:[A-Za-z0-9_.-]|/|\{region\}|\{az-id\}|\{cluster\})+(?::[A-Za-z0-9_.-]+)?$`)

func readNames(to *[]string) func(*yaml.Node) error {
	ssmName := func(text string) (string, bool) { return text, ssmForm.MatchString(text) }
	return func(n *yaml.Node) error {
		const want = "the name of an SSM parameter; use letters, digits, /_.-, {region}, {az-id} and {cluster}"
		if err := yamlkeys.CommaValues(to, want, ssmName)(n); err != nil {
			return err
		}
		if len(*to) == 0 || len(*to) > 10 {
			// One GetParameters call takes ten names.
			return fmt.Errorf("has %d names; write one to ten", len(*to))
		}
		return nil
	}
}

// srvForm is _service._proto.domain (RFC 2782).
var srvForm = lazyregexp.New(`^_[A-Za-z0-9-]+\._udp(\.[A-Za-z0-9_-]+)+\.?$`)

func srvName(text string) (string, bool) { return text, srvForm.MatchString(text) }
