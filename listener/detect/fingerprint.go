package detect

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

var (
	// variable is anything in a title that may differ between occurrences of one bug: error codes, devices, sizes.
	variable = lazyregexp.New(`\(device [^)]*\)|\b0x[0-9a-f]+\b|[0-9]+`)
	// folder is the path of a source file, which is absolute or relative as the build liked it.
	folder = lazyregexp.New(`(?:[\w.+~-]*/)+([\w.+-]+\.(?:c|h|S|rs))\b`)
	// exitCode is how a process ended, by which deaths of init differ.
	exitCode = lazyregexp.New(`exitcode=0x([0-9a-f]+)`)
)

// fingerprint is equal for equal bugs on different machines, boots, builds, kernels and architectures: 12 hex digits of a hash
// of the cause of what went wrong first and its title, without numbers and folders. The guilty function counts where the title
// names it; nothing else in a trace does (addresses, offsets, CPUs, tasks, modules), nor the helper in which it happened. Callers
// do not count, because compilers inline functions, jump to them, and give them no frame, each architecture's in its own way.
// Deaths of init differ by its exit code.
//
// It changes if the line that names the function is lost, unless the report names it twice: the summary of an oops does, and so
// does a backtrace on arm64.
func fingerprint(cause, title, function string) string {
	h := sha256.New()
	field := func(s string) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	field(cause)
	if !strings.Contains(title, inFunction) {
		function = ""
	}
	title = folder.ReplaceAllString(strings.Replace(title, inFunction, "", 1), "$1")
	if m := exitCode.FindStringSubmatch(title); m != nil {
		field("exit " + m[1])
	}
	field(variable.ReplaceAllLiteralString(title, "#"))
	if function != "" {
		field(function)
	}
	sum := h.Sum(nil)
	return hex.EncodeToString(sum[:6])
}
