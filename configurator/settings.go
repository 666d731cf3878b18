package configurator

import (
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// WantedSettings are the kernel settings the configuration asks for on this kernel, and those that go with devices that
// targets send through.
func (c *Configurator) WantedSettings(devices []string) []machine.Setting {
	var want []machine.Setting
	if c.Config.Queues {
		want = c.Root.QueueSettings(devices)
	}
	if c.Config.Panic != (machine.Panic{}) { // otherwise there is no need to read so many files
		want = append(want, machine.PanicSettings(c.Config.Panic, c.Root.Facts(c.Version), c.Root.Kubelet())...)
	}
	return want
}

// applySettings makes the kernel settings those of the configuration and of the targets there are.
func (c *Configurator) applySettings() error {
	present, _ := c.Netconsole.List() // the draft reports what is wrong with it
	changed, err := c.Root.ApplySettings(c.WantedSettings(devicesOf(present)))
	for _, s := range machine.Summary(changed) {
		c.Log.Info("changed kernel setting", "setting", s)
	}
	return err
}

// devicesOf are those that targets send through. One that somebody has disabled is about to be replaced, and what goes
// with its device need not change twice.
func devicesOf(present []configfs.State) []string {
	var devices []string
	for _, st := range present {
		devices = append(devices, st.Device)
	}
	return devices
}
