package lab

// machine is QEMU's configuration for an architecture.
type machine struct {
	pkg, program string   // Debian's package, and what is in it
	arguments    []string // accelerator, CPU and board
	control      []string // the serial port of the control channel, see control.Port
	append       []string // to the kernel's command line
}

// machine is that of the kernel. A Disk is amd64.
func (spec VMSpec) machine() machine {
	if spec.Kernel != nil && spec.Kernel.Arch == "arm64" {
		return machine{
			pkg: "qemu-system-arm", program: "qemu-system-aarch64",
			// Each CPU has a thread: with one for all, a CPU that spins doubles the time that others take for a delay. Pointer
			// authentication with QEMU's own hash: the architecture's takes half of the emulation's time.
			arguments: []string{"-accel", "tcg,thread=multi", "-cpu", "max,pauth-impdef=on", "-machine", "virt,gic-version=3"},
			// The board has one PL011 that a guest can use, which is the console's.
			control: []string{"-device", "pci-serial,chardev=control"},
			append:  []string{"console=ttyAMA0", "random.trust_cpu=on"},
		}
	}
	return machine{
		pkg: "qemu-system-x86", program: "qemu-system-x86_64",
		// One thread emulates all CPUs. With a thread each, a CPU sometimes executes code that another has just patched back (a
		// static key), and the kernel dies of "Oops: int3" (one boot in fifty). QEMU 7.2's cmpxchg16b breaks the slab allocator
		// of newer kernels, and la57 only costs time.
		arguments: []string{"-accel", "tcg,thread=single", "-cpu", "max,-cx16,-la57", "-machine", "q35"},
		control:   []string{"-serial", "chardev:control"},
		append: []string{
			"console=ttyS0",
			"no_timer_check", // on a busy host that check fails, and the kernel panics
			// The value of a 6.25 GHz CPU. It makes every delay two or three times as long, among them the one jiffy that netpoll
			// waits (see preferMainLoop) and the seconds of kernel.panic.
			"lpj=25000000",
		},
	}
}
