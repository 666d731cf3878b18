package lastboot

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

var (
	bootA = machine.Identity{Instance: "i-0123456789abcdef0", Boot: "aaaaaaaa-0000-4000-8000-000000000001"}
	bootB = machine.Identity{Instance: bootA.Instance, Boot: "bbbbbbbb-0000-4000-8000-000000000002"}
	bootC = machine.Identity{Instance: bootA.Instance, Boot: "cccccccc-0000-4000-8000-000000000003"}

	noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
)

// node is a machine made of files.
type node struct {
	machine.Root
	t *testing.T
}

func newNode(t *testing.T) node {
	n := node{machine.Root(t.TempDir()), t}
	n.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	n.write("run/lastgasp/boot-end", "")
	return n
}

func (n node) write(name, content string) {
	n.t.Helper()
	full := n.Path(name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.date(name, noon.Add(30*time.Minute))
}

// date sets when a file was written last.
func (n node) date(name string, at time.Time) {
	n.t.Helper()
	if err := os.Chtimes(n.Path(name), at, at); err != nil {
		n.t.Fatal(err)
	}
}

// lasts says for how long the boot that runs has run.
func (n node) lasts(uptime time.Duration) {
	n.write("proc/uptime", fmt.Sprintf("%.2f 1.00\n", uptime.Seconds()))
}

func (n node) move(from, to string) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(n.Path(to)), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(n.Path(from), n.Path(to)); err != nil {
		n.t.Fatal(err)
	}
}

