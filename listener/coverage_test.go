package listener

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

func TestCoverageReport(t *testing.T) {
	c := new(Coverage)
	book := func(at time.Time, addr, kernel string, panicSeconds int) {
		c.Canary(receive.Canary{At: at, From: netip.MustParseAddr(addr), Known: addr != "10.0.0.9", Canary: netconsole.Canary{
			Instance: "i-" + addr, Facts: netconsole.Facts{Kernel: kernel, Panic: panicSeconds, PanicOnOops: true, ConsoleLevel: 7},
		}})
	}
	now := epoch.Add(time.Hour)
	book(now.Add(-time.Minute), "10.0.0.1", "6.12.1", 10)
	book(now.Add(-time.Minute), "10.0.0.2", "7.2.13+deb14-cloud-amd64", 10)
	book(now.Add(-45*time.Minute), "10.0.0.3", "6.12.1", 10)
	book(now, "10.0.0.9", "6.1.0", 0)
	var got []string
	for _, r := range c.Report(now, []RosterNode{
		{Name: "a", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		{Name: "b", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}},
		{Name: "c", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.3")}},
		{Name: "d", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.4")}, Pinned: true},
	}) {
		row := r.Node + " " + r.Address.String() + " " + string(r.Cover)
		if r.Pinned {
			row += " pinned"
		}
		got = append(got, row)
	}
	want := []string{"b 10.0.0.2 mute", "c 10.0.0.3 silent", "d 10.0.0.4 unproven pinned", " 10.0.0.9 stranger", "a 10.0.0.1 covered"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// A node is missed once three of its canaries are, however often it sends them.
func TestSilenceIsMeasuredInIntervals(t *testing.T) {
	for _, tt := range []struct {
		name     string
		interval time.Duration
		age      time.Duration
		want     Cover
	}{
		{"one that does not say, in time", 0, 30 * time.Minute, Covered},
		{"one that does not say, late", 0, 32 * time.Minute, Silent},
		{"every ten seconds, in time", 10 * time.Second, 90 * time.Second, Covered},
		{"every ten seconds, late", 10 * time.Second, 91 * time.Second, Silent},
		{"every six hours, in time", 6 * time.Hour, 18 * time.Hour, Covered},
		{"every six hours, late", 6 * time.Hour, 19 * time.Hour, Silent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := new(Coverage)
			c.Canary(receive.Canary{At: epoch, From: nodeA.Addr(), Known: true, Canary: netconsole.Canary{Interval: tt.interval}})
			if row := c.Report(epoch.Add(tt.age), nil)[0]; row.Cover != tt.want {
				t.Errorf("%s after %s, want %s", row.Cover, tt.age, tt.want)
			}
		})
	}
}

// An autoscaler takes nodes away every day, and nobody is to look for them.
func TestNodesThatAreGoneAreNotMissed(t *testing.T) {
	c := new(Coverage)
	c.Canary(receive.Canary{Canary: canaryA(), At: epoch, From: nodeA.Addr(), Known: true})
	c.Canary(receive.Canary{Canary: canaryA(), At: epoch, From: node(1).Addr(), Known: true})
	c.Canary(receive.Canary{Canary: canaryA(), At: epoch, From: node(2).Addr()})
	roster := []RosterNode{{Name: "a", Addresses: []netip.Addr{nodeA.Addr()}}}
	if diff := cmp.Diff(map[Cover]int{Covered: 2, Stranger: 1}, c.Count(epoch.Add(time.Minute), roster)); diff != "" {
		t.Errorf("a minute later (-want +got):\n%s", diff)
	}
	later := epoch.Add(2 * time.Hour)
	if diff := cmp.Diff(map[Cover]int{Silent: 1}, c.Count(later, roster)); diff != "" {
		t.Errorf("two hours later (-want +got):\n%s", diff)
	}
	if n := len(c.Report(later, nil)); n != 3 {
		t.Errorf("%d rows where there is no cluster to tell who is gone, want 3", n)
	}
}

// A node that sends from another of its addresses since a reload is heard.
func TestCoverageOfADualStackNode(t *testing.T) {
	four, six := nodeA.Addr(), netip.MustParseAddr("2001:db8::1")
	for _, addrs := range [][]netip.Addr{{four, six}, {six, four}} {
		c := new(Coverage)
		c.Canary(receive.Canary{Canary: canaryA(), At: epoch, From: four, Known: true})
		c.Canary(receive.Canary{Canary: canaryA(), At: epoch.Add(time.Hour), From: six, Known: true})
		rows := c.Report(epoch.Add(time.Hour+time.Minute), []RosterNode{{Name: "a", Addresses: addrs}})
		if len(rows) != 1 || rows[0].Cover != Covered || rows[0].Address != six {
			t.Errorf("addresses %v: %+v, want one row, covered", addrs, rows)
		}
	}
}

func TestCoverageIsBounded(t *testing.T) {
	c := new(Coverage)
	heard := func(at time.Time, from netip.Addr, known bool) bool {
		return c.Canary(receive.Canary{At: at, From: from, Known: known})
	}
	for i := range 10 * maxStrangers {
		heard(epoch, node(1<<20+i).Addr(), false)
	}
	if n := len(c.byAddr); n != maxStrangers {
		t.Errorf("%d strangers kept, want %d", n, maxStrangers)
	}
	for i := range maxCovered + 1000 {
		heard(epoch, node(i).Addr(), true)
	}
	if n := len(c.byAddr); n != maxStrangers+maxCovered {
		t.Errorf("%d addresses kept, want %d", n, maxStrangers+maxCovered)
	}
	if heard(epoch.Add(time.Second), nodeA.Addr(), true) {
		t.Error("booked although there is no room")
	}
	if !heard(epoch.Add(time.Hour), nodeA.Addr(), true) || len(c.byAddr) != 1 || c.strangers != 0 {
		t.Errorf("%d addresses an hour later, %d of them strangers; want the new one alone", len(c.byAddr), c.strangers)
	}
}

// A made-up secret with a sequence number from the far future must not make the node's own canaries look old.
func TestForgedCanaryDoesNotSilenceTheNode(t *testing.T) {
	c := new(Coverage)
	heard := func(at time.Time, secret netconsole.Secret, seq uint64) bool {
		return c.Canary(receive.Canary{Canary: canaryA(), At: at, From: nodeA.Addr(), Secret: secret, Seq: seq, Known: true})
	}
	heard(epoch, "own", 100)
	heard(epoch, "made up", 1<<63)
	later := epoch.Add(time.Hour)
	if !heard(later, "own", 200) {
		t.Error("the node's own canary proves nothing any more")
	}
	if row := c.Report(later, nil)[0]; row.Cover != Covered {
		t.Errorf("the node is %s: %s", row.Cover, row.Why)
	}
}

func TestReplayedCanaryProvesNothing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		later []byte // 20 minutes after the node's own canary with seq 500
		want  Cover  // 40 minutes after it
	}{
		{"the next one", canaryDatagram(501, canaryA(), userdata), Covered},
		{"the same again", canaryDatagram(500, canaryA(), userdata), Silent},
		{"an older one", canaryDatagram(400, canaryA(), userdata), Silent},
		{"one without identity", canaryDatagram(501, canaryA(), "\n"), Silent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cov := new(Coverage)
			sh := receive.NewShard(&receive.Config{Judge: &detect.Config{}, Sink: new(sink), Canaries: cov, Metrics: new(receive.Metrics)})
			sh.Receive(epoch, nodeA, canaryDatagram(500, canaryA(), userdata))
			if ack := sh.Receive(epoch.Add(20*time.Minute), nodeA, tt.later); len(ack) == 0 || len(ack) > len(tt.later) {
				t.Errorf("answered %d bytes with %d", len(tt.later), len(ack))
			}
			if row := cov.Report(epoch.Add(40*time.Minute), nil)[0]; row.Cover != tt.want {
				t.Errorf("cover %+v, want %s", row, tt.want)
			}
		})
	}
}

