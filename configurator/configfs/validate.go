package configfs

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

const (
	maxDevice   = 15  // IFNAMSIZ-1
	maxValue    = 199 // MAX_EXTRADATA_VALUE_LEN-1, drivers/net/netconsole.c
	maxUserdata = 16  // MAX_USERDATA_ITEMS up to 6.18; later kernels have 256
)

// The form of names and keys, for error messages.
const (
	nameForm = `^` + Prefix + `[A-Za-z0-9.:_-]{1,64}$`
	keyForm  = `^[A-Za-z0-9_-]{1,53}$` // MAX_USERDATA_NAME_LEN is 54
)

// madeOf reports whether s consists of 1 to most letters, digits and characters of punctuation. A regular expression would be
// compiled at every start of the program, and take longer than the rest of this package's initialisation.
func madeOf(s, punctuation string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune(punctuation, r)
	})
}

// reservedKeys are the kernel's own files beside the keys below userdata/ (sysdata, since 6.15).
const reservedKeys = " cpu_nr_enabled taskname_enabled release_enabled msgid_enabled "

// Validate returns everything that is wrong with s. The kernel would accept most of it silently: a broadcast address, which
// a VPC drops; an address that no machine can have; a line break in userdata, which breaks every record.
func (s Spec) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if rest, ours := strings.CutPrefix(s.Name, Prefix); !ours || !madeOf(rest, ".:_-", 64) {
		bad("name %q does not match %s", s.Name, nameForm)
	}
	if len(s.Device) == 0 || len(s.Device) > maxDevice || strings.ContainsAny(s.Device, "/: \t\n") {
		bad("device %q is not the name of a network device", s.Device)
	}
	if why := UnfitIP(s.LocalIP); why != "" {
		bad("local address %s is %s", s.LocalIP, why)
	}
	if why := UnfitIP(s.RemoteIP); why != "" {
		bad("remote address %s is %s", s.RemoteIP, why)
	}
	if s.LocalIP.BitLen() != s.RemoteIP.BitLen() && s.LocalIP.IsValid() && s.RemoteIP.IsValid() {
		bad("local address %s and remote address %s are of different families", s.LocalIP, s.RemoteIP)
	}
	if s.LocalPort == 0 || s.RemotePort == 0 {
		bad("local port %d and remote port %d must not be 0", s.LocalPort, s.RemotePort)
	}
	if why := UnfitMAC(s.RemoteMAC); why != "" {
		bad("remote MAC %q is %s", s.RemoteMAC, why)
	}
	if s.Release && !s.Extended {
		bad("release needs the extended format")
	}
	errs = append(errs, validateUserdata(s.Userdata)...)
	return errors.Join(errs...)
}

// UnfitIP says what makes a unfit for either end of a target, as in "it is …", or returns "".
func UnfitIP(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "missing"
	case a.Zone() != "":
		return "scoped to a zone, which the kernel does not accept"
	case a.Is4In6():
		return "IPv4 written as IPv6"
	case a.IsUnspecified():
		return "the unspecified address"
	case a.Is4() && a.As4()[0] == 0:
		return "in 0.0.0.0/8, which is of no machine"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	case a.Is6() && bytes.Equal(a.AsSlice()[:4], make([]byte, 4)):
		return "in ::/32, which kernels before 7.3 treat as unset"
	}
	return ""
}

// UnfitMAC says why frames cannot be sent to hw, as in "it is …", or returns "".
func UnfitMAC(hw net.HardwareAddr) string {
	switch {
	case len(hw) != 6:
		return "not an Ethernet address"
	case bytes.Equal(hw, make([]byte, 6)):
		return "the zero address"
	case bytes.Equal(hw, bytes.Repeat([]byte{0xff}, 6)):
		return "the broadcast address"
	case hw[0]&1 == 1:
		return "a multicast address"
	}
	return ""
}

// validateUserdata checks what the kernel appends to every record as " KEY=VALUE\n", unescaped.
func validateUserdata(data []Datum) []error {
	var errs []error
	if len(data) > maxUserdata {
		errs = append(errs, fmt.Errorf("%d userdata items are more than %d", len(data), maxUserdata))
	}
	seen := make(map[string]bool)
	for _, d := range data {
		switch {
		case !madeOf(d.Key, "_-", 53):
			errs = append(errs, fmt.Errorf("userdata key %q does not match %s", d.Key, keyForm))
		case strings.Contains(reservedKeys, " "+d.Key+" "):
			errs = append(errs, fmt.Errorf("userdata key %s is the kernel's own", d.Key))
		case seen[d.Key]:
			errs = append(errs, fmt.Errorf("userdata key %s occurs twice", d.Key))
		}
		seen[d.Key] = true
		if why := unfitValue(d.Value); why != "" {
			errs = append(errs, fmt.Errorf("userdata value of %s %s", d.Key, why))
		}
	}
	return errs
}

// unfitValue says what is wrong with a userdata value, without repeating it: it may be secret.
func unfitValue(v string) string {
	switch {
	case v == "":
		return "is empty, which the kernel leaves out"
	case len(v) > maxValue:
		return fmt.Sprintf("has %d bytes, more than %d", len(v), maxValue)
	case strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r > 0x7e }):
		return "has bytes other than printable ASCII"
	}
	return ""
}
