package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// setUp turns the initramfs into a machine: file systems, modules, network, sysctls. A restarted server finds most of it done,
// and does the rest.
func setUp() error {
	config, err := readConfig()
	if err != nil {
		return err
	}
	if err := mountAll([]fsMount{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/run"},
		{"tmpfs", "/tmp"},
		{"cgroup2", "/sys/fs/cgroup"},
	}); err != nil {
		return err
	}
	if err := nameMachine(config); err != nil {
		return err
	}
	if err := modprobe(config.Modules); err != nil {
		return err
	}
	// Debian has configfs as a module: its directory exists from here on.
	if err := mountAll([]fsMount{{"configfs", "/sys/kernel/config"}}); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/fs/pstore"); err == nil {
		if err := mountAll([]fsMount{{"pstore", "/sys/fs/pstore"}}); err != nil {
			return err
		}
	}
	if err := configureNetwork(config); err != nil {
		return err
	}
	for key, value := range config.Sysctls {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s to %s: %w", key, value, err)
		}
	}
	return nil
}

func readConfig() (control.Config, error) {
	var config control.Config
	data, err := os.ReadFile(control.ConfigPath)
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil {
		return config, fmt.Errorf("read the lab's configuration: %w", err)
	}
	return config, nil
}

type fsMount struct {
	fstype, dir string
}

func mountAll(mounts []fsMount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.dir, 0o755); err != nil && m.fstype != "configfs" {
			return fmt.Errorf("make a mount point: %w", err)
		}
		// EBUSY: an earlier server has mounted it.
		if err := syscall.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.dir, err)
		}
	}
	return nil
}

func nameMachine(config control.Config) error {
	if err := syscall.Sethostname([]byte(config.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return fmt.Errorf("name the machine: %w", err)
	}
	for path, text := range map[string]string{
		"/etc/hostname":   config.Hostname + "\n",
		"/etc/machine-id": config.MachineID + "\n",
		"/etc/hosts":      "127.0.0.1 localhost\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("name the machine: %w", err)
		}
	}
	return nil
}

func configureNetwork(config control.Config) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if !config.Addr.IsValid() {
		return nil
	}
	return configureDevice("eth0", config)
}
