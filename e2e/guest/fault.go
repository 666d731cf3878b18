package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fault makes this process, not the kernel, store to a bad address. The kernel then logs a segfault or, called with an
// argument, a general protection fault: words that a listener must not take for its own.
func fault(args []string) {
	address := uintptr(8)
	if len(args) > 0 {
		address = 0xdead000000000100 // not canonical
	}
	// Go turns SIGSEGV into a panic of its own, and the kernel logs nothing. Restore the default action, as in C programs.
	var defaultAction [4]uint64 // struct sigaction, all zero
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&defaultAction)), 0, 8, 0, 0)
	var p *int
	*(*uintptr)(unsafe.Pointer(&p)) = address
	*p = 1
}
