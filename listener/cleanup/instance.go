package cleanup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Instances is what cleanup needs of the cloud: the machine below a Node, by the id in its spec.providerID and by nothing
// else. If a replica dies before it has written the answer down, another asks again. An error that wraps ErrNotFound or
// ErrDenied is an answer; any other is a fault that may pass, and the call is repeated.
type Instances interface {
	Reboot(ctx context.Context, instanceID string) error
	Terminate(ctx context.Context, instanceID string) error
	// SetUnhealthy has it replaced by the group it belongs to.
	SetUnhealthy(ctx context.Context, instanceID string) error
}

const (
	// traceFor bounds the wait for the rest of the trace, from the panic on. A death that was taken over may get it from
	// another replica without this one knowing.
	traceFor = 15 * time.Second
	// instanceFor bounds how long the cloud may take to answer, and Nodes to say which machine they are: what follows is worth more than
	// the machine.
	instanceFor = 2 * time.Minute
)

// isOnly reports whether no other Node says that it is that instance. A kubelet chooses the providerID that its Node is
// registered with.
func (w *work) isOnly(ctx context.Context, id string) (bool, error) {
	who := Sender{Instance: id}
	if len(w.node.Addresses) > 0 {
		who.Addr = w.node.Addresses[0]
	}
	_, err := ask(ctx, w.calls, keeping, "find other nodes of the instance", w.e.cluster.FindNode, who)
	return err == nil || errors.Is(err, ErrNotFound), unanswered(err)
}

// stepInstance reboots or terminates the machine, or has it replaced, once its whole trace is on record, because a machine that reboots sends no
// more of it. It comes before the Node's step: the Node shows whether the machine came back by itself, and that step may
// wait for it to come back.
func (w *work) stepInstance(ctx context.Context, p policy.Plan) (note string, again time.Duration, err error) {
	if left := w.death.Time.Add(traceFor).Sub(w.e.Now()); left > 0 && !w.traceOnRecord() {
		return "", min(left, lookEvery), nil
	}
	if err := w.readNode(ctx, keeping); err != nil {
		return "", 0, err
	}
	id := w.node.Instance()
	switch {
	case w.back() != "":
		return "left alone: " + w.back(), 0, nil
	case !w.e.policy.ActsOn(w.node):
		return "left alone: the node was left out meanwhile", 0, nil
	case id == "" || !policy.IsAWS(w.node.ProviderID):
		return "left alone: the Node names no instance", 0, nil
	}
	if only, err := w.isOnly(ctx, id); err != nil || !only {
		return "left alone: not only node " + w.node.Name + " says that it is " + id, 0, err
	}
	if other := w.e.cluster.Unnamed(); other != "" { // it may be the one whose instance this Node says it is
		if left := w.death.Time.Add(instanceFor).Sub(w.e.Now()); left > 0 {
			return "", min(left, lookEvery), nil // it may have registered just now
		}
		return "left alone: node " + other + " does not say which machine it is, and may be " + id, 0, nil
	}
	ask := w.e.instances.Reboot
	switch p.AfterPanic {
	case policy.TerminateInstance:
		ask = w.e.instances.Terminate
	case policy.UnhealthyInstance:
		ask = w.e.instances.SetUnhealthy
	}
	until := w.e.Now().Add(instanceFor)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		// The call does not queue with those to the API server: a cloud that does not answer must not hold up the next fence.
		calling, cancel := context.WithTimeout(ctx, callTimeout)
		err := ask(calling, id)
		cancel()
		switch {
		case ctx.Err() != nil:
			return "", 0, context.Cause(ctx)
		case err == nil:
			return "asked to " + p.AfterPanic.Do(id), 0, nil
		case answered(err), w.e.Now().After(until):
			w.log.Error("instance left alone", "instance", id, "asked", string(p.AfterPanic), "err", err)
			return fmt.Sprintf("left alone: %s: %v", p.AfterPanic.Do(id), err), 0, nil
		}
		w.repeats(string(p.AfterPanic)+" instance", err, pause)
		if err := sleep(ctx, jitter(pause)); err != nil {
			return "", 0, err
		}
	}
}
