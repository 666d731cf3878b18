package configurator

import (
	"context"
	"errors"

	"github.com/lastgasp/lastgasp/configurator/machine"
)

// Disarm removes our targets, the state and the metrics of the last pass, and restores every kernel setting we changed. The secret of
// this boot stays: it is pinned, and another one would not be believed until the next boot.
func (c *Configurator) Disarm(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	present, err := c.Netconsole.List()
	errs := []error{err}
	for _, st := range present {
		c.Log.Info("removing", "target", st.Name, "listener", st.Remote())
		errs = append(errs, c.Netconsole.Disarm(st.Name))
	}
	c.removeMetrics()
	restored, err := c.Root.ApplySettings(nil)
	for _, s := range machine.Summary(restored) {
		c.Log.Info("restored kernel setting", "setting", s)
	}
	return errors.Join(append(errs, err, c.Root.Forget())...)
}
