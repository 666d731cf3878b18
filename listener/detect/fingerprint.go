package detect

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

var (
	// variable is anything in a title that may differ between occurrences of one bug: error codes, devices, sizes.
	variable = lazyregexp.New(`\b0x[0-9a-f]+\b|[0-9]+`)
	// folder is the path of a source file, which is absolute or relative as the build liked it.
	folder = lazyregexp.New(`(?:[\w.+~-]*/)+([\w.+-]+\.(?:c|h|S|rs))\b`)
	// exitCode is how a process ended, by which deaths of init differ.
	exitCode = lazyregexp.New(`exitcode=0x([0-9a-f]+)`)
)

// fingerprint is equal for equal bugs on different machines, boots, builds, kernels and architectures: 12 hex digits of a hash
// of the cause of what went wrong first, its title without numbers and folders, and the guilty function with its caller.
// Nothing else in a trace counts (addresses, offsets, CPUs, tasks, modules), nor does the helper in which it happened. Titles
// that name nothing (a lost headline) differ by the functions, deaths of init by its exit code.
//
// It changes if the line of one of the two functions is lost, unless the report names the function twice: the summary of an
// oops does, and so does a backtrace on arm64. It also changes where the backtrace lacks the caller: on arm64 that of a function
// which has made no frame yet, or needs none (it is in the link register alone, which most of the time says nothing new); on
// amd64 that of a function which was jumped to at its caller's end; everywhere that of a function which was inlined.
func fingerprint(cause, title string, t *trace) string {
	h := sha256.New()
	field := func(s string) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	field(cause)
	title = folder.ReplaceAllString(strings.Replace(title, inFunction, "", 1), "$1")
	if m := exitCode.FindStringSubmatch(title); m != nil {
		field("exit " + m[1])
	}
	field(variable.ReplaceAllLiteralString(title, "#"))
	for _, f := range t.frames {
		field(f)
	}
	sum := h.Sum(nil)
	return hex.EncodeToString(sum[:6])
}
