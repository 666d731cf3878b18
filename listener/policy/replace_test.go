package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// What the node says afterwards, when it has pinned its secret.
func TestGivesWayToAnObituary(t *testing.T) {
	made := Death{Phase: Recorded, Authority: detect.Claimed, Evidence: []Evidence{ByPstore}, Fingerprint: "a"}
	own := Death{Phase: Recorded, Authority: detect.Pinned, Evidence: []Evidence{ByPstore}, Fingerprint: "b"}
	for _, tt := range []struct {
		name string
		edit func(have, o *Death)
		want bool
	}{
		{"what was claimed, to what is pinned", func(_, _ *Death) {}, true},
		{"to no word", func(_, o *Death) { o.Evidence = []Evidence{ByNothing} }, true},
		{"to what is claimed, too", func(_, o *Death) { o.Authority = detect.Claimed }, false},
		{"what was pinned", func(have, _ *Death) { have.Authority = detect.Pinned }, false},
		{"what was pinned, to what is claimed", func(have, o *Death) { have.Authority, o.Authority = o.Authority, have.Authority }, false},
		{"what another replica could not explain", func(have, _ *Death) { have.Authority, have.Evidence = detect.Text, []Evidence{ByNothing} }, false},
		{"what the cloud said", func(have, _ *Death) { have.Authority, have.Evidence = detect.Cloud, []Evidence{ByCloud} }, false},
		{"what was acted on", func(have, _ *Death) { have.Phase = Cleaned }, false},
		{"what waits for a witness", func(have, _ *Death) { have.Phase, have.Evidence = Pending, []Evidence{ByNetconsole} }, false},
		{"what was heard, to words of another death", func(have, _ *Death) { have.Evidence = []Evidence{ByNetconsole} }, true},
		{"what was heard without a secret, to words of another death", func(have, _ *Death) { have.Authority, have.Evidence = detect.Kernel, []Evidence{ByNetconsole} }, true},
		{"what was heard, to words of the same", func(have, o *Death) { have.Evidence, o.Fingerprint = []Evidence{ByNetconsole}, "a" }, false},
		{"what was heard, to a watchdog", func(have, o *Death) { have.Evidence, o.Evidence = []Evidence{ByNetconsole}, []Evidence{ByWatchdog} }, false},
		{"a false alarm", func(have, _ *Death) { have.Phase, have.Evidence = Refused, []Evidence{ByNetconsole} }, true},
		{"what a console showed afterwards, to what another console shows", func(have, o *Death) {
			have.Authority, have.Evidence, o.Authority, o.Evidence = detect.Text, []Evidence{ByNothing}, detect.Cloud, []Evidence{ByConsole}
		}, false},
	} {
		have, o := made, own
		tt.edit(&have, &o)
		if got := have.GivesWay(o); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// What is heard of a kernel while it dies.
func TestGivesWayToWhatIsHeard(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		phase Phase
		have  detect.Authority
		heard detect.Authority
		later time.Duration
		by    Evidence
		want  bool
	}{
		{"", detect.Boot, detect.Pinned, 0, ByNetconsole, true},
		{Pending, detect.Boot, detect.Pinned, 0, ByNetconsole, true},
		{Held, detect.Claimed, detect.Pinned, 0, ByNetconsole, true},
		{Pending, detect.Cloud, detect.Kernel, 0, ByConsole, true},
		{Recorded, detect.Text, detect.Kernel, 0, ByNothing, true},
		{Recorded, detect.Claimed, detect.Pinned, 0, ByPstore, true},
		{Pending, detect.Pinned, detect.Pinned, time.Hour, ByNetconsole, false},
		{Pending, detect.Pinned, detect.Boot, time.Hour, ByNetconsole, false},
		{Recorded, detect.Pinned, detect.Pinned, time.Hour, ByPstore, false},
		{Cleaning, detect.Boot, detect.Pinned, 0, ByNetconsole, false},
		{Cleaned, detect.Boot, detect.Pinned, time.Hour, ByNetconsole, false},
		{Incomplete, detect.Boot, detect.Pinned, time.Hour, ByNetconsole, false},
		// A false alarm, unless it is the one that is heard: times are stored in whole seconds.
		{Refused, detect.Boot, detect.Boot, 999 * time.Millisecond, ByNetconsole, false},
		{Refused, detect.Boot, detect.Boot, -999 * time.Millisecond, ByNetconsole, false},
		{Refused, detect.Pinned, detect.Boot, 0, ByNetconsole, false},
		{Refused, detect.Boot, detect.Boot, 1001 * time.Millisecond, ByNetconsole, true},
		{Refused, detect.Boot, detect.Boot, -1001 * time.Millisecond, ByNetconsole, true},
		{Refused, detect.Pinned, detect.Boot, time.Minute, ByNetconsole, true},
		{Refused, detect.Boot, detect.Pinned, 0, ByNetconsole, true},
		{Refused, detect.Text, detect.Text, 0, ByNothing, true},
	} {
		have := Death{Phase: tt.phase, Authority: tt.have, Evidence: []Evidence{tt.by}, Time: at}
		o := Death{Phase: Pending, Authority: tt.heard, Evidence: []Evidence{ByNetconsole}, Time: at.Add(tt.later)}
		if got := have.GivesWay(o); got != tt.want {
			t.Errorf("%s on %v by %s, to what is heard on %v %s later: %t, want %t", tt.phase.OrPending(), tt.have, tt.by, tt.heard, tt.later, got, tt.want)
		}
	}
}

func TestInherit(t *testing.T) {
	for _, tt := range []struct {
		phase     Phase
		had, mine []Evidence
		want      []Evidence
	}{
		{Recorded, []Evidence{ByNetconsole, ByKdump}, []Evidence{ByPstore}, []Evidence{ByNetconsole, ByPstore}},
		{Recorded, []Evidence{ByConsole}, []Evidence{ByNetconsole}, []Evidence{ByConsole, ByNetconsole}},
		{Recorded, []Evidence{ByNetconsole}, []Evidence{ByNetconsole}, []Evidence{ByNetconsole}},
		{Recorded, []Evidence{ByCloud}, []Evidence{ByNothing}, []Evidence{ByNothing}},
		{Refused, []Evidence{ByNetconsole}, []Evidence{ByPstore}, []Evidence{ByPstore}}, // it was false
	} {
		d := Death{Evidence: tt.mine}
		d.Inherit(Death{Phase: tt.phase, Evidence: tt.had})
		if !slices.Equal(d.Evidence, tt.want) {
			t.Errorf("%v inherits %v of what is %s: %v, want %v", tt.mine, tt.had, tt.phase, d.Evidence, tt.want)
		}
	}
}
