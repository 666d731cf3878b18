package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// BuildModule compiles the kernel module called name, from a Kbuild and its C files, for k unless the cache has it, and returns
// the path of the .ko. The compilers are Debian trixie's, in a root of their own: each kernel needs the one it was built with,
// and this machine's C library may be too old for its build tools.
func BuildModule(ctx context.Context, s Scope, k *Kernel, name string, source fs.FS) (string, error) {
	files, hash, err := moduleSource(source)
	if err != nil {
		return "", fmt.Errorf("read the source of module %s: %w", name, err)
	}
	dir, err := Cached(ctx, path.Join(name, k.Release+"-"+hash), func(dir string) error {
		s.Logf("building module %s for %s", name, k.Release)
		return buildModule(ctx, s, k, name, files, dir)
	})
	if err != nil {
		return "", fmt.Errorf("build module %s for %s: %w", name, k.Release, err)
	}
	return filepath.Join(dir, name+".ko"), nil
}

// moduleSource returns what a module is compiled from, by name, and a hash of it.
func moduleSource(source fs.FS) (files map[string][]byte, hash string, err error) {
	names, err := fs.Glob(source, "*.c")
	if err != nil {
		return nil, "", err
	}
	files = map[string][]byte{}
	sum := sha256.New()
	for _, name := range append(names, "Kbuild") {
		data, err := fs.ReadFile(source, name)
		if err != nil {
			return nil, "", err
		}
		files[name] = data
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	return files, hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// buildModule leaves name.ko in dir.
func buildModule(ctx context.Context, s Scope, k *Kernel, name string, files map[string][]byte, dir string) error {
	root, err := toolchain(ctx, s, k.Arch)
	if err != nil {
		return err
	}
	// The root is shared: others may be adding headers or compiling.
	unlock, err := lockCache(ctx, "toolchain-build")
	if err != nil {
		return err
	}
	defer unlock()
	headers := filepath.Join("/usr/src", "linux-headers-"+k.Release)
	if _, err := os.Stat(filepath.Join(root, headers, "unpacked")); err != nil {
		for _, deb := range k.headerDebs {
			if err := unpack(ctx, deb, root); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(root, headers, "unpacked"), nil, 0o644); err != nil {
			return fmt.Errorf("mark the headers as unpacked: %w", err)
		}
	}
	work := filepath.Join(root, "build")
	defer os.RemoveAll(work)
	if err := os.MkdirAll(work, 0o755); err != nil {
		return fmt.Errorf("make a build folder: %w", err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(work, name), data, 0o644); err != nil {
			return fmt.Errorf("copy the source: %w", err)
		}
	}
	// objtool needs /proc. The mount namespace that unshare makes for it ends with make. Without DEBUG_INFO_BTF_MODULES nothing
	// needs pahole.
	build := []string{"--pid", "--fork", "--kill-child", "--mount-proc", "--root=" + root,
		"make", "-C", headers, "M=/build", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"}
	if k.Arch == "arm64" {
		build = append(build, "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")
	}
	if _, err := run(ctx, "unshare", build...); err != nil {
		return err
	}
	ko, err := os.ReadFile(filepath.Join(work, name+".ko"))
	if err != nil {
		return fmt.Errorf("read the built module: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".ko"), ko, 0o644); err != nil {
		return fmt.Errorf("keep the built module: %w", err)
	}
	return nil
}

// toolchain returns a root with the compilers of all the lab's kernels of an architecture: packages extracted, not installed,
// since a compiler needs no configuring. The build tools in the headers are amd64's and want its C library.
func toolchain(ctx context.Context, s Scope, arch string) (string, error) {
	key, compilers := "toolchain", []string{
		"gcc-12", // bookworm's 6.1
		"gcc-14", // trixie's 6.12 and 7
	}
	if arch == "arm64" {
		key, compilers = "toolchain-arm64", []string{"gcc-12-aarch64-linux-gnu", "gcc-14-aarch64-linux-gnu"}
	}
	pkgs := append(compilers,
		"make", "libc6-dev", "libelf1t64", "libssl3t64", "libdw1t64",
		"bash", "coreutils", "dash", "findutils", "grep", "mawk", "sed",
	)
	if err := InstallPackages(ctx, s, "mmdebstrap", "debian-archive-keyring"); err != nil {
		return "", err
	}
	cached, err := CachedDownload(ctx, s, key, func(dir string) error {
		s.Logf("fetching compilers for %s from Debian trixie", arch)
		m, err := findMirror(ctx)
		if err != nil {
			return err
		}
		root := filepath.Join(dir, "root")
		debootstrap := []string{"--variant=extract", "--mode=root", "--include=" + strings.Join(pkgs, ","), "trixie", root}
		for line := range strings.Lines(m.sources("trixie")) {
			debootstrap = append(debootstrap, strings.TrimSpace(line))
		}
		if _, err := run(ctx, "mmdebstrap", debootstrap...); err != nil {
			return err
		}
		// as mawk's installation would have done
		if err := os.Symlink("mawk", filepath.Join(root, "usr/bin/awk")); err != nil {
			return fmt.Errorf("call mawk awk: %w", err)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("make a root with compilers: %w", err)
	}
	return filepath.Join(cached, "root"), nil
}
