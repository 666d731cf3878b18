package main

// Row is one measured thing beside its reference in the same run.
// The machine is shared and noisy: a figure alone says little, a ratio to a reference measured a moment before says much.
type Row struct {
	Section string  `json:"section"` // receive, cleanup, configurator, compare, storm
	Name    string  `json:"name"`    // what was measured, with its unit's noun: "CPU per datagram"
	On      string  `json:"on"`      // what it was measured on: "256 sources, extended, 2 sockets"
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"` // "µs", "MiB", "s", "%", "records/s"

	Reference      string  `json:"reference,omitempty"` // what Ratio compares with: "do-nothing recvmmsg loop"; empty: none
	ReferenceValue float64 `json:"referenceValue,omitempty"`
	Ratio          float64 `json:"ratio,omitempty"` // Value / ReferenceValue

	Goal    string `json:"goal,omitempty"`    // as the reader would say it: "≤ 1.3 ×"; empty: none
	Reached *bool  `json:"reached,omitempty"` // nil where there is no goal
}

// against is the row beside the same thing measured on reference.
func (r Row) against(reference string, value float64) Row {
	r.Reference, r.ReferenceValue = reference, value
	if value != 0 {
		r.Ratio = r.Value / value
	}
	return r
}

// aim returns the row with its goal.
func (r Row) aim(goal string, reached bool) Row {
	r.Goal, r.Reached = goal, &reached
	return r
}
