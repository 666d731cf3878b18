package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// ErrNotHeld is wrapped by Prove's error if an admission policy of packaging/kubernetes/base/policies is missing or not in
// force, or denies what the listener needs. Any other error of Prove means that there was no answer.
var ErrNotHeld = errors.New("apply packaging/kubernetes/base/policies as shipped")

// errUnfit is wrapped where the API server refuses to write the object of a trial, whatever our policies say. Anybody who may write
// the object can bring that about, for instance by filling it with annotations, and so can other people's webhooks and policies: it
// proves nothing and disproves nothing.
var errUnfit = errors.New("the object cannot be written")

// errUnproved is temporary: the API server has not yet shown that the policies are in force.
var errUnproved = errors.New("the admission policies are not proved yet")

const (
	// proveTimeout bounds one proof of all policies. Some twenty trials, trialsAtOnce of them at a time, fit into it even if
	// the API server takes five seconds for each.
	proveTimeout = 30 * time.Second
	trialsAtOnce = 4
	// objectsForTrial is on how many Nodes, and pods, trials are made until one of them can be written.
	objectsForTrial = 8
	// provedFor is how long a proof is valid.
	provedFor = 10 * time.Minute
	// firstRetry is how soon a failed proof is tried again, doubled up to lastRetry: policies that are applied together with the
	// listener take the API server a second or two.
	firstRetry = time.Second
	lastRetry  = 10 * time.Second
)

// proofName is the name of the objects that trials write.
const proofName = "policy-proof"

// proof is the last result of Prove. Its zero value means that nothing is proved.
type proof struct {
	mu     sync.Mutex
	proved bool
	held   error // nil unless it is ErrNotHeld
}

// note takes a result of Prove. A missing answer leaves the proof as it was: an API server that is too busy to answer has
// not lost its policies, and it may be that busy because many nodes are dying.
func (p *proof) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.proved, p.held = true, nil
	case errors.Is(err, ErrNotHeld):
		p.proved, p.held = false, err
	}
}

// mayWrite is nil if pods and Nodes may be written. NodeDeaths are written whatever is proved.
func (p *proof) mayWrite() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.proved:
		return nil
	case p.held != nil:
		return fmt.Errorf("%w: %w", errUnproved, p.held)
	}
	return errUnproved
}

