package cleanup

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// reportEvery is how often the same finding about the same node becomes an event.
	reportEvery = 10 * time.Minute
	reportsKept = 4096
)

// reportKey is what is wrong with a kernel that lives on.
type reportKey struct {
	src   netip.Addr
	cause string
}

// reportAll makes events of what is wrong with kernels that are not dying.
func (e *Engine) reportAll(ctx context.Context) {
	reported := map[reportKey]time.Time{}
	for {
		var inc detect.Incident
		select {
		case <-ctx.Done():
			return
		case inc = <-e.findings:
		}
		now, f := e.Now(), reportKey{inc.Source.Addr(), inc.Cause}
		if at, ok := reported[f]; (ok && now.Sub(at) < reportEvery) || inc.Authority < detect.Kernel {
			continue
		}
		maps.DeleteFunc(reported, func(_ reportKey, at time.Time) bool { return now.Sub(at) >= reportEvery })
		if len(reported) >= reportsKept {
			continue
		}
		reported[f] = now
		var n policy.Node
		err := context.Canceled
		<-e.queue.submit(ctx, tidying, 1, func(ctx context.Context, _ int) {
			n, err = e.cluster.FindNode(ctx, Sender{
				Instance: inc.Identity.Instance, Boot: inc.Identity.Boot, Sum: inc.Identity.Secret.Sum(), Addr: inc.Source.Addr(),
			})
		})
		e.log.Info("finding", "source", inc.Source.String(), "node", n.Name, "cause", inc.Cause, "title", inc.Title, "remedy", inc.Remedy)
		if err != nil || e.policy.DryRun {
			continue
		}
		note := cmp.Or(policy.FirstLine(inc.Title), inc.Cause)
		if inc.Remedy != "" {
			note += "; " + inc.Remedy
		}
		e.cluster.Emit(Event{Node: n, Warning: true, Reason: inc.Cause, Action: "Report", Note: note})
	}
}
