package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// GuestFile is a file that a guest finds at boot: a copy of the host's file Host, or else Data.
type GuestFile struct {
	Host string
	Data []byte
	// Mode is its permissions; 0 means 0644, or those of the host's file.
	Mode fs.FileMode
}

// Modules that a guest loads by itself, by Debian's names. netconsole is there, too, but loading it is the configurator's job.
// Modules that a kernel has built in, such as virtio_pci in later ones, are skipped.
var (
	guestModules   = []string{"virtio_pci", "virtio_net", "configfs"}
	offeredModules = []string{"netconsole"}
)

// writeInitramfs packs the guest's userland, the modules it needs, its configuration and files into dest. It is not
// compressed: an emulated CPU would take longer to unpack it than QEMU takes to load it.
func writeInitramfs(ctx context.Context, dest string, spec VMSpec, config control.Config) error {
	guest, err := BuildGuest(ctx, spec.Kernel.Arch)
	if err != nil {
		return err
	}
	config.Modules = slices.Concat(guestModules, spec.Modules)
	modules, err := modulesOf(spec.Kernel, slices.Concat(config.Modules, offeredModules)...)
	if err != nil {
		return err
	}
	builtin, err := os.ReadFile(filepath.Join(spec.Kernel.ModuleDir, "modules.builtin"))
	if err != nil {
		return fmt.Errorf("read what is built in: %w", err)
	}
	configured, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode the guest's configuration: %w", err)
	}

	out, err := os.Create(dest)
	if err != nil {
		return fmt.Errorf("make the initramfs: %w", err)
	}
	defer out.Close()
	buffered := bufio.NewWriterSize(out, 1<<20)
	c := &cpio{w: buffered}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root", "etc"} {
		c.dir(dir)
	}
	c.charDevice("dev/console", 0o600, 5, 1) // what process 1 has open before devtmpfs is there
	c.file("init", 0o755, guest)
	for _, applet := range []string{"cat", "dmesg", "env", "fault", "hog", "insmod", "kdump", "link", "load", "measure", "modprobe", "network", "pods", "poweroff", "rmmod"} {
		c.symlink("sbin/"+applet, "/init")
	}
	c.file(control.ConfigPath, 0o644, configured)
	moduleDir := path.Join("lib/modules", spec.Kernel.Release)
	for _, m := range modules {
		c.file(path.Join(moduleDir, m.path), 0o644, m.ko)
	}
	c.file(path.Join(moduleDir, "modules.dep"), 0o644, []byte(modulesDep(modules)))
	c.file(path.Join(moduleDir, "modules.builtin"), 0o644, builtin)
	files := maps.Clone(spec.Files)
	if spec.CrashModule != "" {
		if files == nil {
			files = map[string]GuestFile{}
		}
		files[control.CrashModule] = GuestFile{Host: spec.CrashModule}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data, mode, err := files[name].read()
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		c.file(name, mode, data)
	}
	if err := errors.Join(c.close(), buffered.Flush(), out.Close()); err != nil {
		return fmt.Errorf("write the initramfs: %w", err)
	}
	return nil
}

func (f GuestFile) read() ([]byte, fs.FileMode, error) {
	data, mode := f.Data, fs.FileMode(0o644)
	if f.Host != "" {
		info, err := os.Stat(f.Host)
		if err != nil {
			return nil, 0, err
		}
		if data, err = os.ReadFile(f.Host); err != nil {
			return nil, 0, err
		}
		mode = info.Mode()
	}
	if f.Mode != 0 {
		mode = f.Mode
	}
	return data, mode, nil
}

// BuildGuest compiles e2e/guest for an architecture and returns the program, statically linked. go build leaves one alone that
// is up to date, hence the cache.
func BuildGuest(ctx context.Context, arch string) ([]byte, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	unlock, err := lockCache(ctx, "guest")
	if err != nil {
		return nil, err
	}
	defer unlock()
	program := filepath.Join(cache, "guest-"+arch)
	_, err = run(ctx, "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch,
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/lastgasp/lastgasp/e2e/guest")
	if err != nil {
		return nil, fmt.Errorf("build the guest's init: %w", err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read the guest's init: %w", err)
	}
	return data, nil
}