func (p *proof) notHeld() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// keep calls prove at once and every ten minutes until ctx ends, and sooner after a failure. That is logged once it is repeated.
func (p *proof) keep(ctx context.Context, prove func(context.Context) error, log *slog.Logger) {
	logged, retry := "", firstRetry
	for {
		err := prove(ctx)
		p.note(err)
		again := retry > firstRetry
		wait := provedFor
		switch {
		case err == nil:
			retry = firstRetry
		case errors.Is(err, errNotSynced):
			wait = firstRetry / 10
		default:
			wait, retry = retry, min(2*retry, lastRetry)
		}
		switch text := fmt.Sprint(err); {
		case text == logged || ctx.Err() != nil:
		case err == nil:
			log.Info("the admission policies are in force")
			logged = text
		case again:
			log.Error("admission policies not proved: deaths are recorded, nothing else is done", "err", err)
			logged = text
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// trial is one dry-run write, and whether the API server must deny it.
type trial struct {
	policy    string
	what      string
	forbidden bool
	write     func(context.Context) error
}

// Prove tries, for each admission policy, a write that it must deny and one that it must allow, all as dry runs. Nil means
// that all are in force and let the listener do its job; otherwise see ErrNotHeld. A cluster without a node or without a
// bound pod has nothing of that kind to protect, and is proved without these trials.
func (c *Cluster) Prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	if !c.nodes.HasSynced() {
		return fmt.Errorf("prove the admission policies: %w", errNotSynced)
	}
	trials := append(c.trialsOnDeaths(), c.trialsOnLeases()...)
	verdicts := tryAll(ctx, append(trials, c.trialsOnNodeClaim()...))
	pods, err := c.podsForTrial(ctx)
	if err != nil {
		return fmt.Errorf("prove the admission policies: %w", err)
	}
	var onNodes, onControlPlane, onPods [][]trial
	workers, controlPlane := c.nodesForTrial()
	for _, n := range atMost(objectsForTrial, workers, controlPlane) {
		onNodes = append(onNodes, c.trialsOnNode(n))
	}
	if c.controlPlane {
		for _, n := range atMost(objectsForTrial, controlPlane) {
			onControlPlane = append(onControlPlane, c.trialsOnControlPlane(n))
		}
	}
	for _, p := range pods {
		onPods = append(onPods, c.trialsOnPod(p))
	}
	verdicts = slices.Concat(verdicts, tryOneOf(ctx, onNodes), tryOneOf(ctx, onControlPlane), tryOneOf(ctx, onPods))
	var notHeld, noAnswer []error
	for _, err := range verdicts {
		if errors.Is(err, ErrNotHeld) {
			notHeld = append(notHeld, err)
		} else if err != nil {
			noAnswer = append(noAnswer, err)
		}
	}
	if len(notHeld) > 0 {
		return errors.Join(notHeld...)
	}
	return errors.Join(noAnswer...)
}

// tryAll makes the trials and returns what is wrong with each answer.
func tryAll(ctx context.Context, trials []trial) []error {
	verdicts := make([]error, len(trials))
	var at errgroup.Group
	at.SetLimit(trialsAtOnce)
	for i, t := range trials {
		at.Go(func() error {
			verdicts[i] = t.judge(t.write(ctx))
			return nil
		})
	}
	_ = at.Wait() // verdicts has the errors
	return verdicts
}

// tryOneOf makes the trials on the first object that can be written, or on the last.
func tryOneOf(ctx context.Context, objects [][]trial) (verdicts []error) {
	for _, trials := range objects {
		verdicts = tryAll(ctx, trials)
		if !slices.ContainsFunc(verdicts, func(err error) bool { return errors.Is(err, errUnfit) }) {
			break
		}
	}
	return verdicts
}

// judge says what is wrong with the answer to t, nil if it is as it must be.
func (t trial) judge(answer error) error {
	byOurs := answer != nil && strings.Contains(answer.Error(), "ValidatingAdmissionPolicy '"+t.policy+"'")
	byOthers := isDeniedByAdmission(answer) && !byOurs
	switch {
	case t.forbidden && answer == nil:
		return fmt.Errorf("admission policy %s is not in force, the API server lets the listener write %s: %w", t.policy, t.what, ErrNotHeld)
	case t.forbidden && apierrors.IsForbidden(answer) && byOurs:
		return nil
	case errors.Is(sentinel(answer), cleanup.ErrDenied) && (byOthers || !apierrors.IsForbidden(answer)):
		return fmt.Errorf("admission policy %s is not proved, %s cannot be written (%w): %w: %w", t.policy, t.what, answer, errUnfit, ErrNotHeld)
	case t.forbidden && errors.Is(sentinel(answer), cleanup.ErrDenied):
		return fmt.Errorf("admission policy %s is not proved, something else forbids writing %s (%w): %w", t.policy, t.what, answer, ErrNotHeld)
	case errors.Is(sentinel(answer), cleanup.ErrDenied):
		return fmt.Errorf("the API server does not let the listener write %s (%w): %w", t.what, answer, ErrNotHeld)
	case answer != nil:
		return fmt.Errorf("prove admission policy %s: %w", t.policy, answer)
	}
	return nil
}

func (c *Cluster) trialsOnDeaths() []trial {
	create := func(finalizers ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			nd := &v1alpha1.NodeDeath{
				ObjectMeta: metav1.ObjectMeta{Name: proofName, Finalizers: finalizers},
				Spec:       specFrom(policy.Death{Time: time.Now(), Reason: "proof of an admission policy"}),
			}
			return c.deaths.Post().Resource(v1alpha1.Resource).Param("dryRun", metav1.DryRunAll).
				Param("fieldManager", manager).Body(nd).Do(ctx).Error()
		}
	}
	return []trial{
		{"lastgasp-nodedeaths", "a NodeDeath", false, create()},
		{"lastgasp-nodedeaths", "a NodeDeath with a finalizer", true, create(prefix + proofName)},
	}
}

func (c *Cluster) trialsOnLeases() []trial {
	create := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := c.core.CoordinationV1().Leases(c.namespace).Create(ctx, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Name: name},
			}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: manager})
			return err
		}
	}
	return []trial{
		{"lastgasp-listener-leases", "its own lease in namespace " + c.namespace, false, create(leasePrefix + proofName)},
		{"lastgasp-listener-leases", "another lease in namespace " + c.namespace, true, create(proofName)},
	}
}

// nodesForTrial are some Nodes outside and in the control plane, in another order each time. In the control plane the listener may
// do less.
func (c *Cluster) nodesForTrial() (workers, controlPlane []*corev1.Node) {
	for _, obj := range c.nodes.GetStore().List() { // in no order
		switch n := obj.(*corev1.Node); {
		case n.DeletionTimestamp != nil:
		case isControlPlane(n):
			controlPlane = append(controlPlane, n)
		default:
			workers = append(workers, n)
		}
	}
	return workers, controlPlane
}

// atMost is the first of the Nodes, n at most.
func atMost(n int, nodes ...[]*corev1.Node) []*corev1.Node {
	all := slices.Concat(nodes...)
	return all[:min(len(all), n)]
}

// tryOnNode returns a dry-run patch of the Node.
func (c *Cluster) tryOnNode(node *corev1.Node, patch any, subresources ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.core.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, mustJSON(patch),
			metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: manager}, subresources...)
		return err
	}
}

