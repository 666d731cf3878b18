//go:build live

package configfs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestVariable is set by e2e/target_test.go, which runs these tests in machines of several kernels. There nothing may
// be skipped.
const guestVariable = "LAB_GUEST"

// configfs returns netconsole's real directory, or skips where there cannot be one.
func configfs(t *testing.T) Dir {
	t.Helper()
	if err := Load(t.Context()); err != nil {
		if os.Getenv(guestVariable) == "" {
			t.Skipf("cannot: this machine's kernel has no netconsole; e2e/target_test.go boots some that can: %v", err)
		}
		t.Fatal(err)
	}
	if armed := list(t, DefaultDir); len(armed) > 0 {
		t.Fatalf("this machine has targets of ours already, which the test would take away: %v", armed)
	}
	t.Cleanup(func() {
		for _, st := range list(t, DefaultDir) {
			if err := DefaultDir.Disarm(st.Name); err != nil {
				t.Error(err)
			}
		}
	})
	return DefaultDir
}

func list(t *testing.T, d Dir) []State {
	t.Helper()
	states, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	return states
}

// since reports whether the kernel is of a version or later.
func since(t *testing.T, major, minor int) bool {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	var maj, min int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &maj, &min); err != nil {
		t.Fatalf("read kernel release %s: %v", uts.Release[:], err)
	}
	return maj > major || maj == major && min >= minor
}

// nic is a device to send through, with a veth pair and a bridge beside it; all gone when the test ends.
const (
	nic    = "lg-bridge" // netpoll takes bridges, also without ports
	port   = "lg-port"   // enslaved to other
	veth   = "lg-veth"   // refused by netpoll since 6.12
	other  = "lg-other"
	nicMAC = "02:00:00:00:00:05"
)

func devices(t *testing.T) {
	t.Helper()
	hw, err := net.ParseMAC(nicMAC)
	if err != nil {
		t.Fatal(err)
	}
	master := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: other}}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: veth, Flags: net.FlagUp}, PeerName: port}
	for _, l := range []netlink.Link{
		&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: nic, HardwareAddr: hw}}, master, pair,
	} {
		if err := netlink.LinkAdd(l); err != nil {
			t.Fatalf("add device %s: %v", l.Attrs().Name, err)
		}
		t.Cleanup(func() { netlink.LinkDel(l) }) // a test may have deleted it
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatalf("bring device %s up: %v", l.Attrs().Name, err)
		}
	}
	p, err := netlink.LinkByName(port)
	if err == nil {
		err = netlink.LinkSetMaster(p, master)
	}
	if err != nil {
		t.Fatalf("enslave %s to %s: %v", port, other, err)
	}
}

// spec is what a node would arm on this kernel.
func spec(t *testing.T, d Dir) Spec {
	t.Helper()
	support, err := d.Support()
	if err != nil {
		t.Fatal(err)
	}
	s := good()
	s.Device, s.Release = nic, support.Release
	if !support.Userdata {
		s.Userdata = nil
	}
	return s
}

func mustArm(t *testing.T, d Dir, s Spec) State {
	t.Helper()
	st, err := d.Arm(s)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// nothingLeft fails if there is a target of ours.
func nothingLeft(t *testing.T, d Dir) {
	t.Helper()
	for _, st := range list(t, d) {
		t.Errorf("target %s is left behind", st.Name)
	}
}

func TestLiveLoad(t *testing.T) {
	configfs(t)
	if err := Load(t.Context()); err != nil {
		t.Errorf("load what is there: %v", err)
	}
	if os.Getenv(guestVariable) == "" {
		return // others may be using what follows
	}
	if err := unix.Unmount(filepath.Dir(string(DefaultDir)), 0); err != nil {
		t.Fatalf("unmount configfs: %v", err)
	}
	if err := Load(t.Context()); err != nil {
		t.Errorf("mount configfs again: %v", err)
	}
	if _, err := os.Stat(string(DefaultDir)); err != nil {
		t.Error(err)
	}
}

func TestLiveSupport(t *testing.T) {
	d := configfs(t)
	got, err := d.Support()
	if err != nil {
		t.Fatal(err)
	}
	want := Support{Netconsole: true, Extended: true, Release: since(t, 6, 6), Userdata: since(t, 6, 9)}
	if got != want {
		t.Errorf("Support = %+v, want %+v", got, want)
	}
	nothingLeft(t, d)
	if err := os.Mkdir(d.path(probe), 0o755); err != nil { // as a process that was killed leaves it
		t.Fatalf("a probe is left behind: %v", err)
	}
	if got, err := d.Support(); got != want || err != nil {
		t.Errorf("Support with a probe left behind = %+v, %v, want %+v", got, err, want)
	}
	if _, err := os.Stat(d.path(probe)); err == nil {
		t.Error("a probe is left behind")
	}
}

func TestLiveArm(t *testing.T) {
	d := configfs(t)
	devices(t)
	s := spec(t, d)
	st := mustArm(t, d, s)
	if got := st.LocalMAC.String(); !st.Enabled || got != nicMAC {
		t.Errorf("enabled %v with local MAC %s, want true and %s", st.Enabled, got, nicMAC)
	}
	if diff := cmp.Diff([]State{st}, list(t, d), sameAddr); diff != "" {
		t.Errorf("what Arm returns is not what List finds (-Arm +List):\n%s", diff)
	}
	if !st.Enabled || len(s.Diff(st)) > 0 {
		t.Errorf("armed otherwise than wanted: %v", s.Diff(st))
	}
	for _, u := range s.Userdata {
		info, err := os.Stat(d.path(s.Name, "userdata", u.Key, "value"))
		if err != nil {
			t.Fatal(err)
		}
		if got, secret := info.Mode().Perm(), u.Secret; secret != (got == 0o600) {
			t.Errorf("userdata/%s has mode %v, secret %v", u.Key, got, secret)
		}
	}
	if err := d.Disarm(s.Name); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, d)
	if err := d.Disarm(s.Name); err != nil {
		t.Errorf("disarm again: %v", err)
	}
}

