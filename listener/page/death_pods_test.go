package page

import (
	"testing"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Who looks at a death looks for the pods that were not failed over.
func TestPodsThatCouldNotBeFailedComeFirst(t *testing.T) {
	for what, want := range map[string]string{
		policy.PodDenied: "could not be failed: denied",
		policy.PodFull:   "could not be failed: no room for annotations",
	} {
		d := &policy.Death{
			Pods: []policy.DeadPod{{Namespace: "a", Name: "one"}, {Namespace: "b", Name: "two"}},
			Outcomes: []policy.Outcome{
				{What: policy.PodDeleted, Pods: []int{0}},
				{What: what, Pods: []int{1}},
			},
		}
		rows := podsOf(d)
		if rows[0].Name != "two" || viewOf(d).outcome(rows[0].Outcome) != want {
			t.Errorf("%s: first comes %+v, %q; want two, %q", what, rows[0], viewOf(d).outcome(rows[0].Outcome), want)
		}
	}
}
