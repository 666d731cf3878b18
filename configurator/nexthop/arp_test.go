package nexthop

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	ownMAC  = mac{0x02, 0, 0, 0, 0, 0x05}
	hopMAC  = mac{0x02, 0, 0, 0, 0, 0x01}
	ownIPv4 = netip.MustParseAddr("10.0.0.5")
	hopIPv4 = netip.MustParseAddr("10.0.0.1")
)

// unhex reads a frame as a capture shows it, in groups.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatalf("read hex: %v", err)
	}
	return b
}

func TestAppendARPRequest(t *testing.T) {
	tests := []struct {
		name   string
		sender netip.Addr
		want   string
	}{
		{
			name:   "from an address of the device",
			sender: ownIPv4,
			want:   "ffffffffffff 020000000005 0806 0001 0800 0604 0001 020000000005 0a000005 000000000000 0a000001",
		},
		{
			name: "a probe where the device has none",
			want: "ffffffffffff 020000000005 0806 0001 0800 0604 0001 020000000005 00000000 000000000000 0a000001",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := appendARPRequest(nil, ownMAC, tt.sender, hopIPv4)
			if diff := cmp.Diff(unhex(t, tt.want), got); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseARPReply(t *testing.T) {
	const good = "020000000005 020000000001 0806 0001 0800 0604 0002 020000000001 0a000001 020000000005 0a000005"
	tests := []struct {
		name  string
		frame string
		want  mac
		ok    bool
	}{
		{name: "an answer", frame: good, want: hopMAC, ok: true},
		{name: "an answer padded to Ethernet's minimum", frame: good + strings.Repeat("00", 18), want: hopMAC, ok: true},
		{
			name:  "the payload counts where a virtual router sends from its physical address",
			frame: strings.Replace(good, "020000000001 0806", "0200000000ee 0806", 1),
			want:  hopMAC,
			ok:    true,
		},
		{name: "cut off", frame: good[:len(good)-2]},
		{name: "empty"},
		{name: "a request", frame: strings.Replace(good, "0604 0002", "0604 0001", 1)},
		{name: "to another station", frame: strings.Replace(good, "020000000005 0200", "020000000006 0200", 1)},
		{name: "about another address", frame: strings.Replace(good, "0a000001", "0a000002", 1)},
		{name: "to another asker's address", frame: strings.Replace(good, "0a000005", "0a000006", 1)},
		{name: "to another asker's station", frame: strings.Replace(good, "020000000005 0a", "020000000006 0a", 1)},
		{name: "another protocol", frame: strings.Replace(good, "0806", "0800", 1)},
		{name: "another hardware type", frame: strings.Replace(good, "0001 0800", "0006 0800", 1)},
		{name: "other address lengths", frame: strings.Replace(good, "0604", "0610", 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseARPReply(unhex(t, tt.frame), ownMAC, ownIPv4, hopIPv4)
			if got != tt.want || ok != tt.ok {
				t.Errorf("parseARPReply = %v, %v, want %v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestUnfit(t *testing.T) {
	tests := []struct {
		name string
		mac  mac
		want string
	}{
		{"a station", hopMAC, ""},
		{"zero", mac{}, "the zero address"},
		{"broadcast", mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "the broadcast address"},
		{"multicast", mac{0x33, 0x33, 0, 0, 0, 1}, "a multicast address"},
		{"our own", ownMAC, "our own address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.mac.unfit(ownMAC); got != tt.want {
				t.Errorf("unfit = %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParseARPReply(f *testing.F) {
	f.Add(unhex(f, "020000000005 020000000001 0806 0001 0800 0604 0002 020000000001 0a000001 020000000005 0a000005"))
	f.Add(appendARPRequest(nil, ownMAC, ownIPv4, hopIPv4))
	f.Fuzz(func(t *testing.T, frame []byte) {
		got, ok := parseARPReply(frame, ownMAC, ownIPv4, hopIPv4)
		if !ok && got != (mac{}) {
			t.Errorf("refused, yet %v", got)
		}
		if ok && (len(frame) < ethLen+arpLen || mac(frame[22:28]) != got) {
			t.Errorf("%v is not the sender of %x", got, frame)
		}
	})
}
