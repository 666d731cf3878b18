// Package receive is the way of a datagram from the socket to the Sink: who sent it, what it says, and handing that on.
// What it says is decided by netconsole and detect, what is done about it by the Sink.
//
// One goroutine per socket reads datagrams and owns a Shard, the state of every source that sends to it: no locks on that
// state, and nothing the goroutine does may wait. An incident is handed to the Sink, which answers at once whether it took
// it; what was not taken waits with its source and is offered again. So a stalled API server can never deafen the
// listener, and neither can whoever reads the records it ships or the acks it sends.
//
// There are two lanes. A datagram that carries the secret which the cluster knows for that boot is verified, and belongs to
// its node wherever it came from; all others belong to strangers, who share what their address is granted. Each lane has
// its own room in the table, the hand-over and memory, and the verified one is served first: nobody without the secret
// takes anything away from a node, not even from the same address and port. Within a lane every party, a node or an
// address, has its own quota and its turn.
//
// Whatever is kept is bounded, by party and in all. Each bound has a counter that says when it was met.
package receive
