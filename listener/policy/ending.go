package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Ending is all that is known of the end of a boot of which neither its kernel nor its node has said anything.
type Ending struct {
	Node Node   // as it was last read while the boot ran, or was silent
	Boot string // that ended
	// At is when the boot was found to have ended. How says how that is known: "node n1 is back on boot …".
	At  time.Time
	How string
	// LastCanary and LastLease are the last signs of life, zero if unknown.
	LastCanary, LastLease time.Time
	Fate                  Fate
	// Console is the death that the machine's console tells of, zero if none; Named says that the text names the boot.
	Console detect.Incident
	Named   bool
}

// Death is the record of the ending: what the console says, else what the cloud says, else that nothing is known.
// Nothing follows from it.
func (g Ending) Death() Death {
	n := g.Node
	n.BootID = g.Boot
	inc, authority, evidence := g.Console, detect.Text, ByConsole
	cause := g.Fate.cause()
	switch {
	case inc.Verdict == detect.Dying && g.Named:
		authority = detect.Cloud
	case inc.Verdict == detect.Dying:
	case cause != "":
		inc = detect.Incident{Cause: cause, Title: g.Fate.String(n.Instance())}
		authority, evidence = detect.Cloud, ByCloud
	default:
		inc = detect.Incident{Cause: netconsole.CauseUnexplained, Title: "the boot ended without a word"}
		evidence = ByNothing
	}
	inc.Time = cmp.Or(inc.Time, g.At)
	d := NewDeath(inc, authority, n)
	d.Evidence = []Evidence{evidence}
	d.Release = cmp.Or(d.Release, n.Kernel)
	d.Phase, d.Decision = Recorded, g.known()
	return d
}

// known says what is known besides the cause, in one sentence.
func (g Ending) known() string {
	known := []string{g.How}
	for _, sign := range []struct {
		what string
		at   time.Time
	}{{"last canary", g.LastCanary}, {"Lease last renewed", g.LastLease}} {
		if !sign.at.IsZero() {
			known = append(known, fmt.Sprintf("%s at %s", sign.what, sign.at.UTC().Format(time.RFC3339)))
		}
	}
	if said := g.Fate.String(g.Node.Instance()); said != "" && !strings.Contains(g.How, said) {
		known = append(known, said)
	}
	return strings.Join(known, "; ")
}

const (
	// farewellLasts is how long after a farewell its boot may still run, and farewellEarly how long before the time that a
	// notice of EC2 names the machine may go.
	farewellLasts = 30 * time.Minute
	farewellEarly = 5 * time.Minute
)

// ended reports whether this farewell explains the end of a boot at the time given. It does not if it was due much later, or so
// long ago that the shutdown must have been called off.
func (f Farewell) ended(at time.Time) bool {
	begin := f.At
	if _, text, ok := strings.Cut(f.Text, farewellDue); ok {
		if due, err := time.Parse(time.RFC3339, text); err == nil && due.After(begin) {
			begin = due
		}
	}
	soft := strings.HasPrefix(f.Text, softRebooted) // the boot goes on
	return f.On != "" || !soft && at.After(begin.Add(-farewellEarly)) && at.Before(begin.Add(farewellLasts))
}

// Drained reports whether a drain would have left all of these pods on their cordoned node. The cordon alone proves nothing:
// people also cordon nodes that they do not trust.
func Drained(pods []Pod) bool {
	return !slices.ContainsFunc(pods, func(p Pod) bool { return !p.Finished() && !p.Mirror && p.Owner.Kind != "DaemonSet" })
}

// LeftInOrder says in a few words why boot of n, which ended at the time given, ended in good order. It is empty if nothing
// says so.
func (n Node) LeftInOrder(boot string, at time.Time) string {
	if n.Farewell.Boot == boot && boot != "" && n.Farewell.ended(at) {
		return n.Farewell.String()
	}
	if n.BootID == boot && n.Leaving {
		return "it was being taken away"
	}
	return ""
}

// Ours reports whether lastgasp knows that boot of n: the node pinned it, or a canary claimed it. The end of any other boot
// goes unrecorded.
func (n Node) Ours(boot string) bool {
	return boot != "" && (n.Pin.Boot == boot || n.Claim.Boot == boot)
}
