package lab

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// Crash names a way for a guest to die, or at least to become sick.
type Crash string

// Crashes that need no module.
const (
	CrashSysrq    Crash = "sysrq"     // echo c > /proc/sysrq-trigger: panics
	CrashInitExit Crash = "init-exit" // process 1 ends: panics
)

// Crashes that are ways of the crash module, see crashmod/lastgasp_crash.c.
const (
	// Oopses: fatal where they happen in an interrupt, or with kernel.panic_on_oops=1.
	CrashNullDeref     Crash = "null-deref"     // store to address 0
	CrashErrPtr        Crash = "err-ptr"        // store through an error taken for a pointer
	CrashGPF           Crash = "gpf"            // store to a list's poison: a general protection fault
	CrashBug           Crash = "bug"            // BUG()
	CrashStackOverflow Crash = "stack-overflow" // recursion into the guard page: always fatal
	CrashOopsInIRQ     Crash = "oops-in-irq"    // store to address 0 in a timer: always fatal

	CrashPanicMultiline Crash = "panic-multiline" // panic() with two lines of text
	CrashBurst          Crash = "burst"           // 120 emergency records, then panic()

	// Lockups of 30 s: sick, fatal with kernel.softlockup_panic, panic_on_rcu_stall, hung_task_panic.
	CrashSoftLockup Crash = "softlockup" // a CPU that does not schedule
	CrashIRQsOff    Crash = "irqs-off"   // a CPU that takes no interrupts: an RCU stall
	CrashHungTask   Crash = "hung-task"  // a thread that waits for a mutex for ever

	// Not fatal by themselves.
	CrashSchedAtomic Crash = "sched-atomic" // sleep with preemption off
	CrashWarn        Crash = "warn"         // WARN()
	CrashBigRecord   Crash = "big-record"   // a record that takes several datagrams in extended format
	CrashPrCont      Crash = "pr-cont"      // records written in pieces
	CrashDevDict     Crash = "dev-dict"     // a record with SUBSYSTEM= and DEVICE=
	CrashNetdevLeak  Crash = "netdev-leak"  // unregister_netdevice: waiting for … to become free
	CrashSlabExhaust Crash = "slab-exhaust" // SLUB: Unable to allocate memory on node
)

// argv returns the words that ask the guest for the crash.
func (c Crash) argv() []string {
	switch c {
	case CrashSysrq:
		return []string{control.TriggerSysrq, "c"}
	case CrashInitExit:
		return []string{control.TriggerInit}
	default:
		return []string{control.TriggerModule, "way=" + string(c)}
	}
}

//go:embed crashmod
var crashSource embed.FS

// BuildCrashModule compiles the crash module for k, unless the cache has it, and returns the path of the .ko. The compilers are
// Debian trixie's, in a root of their own: each kernel needs the one it was built with, and this machine's C library may be too
// old for its build tools.
func BuildCrashModule(ctx context.Context, s Scope, k *Kernel) (string, error) {
	source, err := crashSourceFiles()
	if err != nil {
		return "", err
	}
	dir, err := Cached(ctx, path.Join("crashmod", k.Release+"-"+source.hash), func(dir string) error {
		s.Logf("building the crash module for %s", k.Release)
		return buildCrashModule(ctx, s, k, source, dir)
	})
	if err != nil {
		return "", fmt.Errorf("build the crash module for %s: %w", k.Release, err)
	}
	return filepath.Join(dir, "lastgasp_crash.ko"), nil
}

// crashSources are the files to compile by name, and a hash of them all.
type crashSources struct {
	files map[string][]byte
	hash  string
}

func crashSourceFiles() (crashSources, error) {
	entries, err := crashSource.ReadDir("crashmod")
	if err != nil {
		return crashSources{}, fmt.Errorf("read the crash module's source: %w", err)
	}
	source := crashSources{files: map[string][]byte{}}
	hash := sha256.New()
	for _, e := range entries {
		data, err := crashSource.ReadFile(path.Join("crashmod", e.Name()))
		if err != nil {
			return crashSources{}, fmt.Errorf("read the crash module's source: %w", err)
		}
		source.files[e.Name()] = data
		fmt.Fprintf(hash, "%s %d\n%s", e.Name(), len(data), data)
	}
	source.hash = hex.EncodeToString(hash.Sum(nil)[:6])
	return source, nil
}

// buildCrashModule leaves lastgasp_crash.ko in dir.
func buildCrashModule(ctx context.Context, s Scope, k *Kernel, source crashSources, dir string) error {
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
	for name, data := range source.files {
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
	ko, err := os.ReadFile(filepath.Join(work, "lastgasp_crash.ko"))
	if err != nil {
		return fmt.Errorf("read the built module: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lastgasp_crash.ko"), ko, 0o644); err != nil {
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
	cached, err := Cached(ctx, key, func(dir string) error {
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
