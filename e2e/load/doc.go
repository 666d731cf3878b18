// Package load sends netconsole datagrams from thousands of sources to a receiver on this machine, as fast as asked.
//
// It is deliberately bounded: in number, in time, and in its destinations. Sources are addresses of 127.0.0.0/8, which are all
// local, and the socket is bound to lo: nothing it sends can leave the machine.
package load
