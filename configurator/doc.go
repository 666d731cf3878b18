// Package configurator keeps a node's netconsole targets right: the right listeners, reached the right way, proved end to
// end. Where a panic of this kernel would not be heard it says so.
//
// Everything is done by one pass (Configurator.Apply): find the listeners, resolve how a datagram gets there, build a plain
// configfs.Spec for each, compare them with what the kernel has, and only then change it. A canary through the kernel's own
// path, acknowledged by the listener, proves the result. A Watcher runs the same pass whenever something has changed.
package configurator