// boot starts a kernel and opens its ledger.
func (n node) boot(id machine.Identity) Ledger {
	n.t.Helper()
	n.write("proc/sys/kernel/random/boot_id", id.Boot+"\n")
	n.write("proc/sys/kernel/osrelease", "6.12."+id.Boot[:1]+"\n")
	l, err := Open(n.Root, id, noon)
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

// canaryOf is a line that a boot has logged.
func canaryOf(id machine.Identity) string {
	c := netconsole.Canary{Nonce: strings.Repeat("0", 32), Instance: id.Instance, Boot: id.Boot}
	return "<12>[    9.000000] " + c.Line() + "\n"
}

// factsOf is a line that a boot has logged, which says how its kernel is set.
func factsOf(id machine.Identity, f netconsole.Facts) string {
	c := netconsole.Canary{Nonce: strings.Repeat("0", 32), Instance: id.Instance, Boot: id.Boot, Facts: f}
	return "<12>[    9.000000] " + c.Line() + "\n"
}

const panicLines = "<4>[   60.000000] sysrq: Trigger a crash\n<0>[   60.000001] Kernel panic - not syncing: sysrq triggered crash\n" +
	"<4>[   60.000002] CPU: 0 UID: 0 PID: 1 Comm: init Not tainted 6.12.a #1\n"

const oopsLines = "<1>[   50.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000\n" +
	"<1>[   50.000002] #PF: supervisor write access in kernel mode\n<4>[   50.000003] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\n" +
	"<4>[   50.000004] CPU: 0 UID: 0 PID: 7 Comm: insmod Not tainted 6.12.a #1\n<4>[   50.000005] RIP: 0010:foo+0x1/0x2 [bar]\n" +
	"<4>[   50.000006] ---[ end trace 0000000000000000 ]---\n"

func TestHowABootEnded(t *testing.T) {
	const (
		efi1 = "sys/fs/pstore/dmesg-efi_pstore-179570160001001" // 2026-11-26 14:00:00, part 1, count 1
		efi2 = "sys/fs/pstore/dmesg-efi_pstore-179570160002001"
	)
	efiTime := time.Unix(1795701600, 0).UTC()
	kdumped := Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "kdump",
		Text: "[   60.000001] Kernel panic - not syncing: sysrq triggered crash\n"}
	deflated := func(s string) string {
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, 9)
		fmt.Fprint(w, s)
		w.Close()
		return b.String()
	}
	zlibbed := func(s string) string {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		fmt.Fprint(w, s)
		w.Close()
		return b.String()
	}
	record := func(status, data, raw, severity uint32) string { // the head of one; raw data, if any, is behind the data
		var b []byte
		for _, field := range []uint32{status, 20 + data, raw, data, severity} {
			b = binary.LittleEndian.AppendUint32(b, field)
		}
		return string(b)
	}
	bert := func(status, severity uint32) string { return record(status, 0, 0, severity) }
	early := func(lines ...string) func(n node) { // of the new kernel's log
		return func(n node) {
			text := "6,1,100,-;Linux version 6.18\n"
			for i, line := range lines {
				text += fmt.Sprintf("4,%d,900000,-;%s\n", i+2, line)
			}
			n.write("dev/kmsg", text)
		}
	}
	for _, tt := range []struct {
		name string
		ends func(n node) // what boot A and its end leave behind
		want Ending       // apart from what is always the same
	}{
		{"with no word", func(node) {}, Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a shutdown", func(n node) {
			if err := MarkEnding(n.Root, noon.Add(time.Hour)); err != nil {
				n.t.Fatal(err)
			}
		}, Ending{Cause: "Orderly", Evidence: "ledger", Time: noon.Add(time.Hour)}},
		{"by a panic, kept in parts", func(n node) {
			n.write(efi1, "Panic#1 Part1\n"+panicLines)
			n.write(efi2, "Panic#1 Part2\n"+canaryOf(bootA))
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: canaryOf(bootA) + panicLines,
			Entries: []string{efi2, efi1}}},
		{"by a panic, in more than nine parts", func(n node) {
			for part := 1; part <= 12; part++ {
				text := fmt.Sprintf("<6>[    1.%06d] line\n", 100-part)
				if part == 1 {
					text = panicLines
				}
				n.write(fmt.Sprintf("sys/fs/pstore/dmesg-efi_pstore-1795701600%02d001", part), fmt.Sprintf("Panic#1 Part%d\n%s", part, text))
			}
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: func() string {
			text := ""
			for part := 12; part > 1; part-- {
				text += fmt.Sprintf("<6>[    1.%06d] line\n", 100-part)
			}
			return text + panicLines
		}(), Entries: func() (names []string) {
			for part := 12; part >= 1; part-- {
				names = append(names, fmt.Sprintf("sys/fs/pstore/dmesg-efi_pstore-1795701600%02d001", part))
			}
			return names
		}()}},
		{"by a panic, kept compressed", func(n node) {
			n.write(efi1+".enc.z", deflated("Panic#1 Part1\n"+panicLines))
			n.write(efi2+".enc.z", zlibbed("Panic#1 Part2\n"+canaryOf(bootA)))
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: canaryOf(bootA) + panicLines,
			Entries: []string{efi2 + ".enc.z", efi1 + ".enc.z"}}},
		{"by a panic, compressed in a way nobody knows", func(n node) { n.write(efi1+".enc.z", "\x28\xb5\x2f\xfdwhatever") },
			Ending{Cause: "Unexplained", Evidence: "none",
				Title: "pstore has entries that cannot be read here (1): perhaps the old kernel had another pstore.compress"}},
		{"by a panic, of which the middle found no room", func(n node) {
			n.write(efi1, "Panic#1 Part1\n"+panicLines)
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570160003001", "Panic#1 Part3\n"+canaryOf(bootA))
			n.write(efi2, "")
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: canaryOf(bootA) + panicLines,
			Entries: []string{"sys/fs/pstore/dmesg-efi_pstore-179570160003001", efi1}}},
		{"by a panic that a block device kept", func(n node) { // pstore_blk
			n.write("sys/fs/pstore/dmesg-pstore_blk-0", "Panic: Total 3 times\nPanic#3 Part1\n"+panicLines)
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: noon.Add(30 * time.Minute), Text: panicLines,
			Entries: []string{"sys/fs/pstore/dmesg-pstore_blk-0"}}},
		{"by a panic that ramoops kept, with all that it keeps besides", func(n node) {
			n.write("sys/fs/pstore/dmesg-ramoops-0", "Panic#1 Part1\n"+panicLines)
			n.write("sys/fs/pstore/console-ramoops-0", canaryOf(bootA)+panicLines)
			n.write("sys/fs/pstore/pmsg-ramoops-0", "Kernel panic - not syncing: no\n")
			n.write("sys/fs/pstore/ftrace-ramoops-0", "CPU:0 ts:1 panic <- x\n")
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: noon.Add(30 * time.Minute), Text: panicLines,
			Entries: []string{"sys/fs/pstore/dmesg-ramoops-0"}}},
		{"by a panic that only ramoops' console shows, moved by systemd-pstore", func(n node) {
			n.write("var/lib/systemd/pstore/console-ramoops-0", canaryOf(bootA)+panicLines)
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Text: canaryOf(bootA) + panicLines,
			Entries: []string{"var/lib/systemd/pstore/console-ramoops-0"}}},
		{"with no word, and what ramoops' console showed", func(n node) {
			n.write("sys/fs/pstore/console-ramoops-0", canaryOf(bootA)+"[   60.0] eth0: link down\n")
		}, Ending{Cause: "Unexplained", Evidence: "none", Text: canaryOf(bootA) + "[   60.0] eth0: link down\n", Entries: []string{"sys/fs/pstore/console-ramoops-0"}}},
		{"with no word, and what ramoops' console showed of another boot", func(n node) {
			n.write("sys/fs/pstore/console-ramoops-0", canaryOf(bootC)+panicLines)
		}, Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a shutdown, as ramoops' console shows", func(n node) {
			if err := MarkEnding(n.Root, noon); err != nil {
				n.t.Fatal(err)
			}
			n.write("sys/fs/pstore/console-ramoops-0", canaryOf(bootA)+"[   61.0] reboot: Restarting system\n")
		}, Ending{Cause: "Orderly", Evidence: "ledger", Time: noon}},
		{"by a forced reboot that pstore logs", func(n node) { // printk.always_kmsg_dump
			n.write(efi1, "Emergency#1 Part1\n"+canaryOf(bootA)+"<4>[   60.000000] sysrq: Resetting\n")
		}, Ending{Cause: "SysrqReset", Title: "sysrq triggered reset", Evidence: "pstore", Time: efiTime, Text: canaryOf(bootA) + "<4>[   60.000000] sysrq: Resetting\n", Entries: []string{efi1}}},
		{"by a panic that systemd-pstore has moved", func(n node) {
			n.write("var/lib/systemd/pstore/1795701600/dmesg-efi_pstore-179570160001001", "Panic#1 Part1\n"+panicLines)
			n.write("var/lib/systemd/pstore/1795701600/001/dmesg.txt", "not ours to read\n")
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: panicLines,
			Entries: []string{"var/lib/systemd/pstore/1795701600/dmesg-efi_pstore-179570160001001"}}},
		{"by a panic after an oops", func(n node) {
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570150001001", "Oops#1 Part1\n<1>[   50.0] BUG: unable to handle page fault for address: ffff\n")
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570160001002", "Panic#2 Part1\n"+panicLines)
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: panicLines,
			Entries: []string{"sys/fs/pstore/dmesg-efi_pstore-179570160001002"}}},
		{"by a panic during a shutdown", func(n node) {
			if err := MarkEnding(n.Root, noon); err != nil {
				n.t.Fatal(err)
			}
			n.write(efi1, "Panic#1 Part1\n"+panicLines)
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: panicLines, Entries: []string{efi1}}},
		{"with no word, after an oops that it survived", func(n node) {
			n.write(efi1, "Oops#1 Part1\n"+canaryOf(bootA)+oopsLines)
		}, Ending{Cause: "Unexplained", Title: "its kernel had oopsed before: kernel NULL pointer dereference in foo", Evidence: "none",
			Text: canaryOf(bootA) + oopsLines, Entries: []string{efi1}}},
		{"by a watchdog, after an oops that it survived", func(n node) {
			n.write(efi1, "Oops#1 Part1\n"+oopsLines)
			n.write("sys/class/watchdog/watchdog0/bootstatus", "32\n")
		}, Ending{Cause: "Watchdog", Title: "watchdog0 has bootstatus 32: it reset the machine", Evidence: "watchdog",
			Text: "watchdog0 has bootstatus 32: it reset the machine\n" + oopsLines, Entries: []string{efi1}}},
		{"by a shutdown, after an oops that it survived", func(n node) {
			n.write(efi1, "Oops#1 Part1\n"+canaryOf(bootA)+oopsLines)
			if err := MarkEnding(n.Root, noon.Add(time.Hour)); err != nil {
				n.t.Fatal(err)
			}
		}, Ending{Cause: "Orderly", Evidence: "ledger", Time: noon.Add(time.Hour)}},
		{"by an oops, where each is a panic and the panic found no room", func(n node) {
			n.write(efi1, "Oops#1 Part1\n"+factsOf(bootA, netconsole.Facts{PanicOnOops: true})+oopsLines)
		}, Ending{Cause: "KernelOops", Title: "kernel NULL pointer dereference in foo", Evidence: "pstore", Time: efiTime,
			Text: factsOf(bootA, netconsole.Facts{PanicOnOops: true}) + oopsLines, Entries: []string{efi1}}},
		{"by a panic that an oops's dump ends in", func(n node) {
			n.write(efi1, "Oops#1 Part1\n"+oopsLines+panicLines)
		}, Ending{Cause: "KernelOops", Title: "kernel NULL pointer dereference in foo", Evidence: "pstore", Time: efiTime, Text: oopsLines + panicLines, Entries: []string{efi1}}},
		{"by a panic without a canary, after an oops with one", func(n node) {
			n.write(efi1, "Oops#1 Part1\n"+canaryOf(bootA)+oopsLines)
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570170001002", "Panic#2 Part1\n"+panicLines)
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime.Add(100 * time.Second), Text: panicLines,
			Entries: []string{"sys/fs/pstore/dmesg-efi_pstore-179570170001002"}}},
		{"by a shutdown that pstore logs", func(n node) {
			if err := MarkEnding(n.Root, noon); err != nil {
				n.t.Fatal(err)
			}
			n.write(efi1, "Shutdown#1 Part1\n<5>[  61.0] reboot: Restarting system\n")
		}, Ending{Cause: "Orderly", Evidence: "ledger", Time: noon}},
		{"by a panic, and the next boot panicked before it was entered", func(n node) {
			n.write(efi1, "Panic#1 Part1\n"+panicLines)
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570170001001", "Panic#1 Part1\n<0>[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n")
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: panicLines, Entries: []string{efi1}}},
		{"by a panic, and the next boot panicked so soon that their parts lie close", func(n node) {
			n.write(efi1, "Panic#1 Part1\n"+panicLines)
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570160102001", "Panic#1 Part2\n"+canaryOf(bootA))
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570162001001", "Panic#1 Part1\n<0>[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n")
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570162002001", "Panic#1 Part2\n<6>[    1.0] the next boot\n")
		}, Ending{Cause: "KernelPanic", Title: "sysrq triggered crash", Evidence: "pstore", Time: efiTime, Text: canaryOf(bootA) + panicLines,
			Entries: []string{"sys/fs/pstore/dmesg-efi_pstore-179570160102001", efi1}}},
		{"with no word, but one of another boot is there", func(n node) { n.write(efi1, "Panic#1 Part1\n"+canaryOf(bootC)+panicLines) },
			Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a crash kernel, Debian's", func(n node) {
			n.write("var/crash/202611261300/dmesg.202611261300", kdumped.Text)
			n.write("var/crash/202611261300/dump.202611261300", "a core")
			n.write("var/crash/kexec_cmd", "x")
		}, kdumped},
		{"by a crash kernel, SUSE's", func(n node) {
			n.write("var/crash/2026-11-26-13:00/README.txt", "Kernel crashdump\n")
			n.write("var/crash/2026-11-26-13:00/dmesg.txt", kdumped.Text)
		}, kdumped},
		{"by a crash kernel, which saved only a part, and beside what apport makes of it", func(n node) {
			n.write("var/crash/linux-image-6.8.0-31-generic-202611261300.crash", "ProblemType: KernelCrash\n")
			n.write("var/crash/127.0.0.1-2026-11-26-13:00:00/vmcore-incomplete", "half a core")
			n.write("var/crash/127.0.0.1-2026-11-26-13:00:00/kexec-dmesg.log", "[    9.0] Kernel panic - not syncing: no\n")
			n.write("var/crash/127.0.0.1-2026-11-26-13:00:00/vmcore-dmesg-incomplete.txt", kdumped.Text)
		}, kdumped},
		{"by a crash kernel that saves elsewhere", func(n node) {
			n.write("etc/kdump.conf", "# path /no\nauto_reset_crashkernel yes\npath /srv/kdump/\ncore_collector makedumpfile -l\n")
			n.write("srv/kdump/127.0.0.1-2026-11-26-13:00:00/vmcore-dmesg.txt", kdumped.Text)
		}, kdumped},
		{"by a crash kernel that sends its dumps away", func(n node) {
			n.write("etc/kdump.conf", "nfs 10.0.0.1:/crash\npath /\n")
			n.write("etc/sysconfig/kdump", "KDUMP_SAVEDIR=\"ssh://root@10.0.0.1/crash\"\n")
		}, Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a crash kernel after an oops, RHEL's", func(n node) {
			n.write("var/crash/127.0.0.1-2026-11-26-13:00:00/vmcore-dmesg.txt", "[   60.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000\n"+
				"[   60.000002] #PF: supervisor write access in kernel mode\n[   60.000003] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\n"+
				"[   60.000004] CPU: 0 UID: 0 PID: 7 Comm: insmod Not tainted 6.12.a #1\n[   60.000005] RIP: 0010:foo+0x1/0x2 [bar]\n")
		}, Ending{Cause: "KernelOops", Title: "kernel NULL pointer dereference in foo", Evidence: "kdump",
			Text: "[   60.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000\n" +
				"[   60.000002] #PF: supervisor write access in kernel mode\n[   60.000003] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\n" +
				"[   60.000004] CPU: 0 UID: 0 PID: 7 Comm: insmod Not tainted 6.12.a #1\n[   60.000005] RIP: 0010:foo+0x1/0x2 [bar]\n"}},
		{"by a watchdog", func(n node) { n.write("sys/class/watchdog/watchdog0/bootstatus", "32\n") },
			Ending{Cause: "Watchdog", Title: "watchdog0 has bootstatus 32: it reset the machine", Evidence: "watchdog", Text: "watchdog0 has bootstatus 32: it reset the machine\n"}},
		{"by a watchdog, in sysfs, where every file has the size of a page", func(n node) {
			n.write("sys/class/watchdog/watchdog0/bootstatus", "32\n"+strings.Repeat("\x00", 4093))
		}, Ending{Cause: "Watchdog", Title: "watchdog0 has bootstatus 32: it reset the machine", Evidence: "watchdog", Text: "watchdog0 has bootstatus 32: it reset the machine\n"}},
		{"with a watchdog that did nothing", func(n node) { n.write("sys/class/watchdog/watchdog0/bootstatus", "0\n") },
			Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a hardware error", func(n node) { n.write("sys/firmware/acpi/tables/data/BERT", bert(1, 1)) },
			Ending{Cause: "HardwareError", Title: "the firmware recorded a fatal hardware error (BERT)", Evidence: "firmware",
				Text: "the firmware recorded a fatal hardware error (BERT)\n"}},
		{"by a hardware error with a long record", func(n node) {
			n.write("sys/firmware/acpi/tables/data/BERT", bert(1, 1)+strings.Repeat("\x02", 128<<10))
		}, Ending{Cause: "HardwareError", Title: "the firmware recorded a fatal hardware error (BERT)", Evidence: "firmware",
			Text: "the firmware recorded a fatal hardware error (BERT)\n"}},
		{"with an empty boot error record", func(n node) { n.write("sys/firmware/acpi/tables/data/BERT", bert(0, 1)) },
			Ending{Cause: "Unexplained", Evidence: "none"}},
		{"with a corrected error", func(n node) { n.write("sys/firmware/acpi/tables/data/BERT", bert(16, 2)) },
			Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a fatal error behind one that was corrected", func(n node) {
			n.write("sys/firmware/acpi/tables/data/BERT", record(1, 8, 0, 2)+strings.Repeat("\x02", 8)+record(1, 40, 16, 3)+strings.Repeat("\x02", 56)+bert(1, 1))
		}, Ending{Cause: "HardwareError", Title: "the firmware recorded a fatal hardware error (BERT)", Evidence: "firmware",
			Text: "the firmware recorded a fatal hardware error (BERT)\n"}},
		{"with a boot error record whose length is a lie", func(n node) {
			n.write("sys/firmware/acpi/tables/data/BERT", record(1, 0xffffffff, 0xffffffff, 2)+bert(1, 1))
		}, Ending{Cause: "Unexplained", Evidence: "none"}},
		{"with a corrected error that the new kernel prints", early("BERT: Error records from previous boot:",
			"[Hardware Error]: event severity: corrected", "[Hardware Error]:  Error 0, type: corrected", "{1}[Hardware Error]: event severity: fatal"),
			Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a hardware error that the new kernel prints", early("BERT: Error records from previous boot:", "[Hardware Error]: event severity: fatal"),
			Ending{Cause: "HardwareError", Title: "[Hardware Error]: event severity: fatal", Evidence: "firmware", Text: "[Hardware Error]: event severity: fatal\n"}},
		{"with a machine check that was corrected", early("mce: [Hardware Error]: Machine check events logged",
			"mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 7: 8c00004000010091"), Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by a machine check that was not", early("mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 7: 8c00004000010091",
			"mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: bea0000000000108"),
			Ending{Cause: "HardwareError", Title: "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: bea0000000000108", Evidence: "firmware",
				Text: "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: bea0000000000108\n"}},
		{"by a timer of the firmware", early("x86/amd: Previous system reset reason [0x01000000]: system failed to boot before failed boot timer expired"),
			Ending{Cause: "Watchdog", Title: "x86/amd: Previous system reset reason [0x01000000]: system failed to boot before failed boot timer expired", Evidence: "firmware",
				Text: "x86/amd: Previous system reset reason [0x01000000]: system failed to boot before failed boot timer expired\n"}},
		{"with a reset that any reboot makes", early("x86/amd: Previous system reset reason [0x00080000]: software wrote 0x6 to reset control register 0xCF9"),
			Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by what the firmware says", func(n node) {
			n.write("dev/kmsg", "6,1,100,-;Linux version 6.18\n5,200,900000,-;x86/amd: Previous system reset reason [0x08000800]: hardware watchdog timer expired\n")
		}, Ending{Cause: "Watchdog", Title: "x86/amd: Previous system reset reason [0x08000800]: hardware watchdog timer expired", Evidence: "firmware",
			Text: "x86/amd: Previous system reset reason [0x08000800]: hardware watchdog timer expired\n"}},
		{"with an error that the new kernel met once it ran", func(n node) {
			n.write("dev/kmsg", "6,1,100,-;Linux version 6.18\n6,300,1200000,-;Run /init as init process\n6,301,9000000,-;mce: [Hardware Error]: Machine check events logged\n")
		}, Ending{Cause: "Unexplained", Evidence: "none"}},
		{"by an error that the new kernel found when it started", func(n node) {
			n.write("dev/kmsg", "6,1,100,-;Linux version 6.18\n6,200,900000,-;mce: [Hardware Error]: Machine check events logged\n6,300,1200000,-;Run /init as init process\n")
		}, Ending{Cause: "HardwareError", Title: "mce: [Hardware Error]: Machine check events logged", Evidence: "firmware",
			Text: "mce: [Hardware Error]: Machine check events logged\n"}},
		{"by a hardware error with more to say than is read", func(n node) {
			n.write("sys/firmware/acpi/tables/data/BERT", bert(1, 1)+strings.Repeat("\xff", 128<<10))
		}, Ending{Cause: "HardwareError", Title: "the firmware recorded a fatal hardware error (BERT)", Evidence: "firmware",
			Text: "the firmware recorded a fatal hardware error (BERT)\n"}},
		{"with what somebody wrote to the new log", func(n node) {
			n.write("dev/kmsg", "12,200,900000,-;x86/amd: Previous system reset reason [0x08000800]: hardware watchdog timer expired\n"+
				"4,201,900000000,-;mce: [Hardware Error]: Machine check events logged\n")
		}, Ending{Cause: "Unexplained", Evidence: "none"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.boot(bootA)
			tt.ends(n)
			got := n.boot(bootB).Previous
			if got == nil {
				t.Fatal("nothing was found out")
			}
			tt.want.Boot, tt.want.Kernel, tt.want.Since = bootA.Boot, "6.12.a", noon
			ignore := cmp.FilterPath(func(p cmp.Path) bool {
				return p.String() == "Line" || p.String() == "Time" && tt.want.Evidence == "kdump"
			}, cmp.Ignore())
			if diff := cmp.Diff(tt.want, *got, ignore); diff != "" {
				t.Errorf("ending (-want +got):\n%s", diff)
			}
			if got.Line != "" && !strings.Contains(got.Text, got.Line) {
				t.Errorf("the line %q is not in the text", got.Line)
			}
			if again := n.boot(bootB).Previous; !cmp.Equal(got, again) {
				t.Errorf("the second time in this boot: %+v", again)
			}
			if next := n.boot(bootC).Previous; next == nil || next.Boot != bootB.Boot || next.Evidence == "pstore" || next.Evidence == "kdump" {
				t.Errorf("what was A's is said of B: %+v", next)
			}
		})
	}
}

