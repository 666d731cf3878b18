package cloud

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlace(t *testing.T) {
	a, b, c := entry{"10.0.1.10:6666", "euw1-az1"}, entry{"10.0.2.10:6666", "euw1-az2"}, entry{"10.0.3.10:6666", "euw1-az3"}
	successor := entry{"10.0.1.20:6666", "euw1-az1"}
	nowhere, elsewhere := entry{"10.0.9.10:6666", ""}, entry{"10.0.9.20:6666", ""}
	for _, tt := range []struct {
		name     string
		list     []entry
		mine     entry
		takeOver bool
		want     []entry
		outcome  outcome
	}{
		{name: "the first one", mine: a, takeOver: true, want: []entry{a}, outcome: written},
		{name: "it is there already", list: []entry{a, b}, mine: a, takeOver: true, want: []entry{a, b}, outcome: present},
		{name: "another zone is left alone", list: []entry{b}, mine: a, takeOver: true, want: []entry{a, b}, outcome: written},
		{name: "a new one takes over its zone", list: []entry{a, b, c}, mine: successor, takeOver: true, want: []entry{successor, b, c}, outcome: written},
		{name: "an old one does not fight its successor", list: []entry{successor, b}, mine: a, want: []entry{successor, b}, outcome: superseded},
		{name: "what a writer at the same time has lost comes back", list: []entry{b}, mine: a, want: []entry{a, b}, outcome: written},
		{name: "one that has found out its zone moves there", list: []entry{{a.Address, ""}, b}, mine: a, want: []entry{a, b}, outcome: written},
		{name: "without zones the last one wins", list: []entry{nowhere}, mine: elsewhere, takeOver: true, want: []entry{elsewhere}, outcome: written},
		{name: "what an operator wrote without a zone is left alone", list: []entry{nowhere}, mine: a, takeOver: true, want: []entry{nowhere, a}, outcome: written},
		{name: "so are two of one zone, of which it is one", list: []entry{a, successor}, mine: successor, takeOver: true, want: []entry{a, successor}, outcome: present},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, outcome := place(tt.list, tt.mine, tt.takeOver)
			if outcome != tt.outcome {
				t.Errorf("outcome %d, want %d", outcome, tt.outcome)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("list (-want +got):\n%s", diff)
			}
			if again, outcome := place(got, tt.mine, tt.takeOver); tt.outcome == written && outcome != present {
				t.Errorf("not at rest: %v, %v", again, outcome)
			}
		})
	}
}
