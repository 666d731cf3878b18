package cleanup

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	firstPause   = 100 * time.Millisecond // before a fault is tried again, doubled up to
	longestPause = 5 * time.Second
	// forbiddenFor is how long an API server must go on forbidding a call to be believed.
	forbiddenFor = 30 * time.Second
)

// calls makes API calls through the queue and repeats those that meet a fault.
type calls struct {
	queue *queue
	now   func() time.Time
	fault func()
	log   *slog.Logger
	// waits, if set, is told of a call that has to be repeated, once per outage.
	waits func(what string, err error)
}

// once makes one API call.
func (c calls) once(ctx context.Context, u urgency, do func(ctx context.Context) error) error {
	err := errors.New("not called")
	<-c.queue.submit(ctx, u, 1, func(ctx context.Context, _ int) { err = do(ctx) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// each makes n API calls in parallel, and repeats those that meet a fault until they are answered: nobody else will. An
// answer is nil or one of the errors of cluster.go. The error says that ctx has ended.
func (c calls) each(ctx context.Context, u urgency, what string, n int, do func(ctx context.Context, i int) error) ([]error, error) {
	answers, todo := make([]error, n), make([]int, n)
	for i := range todo {
		todo[i] = i
	}
	forbidden := make([]time.Time, n) // since when, without another answer or fault in between
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		<-c.queue.submit(ctx, u, len(todo), func(ctx context.Context, i int) { answers[todo[i]] = do(ctx, todo[i]) })
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		todo = slices.DeleteFunc(todo, func(i int) bool {
			if !errors.Is(answers[i], ErrForbidden) {
				forbidden[i] = time.Time{}
				return answered(answers[i])
			}
			if forbidden[i].IsZero() {
				forbidden[i] = c.now()
			}
			return c.now().Sub(forbidden[i]) >= forbiddenFor
		})
		if len(todo) == 0 {
			return answers, nil
		}
		c.repeats(what, answers[todo[0]], pause)
		if c.waits != nil && pause == firstPause {
			c.waits(what, answers[todo[0]])
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return nil, err
		}
	}
}

// try is each for one call. Its error is an answer or, if answered says no, that ctx has ended.
func (c calls) try(ctx context.Context, u urgency, what string, do func(ctx context.Context) error) error {
	answers, err := c.each(ctx, u, what, 1, func(ctx context.Context, _ int) error { return do(ctx) })
	if err != nil {
		return err
	}
	return answers[0]
}

// ask makes a call of the Cluster that takes one argument, and repeats it as try does.
func ask[A, T any](ctx context.Context, c calls, u urgency, what string, call func(context.Context, A) (T, error), about A) (answer T, err error) {
	err = c.try(ctx, u, what, func(ctx context.Context) (err error) {
		answer, err = call(ctx, about)
		return err
	})
	return answer, err
}

// insist is ask where nothing after it would be right without an answer. A denial is none: people mend rights.
func insist[A, T any](ctx context.Context, c calls, u urgency, what string, call func(context.Context, A) (T, error), about A) (answer T, err error) {
	for {
		answer, err = ask(ctx, c, u, what, call, about)
		if !errors.Is(err, ErrDenied) {
			return answer, err
		}
		c.log.Error("denied, trying again", "call", what, "of", about, "err", err)
		if c.waits != nil {
			c.waits(what, err)
		}
		if err := sleep(ctx, longestPause); err != nil {
			return answer, err
		}
	}
}

// askOnce makes such a call once.
func askOnce[A, T any](ctx context.Context, c calls, u urgency, call func(context.Context, A) (T, error), about A) (answer T, err error) {
	err = c.once(ctx, u, func(ctx context.Context) (err error) {
		answer, err = call(ctx, about)
		return err
	})
	return answer, err
}

// repeats counts and logs that a call is to be repeated.
func (c calls) repeats(what string, err error, pause time.Duration) {
	c.fault()
	level := slog.LevelDebug
	if pause == firstPause {
		level = slog.LevelWarn // once per outage and death
	}
	c.log.Log(context.Background(), level, "no answer, trying again", "call", what, "err", err)
}

func answered(err error) bool {
	return err == nil || slices.ContainsFunc([]error{ErrNotFound, ErrAmbiguous, ErrExists, ErrConflict, ErrDenied},
		func(answer error) bool { return errors.Is(err, answer) })
}

// unanswered is err without the answers: it says that ctx has ended.
func unanswered(err error) error {
	if answered(err) {
		return nil
	}
	return err
}

// pauses come between writes that are repeated because their object had changed, or was another one. The first are repeated at once:
// somebody else wrote in between. Who writes it all the time, or answers so to everything, must not have the API server asked all the time.
type pauses int

// promptly is how often such a write is repeated at once.
const promptly = 3

// wait waits before the next repetition. Its error says that ctx has ended.
func (p *pauses) wait(ctx context.Context) error {
	*p++
	if *p <= promptly {
		return nil
	}
	return sleep(ctx, jitter(min(firstPause<<min(*p-promptly-1, 10), longestPause)))
}

// jitter spreads retries of many deaths over half their pause.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// sleep waits for d. Its error says that ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
