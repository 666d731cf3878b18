package cleanup

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// sameFindingAfter is how soon the same finding about the same node becomes another event.
	sameFindingAfter = 10 * time.Minute
	maxFindings      = 4096 // remembered
)

// finding is what is wrong with a kernel that runs on, by its address and cause.
type finding struct {
	src   netip.Addr
	cause string
}

// emitFindings makes events of what is wrong with kernels that are not dying, and sets the condition of their Nodes where there
// is a remedy.
func (e *Engine) emitFindings(ctx context.Context) {
	emitted := map[bool]map[finding]time.Time{true: {}, false: {}} // by whether the sender is verified
	var sick sync.WaitGroup                                        // an API server that does not answer must not hold up the next finding
	defer sick.Wait()
	handle(ctx, e.findings, func(inc detect.Incident) {
		now, f, emitted := e.Now(), finding{inc.Source.Addr(), inc.Cause}, emitted[inc.Verified]
		if at, ok := emitted[f]; (ok && now.Sub(at) < sameFindingAfter) || inc.Authority < detect.Kernel {
			return
		}
		if !e.cluster.Known(inc.Identity.Instance, f.src) {
			return // there is no Node to tell of it, and no end of addresses
		}
		maps.DeleteFunc(emitted, func(_ finding, at time.Time) bool { return now.Sub(at) >= sameFindingAfter })
		if len(emitted) >= maxFindings {
			return
		}
		emitted[f] = now
		sum := inc.Identity.Secret.Sum()
		n, err := askOnce(ctx, e.calls(e.log), tidying, e.cluster.FindNode,
			Sender{Instance: inc.Identity.Instance, Boot: inc.Identity.Boot, Sum: sum, Addr: f.src})
		e.log.Info("finding", "source", inc.Source.String(), "node", n.Name, "cause", inc.Cause, "title", inc.Title, "remedy", inc.Remedy)
		if err != nil || e.policy.DryRun {
			return
		}
		if pin := n.PinOnWire(); pin != (policy.Pin{}) && sum != pin.Sum {
			return // whoever shares the node's address may have said it
		}
		note := cmp.Or(policy.FirstLine(inc.Title), inc.Cause)
		if inc.Remedy != "" {
			note += "; " + inc.Remedy
		}
		e.cluster.Emit(Event{Node: n, Warning: true, Reason: inc.Cause, Action: "Record", Note: note})
		if e.policy.CallsSick(inc, sum, n) {
			h := policy.Health{Unhealthy: n.BootID, Reason: inc.Cause, Message: note}
			w := e.newWork(inc, e.log)
			sick.Go(func() { w.run(ctx, func(ctx context.Context) error { return w.sick(ctx, n, h) }) })
		}
	})
}
