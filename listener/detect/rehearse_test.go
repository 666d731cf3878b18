package detect

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is rehearsed are deaths, with a trace, in both formats.
func TestRehearsedAreDeaths(t *testing.T) {
	var got []string
	new(Config).rehearse(func(inc Incident) {
		if inc.Complete && inc.Verdict == Dying {
			got = append(got, inc.Title)
		}
	})
	want := []string{
		"sysrq triggered crash", "sysrq triggered crash",
		"kernel NULL pointer dereference (__list_del_entry_valid) in foo_release", "kernel NULL pointer dereference (__list_del_entry_valid) in foo_release",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("titles (-want +got):\n%s", diff)
	}
}
