package machine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Crash makes this machine's kernel panic, as `echo c > /proc/sysrq-trigger` does, and does not return on a real kernel. Root may
// do so whatever kernel.sysrq says (Documentation/admin-guide/sysrq.rst). What is not on disk yet is written first.
func (r Root) Crash() error {
	unix.Sync()
	if err := os.WriteFile(r.Path("proc/sysrq-trigger"), []byte("c"), 0); err != nil {
		return fmt.Errorf("crash the kernel: %w; it must have CONFIG_MAGIC_SYSRQ, and this must run as root", err)
	}
	return fmt.Errorf("crash the kernel: %s accepted the command and the kernel goes on", r.Path("proc/sysrq-trigger"))
}
