package cleanup

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	// reportEvery is how often the same finding about the same node becomes an event.
	reportEvery = 10 * time.Minute
	reportsKept = 4096
)

// report is a finding about a node that lives on.
type report struct {
	src  netip.Addr
	code string
}

// reportAll makes events of what is wrong with kernels that are not dying.
func (e *Engine) reportAll(ctx context.Context) {
	told := map[report]time.Time{}
	for {
		var inc detect.Incident
		select {
		case <-ctx.Done():
			return
		case inc = <-e.reports:
		}
		now, r := e.Now(), report{inc.Source.Addr(), inc.Cause}
		if at, ok := told[r]; (ok && now.Sub(at) < reportEvery) || inc.Authority < detect.Kernel {
			continue
		}
		maps.DeleteFunc(told, func(_ report, at time.Time) bool { return now.Sub(at) >= reportEvery })
		if len(told) >= reportsKept {
			continue
		}
		told[r] = now
		var n Node
		err := context.Canceled
		<-e.calls.submit(ctx, tidying, 1, func(ctx context.Context, _ int) {
			n, err = e.cluster.FindNode(ctx, inc.Identity.Instance, inc.Source.Addr())
		})
		e.log.Info("report", "source", inc.Source.String(), "node", n.Name, "code", inc.Cause, "title", inc.Title, "remedy", inc.Remedy)
		if err != nil || e.policy.DryRun {
			continue
		}
		note := cmp.Or(firstLine(inc.Title), inc.Cause)
		if inc.Remedy != "" {
			note += "; " + inc.Remedy
		}
		e.cluster.Tell(Event{Node: n, Warning: true, Reason: inc.Cause, Action: "Report", Note: note})
	}
}
