// Package listener hears kernels die. It owns the sockets, the table of sources and the HTTP side; what a datagram says
// is decided by netconsole and detect, what is done about it by cleanup.
//
// One goroutine per socket reads datagrams and owns the state of every source that sends to it: no locks, and nothing
// it does may wait. An incident is handed to the Sink, which answers at once whether it took it; an incident that was
// not taken stays with its source and is offered again. So a stalled API server can never deafen the listener.
package listener
