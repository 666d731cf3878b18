package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// measure runs a program and prints its cost as JSON. With two durations before the program, it lets the program warm up for the
// first, measures over the second, and ends it.
func measure(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: measure [SETTLE WINDOW] PROGRAM [ARGUMENT…]")
	}
	var cost control.Cost
	warmUp, err := time.ParseDuration(args[0])
	if err == nil && len(args) > 2 {
		var window time.Duration
		if window, err = time.ParseDuration(args[1]); err != nil {
			return err
		}
		cost, err = measureIdle(warmUp, window, exec.Command(args[2], args[3:]...))
	} else {
		cost, err = measureRun(exec.Command(args[0], args[1:]...))
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(cost)
}

// measureRun measures a program, with what it starts, from start to end.
func measureRun(program *exec.Cmd) (control.Cost, error) {
	var said bytes.Buffer
	program.Stdout, program.Stderr = &said, &said
	start := time.Now()
	if err := program.Run(); err != nil {
		return control.Cost{}, fmt.Errorf("%w: %s", err, said.String())
	}
	wall := time.Since(start)
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return control.Cost{}, err
	}
	return control.Cost{Wall: wall, CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano())}, nil
}

// measureIdle measures a program that stays.
func measureIdle(warmUp, window time.Duration, program *exec.Cmd) (control.Cost, error) {
	if err := program.Start(); err != nil {
		return control.Cost{}, err
	}
	defer program.Wait()
	defer program.Process.Kill()
	time.Sleep(warmUp)
	before, err := usageOf(program.Process.Pid)
	if err != nil {
		return control.Cost{}, err
	}
	time.Sleep(window)
	after, err := usageOf(program.Process.Pid)
	if err != nil {
		return control.Cost{}, err
	}
	return control.Cost{
		Wall: window, CPU: after.CPU - before.CPU, RSS: after.RSS, Sleeps: after.Sleeps - before.Sleeps, Reads: after.Reads - before.Reads,
	}, nil
}

// usageOf returns what a process has used since its start, and its present memory.
func usageOf(pid int) (c control.Cost, err error) {
	if c.CPU, err = cpuOf(pid); err != nil {
		return c, err
	}
	if c.RSS, err = field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:"); err != nil {
		return c, err
	}
	c.RSS <<= 10 // it is in KiB
	if c.Reads, err = field(fmt.Sprintf("/proc/%d/io", pid), "syscr:"); err != nil {
		return c, err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	slices.SortFunc(threads, func(a, b os.DirEntry) int { // by number
		return cmp.Or(len(a.Name())-len(b.Name()), strings.Compare(a.Name(), b.Name()))
	})
	for i, t := range threads {
		if i == 1 { // the Go runtime's monitor, which sleeps for microseconds while another thread is at work, and for good otherwise
			continue
		}
		sleeps, err := field(fmt.Sprintf("/proc/%d/task/%s/status", pid, t.Name()), "voluntary_ctxt_switches:")
		if err != nil {
			return c, err
		}
		c.Sleeps += sleeps
	}
	return c, err
}

// cpuOf is the CPU time a process has used, from fields 1 of its threads' schedstat, which counts nanoseconds; stat
// counts ticks (Documentation/scheduler/sched-stats.rst).
func cpuOf(pid int) (time.Duration, error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range threads {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// field is the number behind a name in a file of /proc.
func field(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			return strconv.ParseInt(words[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
