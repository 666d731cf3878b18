package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLookUp(t *testing.T) {
	index := filepath.Join(t.TempDir(), "modules.dep")
	const dep = `kernel/fs/configfs/configfs.ko:
kernel/drivers/net/netconsole.ko: kernel/fs/configfs/configfs.ko
kernel/arch/x86/crypto/aesni-intel.ko: kernel/crypto/cryptd.ko
`
	if err := os.WriteFile(index, []byte(dep), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, module string
		want         []string
	}{
		{"needs nothing", "configfs", []string{"kernel/fs/configfs/configfs.ko"}},
		{"needs another, which comes last", "netconsole", []string{"kernel/drivers/net/netconsole.ko", "kernel/fs/configfs/configfs.ko"}},
		{"dash and underscore are the same", "aesni_intel", []string{"kernel/arch/x86/crypto/aesni-intel.ko", "kernel/crypto/cryptd.ko"}},
		{"only needed by others", "cryptd", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := lookUp(index, tt.module)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no index knows no module", func(t *testing.T) {
		got, err := lookUp(index+".missing", "configfs")
		if err != nil || got != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}
