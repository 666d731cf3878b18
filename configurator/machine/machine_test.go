package machine

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

var (
	gatewayMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 1}
	someone    = Identity{Instance: "i-0123456789abcdef0", Boot: "5a2e4e5c-8a3e-4a3d-9d5b-0f5a5c1e7f11"}
	goodFacts  = Facts{Facts: netconsole.Facts{Kernel: "6.12.117", Panic: 10, ConsoleLevel: 7, Version: "v0"}, Devkmsg: "ratelimit"}
)

// target is one in the kernel with our identity.
func target(name string, enabled bool) configfs.State {
	return configfs.State{
		Spec:    configfs.Spec{Name: name, RemoteMAC: gatewayMAC, Userdata: []configfs.Datum{{Key: "boot", Value: someone.Boot}}},
		Enabled: enabled,
	}
}

// world is the files of a machine.
type world struct{ root Root }

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{Root(t.TempDir())}
	w.write(t, "proc/sys/kernel/random/boot_id", someone.Boot)
	w.write(t, "proc/sys/kernel/osrelease", "6.12.117-cloud-amd64")
	w.write(t, "proc/sys/kernel/panic", "10")
	w.write(t, "proc/sys/kernel/panic_on_oops", "1")
	w.write(t, "proc/sys/kernel/printk", "7\t4\t1\t7")
	w.write(t, "proc/sys/kernel/printk_devkmsg", "ratelimit")
	w.write(t, "etc/machine-id", "0123456789abcdef0123456789abcdef")
	w.write(t, "sys/class/net/ens5/address", "02:00:00:00:00:05")
	return w
}

func (w world) write(t *testing.T, path, text string) {
	t.Helper()
	full := w.root.Path(path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
