package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

// MachineSpec describes an EC2 instance to launch.
type MachineSpec struct {
	Net *lab.Net
	// Name is what the lab calls it, at most 11 bytes.
	Name string
	Disk *lab.Disk
	// Metadata is what the instance gets at MetadataAddr. Its primary interface, the only one that the machine really has, is in
	// the node subnet.
	Metadata *imds.Service
	// Append is added to the kernel's command line.
	Append []string
	// Reboot makes a reset boot the machine again. Otherwise a reset ends it.
	Reboot bool
}

// machineMemory is what the system, a kubelet and cloud-init's Python need, MiB.
const machineMemory = 1536

// Launch boots an instance: its firmware says that this is EC2, the network assigns its address, and the metadata service has
// the rest. It returns during the boot, as soon as the lab's agent answers, and ends the instance with s.
func Launch(ctx context.Context, s lab.Scope, spec MachineSpec) (*lab.VM, error) {
	if err := ServeIMDS(s, spec.Net.Router, spec.Metadata); err != nil {
		return nil, err
	}
	if err := serveDHCP(ctx, s, spec); err != nil {
		return nil, err
	}
	instance := spec.Metadata.Instance
	sum := sha256.Sum256([]byte(instance.ID))
	id := hex.EncodeToString(sum[:])
	uuid := fmt.Sprintf("ec2%s-%s-%s-%s-%s", id[:5], id[5:9], id[9:13], id[13:17], id[17:29])
	eni := instance.Interfaces[0]
	return lab.BootVM(ctx, s, lab.VMSpec{
		Net: spec.Net, Name: spec.Name, Disk: spec.Disk, MAC: eni.MAC, MemoryMiB: machineMemory,
		Addr: eni.Subnet4, Gateway: lab.NodeGateway.Addr(),
		SMBIOS: []string{
			"type=1,manufacturer=Amazon EC2,product=" + instance.Type + ",uuid=" + uuid + ",serial=" + uuid,
			"type=2,manufacturer=Amazon EC2,asset=" + instance.ID, // as on Nitro
		},
		// Without devkmsg=on a user may write only ten records in five seconds.
		Append: append([]string{"root=/dev/vda", "rw", "printk.devkmsg=on"}, spec.Append...),
		Reboot: spec.Reboot,
	})
}

// serveDHCP gives the instance its address for as long as s lasts.
func serveDHCP(ctx context.Context, s lab.Scope, spec MachineSpec) error {
	if err := lab.InstallPackages(ctx, s, "dnsmasq-base"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lastgasp-dhcp-")
	if err != nil {
		return fmt.Errorf("serve DHCP: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	eni := spec.Metadata.Instance.Interfaces[0]
	_, err = lab.StartDaemon(s, "dnsmasq", filepath.Join(dir, "dnsmasq.log"), spec.Net.Router.Command(context.Background(),
		"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--log-facility=-", "--leasefile-ro",
		"--port=0", // no DNS
		fmt.Sprintf("--dhcp-range=%s,static", eni.Subnet4.Masked().Addr()),
		fmt.Sprintf("--dhcp-host=%s,%s", eni.MAC, eni.IPv4[0]),
		fmt.Sprintf("--dhcp-option=option:router,%s", lab.NodeGateway.Addr()),
	))
	return err
}
