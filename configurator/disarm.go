package configurator

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
)

// Disarm takes away what is ours: all targets, every changed kernel setting, the state of the last pass. The secret of
// this boot stays: a listener has pinned it, and another one would not be believed until the next boot.
func (c *Configurator) Disarm(ctx context.Context) error {
	unlock, err := c.Root.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	present, err := c.Netconsole.List()
	errs := []error{err}
	for _, st := range present {
		c.Log.Info("removing", "target", st.Name, "listener", netip.AddrPortFrom(st.RemoteIP, st.RemotePort))
		errs = append(errs, c.Netconsole.Disarm(st.Name))
	}
	restored, err := c.Root.settle(nil)
	for _, s := range summary(restored) {
		c.Log.Info("restored kernel setting", "setting", s)
	}
	errs = append(errs, err)
	for _, f := range []string{stateFile, settingsFile} {
		if err := os.Remove(c.Root.Path(runDir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
