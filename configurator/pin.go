package configurator

import (
	"errors"
	"io/fs"

	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// EnrollConfig says whose credentials are used to pin our own Node.
type EnrollConfig struct {
	Kubeconfig string // the kubelet's; empty: look in the usual places
}

// Kubeconfigs returns the files to try, in this order.
func (c EnrollConfig) Kubeconfigs() []string {
	if c.Kubeconfig != "" {
		return []string{c.Kubeconfig}
	}
	return enroll.Kubeconfigs()
}

// EnrollState returns the name of the file below root that holds the state of enrolment.
func EnrollState(root machine.Root) string { return root.Path(machine.RunDir, "enroll.json") }

// Pin returns the pin of this boot, zero while there is no secret.
func Pin(root machine.Root) (enroll.Pin, error) {
	boot := root.BootID()
	secret, err := root.Secret(boot)
	if err != nil || secret == "" {
		return enroll.Pin{}, err
	}
	return enroll.Pin{Boot: boot, Sum: secret.Sum()}, nil
}

// enrolment returns the state of enrolment, nil if it was never tried. A state about another secret than the current one, as
// after a second installation, is out of date.
func enrolment(root machine.Root) (*enroll.State, error) {
	s, err := enroll.ReadState(EnrollState(root))
	if s == nil || err != nil {
		return nil, err
	}
	pin, err := Pin(root)
	switch {
	case errors.Is(err, fs.ErrPermission): // only root may read the secret
	case err != nil:
		return nil, err
	case s.Pin != "" && s.Pin != pin.String():
		s.Enrolled, s.Claimed = false, false
		s.Why = "the secret has changed since; check that lastgasp-configurator-watch.service is running, it writes the pin"
	}
	return s, nil
}
