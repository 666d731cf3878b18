package cleanup

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Instances is what cleanup needs of the cloud: the machine below a Node, by the id the cloud gave it and never by a name.
// A replica that dies before it has written the answer down leaves the question to be asked again by another. An error
// that wraps ErrNotFound or ErrDenied is an answer; any other is a fault that may pass, and the call is repeated.
type Instances interface {
	Reboot(ctx context.Context, instanceID string) error
	Terminate(ctx context.Context, instanceID string) error
}

// AfterPanic is what is done with the machine once its last words are on record (ec2.afterPanic): for kernels that hold
// still after a panic, because they are mute when they reboot by themselves.
type AfterPanic string

const (
	// LeaveInstance leaves the machine to itself.
	LeaveInstance AfterPanic = "none"
	// RebootInstance reboots it.
	RebootInstance AfterPanic = "reboot"
	// TerminateInstance terminates it, for machines that are replaced.
	TerminateInstance AfterPanic = "terminate"
)

const (
	// traceFor bounds how long after the gasp the rest of the trace is waited for. A record that was taken over may get
	// it from another replica, which does not tell us.
	traceFor = 15 * time.Second
	// instanceFor bounds how long the cloud may take to answer: what follows is worth more than the machine.
	instanceFor = 2 * time.Minute
)

// settleInstance does with the machine what the plan has for it. It comes before the Node's step: while the Node is there
// to tell that the machine is not back by itself, and before anybody waits for it to come back.
func (j *job) settleInstance(ctx context.Context, p Plan) (string, error) {
	if err := j.awaitTrace(ctx); err != nil {
		return "", err
	}
	if err := j.lookForReturn(ctx); err != nil {
		return "", err
	}
	id := j.rec.Instance
	switch {
	case j.back != "":
		return "left alone: " + j.back, nil
	case id == "":
		return "left alone: nobody said which instance it is", nil
	}
	ask := j.e.instances.Reboot
	if p.AfterPanic == TerminateInstance {
		ask = j.e.instances.Terminate
	}
	until := j.e.Now().Add(instanceFor)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := j.askCloud(ctx, id, ask)
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err == nil:
			return fmt.Sprintf("asked to %s %s", p.AfterPanic, id), nil
		case answered(err), j.e.Now().After(until):
			j.log.Error("instance left alone", "instance", id, "asked", string(p.AfterPanic), "err", err)
			return fmt.Sprintf("left alone: %s %s: %v", p.AfterPanic, id, err), nil
		}
		j.fault(string(p.AfterPanic)+" instance", err, pause)
		if err := j.sleep(ctx, jitter(pause)); err != nil {
			return "", err
		}
	}
}

// askCloud makes one call. It does not queue with those to the API server: a cloud that does not answer must not hold up
// the next fence.
func (j *job) askCloud(ctx context.Context, id string, ask func(context.Context, string) error) error {
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var answer error // not to be looked at before done
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer = ask(calling, id)
	}()
	if err := j.attend(ctx, done); err != nil {
		return err
	}
	return answer
}

// awaitTrace waits until the machine has said all it had to say, and writes that down: a machine that reboots says no more.
func (j *job) awaitTrace(ctx context.Context) error {
	for until := j.rec.Time.Add(traceFor); !j.inc.Complete && j.e.Now().Before(until); {
		if err := j.sleep(ctx, min(until.Sub(j.e.Now()), lookEvery)); err != nil {
			return err
		}
	}
	if !j.dirty {
		return nil
	}
	return j.save(ctx, tidying)
}

// instance is the id of n in the cloud: the last element of its providerID, as in aws:///us-east-1a/i-0123456789abcdef0.
func (n Node) instance() string {
	return n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:]
}
