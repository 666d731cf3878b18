package cleanup

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	intakeSize = 512 // findings, and canaries, that wait
	// A death refused at once is recorded a few times only: datagrams cost nothing. These are per policy.Policy.Window and lane:
	// who proves nothing must not use up what a node may have recorded that is only put on record, whatever it says.
	refusalsPerAddress = 5
	refusalsInAll      = 100
	// refusalsLogged of the others are logged, within the same window.
	refusalsLogged = 200
)

// Engine works on incidents until they are cleaned up, held or refused.
type Engine struct {
	// Now is the clock decisions are made by; time.Now unless replaced before Run.
	Now func() time.Time
	// Observer is called with what happens; set it before Run.
	Observer Observer
	// Drain is how long Run goes on with the incidents in hand when it is to end; set it before Run.
	Drain time.Duration
	// Fates, if it is set before Run, is asked how boots ended of which nobody has said anything, and is a witness.
	Fates Fates
	// Judge says what the messages on a console and in an obituary mean; the built-in rules unless replaced before Run.
	Judge *detect.Config
	// State is a directory for incidents that are not in the cluster yet, or not done when Run ends. The next Run continues
	// with them. If it is empty, they are lost.
	State string

	policy    policy.Policy
	cluster   Cluster
	instances Instances
	replica   string
	log       *slog.Logger
	queue     *queue

	intake    *intake
	findings  chan detect.Incident
	canaries  chan canary
	farewells chan farewell
	longer    chan *heard // incidents whose trace is longer than what is on record
	ended     chan struct{}

	mu            sync.Mutex
	breaker       policy.Breaker // nodes acted on
	early         policy.Breaker // nodes fenced without a witness
	refusals      [lanes]policy.Limiter
	refusalLines  policy.Limiter // of the log, about what is not recorded
	lookups       policy.Limiter // of canaries; claimAll's alone
	distrust      policy.Distrust
	heard         map[key]*heard
	traces        int              // bytes of their traces
	inHand        map[string]*work // by name of the death
	jobs          int              // goroutines at work on deaths, fences and traces
	living        map[string]bool  // the other replicas that renew their Leases
	rehearsed     map[netip.Addr]policy.Pin
	farewellsFrom policy.Limiter // of verified nodes
	strangersFrom policy.Limiter // farewells that are logged only
	endings                      // how boots ended that no kernel announced
}

// NewEngine returns an Engine that carries out p, which must be valid, on c and on the instances below it, which may be nil
// if p leaves them alone. Replica is this process's name among the listeners of the cluster and must be unique. A nil log
// discards.
func NewEngine(p policy.Policy, c Cluster, instances Instances, replica string, log *slog.Logger) *Engine {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	limits := policy.Breaker{Nodes: p.MaxNodes, Percent: p.MaxPercent, Window: p.Window}
	var refusals [lanes]policy.Limiter
	for l := range refusals {
		refusals[l] = policy.Limiter{PerAddress: refusalsPerAddress, Total: refusalsInAll, Window: p.Window}
	}
	return &Engine{
		Now:           time.Now,
		Observer:      discard(),
		policy:        p,
		cluster:       c,
		instances:     instances,
		replica:       replica,
		log:           log,
		queue:         newQueue(),
		intake:        newIntake(),
		findings:      make(chan detect.Incident, intakeSize),
		canaries:      make(chan canary, intakeSize),
		farewells:     make(chan farewell, farewellsWaiting),
		longer:        make(chan *heard, heardSize),
		ended:         make(chan struct{}, 1),
		breaker:       limits,
		early:         limits,
		refusals:      refusals,
		refusalLines:  policy.Limiter{PerAddress: refusalsLogged / 8, Total: refusalsLogged, Window: p.Window},
		lookups:       policy.Limiter{PerAddress: claimsPerMinute, Total: claimsKnown, Window: time.Minute},
		distrust:      policy.Distrust{For: p.Distrust},
		heard:         map[key]*heard{},
		inHand:        map[string]*work{},
		rehearsed:     map[netip.Addr]policy.Pin{},
		Judge:         new(detect.Config),
		endings:       newEndings(p),
		farewellsFrom: policy.Limiter{PerAddress: farewellsOfAddress, Total: claimsKnown, Window: farewellWindow},
		strangersFrom: policy.Limiter{PerAddress: farewellsOfAddress, Total: strangersLogged, Window: farewellWindow},
	}
}

// Offer hands over an incident and never blocks. False means that there is no room: offer it again later.
func (e *Engine) Offer(inc detect.Incident) bool {
	if inc.Verdict != detect.Dying {
		return hand(e.findings, inc) // a queue of their own: findings must not keep out deaths
	}
	k := keyOf(inc)
	if again, taken := e.emittedAgain(inc, k); again {
		return taken
	}
	return e.intake.put(&heard{key: k, lane: e.laneOf(inc, k), inc: inc})
}

