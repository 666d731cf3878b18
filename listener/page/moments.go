package page

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// moment is one point of a death's timeline.
type moment struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
	Note string    `json:"note,omitempty"`
	Done bool      `json:"done"`
}

// timeline is what happened, in order, from the death on.
func timeline(d *policy.Death) []moment {
	first := moment{"died", d.Time, "as far as it is known afterwards", true}
	switch {
	case slices.Contains(d.Evidence, policy.ByNetconsole):
		first.Note = "the first fatal record arrived"
	case slices.Contains(d.Evidence, policy.ByConsole):
		first.Note = "as EC2's console output has it"
	}
	if d.Phase == policy.Refused {
		first.Name = "said to have died"
	}
	out := []moment{first}
	for _, s := range d.Steps {
		if !s.Time.IsZero() {
			out = append(out, moment{s.Name, s.Time, s.Note, s.Done})
		}
	}
	if !d.Completed.IsZero() {
		out = append(out, moment{"complete", d.Completed, "", true})
	}
	slices.SortStableFunc(out[1:], func(a, b moment) int { return a.Time.Compare(b.Time) })
	return out
}
