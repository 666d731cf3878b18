package configurator

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// EnrollConfig says with whose credentials the own Node is pinned.
type EnrollConfig struct {
	Kubeconfig string // the kubelet's, empty: where kubelets usually have it
}

// Kubeconfigs are the files to try, in this order.
func (c EnrollConfig) Kubeconfigs() []string {
	if c.Kubeconfig != "" {
		return []string{c.Kubeconfig}
	}
	return enroll.Kubeconfigs()
}

// EnrollState is the file below root that holds how enrolment stands.
func EnrollState(root machine.Root) string { return root.Path(machine.RunDir, "enroll.json") }

// Pin is that of this boot, zero while there is no secret.
func Pin(root machine.Root) (enroll.Pin, error) {
	data, err := os.ReadFile(root.Path("proc/sys/kernel/random/boot_id"))
	if err != nil {
		return enroll.Pin{}, err
	}
	boot := strings.TrimSpace(string(data))
	secret, err := root.Secret(boot)
	if err != nil || secret == "" {
		return enroll.Pin{}, err
	}
	return enroll.Pin{Boot: boot, Sum: secret.Sum()}, nil
}

// enrolment is how enrolment stands, nil if nobody has tried. What it says of another secret than that of now, as after a
// second installation, is out of date.
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
		s.Why = "there is another secret since; lastgasp-configurator-watch.service writes the pin, look whether it is running"
	}
	return s, nil
}
