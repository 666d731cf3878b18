package detect

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// variable is anything in a title that may differ between occurrences of one bug: error codes, devices, sizes.
var variable = regexp.MustCompile(`\b0x[0-9a-f]+\b|[0-9]+`)

// fingerprint is equal for equal bugs on different machines, boots and builds: 12 hex digits of a hash of the cause of
// what went wrong first, its title without numbers, and the innermost reliable frames by name. Whatever else a trace
// tells (addresses, offsets, CPUs, tasks, modules) does not enter.
//
// One backtrace may be cut short by the loss of its last lines, and then counts as another bug if fewer than maxFrames are
// left.
func fingerprint(cause, title string, t *trace) string {
	h := sha256.New()
	field := func(s string) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	field(cause)
	field(variable.ReplaceAllLiteralString(strings.Replace(title, inFunction, "", 1), "#"))
	for _, f := range t.frames {
		field(f)
	}
	sum := h.Sum(nil)
	return hex.EncodeToString(sum[:6])
}
