package listener

import (
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Sink takes what the listener hears. Neither method may block: false means "not now, offer it again".
type Sink interface {
	// Offer hands over an incident.
	Offer(detect.Incident) bool
	// Canary hands over the identity behind a canary that arrived from src.
	Canary(src netip.Addr, id netconsole.Identity, at time.Time) bool
}

var (
	_ Sink = (*cleanup.Engine)(nil)
	_ Sink = (*cleanup.Directory)(nil)
)
