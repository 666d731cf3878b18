package main

import (
	"fmt"
	"os"
	"strings"

	cadvisorapi "github.com/google/cadvisor/info/v1"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor/testing"
)

// machine is what the Node says about the machine below it.
type machine struct {
	bootID, kernelRelease, machineID string
}

// complete fills what no flag has set from this machine.
func (m *machine) complete() error {
	for _, f := range []struct {
		value *string
		path  string
	}{
		{&m.bootID, "/proc/sys/kernel/random/boot_id"},
		{&m.kernelRelease, "/proc/sys/kernel/osrelease"},
	} {
		if *f.value != "" {
			continue
		}
		text, err := os.ReadFile(f.path)
		if err != nil {
			return fmt.Errorf("learn about this machine: %w", err)
		}
		*f.value = strings.TrimSpace(string(text))
	}
	if m.machineID == "" {
		text, _ := os.ReadFile("/etc/machine-id") // not every machine has one
		m.machineID = strings.TrimSpace(string(text))
	}
	return nil
}

// cadvisor gives the kubelet facts about the machine. Sizes and usage stay the fake's.
type cadvisor struct {
	testing.Fake
	machine machine
}

func (c *cadvisor) MachineInfo() (*cadvisorapi.MachineInfo, error) {
	info, err := c.Fake.MachineInfo()
	if err != nil {
		return nil, err
	}
	info.BootID = c.machine.bootID
	info.MachineID = c.machine.machineID
	info.SystemUUID = c.machine.machineID
	return info, nil
}

func (c *cadvisor) VersionInfo() (*cadvisorapi.VersionInfo, error) {
	return &cadvisorapi.VersionInfo{
		KernelVersion:      c.machine.kernelRelease,
		ContainerOsVersion: "lastgasp lab",
	}, nil
}
