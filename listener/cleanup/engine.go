package cleanup

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	intakeSize = 512  // incidents waiting for a job
	maxJobs    = 2048 // incidents being worked on; one that waits for its node to come back is one of them
	// recentSize and recentFor bound the memory of finished jobs. It leads the rest of a trace to its record.
	recentSize = 4096
	recentFor  = 15 * time.Minute
)

// Engine works on incidents until they are cleaned up, held or refused.
type Engine struct {
	// Now is the clock decisions are made by; time.Now unless replaced before Run.
	Now func() time.Time
	// Observer is told what happens; set it before Run.
	Observer Observer

	policy  Policy
	cluster Cluster
	replica string
	log     *slog.Logger
	calls   *queue

	intake   chan detect.Incident
	reports  chan detect.Incident
	canaries chan canary
	orders   chan *job // from watch to dispatch
	ended    chan *job

	mu        sync.Mutex
	breaker   Breaker
	strangers Breaker // bounds records of gasps that no Node answers to
	distrust  Distrust
	busy      map[string]bool    // records and fences that a job of this replica works on
	lastBeat  time.Time          // when this replica last wrote a record
	rehearsed map[netip.Addr]Pin // pins a dry run did not write
}

// NewEngine returns an Engine that carries out p, which must be valid, on c. Replica is this process's name among the
// listeners of the cluster and must be its alone. A nil log discards.
func NewEngine(p Policy, c Cluster, replica string, log *slog.Logger) *Engine {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		Now:       time.Now,
		Observer:  discard(),
		policy:    p,
		cluster:   c,
		replica:   replica,
		log:       log,
		calls:     newQueue(),
		intake:    make(chan detect.Incident, intakeSize),
		reports:   make(chan detect.Incident, intakeSize),
		canaries:  make(chan canary, intakeSize),
		orders:    make(chan *job),
		ended:     make(chan *job),
		breaker:   Breaker{Nodes: p.MaxNodes, Percent: p.MaxPercent, Window: p.Window},
		strangers: Breaker{Nodes: maxStrangers, Window: p.Window},
		distrust:  Distrust{For: p.Distrust},
		busy:      map[string]bool{},
		rehearsed: map[netip.Addr]Pin{},
	}
}

// Offer hands over an incident and never blocks. False means that there is no room: offer it again later.
func (e *Engine) Offer(inc detect.Incident) bool {
	to := e.intake
	if inc.Verdict != detect.Dying {
		to = e.reports // chatter of the living must not keep out the dying
	}
	select {
	case to <- inc:
		return true
	default:
		return false
	}
}

// Canary hands over a canary that src sent at the time given; the first one of a boot pins it. It never blocks, and
// false means that there is no room.
func (e *Engine) Canary(src netip.Addr, id netconsole.Identity, at time.Time) bool {
	if id.Boot == "" || id.Gasp == "" {
		return true // a kernel without userdata has nothing to pin
	}
	select {
	case e.canaries <- canary{src: src, id: id, at: at}:
		return true
	default:
		return false
	}
}

// Run works until ctx ends. Whatever is unfinished then stands in its record, for another replica or the next start.
func (e *Engine) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { e.calls.run(ctx) })
	parts.Go(func() { e.dispatch(ctx) })
	parts.Go(func() { e.pinAll(ctx) })
	parts.Go(func() { e.reportAll(ctx) })
	parts.Go(func() { e.watch(ctx) })
	parts.Wait()
	return nil
}

// key is what makes two emissions one incident.
type key struct {
	src  netip.Addr
	boot string
}

// past is what is left of a finished job.
type past struct {
	record string
	at     time.Time
}

// dispatch gives every incident its job, and later emissions of the incident to the same one. It owns that table.
func (e *Engine) dispatch(ctx context.Context) {
	heard, recent := map[key]*job{}, map[key]past{}
	var jobs sync.WaitGroup
	defer jobs.Wait()
	working := 0
	start := func(j *job) {
		working++
		e.Observer.AtWork(working)
		jobs.Go(func() {
			j.run(ctx)
			select {
			case e.ended <- j:
			case <-ctx.Done():
			}
		})
	}
	for {
		intake, orders := e.intake, e.orders
		if working >= maxJobs {
			intake, orders = nil, nil
		}
		select {
		case <-ctx.Done():
			return
		case j := <-orders:
			start(j)
		case inc := <-intake:
			k := key{inc.Source.Addr(), inc.Identity.Boot}
			if j := heard[k]; j != nil {
				j.hearMore(inc)
			} else if p, ok := recent[k]; ok && inc.Complete {
				if p.record != "" {
					start(e.amendment(p.record, inc))
				}
			} else {
				heard[k] = e.hearing(k, inc)
				start(heard[k])
			}
		case j := <-e.ended:
			working--
			e.Observer.AtWork(working)
			if heard[j.key] != j {
				continue
			}
			delete(heard, j.key)
			recent = remember(recent, j.key, past{j.rec.Name, e.Now()})
			if inc, ok := j.unheard(); ok && j.rec.Name != "" {
				start(e.amendment(j.rec.Name, inc))
			}
		}
	}
}

// remember adds to a bounded memory.
func remember(recent map[key]past, k key, p past) map[key]past {
	if len(recent) >= recentSize {
		maps.DeleteFunc(recent, func(_ key, old past) bool { return p.at.Sub(old.at) > recentFor })
	}
	if len(recent) >= recentSize {
		recent = map[key]past{}
	}
	recent[k] = p
	return recent
}

// begin reserves a name for a job of this replica; end releases it.
func (e *Engine) begin(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[name] {
		return false
	}
	e.busy[name] = true
	return true
}

func (e *Engine) end(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, name)
}