// trialsOnControlPlane try the fence on a node of the control plane, with its other taints as they are.
func (c *Cluster) trialsOnControlPlane(node *corev1.Node) []trial {
	yes := true
	fence := map[string]any{
		"metadata": map[string]any{"uid": node.UID, "resourceVersion": node.ResourceVersion},
		"spec":     map[string]any{"taints": taints(node.Spec.Taints, &yes, nil)},
	}
	return []trial{{
		"lastgasp-listener-nodes", "its fence to node " + node.Name + " of the control plane, for which `controlPlane: true` needs the policy's variable controlPlane to be \"false\"",
		false, c.tryOnNode(node, fence),
	}}
}

func (c *Cluster) trialsOnNode(node *corev1.Node) []trial {
	patch := func(patch any, subresources ...string) func(context.Context) error {
		return c.tryOnNode(node, patch, subresources...)
	}
	condition := func(kind string) any {
		return map[string]any{"status": map[string]any{"conditions": []map[string]string{
			{"type": kind, "status": "True", "reason": "Proof"},
		}}}
	}
	boot := node.Status.NodeInfo.BootID
	trials := []trial{
		{"lastgasp-listener-nodes", "its annotation to node " + node.Name, false, patch(annotation(annotationReason, proofName))},
		{"lastgasp-listener-nodes", "a label to node " + node.Name, true, patch(label(prefix + proofName))},
		{"lastgasp-listener-nodes", "a foreign condition to node " + node.Name, true, patch(condition(prefix+proofName), "status")},
		{"lastgasp-listener-nodes", "its condition " + c.condition + " to node " + node.Name, false, patch(condition(c.condition), "status")},
		{"lastgasp-pin", "a pin to node " + node.Name, true, patch(annotation(annotationPin, proofName+":"+proofName))},
		{"lastgasp-claim", "a claim of a boot that node " + node.Name + " does not run", true,
			patch(annotation(annotationClaim, proofName+":"+proofName))},
		{"lastgasp-farewell", "a farewell of a boot that node " + node.Name + " does not run", true,
			patch(annotation(annotationFarewell, proofName+": "+proofName))},
	}
	if boot != "" {
		trials = append(trials, trial{"lastgasp-farewell", "a farewell to node " + node.Name, false,
			patch(annotation(annotationFarewell, boot+": "+proofName))})
	}
	if claim := pinFrom(node.Annotations[annotationClaim]); boot != "" && claim.Boot != boot {
		trials = append(trials, trial{"lastgasp-claim", "a claim to node " + node.Name, false,
			patch(annotation(annotationClaim, boot+":"+proofName))})
	}
	return trials
}

// podsForTrial are our own pod or, outside the cluster, some that are bound to a node and not about to change: those of
// the system if there are any, because tenants cannot make pods there. There may be none.
func (c *Cluster) podsForTrial(ctx context.Context) (pods []*corev1.Pod, err error) {
	if c.pod != "" {
		pod, err := c.core.CoreV1().Pods(c.namespace).Get(ctx, c.pod, metav1.GetOptions{})
		if err != nil {
			return nil, explain(err, "read the listener's own pod %s/%s", c.namespace, c.pod)
		}
		return []*corev1.Pod{pod}, nil
	}
	for _, namespace := range []string{metav1.NamespaceSystem, metav1.NamespaceAll} {
		list, err := c.core.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName!=", Limit: 100})
		if err != nil {
			return nil, explain(err, "list pods")
		}
		rand.Shuffle(len(list.Items), func(i, j int) { list.Items[i], list.Items[j] = list.Items[j], list.Items[i] })
		for i := range list.Items {
			pod := &list.Items[i]
			if p := podFrom(pod); !p.Marked && !p.Mirror && !p.Deleting && p.Node != "" && len(pods) < objectsForTrial {
				pods = append(pods, pod)
			}
		}
	}
	return pods, nil
}

func (c *Cluster) trialsOnPod(pod *corev1.Pod) []trial {
	name := pod.Namespace + "/" + pod.Name
	status := func(patch any) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := c.core.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, mustJSON(patch),
				metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: manager}, "status")
			return err
		}
	}
	ours := podPatch{Metadata: c.keys.metadata(podFrom(pod), policy.Notice{Death: proofName, Cause: "Proof", Reason: proofName})}
	ours.Metadata.ResourceVersion = "" // any version will do
	remove := func(ctx context.Context) error {
		return c.core.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			DryRun: []string{metav1.DryRunAll}, Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
	}
	return []trial{
		{"lastgasp-listener-pods", "its annotations to pod " + name, false, status(ours)},
		{"lastgasp-listener-pods", "a label to pod " + name, true, status(label(prefix + proofName))},
		{"lastgasp-listener-pods", "the deletion of pod " + name + ", which it has not failed", true, remove},
	}
}

func annotation(key, value string) any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]string{key: value}}}
}

func label(key string) any {
	return map[string]any{"metadata": map[string]any{"labels": map[string]string{key: ""}}}
}
