package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	nameHash = 12 // hex digits: 48 bits tell the boots of one node apart
	nameNode = 50 // bytes of the node's name that stay readable
)

// DryRunName is the name of the NodeDeath in which a dry run says what it would have done about the death of that name.
func DryRunName(death, boot string) string { return DeathName("dry-run-"+death, boot) }

// DeathName is the name of the NodeDeath of one boot of one node: a DNS-1123 label of at most 63 bytes, the same in every
// replica. Where no Node answered, node is the source address.
func DeathName(node, boot string) string {
	readable := Hyphenate(node)
	if len(readable) > nameNode {
		readable = readable[:nameNode]
	}
	if readable = strings.Trim(readable, "-"); readable == "" {
		readable = "node"
	}
	sum := sha256.Sum256([]byte(node + "/" + boot))
	return readable + "-" + hex.EncodeToString(sum[:])[:nameHash]
}

// Hyphenate lower-cases s and replaces every character that a DNS-1123 label cannot contain with a hyphen.
func Hyphenate(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, s)
}
