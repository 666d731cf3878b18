package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is where a report was made.
type machine struct {
	Time   time.Time `json:"time"`
	Kernel string    `json:"kernel"`
	CPU    string    `json:"cpu"`
	Cores  int       `json:"cores"`
	Go     string    `json:"go"`
	Load   string    `json:"load"` // averages over 1, 5 and 15 minutes when the run began
}

func thisMachine() (machine, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return machine{}, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return machine{}, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return machine{}, err
	}
	return machine{
		Time: time.Now().UTC().Truncate(time.Second), Kernel: unix.ByteSliceToString(name.Release[:]), CPU: cpuModel(string(cpus)),
		Cores: runtime.NumCPU(), Go: runtime.Version(), Load: strings.Join(strings.Fields(string(load))[:3], " "),
	}, nil
}

// cpuModel finds the model in the text of /proc/cpuinfo. Arm kernels give none.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func (m machine) String() string {
	return fmt.Sprintf("%s · kernel %s · %s · %d cores · %s · load %s",
		m.Time.Format(time.DateTime+"Z"), m.Kernel, m.CPU, m.Cores, m.Go, m.Load)
}
