package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// VMSpec says what to boot. Only Net is required, and one of Kernel and Disk.
type VMSpec struct {
	Net *Net
	// Kernel is booted with the lab's own userland.
	Kernel *Kernel
	// Disk is a whole system to boot instead. It configures itself: MachineID, Addr, Gateway, Files, CrashModule, Modules and
	// Sysctls have no effect on it.
	Disk *Disk

	// Name is the host name and, after "tap-", the tap's; at most 11 bytes. Default: guest.
	Name string
	// MachineID is /etc/machine-id. Default: made from Name.
	MachineID string
	// Addr is eth0's address, Gateway the default route. Default: GuestAddr by NodeGateway.
	Addr    netip.Prefix
	Gateway netip.Addr
	// MAC is eth0's. Default: made from Addr.
	MAC net.HardwareAddr
	// NIC are more properties of eth0's virtio-net-pci device, in QEMU's words: "tx=timer,x-txtimer=20000000" makes it take
	// frames only every 20 ms.
	NIC []string
	// Devices are more devices, in the words of QEMU's -device.
	Devices []string
	// SMBIOS are arguments of QEMU's -smbios, such as "type=1,uuid=…".
	SMBIOS []string

	// MemoryMiB defaults to 512.
	MemoryMiB int
	// CPUs defaults to 1. With more, a panic may be cut short: emulated CPUs take turns, and netpoll soon gives up on a transmit
	// queue whose lock is held by a CPU that waits for its turn.
	CPUs int

	// Files are added to the initramfs, by their path in the guest.
	Files map[string]GuestFile
	// CrashModule is the path of what BuildCrashModule has built; without it only CrashSysrq and CrashInitExit work.
	CrashModule string
	// Modules are loaded at boot beside those for the network and configfs. netconsole is there but not loaded.
	Modules []string
	// Sysctls are set before the guest is ready, as in "kernel.panic": "5".
	Sysctls map[string]string
	// Append is added to the kernel's command line.
	Append []string
	// UEFI boots through OVMF with a store for variables that outlives resets, for efi_pstore. amd64 only.
	UEFI bool
	// Reboot makes a reset boot the guest again. Otherwise a reset ends QEMU.
	Reboot bool
}

// Disk is a system with its own userland. It has to run the lab's control server as agent, see BuildGuest.
type Disk struct {
	// Image is the path of a raw image of the root file system, which the guest sees as /dev/vda and writes to.
	Image string
	// Kernel and Initramfs are paths of what boots it: no boot loader is involved.
	Kernel, Initramfs string
}

// withDefaults fills in what is zero.
func (spec VMSpec) withDefaults() VMSpec {
	if spec.Name == "" {
		spec.Name = "guest"
	}
	if spec.MachineID == "" {
		sum := sha256.Sum256([]byte(spec.Name))
		spec.MachineID = hex.EncodeToString(sum[:16])
	}
	if !spec.Addr.IsValid() {
		spec.Addr = GuestAddr
		spec.Gateway = NodeGateway.Addr()
	}
	if spec.MAC == nil {
		ip := spec.Addr.Addr().As16()
		spec.MAC = net.HardwareAddr{0x52, 0x54, 0, ip[13], ip[14], ip[15]} // QEMU's prefix
	}
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = 512
	}
	if spec.CPUs == 0 {
		spec.CPUs = 1
	}
	return spec
}

// VM is a running guest.
type VM struct {
	spec VMSpec
	dir  string
	qemu *process
	link *controlLink
}

// Debian's OVMF: the code, and an empty store of variables.
const (
	firmwareCode  = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	firmwareStore = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// readyTimeout bounds a boot until the control server answers. That takes 3 s on an idle machine, 15 s from a disk, and more
// beside compilers.
const readyTimeout = 10 * time.Minute

// BootVM boots a guest in the node subnet and returns when it is ready for requests. It is gone when s ends; its serial
// log is kept if s ends in failure.
func BootVM(ctx context.Context, s Scope, spec VMSpec) (*VM, error) {
	spec = spec.withDefaults()
	packages := []string{spec.machine().pkg, "iproute2", "xz-utils"}
	if spec.UEFI {
		packages = append(packages, "ovmf")
	}
	if err := InstallPackages(ctx, s, packages...); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lastgasp-"+spec.Name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the guest: %w", err)
	}
	vm := &VM{spec: spec, dir: dir}
	s.Cleanup(func() { vm.tidy(s) })

	if spec.Disk == nil {
		if err := writeInitramfs(ctx, vm.initramfs(), spec, control.Config{
			Hostname:  spec.Name,
			MachineID: spec.MachineID,
			Addr:      spec.Addr,
			Gateway:   spec.Gateway,
			Sysctls:   spec.Sysctls,
		}); err != nil {
			return nil, err
		}
	}
	if spec.UEFI {
		store, err := os.ReadFile(firmwareStore)
		if err == nil {
			err = os.WriteFile(vm.variables(), store, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("make the firmware's store of variables: %w", err)
		}
	}
	if err := spec.Net.Tap(s, vm.tap()); err != nil {
		return nil, err
	}
	if err := vm.start(s); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := vm.WaitReady(ctx); err != nil {
		return nil, fmt.Errorf("boot %s: %w", vm.kernel(), err)
	}
	return vm, nil
}

