package lab

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDepends(t *testing.T) {
	tests := []struct {
		name    string
		modinfo string
		want    []string
	}{
		{"netconsole of 6.12", "license=GPL\x00depends=configfs\x00intree=Y\x00name=netconsole\x00", []string{"configfs"}},
		{"virtio_net of 6.1", "alias=virtio:d00000001v*\x00depends=virtio_ring,virtio,net_failover\x00", []string{"virtio_ring", "virtio", "net_failover"}},
		{"names with a dash", "depends=crc32c-generic\x00", []string{"crc32c_generic"}},
		{"nothing needed", "license=GPL\x00depends=\x00", nil},
		{"another key that ends alike", "softdepends=foo\x00", nil},
		{"empty section", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseDepends([]byte(tt.modinfo))); diff != "" {
				t.Errorf("dependencies (-want +got):\n%s", diff)
			}
		})
	}
}

func TestModulesDep(t *testing.T) {
	modules := []module{
		{name: "failover", path: "kernel/net/core/failover.ko"},
		{name: "net_failover", path: "kernel/drivers/net/net_failover.ko", depends: []string{"failover"}},
		{name: "virtio", path: "kernel/drivers/virtio/virtio.ko"},
		// virtio_ring is built in and therefore has no path.
		{name: "virtio_net", path: "kernel/drivers/net/virtio_net.ko", depends: []string{"virtio_ring", "virtio", "net_failover"}},
		{name: "llc", path: "kernel/net/llc/llc.ko"},
		{name: "stp", path: "kernel/net/802/stp.ko", depends: []string{"llc"}},
		{name: "bridge", path: "kernel/net/bridge/bridge.ko", depends: []string{"llc", "stp"}}, // in either order, by kernel
	}
	const want = `kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/net/llc/llc.ko:
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
`
	if diff := cmp.Diff(want, modulesDep(modules)); diff != "" {
		t.Errorf("modules.dep (-want +got):\n%s", diff)
	}
}

func TestModuleName(t *testing.T) {
	for path, want := range map[string]string{
		"kernel/drivers/net/netconsole.ko":         "netconsole",
		"kernel/drivers/net/netconsole.ko.xz":      "netconsole",
		"kernel/arch/x86/crypto/aesni-intel.ko.xz": "aesni_intel",
		"virtio-net": "virtio_net",
	} {
		if got := moduleName(path); got != want {
			t.Errorf("moduleName(%q) = %q, want %q", path, got, want)
		}
	}
}
