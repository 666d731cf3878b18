package lastboot

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

// Causes that have no words of the old kernel.
const (
	causeWatchdog = "Watchdog"
	causeHardware = "HardwareError"
	causePower    = "PowerLoss"
)

// trace is what the hardware, the firmware or the new kernel says about the last reset.
type trace struct{ cause, evidence, line string }

// traces reads them all, the most telling first.
func traces(root machine.Root) []trace {
	return append(append(bootErrors(root), watchdogs(root)...), tracesIn(earlyLog(root))...)
}

// watchdogs reads why each watchdog last reset the machine (include/uapi/linux/watchdog.h).
func watchdogs(root machine.Root) []trace {
	files, _ := filepath.Glob(root.Path("sys/class/watchdog/*/bootstatus"))
	var found []trace
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		data, err := readHead(f, 64)
		line, _, _ := strings.Cut(string(data), "\n")
		status, parseErr := strconv.ParseUint(line, 10, 32)
		if err != nil || parseErr != nil {
			continue
		}
		for _, bit := range []struct {
			mask        uint64
			cause, what string
		}{
			{0x20, causeWatchdog, "it reset the machine"},
			{0x01, causeHardware, "the processor overheated"},
			{0x02, causeHardware, "a fan failed"},
			{0x10, causePower, "the power was too low"},
			{0x40, causePower, "the power was too high"},
		} {
			if status&bit.mask != 0 {
				found = append(found, trace{bit.cause, Watchdog, fmt.Sprintf("%s has bootstatus %d: %s", name, status, bit.what)})
				break
			}
		}
	}
	return found
}

// maxBootErrors bounds what is read of the firmware's records, in bytes.
const maxBootErrors = 1 << 20

// severities are those of errors that may end a boot. Errors with the others were corrected.
var severities = []string{"recoverable", "fatal"}

// bootErrors reads ACPI's boot error records: the firmware keeps hardware errors of the previous boot there (ACPI 6.5, 18.3.1 and
// 18.3.2.7.1).
func bootErrors(root machine.Root) []trace {
	data, err := readHead(root.Path("sys/firmware/acpi/tables/data/BERT"), maxBootErrors)
	if err != nil {
		return nil
	}
	const head = 20 // bytes: status, offset and length of raw data, length of data, severity
	// One block follows the other, as bert_print_all has it (drivers/acpi/apei/bert.c).
	for len(data) >= head && binary.LittleEndian.Uint32(data) != 0 {
		field := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(data[at:])) }
		if severity := field(16); severity < uint64(len(severities)) {
			return []trace{{causeHardware, Firmware, "the firmware recorded a " + severities[severity] + " hardware error (BERT)"}}
		}
		size := head + field(12)
		if raw := field(8); raw > 0 {
			size = field(4) + raw // cper_estatus_len, include/linux/cper.h
		}
		data = data[min(max(size, head), uint64(len(data))):]
	}
	return nil
}

// early bounds what counts as the beginning of the new kernel's log, and so does the first process (run_init_process, init/main.c):
// what comes later may be about the new boot.
const early = 2 * time.Minute

var firstProcess = lazyregexp.New(`^Run \S+ as init process$`)

// maxLog bounds what is read of it, in bytes.
const maxLog = 1 << 20

// logged are lines of the new kernel about the old one's end.
var logged = []struct {
	line  *lazyregexp.Regexp
	cause string
}{
	// arch/x86/kernel/cpu/amd.c, s5_reset_reason_txt, 6.16 and later
	{lazyregexp.New(`^x86/amd: Previous system reset reason .*(watchdog timer|failed boot timer)`), causeWatchdog},
	{lazyregexp.New(`^x86/amd: Previous system reset reason .*(thermal|uncorrected error|parity error|sync flood|CPU shutdown|handshake)`), causeHardware},
	{lazyregexp.New(`^x86/amd: Previous system reset reason .*(power button was pressed for 4 seconds|shutdown pin|power off command)`), causePower},
	// cper_estatus_print, drivers/firmware/efi/cper.c. Errors of the running boot have a number in front: "{1}[Hardware Error]".
	{lazyregexp.New(`^\[Hardware Error\]: event severity: (fatal|recoverable)`), causeHardware},
	{machineChecks, causeHardware},
}

// machineChecks says that processors still held errors when the kernel started, machineCheck shows one of them with its status
// (mce_notify_irq and __print_mce, arch/x86/kernel/cpu/mce/core.c).
var (
	machineChecks = lazyregexp.New(`^(?:mce: )?\[Hardware Error\]: Machine check events logged`)
	machineCheck  = lazyregexp.New(`^(?:mce: )?\[Hardware Error\]: CPU \d+: Machine Check(?: Exception)?: [0-9a-f]+ Bank \d+: ([0-9a-f]{16})`)
)

// uncorrected is a bit of that status (MCI_STATUS_UC, arch/x86/include/asm/mce.h).
const uncorrected = 1 << 61

// tracesIn finds what the beginning of the new kernel's log says of the old one's end. Errors that were corrected ended nothing.
func tracesIn(log []string) (found []trace) {
	corrected, fatal := false, false
	for _, text := range log {
		if m := machineCheck.FindStringSubmatch(text); m != nil {
			status, _ := strconv.ParseUint(m[1], 16, 64)
			if status&uncorrected == 0 {
				corrected = true
				continue
			}
			fatal = true
			found = append(found, trace{causeHardware, Firmware, text})
			continue
		}
		for _, l := range logged {
			if l.line.MatchString(text) {
				found = append(found, trace{l.cause, Firmware, text})
				break
			}
		}
	}
	if corrected && !fatal {
		found = slices.DeleteFunc(found, func(t trace) bool { return machineChecks.MatchString(t.line) })
	}
	return found
}

// earlyLog reads the beginning of the running boot's kernel log, if it may be read.
func earlyLog(root machine.Root) (lines []string) {
	fd, err := unix.Open(root.Path("dev/kmsg"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, 16<<10) // a record has at most 8 KiB (CONSOLE_EXT_LOG_MAX), and one read returns one
	for total := 0; total < maxLog; {
		n, err := unix.Read(fd, buf)
		if err == unix.EPIPE || err == unix.EINTR {
			continue // records were overwritten
		}
		if err != nil || n <= 0 {
			break
		}
		total += n
		for line := range strings.Lines(string(buf[:n])) {
			uptime, text, ok := kernelLine(line)
			if !ok {
				continue
			}
			if uptime > early || firstProcess.MatchString(text) {
				return lines
			}
			lines = append(lines, text)
		}
	}
	return lines
}

// kernelLine reads a record of /dev/kmsg that the kernel itself wrote: "prefix,seq,usec,flags;text"
// (Documentation/ABI/testing/dev-kmsg).
func kernelLine(line string) (uptime time.Duration, text string, ok bool) {
	head, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 4 {
		return 0, "", false
	}
	prefix, prefixErr := strconv.Atoi(fields[0])
	usec, usecErr := strconv.ParseInt(fields[2], 10, 64)
	if prefixErr != nil || usecErr != nil || prefix < 0 || prefix >= 8 {
		return 0, "", false
	}
	return time.Duration(usec) * time.Microsecond, text, true
}
