package receive

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	forged  = ""
	another = "\n instance=i-0abc\n boot=7f3c2f6e-0000-4000-8000-000000000001\n gasp=aW52ZW50ZWQtaW52ZW50ZWQ\n"
)

func canaryA(panicOnOops bool) netconsole.Canary {
	return netconsole.Canary{
		Nonce: strings.Repeat("ab", 16), Instance: "i-0abc", Boot: "7f3c2f6e-0000-4000-8000-000000000001",
		Facts: netconsole.Facts{Kernel: "6.12.117+deb13-cloud-amd64", PanicOnOops: panicOnOops, ConsoleLevel: 7},
	}
}

func canaryDatagram(seq int, c netconsole.Canary, userdata string) []byte {
	return fmt.Appendf(nil, "12,%d,%d,-;%s%s", seq, seq*1000, c.Line(), ending(userdata))
}

// ending ends a record that has no userdata.
func ending(userdata string) string {
	if userdata == "" {
		return "\n"
	}
	return userdata
}

// What a canary says counts for the kernel that proves the same identity, and for no other.
func TestForgedCanaryDoesNotDecideAboutAnOops(t *testing.T) {
	oops := []byte("6.12.117,1,600,9000,-;BUG: kernel NULL pointer dereference, address: 0000000000000000" + userdata)
	type said struct {
		panicOnOops bool
		userdata    string
	}
	for _, tt := range []struct {
		name     string
		canaries []said
		want     detect.Verdict
	}{
		{"the node's own", []said{{true, userdata}}, detect.Dying},
		{"the node's latest", []said{{true, userdata}, {false, userdata}}, detect.Oops},
		{"one without identity alone", []said{{true, forged}}, detect.Oops},
		{"one without identity afterwards", []said{{false, userdata}, {true, forged}}, detect.Oops},
		{"one without identity that denies it", []said{{true, userdata}, {false, forged}}, detect.Dying},
		{"one with a made-up gasp afterwards", []said{{false, userdata}, {true, another}}, detect.Oops},
		{"one with a made-up gasp before", []said{{true, another}, {false, userdata}}, detect.Oops},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(sink)
			sh, _ := testShard(s)
			for i, c := range tt.canaries {
				sh.Receive(epoch.Add(time.Duration(i)*time.Minute), nodeA, canaryDatagram(500+i, canaryA(c.panicOnOops), c.userdata))
			}
			sh.Receive(epoch.Add(time.Hour), nodeA, oops)
			if len(s.incidents) == 0 || s.incidents[0].Verdict != tt.want {
				t.Errorf("incidents %+v, want one that is %s", s.incidents, tt.want)
			}
		})
	}
}

// Nobody can be flooded by canaries sent in their name, from however many ports.
func TestAcksAreLimitedPerAddress(t *testing.T) {
	sh, _ := testShard(new(sink))
	acks := 0
	for port := range uint16(1000) {
		if sh.Receive(epoch, netip.AddrPortFrom(nodeA.Addr(), port), canaryDatagram(int(port), canaryA(true), userdata)) != nil {
			acks++
		}
	}
	if acks != strangerAcksBurst {
		t.Errorf("%d acks for canaries from 1000 ports, want %d", acks, strangerAcksBurst)
	}
	later := epoch.Add(youngFor)
	acks = 0
	for range 1000 {
		if sh.Receive(later, netip.AddrPortFrom(nodeA.Addr(), 0), canaryDatagram(1, canaryA(true), userdata)) != nil {
			acks++
		}
	}
	if acks != acksBurst {
		t.Errorf("%d acks for 1000 canaries from one port, want %d", acks, acksBurst)
	}
}
