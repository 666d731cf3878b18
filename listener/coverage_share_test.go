package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// boards is where the replicas of a test leave their coverage.
type boards struct {
	parts  map[string][][]byte
	writes int
	err    error
}

// board is one replica's view of it.
type board struct {
	*boards
	replica string
}

func (b board) ShareCoverage(_ context.Context, parts [][]byte) error {
	if b.err == nil {
		b.parts[b.replica] = parts
		b.writes++
	}
	return b.err
}

func (b board) SharedCoverage(context.Context) (all [][]byte, err error) {
	for _, parts := range b.parts {
		all = append(all, parts...)
	}
	return all, b.err
}

// heard makes a canary of node i arrive.
func heard(c *Coverage, at time.Time, i int, change func(*receive.Canary)) {
	canary := receive.Canary{At: at, From: node(i).Addr(), Known: true, Canary: netconsole.Canary{
		Instance: fmt.Sprintf("i-%d", i), Boot: "b", Facts: netconsole.Facts{Kernel: "6.12.1", ConsoleLevel: 7},
	}}
	if change != nil {
		change(&canary)
	}
	c.Canary(canary)
}

func rosterOf(n int) []RosterNode {
	var out []RosterNode
	for i := range n {
		out = append(out, RosterNode{Name: fmt.Sprintf("n%05d", i), Addresses: []netip.Addr{node(i).Addr()}})
	}
	return out
}

// report is what a replica says of each node.
func report(c *Coverage, now time.Time, roster []RosterNode) (out []string) {
	for _, r := range c.Report(now, roster) {
		out = append(out, strings.TrimSpace(r.Node+" "+string(r.Cover)+" "+r.Kernel))
	}
	slices.Sort(out)
	return out
}

// Each node's canaries reach one of three replicas, one of which ends and one of which starts late.
func TestReplicasSayTheSame(t *testing.T) {
	b := &boards{parts: map[string][][]byte{}}
	roster := rosterOf(5)
	a, z := new(Coverage), new(Coverage)
	exchange := func(now time.Time, c *Coverage, name string) {
		t.Helper()
		if err := c.exchange(t.Context(), now, board{b, name}, roster); err != nil {
			t.Fatal(err)
		}
	}
	now := epoch
	heard(a, now, 0, nil)
	heard(a, now, 1, func(c *receive.Canary) { c.Facts.Kernel, c.Facts.Panic = "7.2.0", 10 })
	heard(z, now, 2, nil)
	heard(z, now.Add(-time.Hour), 3, nil)
	exchange(now, a, "a")
	exchange(now, z, "z")
	exchange(now, a, "a")
	want := []string{"n00000 covered 6.12.1", "n00001 mute 7.2.0", "n00002 covered 6.12.1", "n00003 silent 6.12.1", "n00004 unproven"}
	for name, c := range map[string]*Coverage{"a": a, "z": z} {
		if diff := cmp.Diff(want, report(c, now, roster)); diff != "" {
			t.Errorf("replica %s (-want +got):\n%s", name, diff)
		}
	}
	// a is replaced by a process that has heard nothing; its own Lease is overwritten.
	restarted := new(Coverage)
	now = now.Add(time.Minute)
	exchange(now, restarted, "a")
	if diff := cmp.Diff(want, report(restarted, now, roster)); diff != "" {
		t.Errorf("replica a after its restart (-want +got):\n%s", diff)
	}
	exchange(now, z, "z")
	if diff := cmp.Diff(want, report(z, now, roster)); diff != "" {
		t.Errorf("replica z after that (-want +got):\n%s", diff)
	}
	// What is exchanged again and again does not become younger.
	for range 60 {
		now = now.Add(time.Minute)
		exchange(now, restarted, "a")
		exchange(now, z, "z")
	}
	if got := report(z, now, roster)[0]; got != "n00000 silent 6.12.1" {
		t.Errorf("an hour later: %s, want it silent", got)
	}
}

// A pod can send canaries from its node's address to whichever replica it likes.
func TestReplicasBelieveTheVerified(t *testing.T) {
	pinned := rosterOf(1)
	pinned[0].Pin = policy.Pin{Boot: "b", Sum: netconsole.Secret("true").Sum()}
	verified := func(c *receive.Canary) { c.Secret, c.Verified = "true", true }
	forged := func(c *receive.Canary) { c.Secret, c.Facts.Kernel, c.Facts.Panic = "made up", "7.2.0", 10 }
	for _, tt := range []struct {
		name string
		a, z func(*receive.Canary)
		want string
	}{
		{"the node, and later a pod elsewhere", verified, forged, "n00000 covered 6.12.1"},
		{"a pod alone", forged, forged, "n00000 unproven 7.2.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &boards{parts: map[string][][]byte{}}
			a, z := new(Coverage), new(Coverage)
			heard(a, epoch, 0, tt.a)
			heard(z, epoch.Add(time.Minute), 0, tt.z)
			for range 3 {
				for name, c := range map[string]*Coverage{"a": a, "z": z} {
					if err := c.exchange(t.Context(), epoch.Add(time.Minute), board{b, name}, pinned); err != nil {
						t.Fatal(err)
					}
				}
			}
			for name, c := range map[string]*Coverage{"a": a, "z": z} {
				if got := report(c, epoch.Add(time.Minute), pinned); !slices.Equal(got, []string{tt.want}) {
					t.Errorf("replica %s says %q, want %q", name, got, tt.want)
				}
			}
		})
	}
}

