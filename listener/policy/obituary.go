package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// ObituaryBy says how far n is believed about how its boot old ended, or why it is not. speaks is the boot that says so and
// sum the SHA-256 of its secret: n must run that boot, and must have pinned the secret, or a canary claimed it. last is the
// boot that n is known to have run before, empty if that is not known.
func ObituaryBy(n Node, speaks, sum, old, last string) (detect.Authority, error) {
	said := Pin{Boot: speaks, Sum: sum}
	switch {
	case n.BootID != speaks:
		return 0, fmt.Errorf("node %s runs boot %s and not %s", n.Name, n.BootID, speaks)
	case old == "" || old == speaks:
		return 0, fmt.Errorf("node %s speaks of the boot that it runs", n.Name)
	case last != "" && last != speaks && last != old:
		return 0, fmt.Errorf("the boot before was %s and not %s", last, old)
	case sum != "" && n.Pin == said:
		return detect.Pinned, nil
	case sum != "" && n.Pin.Boot != speaks && n.Claim == said:
		return detect.Claimed, nil
	}
	return 0, fmt.Errorf("node %s has not pinned the secret of boot %s; check that lastgasp-configurator-watch.service is running there",
		n.Name, speaks)
}

// FarewellAfterwards is the farewell of a boot that ended in good order, if its node says so only on a later boot, speaks.
func FarewellAfterwards(o netconsole.Obituary, speaks string, at time.Time) Farewell {
	if o.Time.After(at.Add(-longAgo)) && o.Time.Before(at) {
		at = o.Time
	}
	return Farewell{Boot: o.Boot, Text: "shut down", At: at.UTC().Truncate(time.Second), On: speaks}
}

// obituaryLines bounds the trace that is kept of an obituary without an incident.
const obituaryLines = 200

// causeWord is what a cause has to be.
var causeWord = regexp.MustCompile(`^[A-Za-z]{1,63}$`)

// LastWords reports whether the text of an obituary is the last that its kernel said, so that an oops in it is a death. Under another
// cause, or none, the kernel lived on after what is in it.
func LastWords(o netconsole.Obituary) bool {
	by := evidenceBy(o.Evidence)
	return (by == ByPstore || by == ByKdump) && o.Cause != netconsole.CauseUnexplained
}

// KnowsNothing reports whether the node knows nothing of how the boot ended. It may know what the kernel said before.
func KnowsNothing(o netconsole.Obituary) bool {
	return o.Cause == netconsole.CauseUnexplained && evidenceBy(o.Evidence) == ByNothing
}

// longAgo is how long before its obituary a boot may have ended: machines are stopped for months. What is older comes from a clock
// that was not set.
const longAgo = 2 * 365 * 24 * time.Hour

// ObituaryOf is the death that n says its boot o.Boot died. It is judged by the kernel's own words, logs, if there are any
// that are of that boot, else it is what the node says. at is when the obituary arrived.
func ObituaryOf(n Node, o netconsole.Obituary, logs []detect.BootLog, a detect.Authority, at time.Time) Death {
	inc := detect.Incident{Cause: o.Cause, Title: title(o), Release: o.Kernel, Trace: lines(o)}
	if !causeWord.MatchString(o.Cause) {
		inc.Cause = netconsole.CauseUnexplained
	}
	for _, l := range slices.Backward(logs) {
		if l.Boot != "" && l.Boot != o.Boot {
			continue
		}
		if l.Death.Verdict == detect.Dying {
			inc = l.Death
			inc.Release = cmp.Or(inc.Release, o.Kernel)
			break
		}
		if l.Survived.Title != "" && inc.Cause == netconsole.CauseUnexplained {
			inc.Title = "the boot ended without a word; its kernel had oopsed before: " + l.Survived.Title
			break
		}
		if l.Boot == o.Boot {
			break // what comes before are the words of another
		}
	}
	inc.Time = at
	if o.Time.After(at.Add(-longAgo)) && o.Time.Before(at) {
		inc.Time = o.Time
	}
	n.BootID = o.Boot
	d := NewDeath(inc, a, n)
	d.Evidence = []Evidence{evidenceBy(o.Evidence)}
	d.Phase, d.Decision = Recorded, "the node said so when it ran again"
	return d
}

// evidenceBy is what a node knows the end of a boot from.
func evidenceBy(word string) Evidence {
	for _, e := range []Evidence{ByPstore, ByKdump, ByWatchdog, ByFirmware} {
		if string(e) == word {
			return e
		}
	}
	return ByNothing
}

// title is the headline of what is no incident.
func title(o netconsole.Obituary) string {
	first, _, _ := strings.Cut(string(o.Text), "\n")
	switch by := evidenceBy(o.Evidence); {
	case by == ByNothing:
		return "the boot ended without a word"
	case (by == ByWatchdog || by == ByFirmware) && first != "":
		return first
	}
	return "the kernel left its last lines, and no reason in them"
}

// lines are the last lines of an obituary.
func lines(o netconsole.Obituary) []string {
	text := strings.TrimRight(string(o.Text), "\n")
	if text == "" {
		return nil
	}
	all := strings.Split(text, "\n")
	return all[max(0, len(all)-obituaryLines):]
}

// Learn adds to d what o, the same death by other evidence, has and d lacks, and reports whether that is anything.
func (d *Death) Learn(o Death) bool {
	evidence := AddEvidence(d.Evidence, o.Evidence)
	changed := !slices.Equal(evidence, d.Evidence)
	d.Evidence = evidence
	longer := len(o.Trace) > len(d.Trace) && (o.Cause != netconsole.CauseUnexplained || d.Cause == o.Cause)
	if longer || d.ExplainedBy(o) {
		d.Cause, d.Reason, d.Fingerprint, d.Remedy = o.Cause, o.Reason, o.Fingerprint, o.Remedy
		d.Release, d.Culprit = cmp.Or(o.Release, d.Release), o.Culprit
		changed = true
	}
	if longer {
		d.Trace = o.Trace
	}
	return changed
}

// ExplainedBy reports whether o has a cause and d has none. Any is better than that, also one with fewer lines than an oops had which
// the kernel survived.
func (d Death) ExplainedBy(o Death) bool {
	return d.Cause == netconsole.CauseUnexplained && o.Cause != d.Cause
}

// AddEvidence returns the union of have and more. ByNothing stays only if it is alone.
func AddEvidence(have, more []Evidence) []Evidence {
	all := slices.Clone(have)
	for _, e := range more {
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	if known := slices.DeleteFunc(slices.Clone(all), func(e Evidence) bool { return e == ByNothing }); len(known) > 0 {
		return known
	}
	return all
}
