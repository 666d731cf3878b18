package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// Uninstaller removes what lastgasp has written to objects of others: fences, annotations and conditions of Nodes. It leaves
// pods, of which only the dead are annotated, and what was installed: kubectl and Helm remove that. It acts as an
// administrator, not as the listener.
type Uninstaller struct {
	REST      *rest.Config
	Namespace string // of the listener
	Condition string // type of the condition on Nodes
	Records   bool   // delete the NodeDeaths as well
	DryRun    bool   // say what would be done
	Say       func(line string)
}

const (
	// atWorkFor is how fresh a replica's Lease must be for the replica to be at work. It allows for clocks that differ.
	atWorkFor = time.Minute
	// cleanTries bounds how often a Node is tried, cleanPause apart: for half a minute.
	cleanTries   = 100
	cleanPause   = 300 * time.Millisecond
	nodesPerPage = 500
)

// guards are the policies, and their bindings, that deny an administrator to remove annotations of a Node.
func guards() []string { return []string{"lastgasp-pin", "lastgasp-claim", "lastgasp-farewell"} }

// Run does it, and can be repeated. It refuses while a replica renews its Lease: that would fence again.
func (u Uninstaller) Run(ctx context.Context, now time.Time) error {
	core, deaths, err := clients(u.REST)
	if err != nil {
		return fmt.Errorf("connect to cluster: %w", err)
	}
	if err := u.replicas(ctx, core, now); err != nil {
		return err
	}
	for _, name := range guards() {
		if u.DryRun {
			break
		}
		err := core.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(ctx, name, metav1.DeleteOptions{})
		switch {
		case err == nil:
			u.Say("policy " + name + " unbound: nothing guards these annotations any more")
		case !errors.Is(sentinel(err), cleanup.ErrNotFound):
			return explain(err, "unbind policy %s", name)
		}
	}
	for page := (metav1.ListOptions{Limit: nodesPerPage}); ; {
		list, err := core.CoreV1().Nodes().List(ctx, page)
		if err != nil {
			return explain(err, "list nodes")
		}
		for i := range list.Items {
			if err := u.node(ctx, core, &list.Items[i]); err != nil {
				return err
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			break
		}
	}
	if !u.Records {
		return nil
	}
	if !u.DryRun {
		if err := deaths.Delete().Resource(v1alpha1.Resource).Do(ctx).Error(); err != nil && !errors.Is(sentinel(err), cleanup.ErrNotFound) {
			return explain(err, "delete NodeDeaths")
		}
	}
	u.Say("all NodeDeaths deleted")
	return nil
}

// replicas refuses if one is at work, and deletes the Leases of those that are not, with what they left of their coverage.
func (u Uninstaller) replicas(ctx context.Context, core kubernetes.Interface, now time.Time) error {
	leases := core.CoordinationV1().Leases(u.Namespace)
	list, err := leases.List(ctx, metav1.ListOptions{LabelSelector: labelLease})
	if err != nil {
		return explain(err, "list leases of replicas")
	}
	for _, lease := range list.Items {
		if t := lease.Spec.RenewTime; t != nil && now.Sub(t.Time) < atWorkFor {
			return fmt.Errorf("%s was at work %s ago and would fence nodes again; stop it and wait %s: "+
				"kubectl --namespace=%s scale deployment listener --replicas=0",
				strings.TrimPrefix(lease.Name, leasePrefix), max(0, now.Sub(t.Time)).Round(time.Second), atWorkFor, u.Namespace)
		}
	}
	coverage, err := leases.List(ctx, metav1.ListOptions{LabelSelector: labelCoverage})
	if err != nil {
		return explain(err, "list coverage of replicas")
	}
	for _, lease := range append(list.Items, coverage.Items...) {
		if u.DryRun {
			break
		}
		if err := leases.Delete(ctx, lease.Name, metav1.DeleteOptions{}); err != nil && !errors.Is(sentinel(err), cleanup.ErrNotFound) {
			return explain(err, "delete lease %s", lease.Name)
		}
	}
	return nil
}

// node cleans one Node. It reads the Node again where that has changed, and repeats where a policy still denies: the API
// server enforces one for some moments after its binding is gone.
func (u Uninstaller) node(ctx context.Context, core kubernetes.Interface, n *corev1.Node) error {
	nodes := core.CoreV1().Nodes()
	for try := 1; ; try++ {
		patch, done := cleanNode(n)
		var err error
		if patch != nil && !u.DryRun {
			_, err = nodes.Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: manager})
		}
		if err == nil && hasCondition(n, u.Condition) {
			done = append(done, "condition "+u.Condition)
			if !u.DryRun {
				_, err = nodes.Patch(ctx, n.Name, types.StrategicMergePatchType, withoutCondition(u.Condition), metav1.PatchOptions{FieldManager: manager}, "status")
			}
		}
		if err == nil {
			if len(done) > 0 {
				u.Say("node " + n.Name + ": removed " + strings.Join(done, ", "))
			}
			return nil
		}
		if again := errors.Is(sentinel(err), cleanup.ErrConflict) || errors.Is(sentinel(err), cleanup.ErrForbidden); !again || try == cleanTries {
			return explain(err, "clean node %s", n.Name)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(cleanPause):
		}
		if n, err = nodes.Get(ctx, n.Name, metav1.GetOptions{}); errors.Is(sentinel(err), cleanup.ErrNotFound) {
			return nil
		} else if err != nil {
			return explain(err, "read node")
		}
	}
}

// cleanNode is the patch that removes what lastgasp wrote on n, and what that is. It is nil if there is nothing. Labels are
// people's.
func cleanNode(n *corev1.Node) (patch []byte, removed []string) {
	no, mark := false, markFrom(n.Annotations)
	lifts := cleanup.NodePatch{}
	if slices.ContainsFunc(n.Spec.Taints, isFence) {
		lifts.Fence, removed = &no, append(removed, "the fence")
	}
	if mark.OutOfService {
		lifts.OutOfService, removed = &no, append(removed, "the out-of-service taint")
	}
	annotations := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(n.Annotations)) {
		if strings.HasPrefix(key, prefix) {
			annotations[key], removed = nil, append(removed, key)
		}
	}
	if len(removed) == 0 {
		return nil, nil
	}
	out := map[string]any{"metadata": map[string]any{"uid": n.UID, "resourceVersion": n.ResourceVersion, "annotations": annotations}}
	if lifts != (cleanup.NodePatch{}) {
		out["spec"] = map[string]any{"taints": taints(n.Spec.Taints, lifts.Fence, lifts.OutOfService)}
	}
	return mustJSON(out), removed
}

func hasCondition(n *corev1.Node, name string) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return string(c.Type) == name })
}

// withoutCondition is the patch of a Node's status that removes one condition.
func withoutCondition(name string) []byte {
	return mustJSON(map[string]any{"status": map[string]any{"conditions": []map[string]string{{"$patch": "delete", "type": name}}}})
}
