package configurator

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/ec2"
)

// Identity is who this machine says it is with every record.
type Identity struct {
	Instance string `json:"instance"` // EC2 instance id, or the machine id elsewhere
	Boot     string `json:"boot"`     // /proc/sys/kernel/random/boot_id
}

// instanceID is the form of an EC2 instance id.
var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// OnEC2 reports whether the machine's firmware says that it is an EC2 instance, without asking the network.
func (r Root) OnEC2() bool {
	return strings.HasPrefix(r.text("sys/class/dmi/id/sys_vendor"), "Amazon EC2") ||
		strings.HasPrefix(r.text("sys/class/dmi/id/product_uuid"), "ec2") ||
		strings.HasPrefix(r.text("sys/hypervisor/uuid"), "ec2") // Xen instances
}

// Identity finds out who this machine is. The metadata service is asked, through instance, only on EC2 and only where the
// firmware does not tell: Nitro instances have their id in the board's asset tag.
func (r Root) Identity(instance func() (ec2.Instance, error)) (Identity, error) {
	id := Identity{Boot: r.text("proc/sys/kernel/random/boot_id")}
	if id.Boot == "" {
		return id, errors.New("read /proc/sys/kernel/random/boot_id: nothing there; is /proc mounted?")
	}
	if r.OnEC2() {
		if id.Instance = r.text("sys/class/dmi/id/board_asset_tag"); instanceID.MatchString(id.Instance) {
			return id, nil
		}
		if i, err := instance(); err == nil {
			id.Instance = i.ID
			return id, nil
		}
		// Better armed under another name than silent: the listener still knows us by our address.
	}
	if id.Instance = r.text("etc/machine-id"); id.Instance == "" || id.Instance == "uninitialized" {
		id.Instance = id.Boot // an image without machine id: unique at least, though anew at each boot
	}
	return id, nil
}

// MACs are the hardware addresses of this machine's interfaces.
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

// deviceOf is the name of the interface with a hardware address, empty if there is none.
func (r Root) deviceOf(mac string) string {
	files, _ := filepath.Glob(r.Path("sys/class/net/*/address"))
	slices.Sort(files)
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(data)) == mac {
			return filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}
