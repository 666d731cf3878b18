package configfs

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// good is a Spec with nothing wrong in it.
func good() Spec {
	return Spec{
		Name:       "lastgasp-10.9.1.53-1",
		Device:     "eth0",
		LocalIP:    netip.MustParseAddr("10.0.0.5"),
		LocalPort:  6665,
		RemoteIP:   netip.MustParseAddr("10.9.1.53"),
		RemotePort: 6666,
		RemoteMAC:  net.HardwareAddr{2, 0, 0, 0, 0, 1},
		Extended:   true,
		Release:    true,
		Userdata:   []Datum{{Key: "boot", Value: "b0"}, {Key: "gasp", Value: "s3cr3t", Secret: true}},
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Spec)
		want string // "" if nothing is wrong
	}{
		{"as it should be", func(*Spec) {}, ""},
		{"IPv6", func(s *Spec) {
			s.Name = "lastgasp-2001:db8::53-1"
			s.LocalIP, s.RemoteIP = netip.MustParseAddr("fe80::5"), netip.MustParseAddr("2001:db8::53")
		}, ""},
		{"a name that is not ours", func(s *Spec) { s.Name = "cmdline0" }, `name "cmdline0" does not match ^lastgasp-[A-Za-z0-9.:_-]{1,64}$`},
		{"a name that leads elsewhere", func(s *Spec) { s.Name = "lastgasp-/../x" }, `name "lastgasp-/../x" does not match ^lastgasp-[A-Za-z0-9.:_-]{1,64}$`},
		{"no device", func(s *Spec) { s.Device = "" }, `device "" is not the name of a network device`},
		{"a device name that kernels cut", func(s *Spec) { s.Device = "a-very-long-name" }, `device "a-very-long-name" is not the name of a network device`},
		{"no source", func(s *Spec) { s.LocalIP = netip.Addr{} }, "local address invalid IP is missing"},
		{"the source left to the kernel", func(s *Spec) { s.LocalIP = netip.IPv4Unspecified() }, "local address 0.0.0.0 is the unspecified address"},
		{"a multicast destination", func(s *Spec) { s.RemoteIP = netip.MustParseAddr("224.0.0.1") }, "remote address 224.0.0.1 is a multicast address"},
		{"a loopback destination", func(s *Spec) { s.RemoteIP = netip.MustParseAddr("127.0.0.1") }, "remote address 127.0.0.1 is a loopback address"},
		{"a destination with a zone", func(s *Spec) {
			s.LocalIP, s.RemoteIP = netip.MustParseAddr("fe80::5"), netip.MustParseAddr("fe80::1%eth0")
		}, "remote address fe80::1%eth0 is scoped to a zone, which the kernel does not accept"},
		{"two families", func(s *Spec) { s.LocalIP = netip.MustParseAddr("2001:db8::5") }, "local address 2001:db8::5 and remote address 10.9.1.53 are of different families"},
		{"IPv4 in IPv6 clothes", func(s *Spec) {
			s.LocalIP, s.RemoteIP = netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("::ffff:10.9.1.53")
		}, "remote address ::ffff:10.9.1.53 is IPv4 written as IPv6"},
		{"an IPv6 source that looks unset", func(s *Spec) {
			s.LocalIP, s.RemoteIP = netip.MustParseAddr("::5"), netip.MustParseAddr("2001:db8::53")
		}, "local address ::5 is in ::/32, which kernels before 7.3 treat as unset"},
		{"port 0", func(s *Spec) { s.RemotePort = 0 }, "local port 6665 and remote port 0 must not be 0"},
		{"no MAC", func(s *Spec) { s.RemoteMAC = nil }, `remote MAC "" is not an Ethernet address`},
		{"a zero MAC", func(s *Spec) { s.RemoteMAC = make(net.HardwareAddr, 6) }, `remote MAC "00:00:00:00:00:00" is the zero address`},
		{"the kernel's default MAC", func(s *Spec) { s.RemoteMAC = net.HardwareAddr{255, 255, 255, 255, 255, 255} }, `remote MAC "ff:ff:ff:ff:ff:ff" is the broadcast address`},
		{"a multicast MAC", func(s *Spec) { s.RemoteMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1} }, `remote MAC "33:33:00:00:00:01" is a multicast address`},
		{"release in the basic format", func(s *Spec) { s.Extended = false }, "release needs the extended format"},
		{"a key with a slash", func(s *Spec) { s.Userdata[0].Key = "a/b" }, `userdata key "a/b" does not match ^[A-Za-z0-9_-]{1,53}$`},
		{"a key too long", func(s *Spec) { s.Userdata[0].Key = strings.Repeat("k", 54) }, `userdata key "` + strings.Repeat("k", 54) + `" does not match ^[A-Za-z0-9_-]{1,53}$`},
		{"a key of the kernel's", func(s *Spec) { s.Userdata[0].Key = "msgid_enabled" }, "userdata key msgid_enabled is the kernel's own"},
		{"a key twice", func(s *Spec) { s.Userdata[0].Key = "gasp" }, "userdata key gasp occurs twice"},
		{"an empty value", func(s *Spec) { s.Userdata[0].Value = "" }, "userdata value of boot is empty, which the kernel leaves out"},
		{"the longest value", func(s *Spec) { s.Userdata[0].Value = strings.Repeat("v", 199) }, ""},
		{"a value too long", func(s *Spec) { s.Userdata[0].Value = strings.Repeat("v", 200) }, "userdata value of boot has 200 bytes, more than 199"},
		{"a line break in a secret, which is not repeated", func(s *Spec) { s.Userdata[1].Value = "a\nb" }, "userdata value of gasp has bytes other than printable ASCII"},
		{"too many items", func(s *Spec) {
			s.Userdata = nil
			for i := range 17 {
				s.Userdata = append(s.Userdata, Datum{Key: fmt.Sprintf("k%d", i), Value: "v"})
			}
		}, "17 userdata items are more than 16"},
		{"everything is said at once", func(s *Spec) { s.Device, s.RemotePort = "", 0 }, "device \"\" is not the name of a network device\nlocal port 6665 and remote port 0 must not be 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := good()
			tt.edit(&s)
			got := ""
			if err := s.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("Validate:\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	s := good()
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	other := State{Spec: good()}
	other.Userdata[1].Value = "0th3r"
	for name, text := range map[string]string{
		"%v": fmt.Sprintf("%v", s), "%+v": fmt.Sprintf("%+v", s), "JSON": string(encoded), "Diff": fmt.Sprint(s.Diff(other)),
	} {
		if strings.Contains(text, "s3cr3t") || strings.Contains(text, "0th3r") {
			t.Errorf("%s shows the secret: %s", name, text)
		}
		if !strings.Contains(text, "gasp") {
			t.Errorf("%s does not even name the secret: %s", name, text)
		}
	}
}

func TestUnfitIP(t *testing.T) {
	got := map[string]string{}
	for _, a := range []string{"10.0.0.1", "2001:db8::1", "fe80::1", "0.0.0.0", "0.0.2.10", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255",
		"::1:2:3:4", "::ffff:10.0.0.1", "fe80::1%eth0"} {
		got[a] = UnfitIP(netip.MustParseAddr(a))
	}
	want := map[string]string{
		"10.0.0.1":        "",
		"2001:db8::1":     "",
		"fe80::1":         "",
		"0.0.0.0":         "the unspecified address",
		"0.0.2.10":        "in 0.0.0.0/8, which is of no machine",
		"::":              "the unspecified address",
		"127.0.0.1":       "a loopback address",
		"::1":             "a loopback address",
		"224.0.0.1":       "a multicast address",
		"ff02::1":         "a multicast address",
		"255.255.255.255": "the broadcast address",
		"::1:2:3:4":       "in ::/32, which kernels before 7.3 treat as unset",
		"::ffff:10.0.0.1": "IPv4 written as IPv6",
		"fe80::1%eth0":    "scoped to a zone, which the kernel does not accept",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("UnfitIP (-want +got):\n%s", diff)
	}
	if got := UnfitIP(netip.Addr{}); got != "missing" {
		t.Errorf("UnfitIP of the zero Addr = %q", got)
	}
}
