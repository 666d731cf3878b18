package cleanup

import "time"

// Observer is told what the Engine does, for metrics. NewEngine fills in functions that do nothing; whatever replaces
// them before Run must not block and is called from several goroutines at once.
type Observer struct {
	Decided   func(d Decision)                       // a final decision: act, hold or refuse
	Fenced    func(after time.Duration)              // a Node was fenced so long after its gasp arrived
	PodFailed func(after time.Duration)              // a pod was Failed so long after the gasp arrived
	Finished  func(phase Phase, after time.Duration) // an incident came to this end, so long after its gasp
	Pinned    func(result string)                    // a canary was: pinned, known, waiting, refused, given up
	Fault     func()                                 // an API call has to be repeated
	AtWork    func(n int)                            // so many incidents are being worked on
}

func discard() Observer {
	return Observer{
		Decided:   func(Decision) {},
		Fenced:    func(time.Duration) {},
		PodFailed: func(time.Duration) {},
		Finished:  func(Phase, time.Duration) {},
		Pinned:    func(string) {},
		Fault:     func() {},
		AtWork:    func(int) {},
	}
}
