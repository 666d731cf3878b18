package cleanup

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	firstPause   = 100 * time.Millisecond // before a fault is tried again, doubled up to
	longestPause = 5 * time.Second
	// forbiddenFor is how long an API server must go on forbidding a call to be believed.
	forbiddenFor = 30 * time.Second
	// heartbeat is how often an owner shows that it lives. One record speaks for all records of a replica.
	heartbeat = 2 * time.Second
)

// errLost ends a job whose record another replica took over, or somebody deleted.
var errLost = errors.New("the record is not ours any more")

// errElsewhere ends a job whose incident another job here works on: heard from a second address, or read from its record.
var errElsewhere = errors.New("another job is at it")

// job is the work on one incident. All its fields belong to its goroutine, which waits for API calls but makes none: it
// stays free to show that it lives and to take in the rest of the trace.
type job struct {
	e     *Engine
	log   *slog.Logger
	do    func(ctx context.Context) error
	key   key                  // under which dispatch knows it
	heard time.Time            // Incident.Time
	name  string               // what the job reserved with Engine.begin, if anything
	more  chan detect.Incident // the latest emission not taken in yet

	inc     detect.Incident
	found   error // what the last look-up of the Node answered
	node    Node  // as read last
	first   Node  // as read when the gasp was judged first
	lease   Lease
	ours    bool // this job put the fence
	counted bool // this job counted the node on the breaker
	rec     Record
	claimed bool // rec exists and is ours
	dirty   bool // rec has a longer trace than the API server's
	writing bool // rec is being written
	failing bool // pods are being failed
	pods    []Pod
	back    string // why the node is not dead any more: a sentence, empty while it is
	tick    *time.Ticker
	cancel  context.CancelCauseFunc
}

func (e *Engine) newJob(inc detect.Incident) *job {
	return &job{e: e, log: e.log, key: keyOf(inc), heard: inc.Time, inc: inc, more: make(chan detect.Incident, 1)}
}

// run does the job and logs how it ended, unless it is only interrupted.
func (j *job) run(ctx context.Context) {
	ctx, j.cancel = context.WithCancelCause(ctx)
	defer j.cancel(nil)
	j.tick = time.NewTicker(heartbeat) // one for all waits: most are shorter
	defer j.tick.Stop()
	defer func() {
		if j.name != "" {
			j.e.end(j.name)
		}
	}()
	if err := j.do(ctx); err != nil && !errors.Is(err, context.Canceled) {
		j.log.Info("job ended", "why", err)
	}
}

// hearMore gives the job a later emission of its incident. It never blocks; the latest wins.
func (j *job) hearMore(inc detect.Incident) {
	for range 2 {
		select {
		case j.more <- inc:
			return
		default:
		}
		select {
		case <-j.more:
		default:
		}
	}
}

// takeIn goes on with what a later emission knows better. One that is believed less is somebody else's words; one that
// is believed more, because its record came through whole, proves more about who died.
func (j *job) takeIn(later detect.Incident) {
	was, is := Authority(j.inc, j.first), Authority(later, j.first)
	if is < was {
		return
	}
	if is == was {
		later.Identity, later.Authority = j.inc.Identity, j.inc.Authority
	}
	later.Time = j.inc.Time
	j.inc = later
	j.dirty = j.dirty || later.Complete
}

// unheard takes in what came too late and reports whether any of it is not on record. The job must have ended.
func (j *job) unheard() bool {
	select {
	case inc := <-j.more:
		j.takeIn(inc)
	default:
	}
	return j.dirty
}

// attend waits for done and meanwhile does what cannot wait.
func (j *job) attend(ctx context.Context, done <-chan struct{}) error {
	for {
		select {
		case <-done:
			return context.Cause(ctx)
		case inc := <-j.more:
			j.takeIn(inc)
		case <-j.tick.C:
			j.beat(ctx)
		}
	}
}

// sleep attends for d, or until ctx ends.
func (j *job) sleep(ctx context.Context, d time.Duration) error {
	over, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return j.attend(ctx, over.Done()) // what is attended to may take longer than the sleep
}

// once makes one API call.
func (j *job) once(ctx context.Context, u urgency, do func(ctx context.Context) error) error {
	err := errors.New("not called")
	<-j.e.calls.submit(ctx, u, 1, func(ctx context.Context, _ int) { err = do(ctx) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// each makes n API calls in parallel, and those that meet a fault again and again until they are answered: nobody else
// will do it. An answer is nil or one of the errors of cluster.go. The error tells that the job has to end.
func (j *job) each(ctx context.Context, u urgency, what string, n int, do func(ctx context.Context, i int) error) ([]error, error) {
	answers, todo := make([]error, n), make([]int, n)
	for i := range todo {
		todo[i] = i
	}
	began := j.e.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		done := j.e.calls.submit(ctx, u, len(todo), func(ctx context.Context, i int) {
			answers[todo[i]] = do(ctx, todo[i])
		})
		if err := j.attend(ctx, done); err != nil {
			return nil, err
		}
		todo = slices.DeleteFunc(todo, func(i int) bool {
			early := errors.Is(answers[i], ErrForbidden) && j.e.Now().Sub(began) < forbiddenFor
			return answered(answers[i]) && !early
		})
		if len(todo) == 0 {
			return answers, nil
		}
		j.fault(what, answers[todo[0]], pause)
		if err := j.sleep(ctx, jitter(pause)); err != nil {
			return nil, err
		}
	}
}

// try is each for one call. Its error is an answer or, if answered says no, the end of the job.
func (j *job) try(ctx context.Context, u urgency, what string, do func(ctx context.Context) error) error {
	answers, err := j.each(ctx, u, what, 1, func(ctx context.Context, _ int) error { return do(ctx) })
	if err != nil {
		return err
	}
	return answers[0]
}

func (j *job) fault(what string, err error, pause time.Duration) {
	j.e.Observer.Fault()
	level := slog.LevelDebug
	if pause == firstPause {
		level = slog.LevelWarn // once per outage and job
	}
	j.log.Log(context.Background(), level, "no answer, trying again", "call", what, "err", err)
}

func answered(err error) bool {
	return err == nil || slices.ContainsFunc([]error{ErrNotFound, ErrAmbiguous, ErrExists, ErrConflict, ErrDenied},
		func(answer error) bool { return errors.Is(err, answer) })
}

// jitter spreads retries of many jobs over half their pause.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
