package machine

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdentity(t *testing.T) {
	const machine = "0123456789abcdef0123456789abcdef" // of newWorld
	mustNot := func() (string, error) { panic("the metadata service was asked without need") }
	for _, tt := range []struct {
		name  string
		files map[string]string
		ask   func() (string, error)
		want  string
	}{
		{"a machine of one's own", map[string]string{"sys/class/dmi/id/sys_vendor": "QEMU"}, mustNot, machine},
		{"an image that has no machine id yet", map[string]string{"etc/machine-id": "uninitialized"}, mustNot, someone.Boot},
		{"a Nitro instance has its id in the firmware", map[string]string{
			"sys/class/dmi/id/sys_vendor":      "Amazon EC2",
			"sys/class/dmi/id/board_asset_tag": "i-0fedcba9876543210",
		}, mustNot, "i-0fedcba9876543210"},
		{"a Xen instance has to ask", map[string]string{"sys/hypervisor/uuid": "ec2e1916-9099-7caf-fd21-012345abcdef"},
			func() (string, error) { return "i-0123456789abcdef0", nil }, "i-0123456789abcdef0"},
		{"an instance whose id cannot be had", map[string]string{"sys/class/dmi/id/product_uuid": "ec2e1916-9099-7caf-fd21-012345abcdef"},
			func() (string, error) { return "", errors.New("timeout") }, machine},
		{"a metadata service that answers with a page", map[string]string{"sys/hypervisor/uuid": "ec2e1916-9099-7caf-fd21-012345abcdef"},
			func() (string, error) { return "<html>please log in</html>", nil }, machine},
		{"one that answers with more than an id", map[string]string{"sys/hypervisor/uuid": "ec2e1916-9099-7caf-fd21-012345abcdef"},
			func() (string, error) { return "i-0123456789abcdef0\n boot=x", nil }, machine},
		{"a machine id that is none", map[string]string{"etc/machine-id": "lost, ask the vendor"}, mustNot, someone.Boot},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for file, text := range tt.files {
				w.write(t, file, text)
			}
			got, err := w.root.Identity(tt.ask)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Identity{Instance: tt.want, Boot: someone.Boot}, got); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Root(t.TempDir()).Identity(mustNot); err == nil {
		t.Error("a machine without /proc has a boot id")
	}
}
