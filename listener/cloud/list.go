package cloud

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// entry is one listener in the parameter, as lastgasp-configurator reads it.
type entry struct {
	Address string // host:port
	Zone    string // id of its availability zone, empty if unknown
}

// parseList reads the parameter's value: one or several host:port, or a YAML list of host:port and of
// {address: host:port, zone: az-id}. It refuses what it does not understand, which would be lost when the list is written
// back.
func parseList(text string) ([]entry, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	items := []*yaml.Node{doc.Content[0]}
	if items[0].Kind == yaml.SequenceNode {
		items = items[0].Content
	}
	var list []entry
	for _, item := range items {
		some, err := parseItem(item)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", item.Line, err)
		}
		list = append(list, some...)
	}
	return list, nil
}

func parseItem(item *yaml.Node) ([]entry, error) {
	var list []entry
	switch item.Kind {
	case yaml.ScalarNode:
		for address := range strings.FieldsFuncSeq(item.Value, func(r rune) bool { return strings.ContainsRune(", \t\n", r) }) {
			list = append(list, entry{Address: address})
		}
	case yaml.MappingNode:
		var known map[string]string
		if err := item.Decode(&known); err != nil {
			return nil, errors.New("an endpoint is host:port or {address: host:port, zone: az-id}")
		}
		for key := range known {
			if key != "address" && key != "zone" {
				return nil, fmt.Errorf("unknown key %q", key)
			}
		}
		list = append(list, entry{Address: known["address"], Zone: known["zone"]})
	default:
		return nil, errors.New("an endpoint is host:port or {address: host:port, zone: az-id}")
	}
	for _, e := range list {
		if _, _, err := net.SplitHostPort(e.Address); err != nil {
			return nil, fmt.Errorf("%q is not host:port", e.Address)
		}
	}
	return list, nil
}

// format writes a list so that people, parseList and lastgasp-configurator can read it: one line for each listener, or all in
// one line if none has a zone.
func format(list []entry) string {
	if !slices.ContainsFunc(list, func(e entry) bool { return e.Zone != "" }) {
		var addresses []string
		for _, e := range list {
			addresses = append(addresses, e.Address)
		}
		text := strings.Join(addresses, ",")
		if strings.HasPrefix(text, "[") { // an IPv6 address, which YAML would take for a list
			text = "'" + text + "'"
		}
		return text
	}
	var b strings.Builder
	for _, e := range list {
		if e.Zone == "" {
			fmt.Fprintf(&b, "- %q\n", e.Address)
		} else {
			fmt.Fprintf(&b, "- {address: %q, zone: %q}\n", e.Address, e.Zone)
		}
	}
	return b.String()
}