// A kubelet lists another node's address as its own Node's, and pins that node's boot with a secret of its own.
func TestReplicasBelieveTheNodeThatPinned(t *testing.T) {
	roster := rosterOf(2)
	roster[0].Pin = policy.Pin{Boot: "b", Sum: netconsole.Secret("true").Sum()}
	roster[1].Pin = policy.Pin{Boot: "b", Sum: netconsole.Secret("another").Sum()}
	roster[1].Addresses = append(roster[1].Addresses, roster[0].Addresses...)
	b := &boards{parts: map[string][][]byte{}}
	a, z := new(Coverage), new(Coverage)
	heard(a, epoch, 0, func(c *receive.Canary) { c.Secret, c.Verified = "true", true })
	for range 2 {
		for name, c := range map[string]*Coverage{"a": a, "z": z} {
			if err := c.exchange(t.Context(), epoch.Add(time.Minute), board{b, name}, roster); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := report(z, epoch.Add(time.Minute), roster); !slices.Contains(got, "n00000 covered 6.12.1") {
		t.Errorf("the other replica says %q", got)
	}
}

// A replica whose clock is ahead does not make nodes look covered until then.
func TestCanariesOfTheFutureAreNotBelieved(t *testing.T) {
	b := &boards{parts: map[string][][]byte{}}
	ahead, c, roster := new(Coverage), new(Coverage), rosterOf(1)
	heard(ahead, epoch.Add(24*time.Hour), 0, nil)
	if err := ahead.exchange(t.Context(), epoch.Add(24*time.Hour), board{b, "ahead"}, roster); err != nil {
		t.Fatal(err)
	}
	heard(c, epoch, 0, nil)
	for minute := range 60 {
		if err := c.exchange(t.Context(), epoch.Add(time.Duration(minute)*time.Minute), board{b, "c"}, roster); err != nil {
			t.Fatal(err)
		}
	}
	if got := report(c, epoch.Add(time.Hour), roster)[0]; got != "n00000 silent 6.12.1" {
		t.Errorf("an hour after its last canary: %s, want it silent", got)
	}
}

func TestSharedCoverageIsBounded(t *testing.T) {
	c := new(Coverage)
	const nodes = 20_000
	for i := range nodes {
		heard(c, epoch.Add(time.Duration(i)*time.Millisecond), i, nil)
	}
	for i := range 10 * sharedStrangers {
		heard(c, epoch, nodes+i, func(c *receive.Canary) { c.Known = false })
	}
	rows := c.toShare(epoch, rosterOf(nodes))
	if want := nodes + sharedStrangers; len(rows) != want {
		t.Errorf("%d rows are shared, want %d", len(rows), want)
	}
	parts, err := encodeShared(rows)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, p := range parts {
		if size += len(p); len(p) > partSize {
			t.Errorf("a part has %d bytes, want %d at most", len(p), partSize)
		}
	}
	t.Logf("%d nodes take %d bytes in %d parts", nodes, size, len(parts))
	other := new(Coverage)
	if err := other.adopt(epoch, append(parts, []byte("of a newer version"))); err == nil {
		t.Error("a part that cannot be read is no error")
	}
	if diff := cmp.Diff(c.Count(epoch, rosterOf(nodes))[Covered], other.Count(epoch, rosterOf(nodes))[Covered]); diff != "" {
		t.Errorf("covered (-here +there):\n%s", diff)
	}
}

func TestCoverageIsExchangedEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b, c, roster := &boards{parts: map[string][][]byte{}}, new(Coverage), rosterOf(1)
		var log strings.Builder
		go func() {
			if err := c.KeepShared(ctx, board{b, "a"}, func() []RosterNode { return roster }, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
				t.Errorf("end: %v", err)
			}
		}()
		heard(c, time.Now(), 0, nil)
		time.Sleep(10*time.Minute - time.Second)
		synctest.Wait()
		if b.writes != 10 {
			t.Errorf("%d writes in ten minutes, want 10", b.writes)
		}
		b.err = errors.New("connection refused")
		time.Sleep(10 * time.Minute)
		cancel()
		synctest.Wait()
		if n := strings.Count(log.String(), "connection refused"); n != 1 {
			t.Errorf("an outage is logged %d times, want once: %s", n, log.String())
		}
	})
}
