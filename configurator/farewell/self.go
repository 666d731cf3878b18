package farewell

import (
	"errors"
	"net/netip"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Self is who sends a farewell, and to whom.
type Self struct {
	Identity machine.Identity
	Secret   netconsole.Secret // empty if there is none
	Routes   []Route
}

// Route is the way to a listener.
type Route struct {
	Local  netip.AddrPort // source; invalid: any
	Remote netip.AddrPort
	// Trusted says that the listener may be sent the secret. With a key only one that has proved itself may.
	Trusted bool
}

// errNobody means that there is no listener to send a farewell to.
var errNobody = errors.New("no listener is known; check lastgasp-configurator status")

// ReadSelf reads what the last pass has left. Keyed says that listeners have to prove themselves (endpoint.key).
func ReadSelf(root machine.Root, keyed bool) (Self, error) {
	state, err := root.State()
	switch {
	case err != nil:
		return Self{}, err
	case state == nil || len(state.Targets) == 0:
		return Self{}, errNobody
	}
	self := Self{Identity: state.Identity}
	if self.Secret, err = root.Secret(state.Identity.Boot); err != nil {
		return Self{}, err
	}
	for _, t := range state.Targets {
		self.Routes = append(self.Routes, Route{Local: t.Local, Remote: t.Listener, Trusted: !keyed || t.Acked && t.Known})
	}
	return self, nil
}
