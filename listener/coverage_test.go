package listener

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestCoverageReport(t *testing.T) {
	c := new(Coverage)
	book := func(at time.Time, addr, kernel string, panicSeconds int) {
		c.heard(at, netip.MustParseAddr(addr), heard{canary: netconsole.Canary{
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
		{"a", []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		{"b", []netip.Addr{netip.MustParseAddr("10.0.0.2")}},
		{"c", []netip.Addr{netip.MustParseAddr("10.0.0.3")}},
		{"d", []netip.Addr{netip.MustParseAddr("10.0.0.4")}},
	}) {
		got = append(got, r.Node+" "+r.Address.String()+" "+string(r.Cover))
	}
	want := []string{"b 10.0.0.2 mute", "c 10.0.0.3 silent", "d 10.0.0.4 unproven", " 10.0.0.9 covered", "a 10.0.0.1 covered"}
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
			c.heard(epoch, nodeA.Addr(), heard{canary: netconsole.Canary{Interval: tt.interval}})
			if row := c.Report(epoch.Add(tt.age), nil)[0]; row.Cover != tt.want {
				t.Errorf("%s after %s, want %s", row.Cover, tt.age, tt.want)
			}
		})
	}
}

func TestCoverageIsBounded(t *testing.T) {
	c := new(Coverage)
	for i := range maxSources + 1000 {
		c.heard(epoch, node(i).Addr(), heard{})
	}
	if n := len(c.byAddr); n != maxSources {
		t.Errorf("%d addresses kept, want %d", n, maxSources)
	}
	if c.heard(epoch.Add(time.Second), nodeA.Addr(), heard{}) {
		t.Error("booked although there is no room")
	}
	if !c.heard(epoch.Add(time.Hour), nodeA.Addr(), heard{}) || len(c.byAddr) != 1 {
		t.Errorf("%d addresses an hour later, want the new one alone", len(c.byAddr))
	}
}

// A made-up secret with a sequence number from the far future must not make the node's own canaries look old.
func TestForgedCanaryDoesNotSilenceTheNode(t *testing.T) {
	c := new(Coverage)
	c.heard(epoch, nodeA.Addr(), heard{canary: canaryA(true), gasp: "own", seq: 100})
	c.heard(epoch, nodeA.Addr(), heard{canary: canaryA(true), gasp: "made up", seq: 1 << 63})
	later := epoch.Add(time.Hour)
	if !c.heard(later, nodeA.Addr(), heard{canary: canaryA(true), gasp: "own", seq: 200}) {
		t.Error("the node's own canary proves nothing any more")
	}
	if row := c.Report(later, nil)[0]; row.Cover != Covered {
		t.Errorf("the node is %s: %s", row.Cover, row.Why)
	}
}
