package configurator

import (
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// WantedSettings returns the kernel settings that the configuration asks for on this kernel, including those of the devices
// that targets send through.
func (c *Configurator) WantedSettings(devices []string) []machine.Setting {
	var want []machine.Setting
	if c.Config.Queues {
		want = c.Root.QueueSettings(devices)
	}
	if c.Config.Panic == (machine.Panic{}) {
		return want // reading the kubelet's configuration takes many files
	}
	// A kernel without netconsole that is held in its panic is not heard any better. The module may still have to be loaded.
	if c.lacksNetconsole() {
		return want
	}
	return append(want, machine.PanicSettings(c.Config.Panic, c.Root.Facts(c.Version), c.Root.Kubelet())...)
}

// lacksNetconsole reports whether the running kernel is seen to have no netconsole, and no module of it to load.
func (c *Configurator) lacksNetconsole() bool {
	support, sure, err := c.Netconsole.Seen()
	return err == nil && sure && !support.Netconsole && !c.Root.HasNetconsole()
}

// applySettings makes the kernel settings those that the configuration and the present targets ask for.
func (c *Configurator) applySettings() error {
	present, _ := c.Netconsole.List() // the draft returns the error
	changed, err := c.Root.ApplySettings(c.WantedSettings(devicesOf(present)))
	for _, s := range machine.Summary(changed) {
		c.Log.Info("changed kernel setting", "setting", s)
	}
	return err
}

// devicesOf returns the devices of targets, disabled ones included: a disabled target is about to be replaced, and the
// settings of its device need not change twice.
func devicesOf(present []configfs.State) []string {
	var devices []string
	for _, st := range present {
		devices = append(devices, st.Device)
	}
	return devices
}
