package configfs

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree is a directory with files as configfs shows them. It is not configfs: nothing that is written there means
// anything, so only reading is tested on it.
func tree(t *testing.T, files map[string]string) Dir {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		mode := os.FileMode(0o644)
		if strings.Contains(name, "gasp/") {
			mode = 0o600
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return Dir(dir)
}

// files61 is a target as Linux 6.1 shows it, edited by pairs of name and text.
func files61(target string, edits ...string) map[string]string {
	files := map[string]string{
		"enabled": "1\n", "extended": "1\n", "dev_name": "eth0\n", "local_port": "6665\n", "remote_port": "6666\n",
		"local_ip": "10.0.0.5\n", "remote_ip": "10.9.1.53\n", "local_mac": "02:00:00:00:00:05\n", "remote_mac": "02:00:00:00:00:01\n",
	}
	for i := 0; i < len(edits); i += 2 {
		files[edits[i]] = edits[i+1]
	}
	below := map[string]string{}
	for name, text := range files {
		below[filepath.Join(target, name)] = text
	}
	return below
}

// files73 is the same with what Linux 7.3 adds.
func files73(target string, edits ...string) map[string]string {
	return files61(target, append([]string{
		"release", "1\n", "transmit_errors", "0\n",
		"userdata/msgid_enabled", "0\n", "userdata/gasp/value", "s3cr3t\n", "userdata/boot/value", "b0\n",
	}, edits...)...)
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestList(t *testing.T) {
	full := State{Spec: good(), Enabled: true, LocalMAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}}
	full.Name = "lastgasp-1"
	old := full
	old.Release, old.Userdata = false, nil
	with := func(st State, edit func(*State)) State { edit(&st); return st }
	tests := []struct {
		name  string
		files map[string]string
		want  []State
		err   string
	}{
		{name: "none"},
		{name: "a target of 7.3", files: files73("lastgasp-1"), want: []State{full}},
		{name: "a target of 6.1", files: files61("lastgasp-1"), want: []State{old}},
		{name: "others' targets are none of ours", files: files61("cmdline0")},
		{name: "a probe of what the kernel can do is no target", files: files61(probe, "enabled", "0\n")},
		{
			name: "a fresh target",
			files: files61("lastgasp-1", "enabled", "0\n", "extended", "0\n", "local_ip", "0.0.0.0\n", "remote_ip", "0.0.0.0\n",
				"local_mac", "ff:ff:ff:ff:ff:ff\n", "remote_mac", "ff:ff:ff:ff:ff:ff\n"),
			want: []State{with(old, func(st *State) {
				st.Enabled, st.Extended = false, false
				st.LocalIP, st.RemoteIP = netip.IPv4Unspecified(), netip.IPv4Unspecified()
				st.LocalMAC = net.HardwareAddr{255, 255, 255, 255, 255, 255}
				st.RemoteMAC = st.LocalMAC
			})},
		},
		{
			name:  "a target without device",
			files: files61("lastgasp-1", "dev_name", "\n"),
			want:  []State{with(old, func(st *State) { st.Device = "" })},
		},
		{
			name:  "userdata that is not ours to judge here",
			files: files73("lastgasp-1", "userdata/odd key/value", "a=b;c\n"),
			want: []State{with(full, func(st *State) {
				st.Userdata = append(st.Userdata, Datum{Key: "odd key", Value: "a=b;c"})
			})},
		},
		{
			name:  "an attribute that cannot be parsed",
			files: files61("lastgasp-1", "remote_port", "many\n"),
			want:  []State{with(old, func(st *State) { st.RemotePort = 0 })},
			err:   `read target lastgasp-1: remote_port: cannot parse "many"`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tree(t, tt.files).List()
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tt.err {
				t.Errorf("error %q, want %q", text, tt.err)
			}
			if diff := cmp.Diff(tt.want, got, sameAddr); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no netconsole at all", func(t *testing.T) {
		got, err := Dir(filepath.Join(t.TempDir(), "absent")).List()
		if got != nil || err != nil {
			t.Errorf("List = %v, %v, want nothing", got, err)
		}
	})
}

func TestSupportOfWhatIsThere(t *testing.T) {
	tests := []struct {
		name string
		dir  Dir
		want Support
		sure bool // without a probe
	}{
		{"6.1", tree(t, files61("lastgasp-1")), Support{Netconsole: true, Extended: true}, true},
		{"7.3", tree(t, files73("lastgasp-1")), Support{Netconsole: true, Extended: true, Release: true, Userdata: true}, true},
		{"no netconsole", Dir(filepath.Join(t.TempDir(), "absent")), Support{}, true},
		{"others' targets only", tree(t, files73("cmdline0")), Support{}, false},
		{"somebody's probe, gone in a moment", tree(t, files73(probe)), Support{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, sure, err := tt.dir.Seen()
			if got != tt.want || sure != tt.sure || err != nil {
				t.Errorf("Seen = %+v, %t, %v, want %+v, %t", got, sure, err, tt.want, tt.sure)
			}
			if !tt.sure {
				return
			}
			if got, err := tt.dir.Support(); got != tt.want || err != nil {
				t.Errorf("Support = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	tests := []struct {
		name string
		edit func(*State)
		want []string
	}{
		{"the same", func(*State) {}, nil},
		{"another name", func(st *State) { st.Name = "lastgasp-other" }, nil},
		{"another order of userdata", func(st *State) { st.Userdata[0], st.Userdata[1] = st.Userdata[1], st.Userdata[0] }, nil},
		{"garbage taken for an address", func(st *State) { st.RemoteIP = netip.MustParseAddr("10.9.1.0") }, []string{"remote_ip: want 10.9.1.53, have 10.9.1.0"}},
		{"everything else", func(st *State) {
			st.Extended, st.Release, st.Device = false, false, "eth1"
			st.LocalIP, st.LocalPort, st.RemotePort = netip.MustParseAddr("10.0.0.6"), 1, 2
			st.RemoteMAC = net.HardwareAddr{2, 0, 0, 0, 0, 9}
		}, []string{
			"extended: want true, have false", "release: want true, have false", "dev_name: want eth0, have eth1",
			"local_ip: want 10.0.0.5, have 10.0.0.6", "local_port: want 6665, have 1", "remote_port: want 6666, have 2",
			"remote_mac: want 02:00:00:00:00:01, have 02:00:00:00:00:09",
		}},
		{"another value", func(st *State) { st.Userdata[0].Value = "b1" }, []string{`userdata/boot: want "b0", have "b1"`}},
		{"another secret", func(st *State) { st.Userdata[1].Value = "x" }, []string{"userdata/gasp: another secret"}},
		{"a secret in the open", func(st *State) { st.Userdata[1].Secret = false }, []string{"userdata/gasp: readable by everybody"}},
		{"an item missing", func(st *State) { st.Userdata = st.Userdata[:1] }, []string{"userdata/gasp: missing"}},
		{"an item too many", func(st *State) { st.Userdata = append(st.Userdata, Datum{Key: "x"}) }, []string{"userdata/x: not wanted"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := State{Spec: good(), Enabled: true}
			tt.edit(&st)
			if diff := cmp.Diff(tt.want, good().Diff(st)); diff != "" {
				t.Errorf("Diff (-want +got):\n%s", diff)
			}
		})
	}
}

// Any user may see what is armed, and that there is a secret.
func TestListForOtherUsers(t *testing.T) {
	dir := tree(t, files73("lastgasp-1"))
	if os.Geteuid() != 0 {
		t.Skip("cannot: only root can try what another user sees")
	}
	for path := string(dir); path != "/tmp" && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // never unlocked if the way back fails: the thread ends with the test
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	states, err := dir.List()
	if err := unix.Setfsuid(0); err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
	if err != nil || len(states) != 1 {
		t.Fatalf("%v, %v", states, err)
	}
	if diff := cmp.Diff([]Datum{{Key: "boot", Value: "b0"}, {Key: "gasp", Secret: true}}, states[0].Userdata); diff != "" {
		t.Errorf("userdata (-want +got):\n%s", diff)
	}
}

func TestDisarmTouchesNothingOfOthers(t *testing.T) {
	dir := tree(t, files61("cmdline0"))
	for _, name := range []string{"cmdline0", "", ".", "..", "lastgasp-/../cmdline0"} {
		if err := dir.Disarm(name); err == nil {
			t.Errorf("Disarm(%q) = nil", name)
		}
	}
	if _, err := os.Stat(dir.path("cmdline0", "enabled")); err != nil {
		t.Error(err)
	}
	if err := dir.Disarm("lastgasp-absent"); err != nil {
		t.Errorf("disarm what is not there: %v", err)
	}
}

// FuzzRead reads what a kernel of the future, or somebody's hand, may have left in the attributes.
func FuzzRead(f *testing.F) {
	f.Add("10.0.0.5\n", "6665\n", "02:00:00:00:00:01\n", "1\n", "value\n")
	f.Add("fe80::1%eth0", "-1", "02:00", "yes", "")
	f.Fuzz(func(t *testing.T, ip, port, mac, flag, value string) {
		dir := Dir(t.TempDir())
		for name, text := range files73("lastgasp-1", "local_ip", ip, "local_port", port, "remote_mac", mac, "enabled", flag, "userdata/boot/value", value) {
			path := dir.path(name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		states, err := dir.List()
		if len(states) != 1 {
			t.Fatalf("%d states, error %v", len(states), err)
		}
		if err == nil && strings.TrimSuffix(ip, "\n") != ip && !states[0].LocalIP.IsValid() {
			t.Errorf("no error and no address for %q", ip)
		}
	})
}

func TestDenied(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"SELinux", &fs.PathError{Op: "mkdir", Path: "/sys", Err: unix.EACCES},
			"permission denied; run it as root, or look for a denial by SELinux or AppArmor in the audit log"},
		{"lockdown", unix.EPERM, "operation not permitted; run it as root, or look for a denial by SELinux or AppArmor in the audit log"},
		{"a container's /sys", &fs.PathError{Op: "mkdir", Path: "/sys", Err: unix.EROFS},
			"read-only file system; mount configfs read-write: mount -o remount,rw /sys/kernel/config"},
		{"a value that the kernel refuses", unix.EINVAL, "invalid argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := denied(tt.err); got.Error() != tt.want || !errors.Is(got, errors.Unwrap(tt.err)) && !errors.Is(got, tt.err) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	if err := denied(nil); err != nil {
		t.Errorf("no error is %v", err)
	}
}
