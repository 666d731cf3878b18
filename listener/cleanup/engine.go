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
	// deathsApart is how far apart two emissions from one source may be and still speak of one death. A machine has to
	// boot before it can die again.
	deathsApart = 30 * time.Second
)

// Engine works on incidents until they are cleaned up, held or refused.
type Engine struct {
	// Now is the clock decisions are made by; time.Now unless replaced before Run.
	Now func() time.Time
	// Observer is told what happens; set it before Run.
	Observer Observer
	// Drain is how long Run goes on with the incidents in hand when it is to end; set it before Run.
	Drain time.Duration

	policy    Policy
	cluster   Cluster
	instances Instances
	replica   string
	log       *slog.Logger
	calls     *queue

	intake   chan detect.Incident
	reports  chan detect.Incident
	canaries chan canary
	orders   chan *job // from watch to dispatch
	ended    chan *job

	mu        sync.Mutex
	breaker   Breaker
	refusals  Breaker // bounds records of gasps that are refused at once
	distrust  Distrust
	busy      map[string]*job    // by the record or fence they work on
	lastBeat  time.Time          // when this replica last wrote a record
	rehearsed map[netip.Addr]Pin // pins a dry run did not write
}

// NewEngine returns an Engine that carries out p, which must be valid, on c, and on the instances below it: nil will do
// where p leaves these alone. Replica is this process's name among the listeners of the cluster and must be its alone. A
// nil log discards.
func NewEngine(p Policy, c Cluster, instances Instances, replica string, log *slog.Logger) *Engine {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		Now:       time.Now,
		Observer:  discard(),
		policy:    p,
		cluster:   c,
		instances: instances,
		replica:   replica,
		log:       log,
		calls:     newQueue(),
		intake:    make(chan detect.Incident, intakeSize),
		reports:   make(chan detect.Incident, intakeSize),
		canaries:  make(chan canary, intakeSize),
		orders:    make(chan *job),
		ended:     make(chan *job),
		breaker:   Breaker{Nodes: p.MaxNodes, Percent: p.MaxPercent, Window: p.Window},
		refusals:  Breaker{Nodes: maxRefusals, Window: p.Window},
		distrust:  Distrust{For: p.Distrust},
		busy:      map[string]*job{},
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
	if id.Boot == "" || id.Secret == "" {
		return true // a kernel without userdata has nothing to pin
	}
	select {
	case e.canaries <- canary{src: src, id: id, at: at}:
		return true
	default:
		return false
	}
}

// Run works until ctx ends, and on for Drain at most until every incident that was offered is dealt with. What is
// unfinished then stands in its record, for another replica or the next start. Canaries and reports in hand are dropped:
// they come again.
func (e *Engine) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(e.Drain, stop) })
	var parts sync.WaitGroup
	parts.Go(func() { e.calls.run(working) })
	parts.Go(func() { e.dispatch(ctx, working); stop() })
	parts.Go(func() { e.pinAll(ctx) })
	parts.Go(func() { e.reportAll(ctx) })
	parts.Go(func() { e.watch(ctx) })
	parts.Wait()
	return nil
}

// key is what makes two emissions, not far apart in time, one incident. The gasp is part of it: whoever sends from the
// node's address without knowing the secret speaks of something else.
type key struct {
	src  netip.Addr
	boot string
	gasp netconsole.Secret
}

func keyOf(inc detect.Incident) key {
	return key{inc.Source.Addr(), inc.Identity.Boot, inc.Identity.Secret}
}

// past is what is left of a finished job.
type past struct {
	record    string           // empty if there is none
	authority detect.Authority // that of the job's incident
	heard     time.Time        // Incident.Time
}

// speaksOf reports whether inc may be a later emission of the incident heard at the time given.
func speaksOf(inc detect.Incident, heard time.Time) bool {
	return inc.Time.Sub(heard).Abs() < deathsApart
}

// dispatch gives every incident its job, and later emissions of the incident to the same one. It owns that table. It ends
// with working, or when ctx has ended and nothing is in hand.
func (e *Engine) dispatch(ctx, working context.Context) {
	hearing, recent := map[key]*job{}, map[key]past{}
	var jobs sync.WaitGroup
	defer jobs.Wait()
	atWork := 0
	start := func(j *job) {
		atWork++
		e.Observer.AtWork(atWork)
		jobs.Go(func() {
			j.run(working)
			select {
			case e.ended <- j:
			case <-working.Done():
			}
		})
	}
	for ending := ctx.Done(); ending != nil || atWork > 0 || len(e.intake) > 0; {
		intake, orders := e.intake, e.orders
		if atWork >= maxJobs {
			intake, orders = nil, nil
		}
		select {
		case <-working.Done():
			return
		case <-ending:
			ending = nil
		case j := <-orders:
			start(j)
		case inc := <-intake:
			k := keyOf(inc)
			j, p := hearing[k], recent[k]
			switch {
			case j != nil && speaksOf(inc, j.heard):
				j.hearMore(inc)
			case inc.Complete && speaksOf(inc, p.heard):
				if p.record != "" {
					start(e.amendment(p, inc))
				}
			default:
				hearing[k] = e.hearing(inc)
				start(hearing[k])
			}
		case j := <-e.ended:
			atWork--
			e.Observer.AtWork(atWork)
			if hearing[j.key] != j {
				continue
			}
			delete(hearing, j.key)
			p := past{j.rec.Name, Authority(j.inc, j.first), j.heard}
			recent = remember(recent, j.key, p)
			if j.unheard() && p.record != "" {
				start(e.amendment(p, j.inc))
			}
		}
	}
}

// remember adds to a bounded memory.
func remember(recent map[key]past, k key, p past) map[key]past {
	if len(recent) >= recentSize {
		maps.DeleteFunc(recent, func(_ key, old past) bool { return p.heard.Sub(old.heard) > recentFor })
	}
	if len(recent) >= recentSize {
		recent = map[key]past{}
	}
	recent[k] = p
	return recent
}

// begin reserves a name for j, unless another job of this replica has it. end releases it.
func (e *Engine) begin(name string, j *job) (other *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other = e.busy[name]; other == nil {
		e.busy[name] = j
	}
	return other
}

func (e *Engine) end(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, name)
}
