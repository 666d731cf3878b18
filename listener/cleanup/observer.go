package cleanup

import (
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Observer is called with what the Engine does, for metrics. NewEngine fills in functions that do nothing. Those that
// replace them before Run must not block and are called from several goroutines at once.
type Observer struct {
	Fenced    func(after time.Duration)                     // a Node was fenced so long after its incident was heard
	PodFailed func(after time.Duration)                     // a pod was Failed so long after the incident was heard
	Finished  func(phase policy.Phase, after time.Duration) // a death came to this phase, so long after it was heard
	Claimed   func(result policy.Claiming)                  // the result of a canary
	Farewell  func(result FarewellResult)                   // the result of a farewell
	Fault     func()                                        // an API call has to be repeated
	AtWork    func(n int)                                   // n deaths are being worked on
}

func discard() Observer {
	return Observer{
		Fenced:    func(time.Duration) {},
		PodFailed: func(time.Duration) {},
		Finished:  func(policy.Phase, time.Duration) {},
		Claimed:   func(policy.Claiming) {},
		Farewell:  func(FarewellResult) {},
		Fault:     func() {},
		AtWork:    func(int) {},
	}
}
