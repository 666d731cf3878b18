package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// crash makes the machine die, or at least sick, as argv says.
func crash(argv []string) error {
	if len(argv) == 0 {
		return errors.New("no trigger given")
	}
	switch trigger, args := argv[0], argv[1:]; trigger {
	case control.TriggerSysrq:
		return os.WriteFile("/proc/sysrq-trigger", []byte(strings.Join(args, "")), 0)
	case control.TriggerInit:
		return unix.Kill(1, unix.SIGUSR1)
	case control.TriggerModule:
		// In a process of its own: an oops kills the thread it happens in.
		_, err := os.StartProcess("/sbin/insmod", append([]string{"insmod", control.CrashModule}, args...), &os.ProcAttr{
			Env:   os.Environ(),
			Files: []*os.File{nil, os.Stdout, os.Stderr},
		})
		return err
	default:
		return fmt.Errorf("no such trigger: %s", trigger)
	}
}

// kdump loads the kernel that a panic is to start, with a command line and no initramfs.
func kdump(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: kdump KERNEL COMMAND-LINE")
	}
	kernel, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer kernel.Close()
	if err := unix.KexecFileLoad(int(kernel.Fd()), -1, args[1], unix.KEXEC_FILE_ON_CRASH|unix.KEXEC_FILE_NO_INITRAMFS); err != nil {
		return fmt.Errorf("load %s as the crash kernel: %w", args[0], err)
	}
	return nil
}

// powerOff shuts the machine down in order.
func powerOff() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// dmesg prints the kernel's log buffer as far as it goes back.
func dmesg() error {
	const readAll, bufferSize = 3, 10 // SYSLOG_ACTION_..., syslog(2)
	size, err := unix.Klogctl(bufferSize, nil)
	if err != nil {
		return fmt.Errorf("ask for the log's size: %w", err)
	}
	log := make([]byte, size)
	n, err := unix.Klogctl(readAll, log)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	_, err = os.Stdout.Write(log[:n])
	return err
}