func TestLiveArmTakesTheLongestValues(t *testing.T) {
	d := configfs(t)
	devices(t)
	s := spec(t, d)
	if s.Userdata != nil {
		s.Userdata = nil
		for i := range maxUserdata {
			key := fmt.Sprintf("%s%02d", strings.Repeat("k", 51), i)
			s.Userdata = append(s.Userdata, Datum{Key: key, Value: strings.Repeat("v", maxValue)})
		}
	}
	s.Name = Prefix + strings.Repeat("n", 64)
	mustArm(t, d, s)
}

func TestLiveFamilies(t *testing.T) {
	d := configfs(t)
	devices(t)
	v4 := spec(t, d)
	v6 := v4
	v6.LocalIP, v6.RemoteIP = netip.MustParseAddr("fe80::5"), netip.MustParseAddr("2001:db8:9::53")
	for i, s := range []Spec{v4, v6, v4} { // under one name: a family sticks to a directory on kernels up to 6.12
		mustArm(t, d, s)
		if err := d.Disarm(s.Name); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

// TestLiveSuccessor is how a target is changed: the new one beside the old, which goes last.
func TestLiveSuccessor(t *testing.T) {
	d := configfs(t)
	devices(t)
	old := spec(t, d)
	next := old
	next.Name, next.LocalPort, next.RemoteMAC = Prefix+"2", 6664, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	was, is := mustArm(t, d, old), mustArm(t, d, next)
	if diff := cmp.Diff([]State{was, is}, list(t, d), sameAddr); diff != "" {
		t.Errorf("both must be armed (-want +got):\n%s", diff)
	}
	if err := d.Disarm(old.Name); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]State{is}, list(t, d), sameAddr); diff != "" {
		t.Errorf("only the new one must be left (-want +got):\n%s", diff)
	}
}

func TestLiveArmRefuses(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Spec)
		// on says on which kernels it is refused; elsewhere it must work
		on   func(*testing.T) bool
		is   error
		want string
	}{
		{
			name: "a device that is not there",
			edit: func(s *Spec) { s.Device = "lg-absent" },
			is:   ErrDevice,
			want: "device cannot carry netconsole: there is no lg-absent in this network namespace",
		},
		{
			name: "a port of a bridge",
			edit: func(s *Spec) { s.Device = port },
			is:   ErrDevice,
			want: "device cannot carry netconsole: lg-port has a master (bridge, bond, team, VRF or Open vSwitch)",
		},
		{
			name: "a device whose driver refuses",
			edit: func(s *Spec) { s.Device = veth },
			on:   func(t *testing.T) bool { return since(t, 6, 12) },
			is:   ErrDevice,
			want: "device cannot carry netconsole: the driver of lg-veth refuses netpoll",
		},
		{
			name: "release where there is none",
			edit: func(s *Spec) { s.Release = true },
			on:   func(t *testing.T) bool { return !since(t, 6, 6) },
			is:   os.ErrNotExist,
			want: "write release: no such file or directory",
		},
		{
			name: "userdata where there is none",
			edit: func(s *Spec) { s.Userdata = good().Userdata },
			on:   func(t *testing.T) bool { return !since(t, 6, 9) },
			is:   os.ErrNotExist,
			want: "write userdata/boot: no such file or directory",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := configfs(t)
			devices(t)
			s := spec(t, d)
			tt.edit(&s)
			st, err := d.Arm(s)
			if tt.on != nil && !tt.on(t) {
				if err != nil || !st.Enabled {
					t.Errorf("this kernel must take it: %v", err)
				}
				return
			}
			if want := "arm target " + s.Name + ": " + tt.want; !errors.Is(err, tt.is) || err.Error() != want {
				t.Errorf("error %v\nwant  %s", err, want)
			}
			nothingLeft(t, d)
		})
	}
}

func TestLiveArmLeavesAnExistingTargetAlone(t *testing.T) {
	d := configfs(t)
	devices(t)
	s := spec(t, d)
	before := mustArm(t, d, s)
	s.RemotePort = 7777
	if _, err := d.Arm(s); !errors.Is(err, os.ErrExist) {
		t.Errorf("error %v, want %v", err, os.ErrExist)
	}
	if diff := cmp.Diff([]State{before}, list(t, d), sameAddr); diff != "" {
		t.Errorf("the target changed (-want +got):\n%s", diff)
	}
}

