package cleanup

import (
	"context"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// A kubelet reports that a container was lost only when it has started it again, which may be long after its node has said
	// how the last boot ended. So the pods are looked at again: restartLooks times, first after firstRestartLook and then after
	// twice the time, 105 s in all.
	firstRestartLook = 15 * time.Second
	restartLooks     = 3
	restartTick      = 5 * time.Second
	// restartsWatched bounds the deaths whose pods are looked at again.
	restartsWatched = 512
	// restartedBefore is how long before the time of the death a pod may have restarted: the end of a boot is found out late.
	restartedBefore = time.Minute
)

// restarting is a death of a node that runs again, whose pods are looked at again.
type restarting struct {
	notice  policy.Notice
	node    policy.Node     // as it was read when it ran again: name, UID and boot
	emitted map[string]bool // pods that have an event, by UID
	looks   int
	next    time.Time
}

// emitRecord emits the events of a death that is only on record: on its node, and on the pods that lost a container to it.
func (w *work) emitRecord(pods []policy.Pod) {
	if w.sameMachine() {
		n := policy.NoticeOf(w.death)
		w.e.cluster.Emit(Event{Node: w.node, Warning: true, Reason: n.Cause, Action: "Record", Note: n.Message})
	}
	w.emitLosses(pods, map[string]bool{})
}

// emitLosses emits the events of the pods that lost a container to the death, but those of emitted, by UID. If the node runs
// again, its pods are looked at again.
func (w *work) emitLosses(pods []policy.Pod, emitted map[string]bool) {
	r := restarting{notice: policy.NoticeOf(w.death), node: policy.Node{Name: w.node.Name, UID: w.node.UID, BootID: w.node.BootID}, emitted: emitted}
	w.e.emitLost(r, pods)
	if w.sameMachine() && w.node.BootID != w.death.Boot {
		w.e.watchRestarts(r)
	}
}

// sameMachine reports whether the Node is that of the machine that died, and not of another one that has its name.
func (w *work) sameMachine() bool {
	return w.lookup == policy.Found && (w.node.UID == w.death.NodeUID || w.node.Instance() == w.death.Instance)
}

// emitLost emits the events of the pods that lost a container and have none yet.
func (e *Engine) emitLost(r restarting, pods []policy.Pod) {
	for _, p := range pods {
		if p.Lost && p.Started.After(r.notice.Time.Add(-restartedBefore)) && !r.emitted[p.UID] {
			r.emitted[p.UID] = true
			e.cluster.Emit(Event{Pod: p, Warning: true, Reason: r.notice.Cause, Action: "Record", Note: r.notice.Message})
		}
	}
}

// watchRestarts has the pods of r looked at again. What was known of the same death before is superseded.
func (e *Engine) watchRestarts(r restarting) {
	r.looks, r.next = 0, e.Now().Add(firstRestartLook)
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.restarting[r.notice.Death]; !ok && len(e.restarting) >= restartsWatched {
		e.log.Info("pods that are restarted later get no event: too many nodes are back at once", "death", r.notice.Death, "limit", restartsWatched)
		return
	}
	e.restarting[r.notice.Death] = r
}

// emitRestarted looks again at the pods of nodes that run again, until ctx ends.
func (e *Engine) emitRestarted(ctx context.Context) {
	tick := time.NewTicker(restartTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, r := range e.dueRestarts() {
			e.lookAtRestarts(ctx, r)
		}
	}
}

// dueRestarts returns those that are to be looked at now, and notes when they are to be looked at next.
func (e *Engine) dueRestarts() (due []restarting) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, r := range e.restarting {
		if e.Now().Before(r.next) {
			continue
		}
		due = append(due, r)
		r.looks++
		r.next = e.Now().Add(firstRestartLook << r.looks)
		if e.restarting[name] = r; r.looks == restartLooks {
			delete(e.restarting, name)
		}
	}
	return due
}

// lookAtRestarts emits the events of the pods that were lost and have none yet, as long as the node runs the boot that it came back
// on: what is lost after that was not lost to this death. A look without an answer is not repeated.
func (e *Engine) lookAtRestarts(ctx context.Context, r restarting) {
	w := e.newWork(detect.Incident{}, e.log)
	w.death = policy.Death{Node: r.node.Name, Time: r.notice.Time}
	pods := w.podsThen(ctx)
	if len(pods) == 0 {
		return
	}
	n, err := askOnce(ctx, w.calls, tidying, e.cluster.Node, r.node.Name)
	if err == nil && n.UID == r.node.UID && n.BootID == r.node.BootID {
		e.emitLost(r, pods)
	}
}
