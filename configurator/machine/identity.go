package machine

import (
	"errors"
	"os"
	"path"
	"strings"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Identity is who this machine says it is in every record.
type Identity struct {
	Instance string `json:"instance"` // EC2 instance id, or the machine id elsewhere
	Boot     string `json:"boot"`     // /proc/sys/kernel/random/boot_id
}

// OnEC2 reports whether the machine's firmware says that it is an EC2 instance, without asking the network.
func (r Root) OnEC2() bool {
	return strings.HasPrefix(r.Text("sys/class/dmi/id/sys_vendor"), "Amazon EC2") ||
		strings.HasPrefix(r.Text("sys/class/dmi/id/product_uuid"), "ec2") ||
		strings.HasPrefix(r.Text("sys/hypervisor/uuid"), "ec2") // Xen instances
}

// Identity returns who this machine is. Nitro instances have their id in the board's asset tag; if the firmware of an EC2
// instance does not say it, instanceID asks the metadata service. An id of another form came from somebody else, and a kernel that
// cannot be armed with it would be silent.
func (r Root) Identity(instanceID func() (string, error)) (Identity, error) {
	id := Identity{Boot: r.BootID()}
	if id.Boot == "" {
		return id, errors.New("read /proc/sys/kernel/random/boot_id: nothing there; is /proc mounted?")
	}
	if r.OnEC2() {
		if id.Instance = r.Text("sys/class/dmi/id/board_asset_tag"); netconsole.IsInstanceID(id.Instance) {
			return id, nil
		}
		if i, err := instanceID(); err == nil && netconsole.IsInstanceID(i) {
			id.Instance = i
			return id, nil
		}
		// Being armed under another name is better than being silent: the listener still knows this node by its address.
	}
	if id.Instance = r.Text("etc/machine-id"); !netconsole.IsMachineID(id.Instance) {
		id.Instance = id.Boot // an image without machine id: at least this is unique, though it changes at each boot
	}
	return id, nil
}

// BootID returns the kernel's id of this boot, empty if /proc is not mounted.
func (r Root) BootID() string { return r.Text("proc/sys/kernel/random/boot_id") }

// MACs returns the hardware addresses of this machine's interfaces.
func (r Root) MACs() []string {
	var macs []string
	for _, d := range r.devices() {
		if mac := r.Text(path.Join(netDir, d, "address")); mac != "" && mac != "00:00:00:00:00:00" {
			macs = append(macs, mac)
		}
	}
	return macs
}

// DeviceOf returns the name of the interface with a hardware address, empty if there is none.
func (r Root) DeviceOf(mac string) string {
	for _, d := range r.devices() {
		if mac != "" && r.Text(path.Join(netDir, d, "address")) == mac {
			return d
		}
	}
	return ""
}

// devices returns the names of this machine's network devices, sorted.
func (r Root) devices() []string {
	entries, _ := os.ReadDir(r.Path(netDir)) // not there: none
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
