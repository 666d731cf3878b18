// Package configurator keeps a node's netconsole targets right: the right listeners, reached the right way, proved end to
// end. If a panic of this kernel would not be heard, it says so.
//
// One pass (Configurator.Apply) does everything: it finds the listeners, resolves how a datagram reaches each, builds a plain
// configfs.Spec for each, compares these with the kernel's targets, and only then changes the kernel. A canary through the
// kernel's own path, acknowledged by the listener, proves the result. A Watcher runs the same pass whenever something changes.
package configurator
