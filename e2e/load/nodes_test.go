package load

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// heard is what a receiver reads from a record.
type heard struct {
	From           netip.Addr
	Seq            uint64
	Instance, Boot string
	Secret         bool
	Missing        int
	Fits           bool // the text is what the nodes send
}

// hear reads n datagrams as the listener does, with a stream for each source.
func hear(t *testing.T, n int, next Next) []heard {
	t.Helper()
	streams := map[netip.Addr]*netconsole.Stream{}
	var all []heard
	for range n {
		from, payload := next()
		if len(payload) > maxDatagram {
			t.Errorf("a datagram of %d bytes, more than netconsole sends", len(payload))
		}
		if streams[from] == nil {
			streams[from] = new(netconsole.Stream)
		}
		err := streams[from].Push(time.Unix(0, 0), payload, func(r *netconsole.Record) {
			if r.Partial {
				return // it comes again
			}
			id := r.Identity()
			all = append(all, heard{from, r.Seq, id.Instance, id.Boot, id.Secret != "", r.Missing,
				strings.HasPrefix(string(r.Text), chatter[r.Seq%uint64(len(chatter))])})
		})
		if err != nil {
			t.Errorf("%q: %v", payload, err)
		}
	}
	return all
}

func TestChatter(t *testing.T) {
	of := func(n int, seq uint64) heard {
		return heard{From: Addr(n), Seq: seq, Instance: Instance(n), Boot: Boot(n), Secret: true, Fits: true}
	}
	for _, tt := range []struct {
		format  Format
		perLine int
	}{{Extended, 1}, {Fragmented, 2}} {
		t.Run(tt.format.String(), func(t *testing.T) {
			nodes := NewNodes(70000, 2, tt.format)
			got := hear(t, 4*tt.perLine, nodes.Chatter)
			want := []heard{of(70000, 1000), of(70001, 1000), of(70000, 1001), of(70001, 1001)}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("heard (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("basic", func(t *testing.T) {
		for _, h := range hear(t, 4, NewNodes(0, 2, Basic).Chatter) {
			if h.Instance != "" || h.Secret {
				t.Errorf("a basic record with an identity: %+v", h)
			}
		}
	})
}

func TestCanaryIsOne(t *testing.T) {
	nodes := NewNodes(5, 1, Extended)
	from, payload := nodes.Canary()
	var c netconsole.Canary
	ok := false
	var s netconsole.Stream
	err := s.Push(time.Unix(0, 0), payload, func(r *netconsole.Record) { c, ok = netconsole.ParseCanary(string(r.Text)) })
	if err != nil || !ok || from != Addr(5) || c.Instance != Instance(5) || c.Boot != Boot(5) {
		t.Errorf("from %s: %+v, %t, %v", from, c, ok, err)
	}
}

func TestAddressesAreApartAndLocal(t *testing.T) {
	seen := map[netip.Addr]int{}
	for n := range 70000 {
		if was, twice := seen[Addr(n)]; twice || !Addr(n).IsLoopback() {
			t.Fatalf("node %d has %s, node %d too", n, Addr(n), was)
		}
		seen[Addr(n)] = n
	}
}

func TestDeaths(t *testing.T) {
	captured := Crash{
		[]byte("6.12,0,7,1,-;Kernel panic - not syncing: a\n instance=i-0123456789abcdef0\n boot=8e79e791-6efc-4eb6-a554-eaeb3eed7f71\n"),
		[]byte("6.12,4,8,1,-;CPU: 0\n instance=i-0123456789abcdef0\n boot=8e79e791-6efc-4eb6-a554-eaeb3eed7f71\n"),
	}
	next, count, err := Deaths([]Crash{captured, captured[:1]}, 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range hear(t, count, next) {
		got = append(got, fmt.Sprint(h.From, " ", h.Instance, " ", h.Boot, " ", h.Seq))
	}
	want := []string{
		fmt.Sprint(Addr(10), " ", Instance(10), " ", Boot(10), " 7"),
		fmt.Sprint(Addr(11), " ", Instance(11), " ", Boot(11), " 7"),
		fmt.Sprint(Addr(10), " ", Instance(10), " ", Boot(10), " 8"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
	for name, c := range map[string]Crash{
		"without a boot id": {[]byte("0,7,1,-;Kernel panic\n")},
		"with fragments":    {captured[0], []byte("6.12,4,8,1,-,ncfrag=0/1100;x")},
	} {
		if _, _, err := Deaths([]Crash{c}, 0, 1); err == nil {
			t.Errorf("a capture %s is renamed", name)
		}
	}
}
