package nexthop

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	ownIPv6 = netip.MustParseAddr("fe80::5")
	hopIPv6 = netip.MustParseAddr("fe80::1")
)

func TestAppendSolicitation(t *testing.T) {
	got := appendSolicitation(nil, ownMAC, ownIPv6, netip.MustParseAddr("2001:db8::aabb:ccdd"))
	want := unhex(t, `3333ffbbccdd 020000000005 86dd
		60000000 0020 3a ff
		fe800000000000000000000000000005
		ff0200000000000000000001ffbbccdd
		87 00 0abc 00000000
		20010db80000000000000000aabbccdd
		01 01 020000000005`)
	if sum := checksum6([16]byte(got[22:38]), [16]byte(got[38:54]), got[54:]); sum != 0xffff {
		t.Errorf("sum over the packet is %#x, want 0xffff", sum)
	}
	// The sum above proves the checksum; the rest must be as RFC 4861 draws it.
	copy(want[56:58], got[56:58])
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frame (-want +got):\n%s", diff)
	}
}

// advertisement builds an answer of hopIPv6 to ownIPv6 as RFC 4861 §4.4 draws it, changed by edit before the checksum
// is made.
func advertisement(edit func(frame []byte) []byte) []byte {
	src, dst := hopIPv6.As16(), ownIPv6.As16()
	f := append([]byte{}, ownMAC[:]...)
	f = append(f, hopMAC[:]...)
	f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, icmp6, ndpHops)
	f = append(f, src[:]...)
	f = append(f, dst[:]...)
	f = append(f, ndpAdvertise, 0, 0, 0, ndpSolicited, 0, 0, 0)
	f = append(f, src[:]...)
	f = append(f, optTargetLink, 1)
	f = append(f, hopMAC[:]...)
	if edit != nil {
		f = edit(f)
	}
	binary.BigEndian.PutUint16(f[18:], uint16(len(f)-54))
	binary.BigEndian.PutUint16(f[56:], 0)
	binary.BigEndian.PutUint16(f[56:], ^checksum6([16]byte(f[22:38]), [16]byte(f[38:54]), f[54:]))
	return f
}

// set returns an edit of one byte.
func set(at int, to byte) func([]byte) []byte {
	return func(f []byte) []byte { f[at] = to; return f }
}

func TestParseAdvertisement(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		want  mac
		ok    bool
	}{
		{name: "an answer", frame: advertisement(nil), want: hopMAC, ok: true},
		{name: "an answer followed by padding", frame: append(advertisement(nil), 1, 2, 3), want: hopMAC, ok: true},
		{
			name:  "without the option the frame's source counts",
			frame: advertisement(func(f []byte) []byte { return f[:78] }),
			want:  hopMAC,
			ok:    true,
		},
		{
			name:  "the option counts where it differs from the frame's source",
			frame: advertisement(set(11, 0xee)),
			want:  hopMAC,
			ok:    true,
		},
		{
			name:  "other options are passed over",
			frame: advertisement(func(f []byte) []byte { return append(f, 14, 1, 1, 2, 3, 4, 5, 6) }),
			want:  hopMAC,
			ok:    true,
		},
		{name: "empty"},
		{name: "cut off", frame: advertisement(nil)[:77]},
		{name: "a wrong checksum", frame: append(advertisement(nil)[:85], 0)},
		{name: "to another station", frame: advertisement(set(5, 6))},
		{name: "to another address", frame: advertisement(set(53, 6))},
		{name: "about another address", frame: advertisement(set(77, 6))},
		{name: "forwarded by a router", frame: advertisement(set(21, 254))},
		{name: "not ICMPv6", frame: advertisement(set(20, 17))},
		{name: "not IPv6", frame: advertisement(set(14, 0x45))},
		{name: "another EtherType", frame: advertisement(set(13, 0xde))},
		{name: "a solicitation", frame: advertisement(set(54, ndpSolicit))},
		{name: "unsolicited", frame: advertisement(set(58, 0x20))},
		{name: "an option of no length", frame: advertisement(set(79, 0))},
		{name: "an option longer than the packet", frame: advertisement(set(79, 2))},
		{name: "half an option", frame: advertisement(func(f []byte) []byte { return append(f, 14, 1, 0) })},
		{
			name: "a length beyond the frame",
			frame: func() []byte {
				f := advertisement(nil)
				f[19]++
				return f
			}(),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseAdvertisement(tt.frame, ownMAC, ownIPv6, hopIPv6)
			if got != tt.want || ok != tt.ok {
				t.Errorf("parseAdvertisement = %v, %v, want %v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func FuzzParseAdvertisement(f *testing.F) {
	f.Add(advertisement(nil))
	f.Add(advertisement(set(79, 0)))
	f.Add(appendSolicitation(nil, ownMAC, ownIPv6, hopIPv6))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if got, ok := parseAdvertisement(frame, ownMAC, ownIPv6, hopIPv6); !ok && got != (mac{}) {
			t.Errorf("refused, yet %v", got)
		}
	})
}
