package lab

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// Program is what to run in a guest.
type Program struct {
	Argv  []string
	Env   []string // key=value, added to PATH and HOME
	Stdin []byte
}

// Result is how a program ended. Exit is 128 plus the signal's number if one killed it.
type Result struct {
	Exit           int
	Stdout, Stderr string
}

// Run runs a program in the guest to its end. A deadline of ctx kills it there, too. The error is only about starting it: a
// program that ran and failed is a Result.
func (vm *VM) Run(ctx context.Context, argv ...string) (Result, error) {
	return vm.RunProgram(ctx, Program{Argv: argv})
}

// RunProgram is Run with an environment and standard input.
func (vm *VM) RunProgram(ctx context.Context, p Program) (Result, error) {
	r := control.Request{Op: control.Run, Argv: p.Argv, Env: p.Env, Stdin: p.Stdin}
	if deadline, ok := ctx.Deadline(); ok {
		r.Timeout = time.Until(deadline)
	}
	reply, err := vm.link.call(ctx, r)
	if err != nil {
		return Result{}, fmt.Errorf("run %q in %s: %w", p.Argv, vm.spec.Name, err)
	}
	return Result{Exit: reply.Exit, Stdout: string(reply.Stdout), Stderr: string(reply.Stderr)}, nil
}

// Start starts a program in the guest and leaves it running. What it prints is appended to LogPath.
func (vm *VM) Start(ctx context.Context, argv ...string) error {
	r := control.Request{Op: control.Start, Argv: argv}
	if len(argv) > 0 {
		r.Path = LogPath(argv[0])
	}
	if _, err := vm.link.call(ctx, r); err != nil {
		return fmt.Errorf("start %q in %s: %w", argv, vm.spec.Name, err)
	}
	return nil
}

// LogPath returns the path in the guest of the output of a program that Start has started.
func LogPath(program string) string {
	return path.Join("/run/log", path.Base(program)+".log")
}

// ReadFile reads a file of the guest, also one of proc, sysfs or configfs.
func (vm *VM) ReadFile(ctx context.Context, name string) ([]byte, error) {
	var data []byte
	for {
		reply, err := vm.link.call(ctx, control.Request{Op: control.Read, Path: name, Offset: int64(len(data))})
		if err != nil {
			return nil, fmt.Errorf("read %s in %s: %w", name, vm.spec.Name, err)
		}
		if len(reply.Data) == 0 {
			return data, nil
		}
		data = append(data, reply.Data...)
	}
}

// WriteFile writes a file of the guest with permissions mode if it is new. Up to 16 KiB are one write(2), as attributes
// of the kernel need it.
func (vm *VM) WriteFile(ctx context.Context, name string, data []byte, mode fs.FileMode) error {
	rest := data
	for first := true; first || len(rest) > 0; first = false {
		n := min(len(rest), control.ChunkSize)
		_, err := vm.link.call(ctx, control.Request{Op: control.Write, Path: name, Data: rest[:n], Mode: mode, Append: !first})
		if err != nil {
			return fmt.Errorf("write %s in %s: %w", name, vm.spec.Name, err)
		}
		rest = rest[n:]
	}
	return nil
}

// Mkdir makes a directory in the guest. In configfs that makes a kernel object.
func (vm *VM) Mkdir(ctx context.Context, name string) error {
	if _, err := vm.link.call(ctx, control.Request{Op: control.Mkdir, Path: name}); err != nil {
		return fmt.Errorf("make directory %s in %s: %w", name, vm.spec.Name, err)
	}
	return nil
}

// Remove removes a file or empty directory of the guest.
func (vm *VM) Remove(ctx context.Context, name string) error {
	if _, err := vm.link.call(ctx, control.Request{Op: control.Remove, Path: name}); err != nil {
		return fmt.Errorf("remove %s in %s: %w", name, vm.spec.Name, err)
	}
	return nil
}

// BootID is /proc/sys/kernel/random/boot_id of the guest's latest boot.
func (vm *VM) BootID() string { return vm.link.currentBoot() }

// Dmesg returns the guest's kernel log as far as its buffer goes back.
func (vm *VM) Dmesg(ctx context.Context) (string, error) {
	r, err := vm.Run(ctx, "dmesg")
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("run dmesg: %s", bytes.TrimSpace([]byte(r.Stderr)))
	}
	return r.Stdout, err
}

// Crash makes the guest die, or become sick, in the given way. It returns when the request is sent: nothing may be left to
// answer it.
func (vm *VM) Crash(ctx context.Context, way Crash) error {
	argv := way.argv()
	if argv[0] == control.TriggerModule && vm.spec.CrashModule == "" {
		return fmt.Errorf("crash %s by %s: the guest has no crash module", vm.spec.Name, way)
	}
	if err := vm.link.send(ctx, control.Request{Op: control.Crash, Argv: argv}); err != nil {
		return fmt.Errorf("crash %s by %s: %w", vm.spec.Name, way, err)
	}
	return nil
}
