// Package machine reads and changes one node's files: its identity, the kernel's facts and settings, the secret of this boot,
// and what the last pass left for `status`. It opens no socket.
package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Root is the directory that holds the kernel's and the machine's files: "/" outside of tests.
type Root string

// Path joins elem below the root.
func (r Root) Path(elem ...string) string {
	return filepath.Join(append([]string{string(r)}, elem...)...)
}

// Files of our own.
const (
	RunDir       = "run/lastgasp"  // gone at the next boot, as kernel state is
	stateFile    = "state.json"    // what the last pass saw
	settingsFile = "settings.json" // kernel settings we changed, and their former values
	secretFile   = "gasp"          // the secret of this boot, named like its key on the wire
	lockFile     = "lock"          // one pass at a time

	// LastGoodFile is the last list of listeners that was proved to work, see endpoint.LastGood.
	LastGoodFile = "var/lib/lastgasp/endpoints.json"
)

// netDir is where the kernel shows its network devices.
const netDir = "sys/class/net"

// Uptime returns the time since boot, suspended time included (CLOCK_BOOTTIME). Unlike the wall clock it cannot be set, and
// unlike Go's monotonic clock it means the same in every process of one boot.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot happen: the clock exists since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Forget removes what passes left for `status`. The secret stays.
func (r Root) Forget() error {
	var errs []error
	for _, f := range []string{stateFile, settingsFile} {
		if err := os.Remove(r.Path(RunDir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Text returns the content of a small file below the root, trimmed; empty if it cannot be read.
func (r Root) Text(path string) string {
	data, err := os.ReadFile(r.Path(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// number returns the first number in a small kernel file, or fallback.
func (r Root) number(path string, fallback int) int {
	fields := strings.Fields(r.Text(path))
	if len(fields) == 0 {
		return fallback
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		return fallback
	}
	return n
}

func (r Root) flag(path string) bool {
	t := r.Text(path)
	return t == "1" || t == "Y"
}
