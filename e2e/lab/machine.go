package lab

// machine is what QEMU has to be told about an architecture.
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
			// Pointer authentication with QEMU's own hash: the architected one takes half of the emulation's time.
			arguments: []string{"-accel", "tcg,thread=single", "-cpu", "max,pauth-impdef=on", "-machine", "virt,gic-version=3"},
			// The board has one PL011 that a guest can use, which is the console's.
			control: []string{"-device", "pci-serial,chardev=control"},
			append:  []string{"console=ttyAMA0", "random.trust_cpu=on"},
		}
	}
	return machine{
		pkg: "qemu-system-x86", program: "qemu-system-x86_64",
		// The CPUs are emulated, by one thread for all of them: with a thread each, a CPU now and then executes code that
		// another has just patched back (a static key), and the kernel dies of "Oops: int3" (one boot in fifty). Of the
		// features, QEMU 7.2's cmpxchg16b breaks the slab allocator of newer kernels, and la57 only costs time.
		arguments: []string{"-accel", "tcg,thread=single", "-cpu", "max,-cx16,-la57", "-machine", "q35"},
		control:   []string{"-serial", "chardev:control"},
		append: []string{
			"console=ttyS0",
			"no_timer_check", // which on a busy host finds that the timer does not work, and panics
			// As of a CPU of 6.25 GHz: every delay takes two or three times as long, among them the one jiffy that netpoll
			// waits (see preferMainLoop) and the seconds of kernel.panic.
			"lpj=25000000",
		},
	}
}
