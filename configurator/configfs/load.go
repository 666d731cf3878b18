package configfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoModule means that this kernel has no netconsole that could be configured, or does not let us load it.
	ErrNoModule = errors.New("no netconsole")
	// ErrNoConfigfs means that netconsole's directory cannot be had because configfs cannot.
	ErrNoConfigfs = errors.New("no configfs")
)

// configfsMagic is CONFIGFS_MAGIC of include/uapi/linux/magic.h.
const configfsMagic = 0x62656570

// Load makes DefaultDir exist: it mounts configfs and loads the modules configfs and netconsole, as far as they are
// missing, with the options that modprobe would give them. It needs CAP_SYS_ADMIN and CAP_SYS_MODULE for that, and
// nothing if it is all there. Errors are of ErrNoConfigfs or ErrNoModule.
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
	if err := loadModule(ctx, "netconsole"); err != nil {
		return fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	if !isDir(string(DefaultDir)) {
		return fmt.Errorf("%w: the kernel's cannot be configured at run time (CONFIG_NETCONSOLE_DYNAMIC is off)", ErrNoModule)
	}
	return nil
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// mountConfigfs mounts configfs on dir, which the module itself makes in sysfs.
func mountConfigfs(ctx context.Context, dir string) error {
	if !isDir(dir) {
		if err := loadModule(ctx, "configfs"); err != nil {
			return err
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == configfsMagic {
		return nil
	}
	if err := unix.Mount("configfs", dir, "configfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount it on %s: %w", dir, err)
	}
	return nil
}

// loadModule loads a module of the running kernel and what it depends on. What is there already is fine.
func loadModule(ctx context.Context, name string) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("ask for the kernel's release: %w", err)
	}
	modules, err := planModule(os.DirFS("/"), unix.ByteSliceToString(uts.Release[:]), name)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := m.insert(); err != nil {
			return fmt.Errorf("load module %s (try: modprobe %s): %w", m.name(), name, err)
		}
	}
	return nil
}

// module is one to be inserted.
type module struct {
	path    string // below the root
	options string
}

// name is what the kernel calls the module.
func (m module) name() string { return moduleName(m.path) }

// compressed reports whether the kernel has to decompress the module, which it can since 5.17 if built so.
func (m module) compressed() bool { return path.Ext(m.path) != ".ko" }

func (m module) insert() error {
	f, err := os.Open("/" + m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if m.compressed() {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	switch err := unix.FinitModule(int(f.Fd()), m.options, flags); {
	case errors.Is(err, unix.EEXIST):
		return nil
	case m.compressed() && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)):
		return fmt.Errorf("the kernel cannot decompress it by itself: %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("CAP_SYS_MODULE is missing, or kernel.modules_disabled is set: %w", err)
	case errors.Is(err, unix.EKEYREJECTED):
		return fmt.Errorf("its signature is not trusted here: %w", err)
	default:
		return err
	}
}

// planModule says what to insert, and in which order, so that the module name is there: nothing if it is built in.
// root is the file system's; release is that of the kernel running.
func planModule(root fs.FS, release, name string) ([]module, error) {
	dir := path.Join("lib/modules", release)
	paths, err := indexed(root, path.Join(dir, "modules.dep"), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the modules of this kernel are not installed (/%s)", dir)
	}
	if err != nil {
		return nil, err
	}
	if paths == nil {
		builtin, err := indexed(root, path.Join(dir, "modules.builtin"), name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if builtin == nil {
			return nil, fmt.Errorf("kernel %s comes without module %s (another package may have it)", release, name)
		}
		return nil, nil
	}
	var plan []module
	for i := len(paths) - 1; i >= 0; i-- { // modules.dep(5): the module itself first, what it needs most last
		m := module{path: path.Join(dir, paths[i])}
		if m.options, err = moduleOptions(root, m.name()); err != nil {
			return nil, err
		}
		plan = append(plan, m)
	}
	return plan, nil
}

// indexed finds a module's line in modules.dep or modules.builtin and returns the paths in it; nil: no such line.
func indexed(root fs.FS, index, name string) ([]string, error) {
	b, err := fs.ReadFile(root, index)
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", index, bare(err))
	}
	for line := range strings.Lines(string(b)) {
		file, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if moduleName(file) == name {
			return append([]string{file}, strings.Fields(needs)...), nil
		}
	}
	return nil, nil
}

// moduleName is what the kernel calls the module in a file: netconsole for kernel/drivers/net/netconsole.ko.xz.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