// laneOf is verified for a sender that is a Node and knows the secret that a Node pinned. A secret that is sent from
// elsewhere makes its sender a stranger.
func (e *Engine) laneOf(inc detect.Incident, k key) int {
	if !e.cluster.Known(inc.Identity.Instance, k.src) {
		return unknowns
	}
	if a, ok := e.cluster.Proves(k.boot, k.sum); ok && inc.Authority == detect.Kernel && a == detect.Pinned {
		return verified
	}
	return strangers
}

// Canary hands over a canary that src sent at the time given; the first one of a boot claims it. It never blocks, and
// false means that there is no room.
func (e *Engine) Canary(src netip.Addr, id netconsole.Identity, at time.Time) bool {
	if id.Boot == "" || id.Secret == "" {
		return true // a kernel without userdata has nothing to claim
	}
	e.noteCanary(policy.Pin{Boot: id.Boot, Sum: id.Secret.Sum()}, at)
	return hand(e.canaries, canary{src: src, id: id, at: at})
}

// Run works until ctx ends, and then for at most Drain until every incident that was offered is dealt with. What is
// unfinished then is in its NodeDeath, for another replica, and in State, for the next start. Canaries and findings in hand
// are dropped: they come again.
func (e *Engine) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(e.Drain, stop) })
	e.restore()
	var parts sync.WaitGroup
	parts.Go(func() { e.queue.run(working) })
	parts.Go(func() { e.dispatch(ctx, working); stop() })
	parts.Go(func() { e.claimAll(ctx) })
	parts.Go(func() { e.emitFindings(ctx) })
	parts.Go(func() { e.inquireAll(ctx) })
	parts.Go(func() { e.emitRestarted(ctx) })
	for range obituariesAtOnce {
		parts.Go(func() { e.recordObituaries(ctx) })
	}
	for range farewellsAtOnce {
		parts.Go(func() { e.writeFarewells(ctx) })
	}
	parts.Wait()
	e.saveInHand()
	return nil
}

// dispatch takes incidents in hand and, every second, what nobody works on. It ends with working, or when ctx has ended and
// nothing is in hand.
func (e *Engine) dispatch(ctx, working context.Context) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	start := func(do func(context.Context)) {
		e.count(1)
		jobs.Go(func() {
			defer e.count(-1)
			do(working)
		})
	}
	scanned := make(chan struct{}, 1)
	r, scanning := &roster{}, false
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	scan := func() {
		scanning = true
		jobs.Go(func() { e.scan(ctx, r, start); scanned <- struct{}{} })
	}
	scan()
	for ending := ctx.Done(); ; {
		var later <-chan time.Time
		for {
			h, in := e.intake.take(e.Now())
			if h == nil {
				if in > 0 {
					later = time.After(in)
				}
				break
			}
			e.taken(h)
			start(func(ctx context.Context) { e.accept(ctx, h) })
		}
		if ending == nil && e.idle() && !scanning {
			return
		}
		select {
		case <-working.Done():
			return
		case <-ending:
			ending = nil
			e.saveInHand()
		case <-e.intake.wake:
		case <-e.ended:
		case <-later:
		case h := <-e.longer:
			start(func(ctx context.Context) { e.recordTrace(ctx, h) })
		case c := <-e.consoles:
			start(func(ctx context.Context) { e.acceptConsole(ctx, c) })
		case <-scanned:
			scanning = false
		case <-tick.C:
			if ending != nil && !scanning {
				scan()
			}
		}
	}
}

// count counts the goroutines at work.
func (e *Engine) count(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.jobs += n
	e.Observer.AtWork(e.jobs)
	hand(e.ended, struct{}{})
}

// idle reports whether nothing is in hand and nothing waits.
func (e *Engine) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.jobs == 0 && len(e.longer) == 0 && e.intake.empty()
}

// hand puts v into a queue, and reports whether it had room. It never blocks.
func hand[T any](queue chan<- T, v T) bool {
	select {
	case queue <- v:
		return true
	default:
		return false
	}
}

// handle handles what comes out of a queue, one after the other, until ctx ends.
func handle[T any](ctx context.Context, queue <-chan T, do func(T)) {
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-queue:
			do(v)
		}
	}
}

// remember sets m[k]. A map that has as many as most is emptied first: what it knew is found out again.
func remember[K comparable, V any](m map[K]V, most int, k K, v V) {
	if _, known := m[k]; !known && len(m) >= most {
		clear(m)
	}
	m[k] = v
}

// calls makes API calls, and logs to log when they have to be repeated.
func (e *Engine) calls(log *slog.Logger) calls {
	return calls{queue: e.queue, now: e.Now, fault: e.Observer.Fault, log: log}
}

// reserve takes the death of that name in hand for w, unless other work of this replica has it. release undoes it.
func (e *Engine) reserve(name string, w *work) (other *work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other = e.inHand[name]; other == nil {
		e.inHand[name] = w
	}
	return other
}

func (e *Engine) isInHand(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inHand[name] != nil
}

func (e *Engine) release(name string, w *work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inHand[name] == w {
		delete(e.inHand, name)
	}
}
