package configurator

import (
	"errors"
	"io/fs"

	"github.com/lastgasp/lastgasp/configurator/enroll"
)

// enrollFile is how the pin of the own Node stands.
const enrollFile = "enroll.json"

// EnrollState is the file in which enrolment says how it stands.
func (r Root) EnrollState() string { return r.Path(runDir, enrollFile) }

// Pin is that of this boot, zero while there is no secret.
func (r Root) Pin() (enroll.Pin, error) {
	boot := r.text("proc/sys/kernel/random/boot_id")
	secret, err := r.gasp(boot)
	if err != nil || secret == "" {
		return enroll.Pin{}, err
	}
	return enroll.Pin{Boot: boot, Sum: secret.Sum()}, nil
}

// enrolment is how enrolment stands, nil if nobody has tried. What it says of another secret than that of now, as after a
// second installation, is out of date.
func (r Root) enrolment() (*enroll.State, error) {
	s, err := enroll.ReadState(r.EnrollState())
	if s == nil || err != nil {
		return nil, err
	}
	pin, err := r.Pin()
	switch {
	case errors.Is(err, fs.ErrPermission): // only root may read the secret
	case err != nil:
		return nil, err
	case s.Pin != "" && s.Pin != pin.String():
		s.Enrolled, s.Claimed = false, false
		s.Why = "the secret is another since; lastgasp-configurator-watch.service enrols, look whether it is running"
	}
	return s, nil
}
