package machine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

// Identity is who this machine says it is in every record.
type Identity struct {
	Instance string `json:"instance"` // EC2 instance id, or the machine id elsewhere
	Boot     string `json:"boot"`     // /proc/sys/kernel/random/boot_id
}

// instanceForm is the form of an EC2 instance id, machineForm that of a machine id (machine-id(5)). What has another form came from
// somebody else, and a kernel that cannot be armed with it would be silent.
var (
	instanceForm = lazyregexp.New(`^i-[0-9a-f]{8,17}$`)
	machineForm  = lazyregexp.New(`^[0-9a-f]{32}$`)
)

// OnEC2 reports whether the machine's firmware says that it is an EC2 instance, without asking the network.
func (r Root) OnEC2() bool {
	return strings.HasPrefix(r.text("sys/class/dmi/id/sys_vendor"), "Amazon EC2") ||
		strings.HasPrefix(r.text("sys/class/dmi/id/product_uuid"), "ec2") ||
		strings.HasPrefix(r.text("sys/hypervisor/uuid"), "ec2") // Xen instances
}

// Identity returns who this machine is. Nitro instances have their id in the board's asset tag; if the firmware of an EC2
// instance does not say it, instanceID asks the metadata service.
func (r Root) Identity(instanceID func() (string, error)) (Identity, error) {
	id := Identity{Boot: r.bootID()}
	if id.Boot == "" {
		return id, errors.New("read /proc/sys/kernel/random/boot_id: nothing there; is /proc mounted?")
	}
	if r.OnEC2() {
		if id.Instance = r.text("sys/class/dmi/id/board_asset_tag"); instanceForm.MatchString(id.Instance) {
			return id, nil
		}
		if i, err := instanceID(); err == nil && instanceForm.MatchString(i) {
			id.Instance = i
			return id, nil
		}
		// Being armed under another name is better than being silent: the listener still knows this node by its address.
	}
	if id.Instance = r.text("etc/machine-id"); !machineForm.MatchString(id.Instance) {
		id.Instance = id.Boot // an image without machine id: at least this is unique, though it changes at each boot
	}
	return id, nil
}

// bootID returns the kernel's id of this boot, empty if /proc is not mounted.
func (r Root) bootID() string { return r.text("proc/sys/kernel/random/boot_id") }

// MACs returns the hardware addresses of this machine's interfaces.
func (r Root) MACs() []string {
	files, _ := filepath.Glob(r.Path("sys/class/net/*/address"))
	var macs []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if mac := strings.TrimSpace(string(data)); err == nil && mac != "" && mac != "00:00:00:00:00:00" {
			macs = append(macs, mac)
		}
	}
	return macs
}

// DeviceOf returns the name of the interface with a hardware address, empty if there is none.
func (r Root) DeviceOf(mac string) string {
	files, _ := filepath.Glob(r.Path("sys/class/net/*/address"))
	slices.Sort(files)
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(data)) == mac {
			return filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}
