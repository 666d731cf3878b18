package receive

import (
	"sync/atomic"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// Metrics are the counters of all shards. They may be read at any time.
type Metrics struct {
	Datagrams   atomic.Int64 // received
	Verified    atomic.Int64 // of them, those that carried the secret of their boot
	Malformed   atomic.Int64 // datagrams and canaries that are not what netconsole or the configurator sends
	Refused     atomic.Int64 // for want of room in the table
	OverQuota   atomic.Int64 // from parties that sent too many
	ReadErrors  atomic.Int64
	KernelDrops atomic.Int64 // because the receive buffer was full

	Records          atomic.Int64
	Canaries         atomic.Int64
	CanariesRepeated atomic.Int64 // that proved nothing new
	CanariesForeign  atomic.Int64 // of another cluster
	CanariesStranger atomic.Int64 // answered, but of no Node of the cluster
	Acks             atomic.Int64
	AcksLimited      atomic.Int64 // canaries and parts of obituaries not answered because their sender sent too many

	Obituaries         atomic.Int64 // that were whole, of nodes whose secret is known
	ObituariesStranger atomic.Int64 // parts of others, dropped

	HandoverFull     atomic.Int64 // times that an incident had to wait
	IncidentsDropped atomic.Int64 // because its party had too many waiting
	Waiting          atomic.Int64 // incidents that are waiting now

	Sources atomic.Int64 // in the table now
	Nodes   atomic.Int64 // verified, in the table now
	Evicted atomic.Int64 // sources forgotten to make room
	Cramped atomic.Int64 // times that the lines of a source were given up at once

	Buffer atomic.Int64 // bytes of receive buffer that the kernel granted

	// Incident is called once for each incident, Judged with the time from reading its datagram to handing it over. Both may
	// be nil.
	Incident func(detect.Verdict, string)
	Judged   func(time.Duration)
}
