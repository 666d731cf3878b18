package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/e2e/load"
)

// receiveDeaths makes a thousand nodes of a fleet die within one second, of six different causes.
func receiveDeaths(ctx context.Context, r *receivers, report func(Row)) error {
	crashes, err := readCrashes("6.12-sysrq", "6.12-null-deref", "6.12-gpf", "6.12-bug", "6.12-oops-in-irq", "6.12-softlockup")
	if err != nil {
		return err
	}
	s := new(scope)
	defer s.Run()
	own, err := r.startOurs(ctx, s)
	if err != nil {
		return err
	}
	const nodes, deaths = 20_000, 1000
	fleet := load.NewNodes(0, nodes, load.Extended)
	if _, err := own.bear(ctx, load.Plan{Count: 2 * nodes, PerSecond: 100_000}, fleet.Chatter); err != nil {
		return err
	}
	before, err := memory(own.daemon, "VmRSS")
	if err != nil {
		return err
	}
	appeared, err := watchFolder(s, own.records)
	if err != nil {
		return err
	}
	next, count, err := load.Deaths(crashes, 0, deaths)
	if err != nil {
		return err
	}
	began := time.Now()
	o, err := own.bear(ctx, load.Plan{Count: count, PerSecond: float64(count)}, next)
	if err != nil {
		return err
	}
	err = own.await(ctx, "complete its records", func() (bool, error) { return recordsComplete(own.records, deaths) })
	if err != nil && !errors.Is(err, errLate) { // if it is late, the rows show what is missing
		return err
	}
	m, err := own.metrics()
	if err != nil {
		return err
	}
	dying := 0.0
	for name, value := range m {
		if strings.HasPrefix(name, "lastgasp_incidents_total") && strings.Contains(name, `verdict="dying"`) {
			dying += value
		}
	}
	found, last := 0, began
	files := appeared.files()
	for i := range deaths {
		if at := firstAbout(files, i); !at.IsZero() {
			found++
			if at.After(last) {
				last = at
			}
		}
	}
	peak, err := memory(own.daemon, "VmHWM")
	if err != nil {
		return err
	}
	on := fmt.Sprintf("%s of %s nodes in %.1f s, %s datagrams",
		grouped(deaths), grouped(nodes), o.sent.Elapsed.Seconds(), grouped(int64(count)))
	report(Row{Name: "deaths found", On: on, Value: float64(found), Unit: "nodes"}.aim(grouped(deaths), found == deaths))
	report(Row{Name: "incidents of dying kernels", On: "one for each node", Value: dying, Unit: "incidents"}.
		aim("none twice", dying == deaths))
	report(Row{Name: "last death recorded", On: "from the first datagram", Value: last.Sub(began).Seconds(), Unit: "s"})
	report(Row{Name: "memory, peak", On: on, Value: peak, Unit: "MiB"}.against("before they died", before))
	return nil
}

// recordsComplete reports whether dir has at least so many files of deaths, and all of them are complete.
func recordsComplete(dir string, want int) (bool, error) {
	list, err := os.ReadDir(dir)
	if err != nil || len(list) < want {
		return false, err
	}
	for _, e := range list {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || !strings.Contains(string(text), `"complete": true`) {
			return false, nil // an error: it was renamed just now
		}
	}
	return true, nil
}
