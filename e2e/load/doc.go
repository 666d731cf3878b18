// Package load sends netconsole datagrams from thousands of sources to a receiver on this machine, as fast as asked.
//
// It is bounded on purpose: in number, in time, and in where it can go. Sources are addresses of 127.0.0.0/8, all of which
// are local, and the socket is bound to lo: nothing it sends can leave the machine.
package load