// TestLiveGarbage writes what Validate would never let through. A kernel that takes it must be found out by reading back.
func TestLiveGarbage(t *testing.T) {
	tests := []struct{ attribute, garbage string }{
		{"remote_ip", "garbage"},
		{"remote_ip", "10.9.1"},
		{"remote_ip", "10.9.1.53 "},
		{"remote_ip", "fd00::1"}, // 7.x then shows the other address as one of IPv6
		{"local_ip", "10.0.0.500"},
		{"dev_name", "a-name-of-more-than-15"},
		{"remote_mac", "02:00:00:00:00:0"},
		{"local_port", "66666"},
		{"extended", "2"},
	}
	for _, tt := range tests {
		t.Run(tt.attribute+" "+tt.garbage, func(t *testing.T) {
			d := configfs(t)
			devices(t)
			s := spec(t, d)
			if err := os.Mkdir(d.path(s.Name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := d.write(s); err != nil {
				t.Fatal(err)
			}
			if _, err := d.compare(s); err != nil {
				t.Fatalf("before the garbage: %v", err)
			}
			refused := d.set(s.Name, tt.attribute, tt.garbage)
			_, found := d.compare(s)
			t.Logf("kernel: %v; read back: %v", refused, found)
			if refused == nil && found == nil {
				t.Error("neither the kernel nor reading back objects")
			}
		})
	}
}

func TestLiveForeignTargetsAreLeftAlone(t *testing.T) {
	d := configfs(t)
	devices(t)
	for _, name := range []string{"netconsole0", "admin lastgasp-1"} {
		if err := os.Mkdir(d.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(d.path(name)) })
		if err := d.set(name, "dev_name", "admins"); err != nil {
			t.Fatal(err)
		}
		if err := d.Disarm(name); err == nil {
			t.Errorf("disarmed %s", name)
		}
	}
	if got := d.Others(); len(got) > 0 {
		t.Errorf("disabled targets of others count: %v", got)
	}
	s := spec(t, d)
	mustArm(t, d, s)
	const theirs = "netconsole0"
	for name, value := range map[string]string{"dev_name": s.Device, "local_ip": s.LocalIP.String(), "remote_ip": s.RemoteIP.String(), "remote_mac": s.RemoteMAC.String()} {
		if err := d.set(theirs, name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.set(theirs, "enabled", "1"); err != nil {
		t.Fatal(err)
	}
	if got := d.Others(); len(got) != 1 || got[0].Name != theirs || got[0].RemoteIP != s.RemoteIP {
		t.Errorf("Others = %v, want %s", got, theirs)
	}
	if err := d.set(theirs, "enabled", "0"); err != nil {
		t.Fatal(err)
	}
	if err := d.set(theirs, "dev_name", "admins"); err != nil {
		t.Fatal(err)
	}
	if got := list(t, d); len(got) != 1 || got[0].Name != s.Name {
		t.Errorf("List = %v, want %s only", got, s.Name)
	}
	if err := d.Disarm(s.Name); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"netconsole0", "admin lastgasp-1"} {
		r := reader{dir: d.path(name)}
		if got, _ := r.text("dev_name"); got != "admins" {
			t.Errorf("dev_name of %s is %q, %v", name, got, r.err)
		}
	}
}

// TestLiveDeviceGoes is what the kernel does to a target by itself.
func TestLiveDeviceGoes(t *testing.T) {
	d := configfs(t)
	devices(t)
	s := spec(t, d)
	mustArm(t, d, s)
	l, err := netlink.LinkByName(nic)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, d); len(got) != 1 || got[0].Enabled {
		t.Errorf("List = %+v, want one disabled target", got)
	}
	if err := d.Disarm(s.Name); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, d)
}

func TestLiveDeviceIsRenamed(t *testing.T) {
	d := configfs(t)
	devices(t)
	s := spec(t, d)
	mustArm(t, d, s)
	l, err := netlink.LinkByName(nic)
	if err == nil {
		err = netlink.LinkSetDown(l) // older kernels rename only then
	}
	if err == nil {
		err = netlink.LinkSetName(l, "lg-renamed")
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Device = "lg-renamed"
	if got := list(t, d); len(got) != 1 || !got[0].Enabled || len(s.Diff(got[0])) > 0 {
		t.Errorf("List = %+v, want %+v", got, s)
	}
}

// TestLiveDisarmWhatWasLeftHalfMade is a process killed in the middle of Arm.
func TestLiveDisarmWhatWasLeftHalfMade(t *testing.T) {
	d := configfs(t)
	devices(t)
	s := spec(t, d)
	if err := os.Mkdir(d.path(s.Name), 0o755); err != nil {
		t.Fatal(err)
	}
	if len(s.Userdata) > 0 {
		if err := os.Mkdir(filepath.Join(d.path(s.Name), "userdata", "boot"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, d); len(got) != 1 || got[0].Enabled {
		t.Errorf("List = %+v, want one disabled target", got)
	}
	if err := d.Disarm(s.Name); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, d)
}
