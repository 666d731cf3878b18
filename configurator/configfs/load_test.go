package configfs

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// disk is a root file system of files and their text.
func disk(files map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

func TestPlanModule(t *testing.T) {
	const (
		release = "6.12.0-cloud"
		dep     = "lib/modules/" + release + "/modules.dep"
		builtin = "lib/modules/" + release + "/modules.builtin"
		dir     = "lib/modules/" + release + "/kernel/"
	)
	tests := []struct {
		name  string
		files map[string]string
		want  []module
		err   string
	}{
		{
			name:  "what it needs comes first",
			files: map[string]string{dep: "kernel/fs/configfs/configfs.ko:\nkernel/drivers/net/netconsole.ko: kernel/fs/configfs/configfs.ko\n"},
			want:  []module{{path: dir + "fs/configfs/configfs.ko"}, {path: dir + "drivers/net/netconsole.ko"}},
		},
		{
			name:  "compressed",
			files: map[string]string{dep: "kernel/drivers/net/netconsole.ko.xz:\n"},
			want:  []module{{path: dir + "drivers/net/netconsole.ko.xz"}},
		},
		{
			name:  "another of a similar name",
			files: map[string]string{dep: "kernel/x/my-netconsole.ko:\nkernel/x/netconsole2.ko:\n", builtin: "kernel/drivers/net/netconsole.ko\n"},
		},
		{
			name:  "built in",
			files: map[string]string{dep: "", builtin: "kernel/drivers/net/netconsole.ko\n"},
		},
		{
			name:  "a kernel without it",
			files: map[string]string{dep: "kernel/drivers/net/dummy.ko:\n", builtin: ""},
			err:   "kernel 6.12.0-cloud comes without module netconsole (another package may have it)",
		},
		{
			name: "a kernel whose modules are not there",
			err:  "the modules of this kernel are not installed (/lib/modules/6.12.0-cloud)",
		},
		{
			name: "with modprobe's options, an administrator's file instead of the distribution's",
			files: map[string]string{
				dep:                             "kernel/drivers/net/netconsole.ko: kernel/fs/configfs/configfs.ko\n",
				"usr/lib/modprobe.d/boot.conf":  "options netconsole oops_only=1\n",
				"etc/modprobe.d/boot.conf":      "# options netconsole x=1\noptions netconsole \\\n  netconsole=@/eth0,@10.9.1.53/\nblacklist netconsole\n",
				"etc/modprobe.d/later.conf":     "options configfs y=1\noptions other z=1\n",
				"etc/modprobe.d/boot.conf.save": "options netconsole saved=1\n",
				"proc/cmdline":                  "root=/dev/vda1.netconsole.x=1 netconsole.oops_only=0 quiet\n",
			},
			want: []module{
				{path: dir + "fs/configfs/configfs.ko", options: "y=1"},
				{path: dir + "drivers/net/netconsole.ko", options: "netconsole=@/eth0,@10.9.1.53/ oops_only=0"},
			},
		},
		{
			name: "forbidden by an administrator",
			files: map[string]string{
				dep:                          "kernel/drivers/net/netconsole.ko:\n",
				"etc/modprobe.d/harden.conf": "install netconsole /bin/false\n",
			},
			err: "/etc/modprobe.d/harden.conf forbids module netconsole: install netconsole /bin/false",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := planModule(disk(tt.files), release, "netconsole")
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tt.err {
				t.Errorf("error %q, want %q", text, tt.err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(module{})); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
