// Package configurator keeps a node's netconsole targets true: the right listeners, reached the right way, proved end
// to end, and honest about what this kernel would not say when it dies.
//
// Everything that happens is one pass (Configurator.Apply): find the listeners, resolve how a datagram gets there, build
// a plain configfs.Spec for each, compare with what the kernel has, and only then touch it. A canary through the kernel's
// own path, acknowledged by the listener, proves the result. Watch runs the same pass again whenever something moved.
package configurator