func TestNobodyElsesBoot(t *testing.T) {
	other := machine.Identity{Instance: "i-0ffffffffffffffff", Boot: bootB.Boot}
	for _, tt := range []struct {
		name  string
		first machine.Identity
		moves func(n node)
		then  machine.Identity
	}{
		{"an image of another instance", bootA, func(node) {}, other},
		{"an image of a machine that is no instance", machine.Identity{Instance: "0123456789abcdef0123456789abcdef", Boot: bootA.Boot},
			func(n node) { n.write("etc/machine-id", "ffffffffffffffffffffffffffffffff\n") }, machine.Identity{Instance: "ffffffffffffffffffffffffffffffff", Boot: bootB.Boot}},
		{"the first boot there is", bootA, func(n node) { os.Remove(n.Path(LedgerFile)) }, bootB},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.boot(tt.first)
			tt.moves(n)
			n.write("sys/fs/pstore/dmesg-efi_pstore-179570160001001", "Panic#1 Part1\n"+panicLines)
			if e := n.boot(tt.then).Previous; e != nil {
				t.Errorf("spoke of a boot that is not this machine's: %+v", e)
			}
			// What was there already is not about the boot that begins now.
			if e := n.boot(machine.Identity{Instance: tt.then.Instance, Boot: bootC.Boot}).Previous; e == nil || e.Evidence != "none" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestDumpsOfOthers: a crash kernel's log proves nothing about a boot that it cannot be of, whoever put it there.
func TestDumpsOfOthers(t *testing.T) {
	const (
		name   = "var/crash/202611261300/dmesg.202611261300"
		orders = "[    0.000000] Linux version 6.12.a (x@y) #1 SMP\n"
		dies   = "[ 1800.000001] Kernel panic - not syncing: sysrq triggered crash\n"
	)
	shutdown := func(n node) {
		if err := MarkEnding(n.Root, noon.Add(time.Hour)); err != nil {
			n.t.Fatal(err)
		}
	}
	written := func(at time.Duration, text string) func(n node) {
		return func(n node) { n.write(name, text); n.date(name, noon.Add(at)) }
	}
	for _, tt := range []struct {
		name string
		ends []func(n node)
		want string
	}{
		{"its own", []func(node){written(32*time.Minute, orders+dies)}, "KernelPanic by kdump"},
		{"its own, by a canary, with a clock that was never set", []func(node){func(n node) {
			n.write(name, canaryOf(bootA)+dies)
			n.date(name, time.Unix(90, 0))
		}}, "KernelPanic by kdump"},
		{"its own, with a clock that was never set", []func(node){func(n node) { n.write(name, orders+dies); n.date(name, time.Unix(90, 0)) }}, "KernelPanic by kdump"},
		{"its own, of a panic during the shutdown", []func(node){shutdown, written(61*time.Minute, strings.Replace(dies, "1800", "3610", 1))}, "KernelPanic by kdump"},
		{"its own, of the second in which the shutdown began", []func(node){func(n node) {
			if err := MarkEnding(n.Root, noon.Add(time.Hour+700*time.Millisecond)); err != nil {
				n.t.Fatal(err)
			}
		}, written(time.Hour, strings.Replace(dies, "1800", "3660", 1))}, "KernelPanic by kdump"},
		{"copied before the shutdown", []func(node){written(50*time.Minute, dies), shutdown}, "Orderly by ledger"},
		{"copied before the shutdown, with its time", []func(node){written(-time.Hour, dies), shutdown}, "Orderly by ledger"},
		{"copied after the shutdown, with its time", []func(node){shutdown, written(-time.Hour, dies)}, "Orderly by ledger"},
		{"copied once the next boot ran", []func(node){shutdown, written(119*time.Minute, dies)}, "Orderly by ledger"},
		{"of the boot itself, saved by hand while it ran", []func(node){written(30*time.Minute, canaryOf(bootA)+dies), shutdown}, "Orderly by ledger"},
		{"of the boot itself, saved by hand before it died", []func(node){written(30*time.Minute, canaryOf(bootA)+"[ 1800.0] eth0: link up\n")}, "Unexplained by none"},
		{"of the boot itself, with an oops that it survived, saved by hand", []func(node){written(30*time.Minute, oopsLines+"[   60.0] eth0: link up\n"+
			strings.Replace(canaryOf(bootA), "    9.0", "   70.0", 1))}, "Unexplained by none"},
		{"of another kernel", []func(node){written(32*time.Minute, strings.Replace(orders, "6.12.a", "6.1.0", 1)+dies)}, "Unexplained by none"},
		{"of another machine, by its canary", []func(node){written(32*time.Minute, canaryOf(bootC)+dies)}, "Unexplained by none"},
		{"of another machine, that ran much longer", []func(node){written(32*time.Minute, strings.Replace(dies, " 1800", "90000", 1))}, "Unexplained by none"},
		{"of another machine, that ran much shorter", []func(node){written(10*time.Hour, strings.Replace(dies, " 1800", "   60", 1))}, "Unexplained by none"},
		{"from before the boot", []func(node){written(-2*time.Hour, dies)}, "Unexplained by none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.lasts(time.Minute)
			n.boot(bootA)
			for _, f := range tt.ends {
				f(n)
			}
			n.write("proc/sys/kernel/random/boot_id", bootB.Boot+"\n")
			later := 2 * time.Hour
			if strings.Contains(tt.name, "shorter") {
				later = 11 * time.Hour
			}
			n.lasts(2 * time.Minute)
			l, err := Open(n.Root, bootB, noon.Add(later))
			if err != nil || l.Previous == nil {
				t.Fatalf("%+v, %v", l, err)
			}
			if got := l.Previous.Cause + " by " + l.Previous.Evidence; got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if at := l.Previous.Time; !at.IsZero() && at.Before(noon) {
				t.Errorf("it ended at %s, before it was entered", at)
			}
		})
	}
}

// TestClonedMachine: a machine that is no instance is known by its firmware, too. Images bring machine id and ledger along.
func TestClonedMachine(t *testing.T) {
	id := machine.Identity{Instance: "0123456789abcdef0123456789abcdef", Boot: bootA.Boot}
	n := newNode(t)
	n.write("sys/class/dmi/id/product_uuid", "11111111-0000-0000-0000-000000000001\n")
	n.boot(id)
	id.Boot = bootB.Boot
	if e := n.boot(id).Previous; e == nil {
		t.Error("the same machine says nothing")
	}
	n.write("sys/class/dmi/id/product_uuid", "22222222-0000-0000-0000-000000000002\n")
	id.Boot = bootC.Boot
	if e := n.boot(id).Previous; e != nil {
		t.Errorf("a clone speaks of its image: %+v", e)
	}
}

// TestAnInstanceThatDidNotKnowItsName: where EC2's metadata does not answer, an instance is known by its machine id. The firmware's
// id shows that it is the same.
func TestAnInstanceThatDidNotKnowItsName(t *testing.T) {
	nameless := machine.Identity{Instance: "0123456789abcdef0123456789abcdef", Boot: bootB.Boot}
	for _, tt := range []struct {
		name     string
		hardware string // of the second boot
		want     bool
	}{
		{"the same hardware", "ec2e1916-9099-7caf-fd21-012345abcdef", true},
		{"an image of it on another instance", "ec2e1916-9099-7caf-fd21-ffffffffffff", false},
		{"hardware without an id", "", false},
	} {
		n := newNode(t)
		n.write("sys/class/dmi/id/product_uuid", "ec2e1916-9099-7caf-fd21-012345abcdef\n")
		n.boot(bootA)
		n.write("sys/class/dmi/id/product_uuid", tt.hardware+"\n")
		if e := n.boot(nameless).Previous; (e != nil) != tt.want {
			t.Errorf("%s: %+v", tt.name, e)
		}
		if e := n.boot(bootC).Previous; tt.want && (e == nil || e.Boot != bootB.Boot) {
			t.Errorf("%s, back under its name: %+v", tt.name, e)
		}
	}
}

// TestDumpsAreKnownAgain: an entry of an earlier boot that systemd-pstore moves later is still that of an earlier boot.
func TestDumpsAreKnownAgain(t *testing.T) {
	n := newNode(t)
	const entry = "sys/fs/pstore/dmesg-efi_pstore-179570160001001"
	n.write(entry, "Panic#1 Part1\n"+panicLines)
	n.boot(bootA)
	n.move(entry, "var/lib/systemd/pstore/1795701600/dmesg-efi_pstore-179570160001001")
	if e := n.boot(bootB).Previous; e == nil || e.Cause != netconsole.CauseUnexplained {
		t.Errorf("%+v", e)
	}
	// A name that ramoops uses again is another entry.
	n = newNode(t)
	n.write("sys/fs/pstore/dmesg-ramoops-0", "Panic#1 Part1\nold\n")
	n.boot(bootA)
	n.write("sys/fs/pstore/dmesg-ramoops-0", "Panic#1 Part1\n"+panicLines)
	if e := n.boot(bootB).Previous; e == nil || e.Evidence != Pstore {
		t.Errorf("%+v", e)
	}
}

func TestMarkEnding(t *testing.T) {
	n := newNode(t)
	n.write("proc/sys/kernel/random/boot_id", bootA.Boot+"\n")
	if err := MarkEnding(n.Root, noon); err != nil {
		t.Errorf("a boot that was never entered: %v", err)
	}
	n.boot(bootA)
	if err := MarkEnding(n.Root, noon); err != nil {
		t.Fatal(err)
	}
	if l := n.boot(bootA); !l.Ending.IsZero() {
		t.Error("a soft reboot ended the boot of the kernel, which goes on")
	}
	n.write("proc/sys/kernel/random/boot_id", bootB.Boot+"\n") // a crash kernel shuts down
	if err := MarkEnding(n.Root, noon); err != nil {
		t.Fatal(err)
	}
	if e := n.boot(bootC).Previous; e == nil || e.Orderly() {
		t.Errorf("another boot's shutdown marked this one: %+v", e)
	}
}

// TestUnguarded: where no unit notes a shutdown, silence proves no death.
func TestUnguarded(t *testing.T) {
	n := newNode(t)
	n.boot(bootA)
	if err := os.Remove(n.Path(guardFile)); err != nil {
		t.Fatal(err)
	}
	if l := n.boot(bootA); l.Guarded {
		t.Error("the unit was stopped")
	}
	if e := n.boot(bootB).Previous; e != nil {
		t.Errorf("%+v", e)
	}
	n.write("sys/fs/pstore/dmesg-efi_pstore-179570160001001", "Panic#1 Part1\n"+strings.ReplaceAll(panicLines, "6.12.a", "6.12.b"))
	if e := n.boot(bootC).Previous; e == nil || e.Evidence != Pstore {
		t.Errorf("words are words: %+v", e)
	}
}

func TestCrashKernelEntersNothing(t *testing.T) {
	n := newNode(t)
	n.boot(bootA)
	n.write("proc/vmcore", "")
	if _, err := Open(n.Root, bootB, noon); !errors.Is(err, errCrashKernel) {
		t.Errorf("error %v", err)
	}
	os.Remove(n.Path("proc/vmcore"))
	if e := n.boot(bootC).Previous; e == nil || e.Boot != bootA.Boot {
		t.Errorf("%+v", e)
	}
}

func TestABrokenLedgerIsBegunAnew(t *testing.T) {
	n := newNode(t)
	n.write(LedgerFile, "{")
	l, err := Open(n.Root, bootA, noon)
	if err == nil || !strings.HasSuffix(err.Error(), "; starting a new one") || l.Boot != bootA.Boot {
		t.Errorf("%+v, %v", l, err)
	}
	if l := n.boot(bootA); l.Since != noon {
		t.Errorf("%+v", l)
	}
}

func TestLookWritesNothing(t *testing.T) {
	n := newNode(t)
	n.boot(bootA)
	before, _ := os.ReadFile(n.Path(LedgerFile))
	l, err := Look(n.Root, bootB)
	if err != nil || l.Previous == nil || l.Previous.Boot != bootA.Boot {
		t.Errorf("%+v, %v", l, err)
	}
	if after, _ := os.ReadFile(n.Path(LedgerFile)); !bytes.Equal(before, after) {
		t.Error("the ledger has changed")
	}
}

// TestTheConsoleStays: it takes no room from a dump.
func TestTheConsoleStays(t *testing.T) {
	n := newNode(t)
	n.boot(bootA)
	const console = "sys/fs/pstore/console-ramoops-0"
	n.write(console, canaryOf(bootA)+panicLines)
	e := n.boot(bootB).Previous
	if e == nil || e.Cause != "KernelPanic" {
		t.Fatalf("%+v", e)
	}
	if err := e.Clear(n.Root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Path(console)); err != nil {
		t.Error(err)
	}
	if found := Findings(n.Root); len(found) != 0 {
		t.Errorf("findings %v", found)
	}
}

func TestAcknowledgedOnce(t *testing.T) {
	n := newNode(t)
	n.boot(bootA)
	const efi, moved = "sys/fs/pstore/dmesg-efi_pstore-179570160001001", "var/lib/systemd/pstore/1/dmesg-efi_pstore-179570160002001"
	n.write(efi, "Panic#1 Part1\n"+panicLines)
	n.write(moved, "Panic#1 Part2\n"+canaryOf(bootA))
	e := n.boot(bootB).Previous
	if len(Findings(n.Root)) != 0 {
		t.Errorf("a store that is about to be cleared: %v", Findings(n.Root))
	}
	// A ledger that could not be written is that of an earlier boot, and says how one before it ended.
	if err := Acknowledge(n.Root, bootC.Boot, bootA.Boot, noon); err != nil {
		t.Fatal(err)
	}
	if l := n.boot(bootB); !l.Previous.Acknowledged.IsZero() {
		t.Errorf("another boot's: %+v", l.Previous)
	}
	if err := Acknowledge(n.Root, bootB.Boot, bootA.Boot, noon); err != nil {
		t.Fatal(err)
	}
	if l := n.boot(bootB); l.Previous.Acknowledged != noon {
		t.Errorf("%+v", l.Previous)
	}
	found := Findings(n.Root)
	want := "pstore still holds 1 entries of earlier boots (1 KiB): the next panic's may not fit; " +
		"save what is needed and remove them from /sys/fs/pstore, or enable systemd-pstore.service"
	if len(found) != 1 || found[0].String() != want {
		t.Errorf("findings %v, want %s", found, want)
	}
	if err := e.Clear(n.Root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Path(efi)); !os.IsNotExist(err) {
		t.Error("the entry is still there")
	}
	if _, err := os.Stat(n.Path(moved)); err != nil {
		t.Error("systemd-pstore's archive is not ours to remove")
	}
	if len(Findings(n.Root)) != 0 {
		t.Errorf("an empty store: %v", Findings(n.Root))
	}
}

// TestACrashLoop: a boot that dies before it has told how the last one ended leaves that to the next. However long that goes on, the
// oldest is told: it is the one that the cluster has seen alive.
func TestACrashLoop(t *testing.T) {
	n := newNode(t)
	n.boot(bootA)
	const efi = "sys/fs/pstore/dmesg-efi_pstore-179570160001001"
	n.write(efi, "Panic#1 Part1\n"+canaryOf(bootA)+strings.Repeat("<6>[    9.000000] x\n", 2000)+panicLines)
	last := bootA.Boot
	for i := range 50 {
		next := machine.Identity{Instance: bootA.Instance, Boot: fmt.Sprintf("dddddddd-0000-4000-8000-%012d", i)}
		l := n.boot(next)
		endings := l.Unacknowledged()
		if len(endings) == 0 || endings[0].Boot != bootA.Boot || endings[0].Cause != "KernelPanic" || endings[len(endings)-1].Boot != last || len(endings) > 3 {
			t.Fatalf("boot %d: %+v", i, endings)
		}
		if i > 0 && len(endings[0].Text) > earlierText {
			t.Errorf("%d bytes of an earlier boot", len(endings[0].Text))
		}
		last = next.Boot
	}
	l := n.boot(bootC)
	if found := Findings(n.Root); len(found) != 0 {
		t.Errorf("a store that is about to be cleared: %v", found)
	}
	for i, e := range l.Unacknowledged() {
		if err := Acknowledge(n.Root, bootC.Boot, e.Boot, noon); err != nil {
			t.Fatal(err)
		}
		if err := e.Clear(n.Root); err != nil {
			t.Fatal(err)
		}
		if left := n.boot(bootC).Unacknowledged(); len(left) != 2-i {
			t.Errorf("%d are left once %d have been told", len(left), i+1)
		}
	}
	if _, err := os.Stat(n.Path(efi)); !os.IsNotExist(err) {
		t.Error("what was told takes up room")
	}
	if l := n.boot(bootB); len(l.Unacknowledged()) != 1 || l.Previous.Boot != bootC.Boot {
		t.Errorf("the next boot tells again: %+v", l)
	}
	// What another machine had not told is not this one's.
	n.boot(bootC)
	if l := n.boot(machine.Identity{Instance: "i-0ffffffffffffffff", Boot: bootA.Boot}); len(l.Unacknowledged()) != 0 {
		t.Errorf("a copy tells: %+v", l.Unacknowledged())
	}
}

// A boot that ran for long is one that the cluster knows, whether or not it told how the one before had ended.
func TestABootThatRanForLongTellsOnlyOfItself(t *testing.T) {
	for _, tt := range []struct {
		ran  time.Duration
		want []string
	}{
		{5 * time.Minute, []string{bootA.Boot, bootB.Boot}},
		{5 * time.Hour, []string{bootB.Boot}},
	} {
		n := newNode(t)
		n.lasts(time.Minute)
		n.boot(bootA)
		n.boot(bootB)
		n.write("proc/sys/kernel/random/boot_id", bootC.Boot+"\n")
		l, err := Open(n.Root, bootC, noon.Add(tt.ran))
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, e := range l.Unacknowledged() {
			told = append(told, e.Boot)
		}
		if diff := cmp.Diff(tt.want, told); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", tt.ran, diff)
		}
	}
}

