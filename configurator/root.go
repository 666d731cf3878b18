package configurator

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Root is where the kernel's and the machine's files hang: "/" outside of tests.
type Root string

// Path joins elem below the root.
func (r Root) Path(elem ...string) string {
	return filepath.Join(append([]string{string(r)}, elem...)...)
}

// Files of our own.
const (
	runDir       = "run/lastgasp"  // gone at the next boot, as kernel state is
	stateFile    = "state.json"    // what the last pass saw
	settingsFile = "settings.json" // kernel settings we changed, and their former values
	gaspFile     = "gasp"          // the secret of this boot
	lockFile     = "lock"          // one pass at a time
	lastGoodFile = "var/lib/lastgasp/endpoints.json"
)

// netDir is where the kernel shows its network devices.
const netDir = "sys/class/net"

// text is the content of a small kernel file, trimmed; empty if it cannot be read.
func (r Root) text(path string) string {
	data, err := os.ReadFile(r.Path(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// number is the first number in a small kernel file, or fallback.
func (r Root) number(path string, fallback int) int {
	fields := strings.Fields(r.text(path))
	if len(fields) == 0 {
		return fallback
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		return fallback
	}
	return n
}

// flag reads a kernel boolean, printed as 1 or Y.
func (r Root) flag(path string) bool {
	t := r.text(path)
	return t == "1" || t == "Y"
}

// replace writes a file of ours in one step, for mode and nobody else.
func (r Root) replace(path string, data []byte, mode os.FileMode) error {
	full := r.Path(path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	// Removed first: WriteFile would keep the mode of a file left behind by a crash.
	os.Remove(full + ".new")
	if err := os.WriteFile(full+".new", data, mode); err != nil {
		return err
	}
	return os.Rename(full+".new", full)
}
