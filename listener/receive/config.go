package receive

import (
	"crypto/ed25519"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Config is what shards are made of. Only Judge, Sink and Metrics are required. Whatever it names is called by several
// goroutines at once and must not block.
type Config struct {
	Judge   *detect.Config
	Sink    Sink
	Metrics *Metrics
	// Pins knows the secrets of boots; without it no sender can be verified.
	Pins Pins
	// Nodes knows the Nodes of the cluster; without it every sender is taken for one.
	Nodes Nodes
	// Canaries is given every canary that is answered.
	Canaries Canaries
	// Farewells is given every farewell that is answered.
	Farewells Farewells
	// Obituaries is given every whole obituary of a node whose secret is known; without it none is acknowledged.
	Obituaries Obituaries
	// Records is given every record.
	Records Records
	// Cluster is the name that a canary must carry to be answered.
	Cluster string
	// Replay says that the datagrams are a capture's: no sender is limited in how much it sends.
	Replay bool
	// Key signs the acks; without one they are not signed.
	Key ed25519.PrivateKey
}

// Sink takes what was received. Neither method may block: false means "not now, offer it again".
type Sink interface {
	// Offer hands over an incident.
	Offer(detect.Incident) bool
	// Canary hands over the identity behind a canary that arrived from src.
	Canary(src netip.Addr, id netconsole.Identity, at time.Time) bool
}

// Pins knows the secrets that nodes have pinned, or that were claimed by canary.
type Pins interface {
	// Pinned reports whether a Node that runs the boot carries a pin or claim with this netconsole.Secret.Sum.
	Pinned(boot, sum string) bool
}

// Nodes knows the Nodes of the cluster.
type Nodes interface {
	// Known reports whether there is a Node with that instance id or, if it is empty, with that address.
	Known(instance string, addr netip.Addr) bool
}

// Canaries takes the proofs that a node can be heard.
type Canaries interface {
	// Canary reports whether the canary proves anything that was not known.
	Canary(Canary) (fresh bool)
}

// Canary is a canary that was acknowledged.
type Canary struct {
	netconsole.Canary
	At     time.Time
	From   netip.Addr
	Seq    uint64 // of its record
	Secret netconsole.Secret
	Known  bool // there is a Node that is the sender
	// Verified: and it came with the secret that is known of that boot.
	Verified bool
}

// Obituaries takes what nodes say about how their previous boot ended.
type Obituaries interface {
	// Obituary hands over an obituary that arrived from src under a secret that is known, and reports whether it has been
	// dealt with. It is handed over again until it has.
	Obituary(src netip.Addr, id netconsole.Identity, o netconsole.Obituary, at time.Time) (done bool)
}

// Records takes every record that was received.
type Records interface {
	// Record lends a record that arrived from a source.
	Record(now time.Time, from netip.AddrPort, r *netconsole.Record)
}