// Whoever shares the address of a node can send canaries; that the node is heard they do not show.
func TestCanariesOfAPodCoverNoPinnedNode(t *testing.T) {
	own := policy.Pin{Boot: canaryA().Boot, Sum: netconsole.Secret("own").Sum()}
	heard := func(c *Coverage, secret netconsole.Secret, verified bool, boot string) {
		canary := receive.Canary{Canary: canaryA(), At: epoch, From: nodeA.Addr(), Secret: secret, Seq: 7, Known: true, Verified: verified}
		canary.Boot = boot
		c.Canary(canary)
	}
	for _, tt := range []struct {
		name string
		pin  policy.Pin
		say  func(c *Coverage)
		want Cover
	}{
		{"its own", own, func(c *Coverage) { heard(c, "own", true, own.Boot) }, Covered},
		{"its own, before it was pinned", own, func(c *Coverage) { heard(c, "own", false, own.Boot) }, Covered},
		{"one of an unpinned node", policy.Pin{}, func(c *Coverage) { heard(c, "made up", false, own.Boot) }, Covered},
		{"a pin of the boot before", policy.Pin{Boot: "before", Sum: "s"}, func(c *Coverage) { heard(c, "own", false, own.Boot) }, Covered},
		{"a pod's", own, func(c *Coverage) { heard(c, "made up", false, own.Boot) }, Unproven},
		{"a pod's without a secret", own, func(c *Coverage) { heard(c, "", false, own.Boot) }, Unproven},
		{"a pod's after its own", own, func(c *Coverage) {
			heard(c, "own", true, own.Boot)
			heard(c, "made up", false, own.Boot)
			heard(c, "", false, own.Boot)
			heard(c, "made up", false, "another boot")
		}, Covered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := new(Coverage)
			tt.say(c)
			rows := c.Report(epoch.Add(time.Minute), []RosterNode{{Name: "a", Addresses: []netip.Addr{nodeA.Addr()}, Pin: tt.pin}})
			if len(rows) != 1 || rows[0].Cover != tt.want || (rows[0].Why == "") != (tt.want == Covered) {
				t.Errorf("rows %+v, want it %s", rows, tt.want)
			}
		})
	}
}
