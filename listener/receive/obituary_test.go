package receive

import (
	"crypto/ed25519"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// obituaries takes obituaries, and has dealt with them when it is said to.
type obituaries struct {
	got  []netconsole.Obituary
	done bool
}

func (o *obituaries) Obituary(_ netip.Addr, _ netconsole.Identity, text netconsole.Obituary, _ time.Time) bool {
	o.got = append(o.got, text)
	return o.done
}

func obituaryShard(to Obituaries, key ed25519.PrivateKey) *Shard {
	return NewShard(&Config{
		Judge: &detect.Config{}, Sink: &sink{}, Metrics: new(Metrics), Pins: pins{bootA: netconsole.Secret(secretA).Sum()},
		Obituaries: to, Cluster: "prod-1", Key: key,
	})
}

var (
	identityA = netconsole.Identity{Instance: "i-0abc", Boot: bootA, Secret: secretA}
	longOne   = netconsole.Obituary{
		Boot: "old", Cause: "KernelPanic", Evidence: "pstore", Cluster: "prod-1", Text: []byte(strings.Repeat("<6>[ 1.000000] a line\n", 500)),
	}
)

// A whole obituary is acknowledged part by part, the last one once it is dealt with.
func TestObituaryIsAcknowledged(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	to := &obituaries{}
	s := obituaryShard(to, private)
	nonce, parts := longOne.Datagrams(identityA)
	if len(parts) < 5 {
		t.Fatalf("%d parts", len(parts))
	}
	now, acked, recorded := time.Unix(1000, 0), map[uint64]bool{}, false
	send := func() {
		for i, p := range parts {
			now = now.Add(10 * time.Millisecond)
			line := s.Receive(now, nodeA, p)
			if line == nil {
				continue
			}
			ack, ok := netconsole.ParseAck(string(line))
			origin := netconsole.Origin{Cluster: "prod-1", Boot: bootA, Source: nodeA}
			if !ok || ack.Nonce != nonce || ack.Seq != uint64(i+1) || !ack.Verify(public, origin) {
				t.Fatalf("part %d: ack %q", i+1, line)
			}
			acked[ack.Seq] = true
			recorded = ack.Known
		}
	}
	send()
	if recorded {
		t.Error("acknowledged as recorded before it is dealt with")
	}
	if len(acked) != len(parts)-1 || len(to.got) != 1 {
		t.Errorf("%d of %d parts acknowledged, handed over %d times before it is dealt with", len(acked), len(parts), len(to.got))
	}
	to.done = true
	now = now.Add(11 * time.Second)
	send()
	if !recorded || len(acked) != len(parts) || len(to.got) != 2 || cmp.Diff(longOne, to.got[1]) != "" {
		t.Errorf("%d of %d parts acknowledged, handed over %d times", len(acked), len(parts), len(to.got))
	}
	now = now.Add(time.Minute)
	send()
	if len(to.got) != 2 {
		t.Error("it is handed over after it is dealt with")
	}
}

func TestWhoseObituaryIsHeard(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(id *netconsole.Identity, o *netconsole.Obituary)
		want bool
	}{
		{"the node's", func(*netconsole.Identity, *netconsole.Obituary) {}, true},
		{"without the secret", func(id *netconsole.Identity, _ *netconsole.Obituary) { id.Secret = "" }, false},
		{"with a made-up secret", func(id *netconsole.Identity, _ *netconsole.Obituary) { id.Secret = "made-up" }, false},
		{"of a boot that nobody pinned", func(id *netconsole.Identity, _ *netconsole.Obituary) { id.Boot = "another" }, false},
		{"of another cluster", func(_ *netconsole.Identity, o *netconsole.Obituary) { o.Cluster = "prod-2" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := &obituaries{done: true}
			s := obituaryShard(to, nil)
			id, o := identityA, longOne
			tt.edit(&id, &o)
			answered := false
			_, parts := o.Datagrams(id)
			for _, p := range parts {
				answered = s.Receive(time.Unix(1000, 0), nodeA, p) != nil || answered
			}
			if heard := len(to.got) == 1; heard != tt.want || answered != tt.want {
				t.Errorf("heard: %t, answered: %t; want %t", heard, answered, tt.want)
			}
		})
	}
}

// What a kernel sends is none, whatever is written to /dev/kmsg.
func TestObituaryInAKernelsLog(t *testing.T) {
	to := &obituaries{done: true}
	s := obituaryShard(to, nil)
	_, parts := longOne.Datagrams(identityA)
	for _, p := range parts {
		forged := strings.Replace(string(p), ",-,caller=lastgasp;", ",-,caller=T1;", 1)
		if ack := s.Receive(time.Unix(1000, 0), nodeA, []byte(forged)); ack != nil {
			t.Errorf("answered %q", ack)
		}
	}
	if len(to.got) > 0 {
		t.Error("an obituary out of a kernel's log")
	}
}

// A flood of parts is not answered without end, and takes nothing from the acks of canaries.
func TestPartsAreBounded(t *testing.T) {
	s := obituaryShard(&obituaries{done: true}, nil)
	_, parts := longOne.Datagrams(identityA)
	acks := 0
	for range 10_000 {
		if s.Receive(time.Unix(1000, 0), nodeA, parts[0]) != nil {
			acks++
		}
	}
	if acks != partsBurst {
		t.Errorf("%d acks, want %d", acks, partsBurst)
	}
	if p := s.table.sources[nodeA].party; !p.acks.take(time.Unix(1000, 0), acksBurst, acksPerSecond) {
		t.Error("canaries are not answered any more")
	}
}
