// Package listener hears kernels die. It owns the sockets, the table of sources and the HTTP side; what a datagram says
// is decided by netconsole and detect, what is done about it by cleanup.
//
// One goroutine per socket reads datagrams and owns the state of every source that sends to it: no locks on that state,
// and nothing it does may wait. An incident is handed to the Sink, which answers at once whether it took it; what was not
// taken waits in the shard's hand-over, deaths before reports, and is offered again. So a stalled API server can never
// deafen the listener, and neither can whoever reads the records it ships or the acks it sends.
//
// Whatever is kept is bounded: sources by number and per address, datagrams by a quota per source, waiting incidents by
// number and size. Each bound has a counter that tells when it was met.
package listener
