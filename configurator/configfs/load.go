package configfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoModule means that this kernel has no netconsole that can be configured, or does not let us load it.
	ErrNoModule = errors.New("no netconsole")
	// ErrNoConfigfs means that configfs, and so netconsole's directory, is not available.
	ErrNoConfigfs = errors.New("no configfs")
)

// configfsMagic is CONFIGFS_MAGIC of include/uapi/linux/magic.h.
const configfsMagic = 0x62656570

// Load makes DefaultDir exist: it mounts configfs and runs modprobe(8) for configfs and netconsole where they are missing.
// That needs CAP_SYS_ADMIN and CAP_SYS_MODULE; if nothing is missing, Load needs no capability. The shipped units leave the
// work to sys-kernel-config.mount and an ExecStartPre= that runs modprobe. Errors are ErrNoConfigfs or ErrNoModule.
func Load(ctx context.Context) error {
	if isDir(string(DefaultDir)) {
		return nil
	}
	if err := mountConfigfs(ctx, filepath.Dir(string(DefaultDir))); err != nil {
		return fmt.Errorf("%w: %w", ErrNoConfigfs, err)
	}
	if isDir(string(DefaultDir)) {
		return nil
	}
	if err := modprobe(ctx, "netconsole"); err != nil {
		return fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	switch {
	case isDir(string(DefaultDir)):
		return nil
	case !isDir("/sys/module/netconsole"):
		return fmt.Errorf("%w: modprobe netconsole succeeds and loads nothing; look for \"install netconsole\" in /etc/modprobe.d", ErrNoModule)
	}
	return fmt.Errorf("%w: this kernel's netconsole cannot be configured at run time (CONFIG_NETCONSOLE_DYNAMIC is off)", ErrNoModule)
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// mountConfigfs mounts configfs on dir. The configfs module creates dir in sysfs.
func mountConfigfs(ctx context.Context, dir string) error {
	if !isDir(dir) {
		if err := modprobe(ctx, "configfs"); err != nil {
			return err
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("stat the file system at %s: %w", dir, err)
	}
	if st.Type == configfsMagic {
		return nil
	}
	if err := unix.Mount("configfs", dir, "configfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount it on %s: %w", dir, err)
	}
	return nil
}

// modprobe loads a module as an administrator would, with the options and blacklists of modprobe.d(5). Its output becomes the
// error.
func modprobe(ctx context.Context, name string) error {
	out, err := exec.CommandContext(ctx, "modprobe", name).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	if text == "" {
		text = err.Error()
	}
	locked, _ := os.ReadFile("/proc/sys/kernel/modules_disabled") // not there: no
	if mend := mendModprobe(name, text, strings.TrimSpace(string(locked)) == "1"); mend != "" {
		text += "; " + mend
	}
	return fmt.Errorf("modprobe %s: %s", name, text)
}

// mendModprobe says what to do about what modprobe said, "" if that is not known; locked is kernel.modules_disabled. modprobe prints
// the errno in words (kmod, tools/modprobe.c).
func mendModprobe(name, said string, locked bool) string {
	switch {
	case locked:
		return "kernel.modules_disabled forbids it until the next boot; have it loaded before, by a file in /etc/modules-load.d"
	case strings.Contains(said, exec.ErrNotFound.Error()):
		return "install kmod"
	case strings.Contains(said, "Operation not permitted"): // our units do without the capability
		return "run modprobe " + name + " as root to see why it is not loaded yet"
	case strings.Contains(said, "install command"): // "install netconsole /bin/false", as hardening guides have it
		return "look for \"install " + name + "\" in /etc/modprobe.d"
	case strings.Contains(said, "Invalid argument"):
		return "look for \"options " + name + "\" in /etc/modprobe.d"
	case strings.Contains(said, "Key was rejected"), strings.Contains(said, "Required key not available"):
		return "Secure Boot refuses its signature; install the module that comes with this kernel"
	}
	return ""
}