func TestPlacesOfDumps(t *testing.T) {
	for _, tt := range []struct {
		name, file, text string
		want             []string
	}{
		{"no settings", "etc/fstab", "", []string{"var/crash"}},
		{"RHEL's own", "etc/kdump.conf", "path /var/crash\n", []string{"var/crash"}},
		{"RHEL's", "etc/kdump.conf", "  path\t/data/../srv//crash\n", []string{"var/crash", "srv/crash"}},
		{"Debian's", "etc/default/kdump-tools", "#KDUMP_COREDIR=/no\nKDUMP_COREDIR=\"/srv/crash\"   # big\n", []string{"var/crash", "srv/crash"}},
		{"SUSE's", "etc/sysconfig/kdump", "KDUMP_SAVEDIR='file:///srv/crash'\n", []string{"var/crash", "srv/crash"}},
		{"SUSE's, elsewhere", "etc/sysconfig/kdump", "KDUMP_SAVEDIR=\"nfs://server/crash\"\n", []string{"var/crash"}},
		{"everything", "etc/kdump.conf", "path /\n", []string{"var/crash"}},
		{"many", "etc/kdump.conf", strings.Repeat("path /a\npath /b\npath /c\npath /d\n", 100), []string{"var/crash", "a", "b", "c"}},
	} {
		n := newNode(t)
		n.write(tt.file, tt.text)
		if diff := cmp.Diff(tt.want, placesOfDumps(n.Root)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestMovesPstore(t *testing.T) {
	n := newNode(t)
	if MovesPstore(n.Root) {
		t.Error("nothing is enabled")
	}
	n.write("etc/systemd/system/sysinit.target.wants/systemd-pstore.service", "")
	if !MovesPstore(n.Root) {
		t.Error("it is enabled")
	}
	if err := os.Symlink("/dev/null", n.Path("etc/systemd/system/systemd-pstore.service")); err != nil {
		t.Fatal(err)
	}
	if MovesPstore(n.Root) {
		t.Error("it is masked")
	}
}

// TestReadingIsBounded: a store of any size yields one obituary.
func TestReadingIsBounded(t *testing.T) {
	n := newNode(t)
	n.boot(bootA)
	long := strings.Repeat("<6>[    1.000000] a line of the usual length, whatever it says\n", 1500)
	for part := range 40 {
		n.write(fmt.Sprintf("sys/fs/pstore/dmesg-erst-%d", part), fmt.Sprintf("Panic#1 Part%d\n%s", 40-part, long))
	}
	n.write("sys/fs/pstore/dmesg-erst-99", "Panic#1 Part0\n"+panicLines)
	n.write("var/crash/x/dmesg.x", strings.Repeat("x", maxEntry)+"\n"+panicLines)
	e := n.boot(bootB).Previous
	if len(e.Text) > netconsole.MaxObituary || !strings.HasPrefix(e.Text, "<") || !strings.Contains(e.Text, "Kernel panic") {
		t.Errorf("%d bytes, beginning %.40q", len(e.Text), e.Text)
	}
	if info, err := os.Stat(n.Path(LedgerFile)); err != nil || info.Size() > maxLedger || info.Mode().Perm() != 0o600 {
		t.Errorf("the ledger: %v, %v", info, err)
	}
}

// Compressed entries count as what they become.
func TestInflatedEntriesAreBounded(t *testing.T) {
	n := newNode(t)
	entry := func(part int) string {
		var b bytes.Buffer
		z, _ := flate.NewWriter(&b, 9)
		fmt.Fprintf(z, "Panic#1 Part%d\n%s", part+1, strings.Repeat("<6>[    1.000000] again\n", 21_000))
		z.Close()
		return b.String()
	}
	for part := range 40 {
		n.write(fmt.Sprintf("sys/fs/pstore/dmesg-erst-%d.enc.z", part), entry(part))
	}
	total := 0
	for _, d := range readStore(n.Root, &Ledger{}).dumps {
		total += len(d.text)
	}
	if total == 0 || total > maxBytes+maxEntry {
		t.Errorf("%d bytes of text, want at most %d", total, maxBytes+maxEntry)
	}
}

func TestObituary(t *testing.T) {
	e := Ending{Boot: "a", Kernel: "6.12", Cause: "KernelPanic", Title: "t", Evidence: Pstore, Time: noon, Text: "x\n"}
	want := netconsole.Obituary{Boot: "a", Kernel: "6.12", Cause: "KernelPanic", Evidence: "pstore", Cluster: "prod-1", Time: noon, Text: []byte("x\n")}
	if diff := cmp.Diff(want, e.Obituary("prod-1"), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("obituary (-want +got):\n%s", diff)
	}
}

func TestWriteText(t *testing.T) {
	const head = "boot      a, kernel 6.12, entered 2026-11-26T12:00:00Z\n"
	for _, tt := range []struct {
		name string
		e    Ending
		want string
	}{
		{"a panic", Ending{Cause: "KernelPanic", Title: "x in foo", Line: "Kernel panic - x", Evidence: Pstore, Time: noon.Add(time.Hour),
			Text: "<6>[    1.0] before\n<0>[    2.0] Kernel panic - x\n<4>[    2.1] be\x1bhind\n", Acknowledged: noon.Add(2 * time.Hour)},
			head + "ended     2026-11-26T13:00:00Z\ncause     KernelPanic: x in foo\nevidence  pstore\nlistener  acknowledged it 2026-11-26T14:00:00Z\n\n" +
				"<0>[    2.0] Kernel panic - x\n<4>[    2.1] be\\x1bhind\n(2 of 3 lines; all of them with -o json)\n"},
		{"a shutdown", Ending{Cause: netconsole.CauseOrderly, Evidence: Shutdown, Time: noon},
			head + "ended     2026-11-26T12:00:00Z\ncause     a system shutdown\nevidence  ledger\nlistener  has not acknowledged it\n"},
		{"no word", Ending{Cause: netconsole.CauseUnexplained, Evidence: Nothing},
			head + "ended     at an unknown time\ncause     unexplained: it did not shut down and left no trace\nevidence  none\nlistener  has not acknowledged it\n"},
		{"no reason", Ending{Cause: netconsole.CauseUnexplained, Evidence: Pstore, Text: "x\n"},
			head + "ended     at an unknown time\ncause     unexplained: it did not shut down, and its kernel's last lines give no reason\nevidence  pstore\n" +
				"listener  has not acknowledged it\n\nx\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.e.Boot, tt.e.Kernel, tt.e.Since = "a", "6.12", noon
			var b strings.Builder
			if err := tt.e.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, b.String()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

// Distributions differ in who may write to /var/crash.
func TestDumpsOfOtherUsersAreNotRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot: only root can give a file away")
	}
	n := newNode(t)
	n.boot(bootA)
	if err := MarkEnding(n.Root, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	const name = "var/crash/202611261300/dmesg.202611261300"
	n.write(name, canaryOf(bootA)+panicLines)
	if err := os.Chown(n.Path(name), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	if l := n.boot(bootB); l.Previous == nil || !l.Previous.Orderly() || len(l.Known) != 0 {
		t.Errorf("anybody can say that this machine died: %+v", l)
	}
}

// Where everybody may write to /var/crash, nobody hides what kdump has saved there behind files of his own.
func TestFilesOfOtherUsersHideNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cannot: only root can give a file away")
	}
	n := newNode(t)
	n.boot(bootA)
	const theirs = "var/crash/000000000000"
	for i := range maxFiles + 10 {
		name := fmt.Sprintf("var/crash/0000-%d.crash", i)
		n.write(name, "")
		if err := os.Chown(n.Path(name), 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	n.write(theirs+"/dmesg.000000000000", canaryOf(bootA)+panicLines) // root's, in a directory that is not
	if err := os.Chown(n.Path(theirs), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	n.write("var/crash/202611261300/dmesg.202611261300", canaryOf(bootA)+oopsLines)
	l := n.boot(bootB)
	if l.Previous == nil || l.Previous.Evidence != Kdump || l.Previous.Cause != "KernelOops" || len(l.Known) != 1 {
		t.Errorf("%+v", l)
	}
}

// However long their names are, the files that are known leave a ledger that the next boot can read.
func TestTheLedgerIsBounded(t *testing.T) {
	n := newNode(t)
	long := strings.Repeat("x", 240)
	for i := range maxFiles {
		n.write(fmt.Sprintf("var/crash/%s/%s/dmesg.%s-%d", long, long, long, i), "")
	}
	l := n.boot(bootA)
	if info, err := os.Stat(n.Path(LedgerFile)); err != nil || info.Size() > maxLedger/2 || len(l.Known) < maxFiles/2 {
		t.Errorf("%d marks in %d bytes, %v", len(l.Known), info.Size(), err)
	}
	if e := n.boot(bootB).Previous; e == nil || e.Evidence != Nothing {
		t.Errorf("%+v", e)
	}
}

// TestTheLargestLedgerCanBeRead: all places are full, and every byte of the old kernels' lines takes six in JSON.
func TestTheLargestLedgerCanBeRead(t *testing.T) {
	n := newNode(t)
	ending := func(size int) Ending { return Ending{Text: strings.Repeat("\x01", size)} }
	previous := ending(netconsole.MaxObituary)
	l := Ledger{Boot: bootA.Boot, Previous: &previous}
	for range maxEarlier {
		l.Earlier = append(l.Earlier, ending(earlierText))
	}
	mark := strings.Repeat("x", longName) + "#2026-11-26T13:00:00Z"
	l.Known = slices.Repeat([]string{mark}, (len([]string{pstoreDir, archiveDir, crashDir})+len(crashDirs))*maxFiles)
	if err := l.write(n.Root); err != nil {
		t.Fatal(err)
	}
	if back, err := read(n.Root); err != nil || len(back.Known) != len(l.Known) || len(back.Unacknowledged()) != maxEarlier+1 {
		t.Error(err)
	}
}

func TestListedFilesAreNotExchanged(t *testing.T) {
	n := newNode(t)
	const name = "var/crash/202611261300/dmesg.202611261300"
	n.write(name, panicLines)
	n.write("etc/shadow", "root:secret:")
	for _, tt := range []struct {
		name     string
		exchange func() error
	}{
		{"for another file", func() error { return os.Rename(n.Path("etc/shadow"), n.Path(name)) }},
		{"for a link", func() error { return os.Symlink("../../../etc/shadow", n.Path(name)) }},
		{"for a pipe that nobody writes to", func() error { return unix.Mkfifo(n.Path(name), 0o600) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.write(name, panicLines)
			n.write("etc/shadow", "root:secret:")
			files := list(n.Root, crashDir, func(string) bool { return true })
			if len(files) != 1 {
				t.Fatalf("%d files", len(files))
			}
			if text, err := readListed(n.Root, files[0], maxEntry); err != nil || string(text) != panicLines {
				t.Fatalf("%q, %v", text, err)
			}
			if err := os.Remove(n.Path(name)); err != nil {
				t.Fatal(err)
			}
			if err := tt.exchange(); err != nil {
				t.Fatal(err)
			}
			if text, err := readListed(n.Root, files[0], maxEntry); err == nil {
				t.Errorf("read %q", text)
			}
			if err := os.Remove(n.Path(name)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
