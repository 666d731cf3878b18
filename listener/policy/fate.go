package policy

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// Fate is what the cloud says of a machine. It is zero if the cloud was not asked, or did not answer.
type Fate struct {
	State    string    // pending, running, stopping, stopped, shutting-down, terminated
	Code     string    // state reason: Client.UserInitiatedShutdown, Server.SpotInstanceTermination, …
	Reason   string    // the same in words
	Since    time.Time // of the last transition that somebody asked for; zero if it does not say
	Launched time.Time // when the machine was started last
	Impaired string    // which checks fail and what is scheduled, empty if nothing
}

// Hibernated reports whether the machine is stopped and its memory was kept: its boot goes on when it is started again. EC2 says so
// in the state reason: Client.UserInitiatedHibernate, or in words where it hibernates a spot instance
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html).
func (f Fate) Hibernated() bool {
	return (f.State == "stopped" || f.State == "stopping") && strings.Contains(strings.ToLower(f.Code+" "+f.Reason), "hibernat")
}

// Ended says in a sentence that the machine does not run any more, which ends its boot. It is empty if that is not certain.
func (f Fate) Ended(instance string) string {
	if f.State != "terminated" && f.State != "stopped" || f.Hibernated() {
		return ""
	}
	return "EC2 says: " + f.String(instance)
}

// String is what the cloud says, for people.
func (f Fate) String(instance string) string {
	text := fmt.Sprintf("instance %s is %s", instance, f.State)
	if f.State == "" {
		return ""
	}
	if !f.Since.IsZero() {
		text += " since " + f.Since.UTC().Format(time.RFC3339)
	}
	if f.Code != "" || f.Reason != "" {
		text += " (" + cmp.Or(f.Reason, f.Code) + ")"
	}
	if f.Impaired != "" {
		text += ", " + f.Impaired
	}
	return text
}

// cause is the stable word for what the cloud says ended the boot, empty if it does not say.
func (f Fate) cause() string {
	switch {
	case f.Code == "Server.InternalError", strings.Contains(f.Impaired, "the system status check fails"):
		return "HardwareError"
	case f.State == "terminated", f.State == "stopped", f.State == "stopping", f.State == "shutting-down":
		return "Terminated"
	}
	return ""
}

// Console is the end of what a machine has written to its serial console.
type Console struct {
	Text string
	At   time.Time // when the cloud read it last; zero if it does not say
}

// consoleBefore is how long before the control plane noticed its silence a node may have died: the kubelet's Lease, the
// grace period of the node controller, and clocks that differ.
const consoleBefore = 2 * time.Minute

// Within reports whether the text can be that of the boot of n which fell silent at n.SilentSince: the cloud read it
// after that boot died, and not in the future.
func (c Console) Within(n Node, f Fate, now time.Time) bool {
	return !c.At.IsZero() && !c.At.Before(f.Launched) && !c.At.Before(n.SilentSince.Add(-consoleBefore)) && !c.At.After(now.Add(skew))
}

// DeathIn finds the death of a boot in the logs of a console. named says that the text itself names the boot. If it does not,
// the order of the logs has to show whose death it is: the last boot's, or that of the boot before next, which runs now.
func DeathIn(logs []detect.BootLog, boot, next string) (inc detect.Incident, named, ok bool) {
	for i, l := range logs {
		if boot != "" && l.Boot == boot && l.Death.Verdict == detect.Dying {
			return l.Death, true, true
		}
		if next != "" && l.Boot == next {
			logs = logs[:i]
			break
		}
	}
	if len(logs) == 0 {
		return detect.Incident{}, false, false
	}
	last := logs[len(logs)-1]
	return last.Death, false, last.Boot == "" && last.Death.Verdict == detect.Dying
}
