// Package receive takes datagrams from the sockets to the Sink: it finds out who sent one and hands on what it says. What a
// datagram says is decided by netconsole and detect, what is done about it by the Sink.
//
// One goroutine per socket reads datagrams and owns a Shard, the state of every source that sends to it: no locks on that
// state, and nothing the goroutine does may wait. An incident is handed to the Sink, which answers at once whether it took
// it; what was not taken waits with its source and is offered again. So a stalled API server can never deafen the
// listener, nor can a slow reader of its shipped records or its acks.
//
// There are two lanes. A datagram that carries the secret which the cluster knows for that boot is verified, and belongs to
// its node wherever it came from; all others belong to strangers, who share what their address is granted. Each lane has
// its own room in the table, the hand-over and memory, and the verified one is served first: a sender without the secret
// takes nothing away from a node, not even from the same address and port. Within a lane every party, a node or an address,
// has its own quota and its turn.
//
// Everything that is kept is bounded, by party and in total. Each bound has a counter of how often it was met.
package receive
