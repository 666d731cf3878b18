// Package endpoint finds the listeners that a node sends to, and chooses among them.
//
// A list of endpoints may be in the configuration, in an SSM parameter or in DNS. Each of these is a Source. A Finder asks
// them in a fixed order; it falls back on the last list that worked when none of them answers. Choose is pure and decides
// which listeners of the list are this node's.
package endpoint

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/yamlkeys"
)

// Endpoint is one listener as an operator names it.
type Endpoint struct {
	Host string `json:"host"` // IP address or DNS name
	Port uint16 `json:"port"`
	// Zone is the id of the availability zone the listener is in, empty if unknown. It is an id because a zone's name means
	// another zone in another account.
	Zone string `json:"zone,omitempty"`
	// Priority orders endpoints before anything else, lower first, as in a DNS SRV record. 0 elsewhere.
	Priority uint16 `json:"priority,omitempty"`
}

// String is host:port.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// Addr returns the endpoint's address, or false if its host is a name that must be looked up first.
func (e Endpoint) Addr() (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(e.Host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ip.Unmap(), e.Port), true
}

// Parse reads one host:port. It is stricter than the kernel, which reads "garbage" as 79.0.0.0.
func Parse(s string) (Endpoint, error) {
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		if ip, err := netip.ParseAddr(s); err == nil {
			return Endpoint{}, fmt.Errorf("%q has no port; write %s", s, netip.AddrPortFrom(ip, 6666))
		}
		return Endpoint{}, fmt.Errorf("%q is not host:port; write it like 10.0.2.10:6666 or [fd00::10]:6666", s)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return Endpoint{}, fmt.Errorf("%q has a bad port; use 1 to 65535", s)
	}
	if err := checkHost(host); err != nil {
		return Endpoint{}, fmt.Errorf("%q: %w", s, err)
	}
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String() // one listener has one spelling: two would pass for two listeners
	}
	return Endpoint{Host: host, Port: uint16(port)}, nil
}

// checkHost refuses addresses a dying kernel cannot usefully send to, and names that cannot be host names.
func checkHost(host string) error {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if !isName(host) {
			return fmt.Errorf("%q is neither an address nor a host name; correct it", host)
		}
		return nil
	}
	switch ip = ip.Unmap(); {
	case ip.Zone() != "":
		return errors.New("netconsole cannot carry an address with a zone; use a global address")
	case configfs.UnfitIP(ip) != "":
		return fmt.Errorf("%s is not the address of another machine; use the listener's own address", ip)
	case ip.Is6() && ip.IsLinkLocalUnicast():
		return fmt.Errorf("%s is link-local; use a global address", ip)
	}
	return nil
}

// isName reports whether s may be a host name (RFC 1123). A name whose last label is a number is a mistyped address
// like 10.0.2.300 or 0x0a00020a, never a name.
func isName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return !number.MatchString(labels[len(labels)-1])
}

// number is what some programs take for a part of an IPv4 address, in any base.
var number = lazyregexp.New(`^(?:\d+|0[xX][\da-fA-F]*)$`)

// bareIPv6 finds [fd00::10]:6666 without quotes. It has to be quoted, because in YAML the bracket begins a list.
var bareIPv6 = lazyregexp.New(`(^|[\s,\[])(\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?\]:[0-9]+)`)

// ParseList reads a whole list from an SSM parameter or a command line: one or more host:port, separated by commas or blanks,
// or a YAML (or JSON) list of host:port and of {address: host:port, zone: az-id}. [IPv6]:port needs no quotes in any of them.
func ParseList(text string) ([]Endpoint, error) {
	if list, ok := parsePlain(text); ok {
		return list, nil
	}
	text = bareIPv6.ReplaceAllString(text, `$1"$2"`)
	var doc, more yaml.Node
	documents := yaml.NewDecoder(strings.NewReader(text))
	if err := documents.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s; write host:port or a list of them", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := documents.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document would be ignored; write one list")
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("it is empty; write host:port or a list of them")
	}
	return FromNode(doc.Content[0])
}

// parsePlain reads a list without YAML: nothing but host:port, separated by commas or blanks.
func parsePlain(text string) ([]Endpoint, bool) {
	var list []Endpoint
	for _, s := range fields(text) {
		e, err := Parse(s)
		if err != nil {
			return nil, false
		}
		list = append(list, e)
	}
	return list, len(list) > 0
}

func fields(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// FromNode reads the same lists as ParseList from a node of a YAML document. Errors are *yamlkeys.Error.
func FromNode(n *yaml.Node) ([]Endpoint, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items, _ = yamlkeys.List(n) // aliases followed
	}
	var list []Endpoint
	for _, item := range items {
		some, err := fromItem(item)
		if err != nil {
			return nil, &yamlkeys.Error{Line: item.Line, Err: err}
		}
		list = append(list, some...)
	}
	if len(list) == 0 {
		return nil, &yamlkeys.Error{Line: n.Line, Err: errors.New("no endpoint in it; write host:port or a list of them")}
	}
	return list, nil
}

func fromItem(n *yaml.Node) ([]Endpoint, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		var list []Endpoint
		for _, s := range fields(n.Value) {
			e, err := Parse(s)
			if err != nil {
				return nil, err
			}
			list = append(list, e)
		}
		return list, nil
	case yaml.MappingNode:
		var address, zone string
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			if value.Kind == yaml.AliasNode {
				value = value.Alias
			}
			if value.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("%s must be plain text", key)
			}
			switch key {
			case "address":
				address = value.Value
			case "zone":
				zone = value.Value
			default:
				return nil, fmt.Errorf("unknown key %q; an endpoint has address and zone", key)
			}
		}
		e, err := Parse(address)
		if err != nil {
			return nil, err
		}
		e.Zone = zone
		return []Endpoint{e}, nil
	default:
		return nil, errors.New("an endpoint is host:port or {address: host:port, zone: az-id}")
	}
}