// start runs QEMU in the node's namespace until s ends. QEMU's end of the control channel is its file descriptor 3.
func (vm *VM) start(s Scope) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	cmd := vm.spec.Net.Node.Command(context.Background(), vm.spec.machine().program, vm.arguments()...)
	cmd.ExtraFiles = []*os.File{theirs}
	vm.qemu, err = startProcess("qemu", filepath.Join(vm.dir, "qemu.log"), cmd)
	if err != nil {
		ours.Close()
		return err
	}
	vm.link = newControlLink(ours)
	s.Cleanup(vm.Kill)
	if err := preferMainLoop(vm.qemu.cmd.Process.Pid); err != nil {
		s.Logf("%v: a panic may arrive cut short", err)
	}
	return nil
}

// preferMainLoop gives QEMU's main thread, which moves frames and mostly sleeps, a real-time priority; the threads that emulate
// CPUs do not inherit it. netpoll waits one jiffy for a transmission, and in a panic drops everything after the first one that
// took longer. Without this most of a trace would be missing on a busy host.
func preferMainLoop(pid int) error {
	err := unix.SchedSetAttr(pid, &unix.SchedAttr{
		Policy:   unix.SCHED_RR,
		Priority: 1,
		Flags:    unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
	if err != nil {
		return fmt.Errorf("give qemu's main thread a real-time priority: %w", err)
	}
	return nil
}

// arguments returns QEMU's arguments.
func (vm *VM) arguments() []string {
	spec, m := vm.spec, vm.spec.machine()
	args := append(slices.Clone(m.arguments),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-smp", strconv.Itoa(spec.CPUs), "-m", strconv.Itoa(spec.MemoryMiB),
		"-kernel", vm.kernel(), "-initrd", vm.initramfs(),
		"-append", strings.Join(slices.Concat(m.append, []string{"net.ifnames=0"}, spec.Append), " "),
		"-chardev", "file,id=console,path="+vm.Serial(), "-serial", "chardev:console",
		"-chardev", "socket,id=control,fd=3",
		"-netdev", "tap,id=net,script=no,downscript=no,ifname="+vm.tap(),
		"-device", strings.Join(append([]string{"virtio-net-pci,netdev=net,romfile=,mac=" + spec.MAC.String()}, spec.NIC...), ","),
	)
	args = append(args, m.control...)
	if spec.Disk != nil {
		args = append(args, "-drive", "if=virtio,format=raw,cache=unsafe,file="+spec.Disk.Image)
	}
	if spec.UEFI {
		args = append(args, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+firmwareCode,
			"-drive", "if=pflash,unit=1,format=raw,file="+vm.variables())
	}
	for _, device := range spec.Devices {
		args = append(args, "-device", device)
	}
	for _, value := range spec.SMBIOS {
		args = append(args, "-smbios", value)
	}
	if !spec.Reboot {
		args = append(args, "-no-reboot")
	}
	return args
}

// kernel is the path of the kernel that is booted.
func (vm *VM) kernel() string {
	if vm.spec.Disk != nil {
		return vm.spec.Disk.Kernel
	}
	return vm.spec.Kernel.Image
}

func (vm *VM) initramfs() string {
	if vm.spec.Disk != nil {
		return vm.spec.Disk.Initramfs
	}
	return filepath.Join(vm.dir, "initramfs")
}

// variables is the path of the firmware's store.
func (vm *VM) variables() string { return filepath.Join(vm.dir, "variables.fd") }

func (vm *VM) tap() string { return "tap-" + vm.spec.Name }

// Serial is the path of the log of the guest's serial console.
func (vm *VM) Serial() string { return filepath.Join(vm.dir, "serial.log") }

// Wait waits until QEMU has ended: the guest has powered off or, without Reboot, reset itself.
func (vm *VM) Wait(ctx context.Context) error {
	select {
	case <-vm.qemu.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the guest's end: %w", ctx.Err())
	}
}

// Kill ends QEMU at once, as if the machine had lost power.
func (vm *VM) Kill() {
	vm.qemu.kill()
	vm.link.close()
}

// PowerOn starts a guest that has been killed, or has powered off, with what its disk holds, and waits until it is ready.
func (vm *VM) PowerOn(ctx context.Context, s Scope) error {
	vm.Kill()
	if err := vm.start(s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return vm.WaitReady(ctx)
}

// WaitReady waits until the guest is ready in a boot that no earlier WaitReady, nor BootVM, has seen.
func (vm *VM) WaitReady(ctx context.Context) error {
	err := vm.link.awaitBoot(ctx)
	if errors.Is(err, errGone) {
		<-vm.qemu.done
		said, _ := os.ReadFile(vm.qemu.log)
		err = fmt.Errorf("qemu has ended (%v): %s", vm.qemu.err, lastLines(string(said), 5))
	}
	if err != nil {
		return fmt.Errorf("wait for the guest: %w", err)
	}
	return nil
}

// tidy removes the guest's folder, but not its serial log if the scope ends in failure.
func (vm *VM) tidy(s Scope) {
	log, err := os.ReadFile(vm.Serial())
	if !s.Failed() || err != nil {
		os.RemoveAll(vm.dir)
		return
	}
	os.Remove(filepath.Join(vm.dir, "initramfs"))
	os.Remove(filepath.Join(vm.dir, "qemu.log"))
	os.Remove(vm.variables())
	s.Logf("the serial log of %s (%s) is kept as %s and ends so:\n%s",
		vm.spec.Name, filepath.Base(vm.kernel()), vm.Serial(), lastLines(string(log), 30))
}
