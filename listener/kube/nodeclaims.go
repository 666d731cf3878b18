package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// karpenterGroup is the API group of NodeClaims.
const karpenterGroup = "karpenter.sh"

// nodeClaim is what is needed of a NodeClaim, which is the same in v1beta1 and v1.
type nodeClaim struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Status   struct {
		NodeName   string `json:"nodeName"`
		ProviderID string `json:"providerID"`
	} `json:"status"`
}

// claimOf is the owner of the Node that is a NodeClaim of Karpenter's, zero if none is. The API server takes any text for an owner's
// version and name, and we make a path of these.
func claimOf(n *corev1.Node) policy.Owner {
	for _, o := range n.OwnerReferences {
		gv, err := schema.ParseGroupVersion(o.APIVersion)
		isName := len(validation.IsDNS1123Subdomain(o.Name)) == 0 && len(validation.IsDNS1123Label(gv.Version)) == 0
		if err == nil && gv.Group == karpenterGroup && o.Kind == "NodeClaim" && isName {
			return policy.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)}
		}
	}
	return policy.Owner{}
}

func claimPath(o policy.Owner) string { return "/apis/" + o.APIVersion + "/nodeclaims/" + o.Name }

// DeleteNodeClaim implements cleanup.Cluster. Some versions of Kubernetes let a kubelet write its Node's owners
// (CVE-2025-5187), so the NodeClaim itself, which Karpenter writes, must say that the Node and its machine are its own.
func (c *Cluster) DeleteNodeClaim(ctx context.Context, n policy.Node, death string) error {
	o := n.NodeClaim
	if err := c.proof.mayWrite(); err != nil {
		return fmt.Errorf("delete nodeclaim %s: %w", o.Name, err)
	}
	raw, err := c.deaths.Get().AbsPath(claimPath(o)).Do(ctx).Raw()
	if err != nil {
		return explain(err, "read nodeclaim %s", o.Name)
	}
	var have nodeClaim
	if err := json.Unmarshal(raw, &have); err != nil {
		return fmt.Errorf("read nodeclaim %s: %w", o.Name, err)
	}
	switch s := have.Status; {
	case string(have.Metadata.UID) != o.UID:
		return fmt.Errorf("nodeclaim %s is not the one that node %s names: %w", o.Name, n.Name, cleanup.ErrNotFound)
	case s.NodeName != n.Name || s.ProviderID == "" || s.ProviderID != n.ProviderID:
		return fmt.Errorf("nodeclaim %s belongs to node %q and machine %q, not to node %s: %w",
			o.Name, s.NodeName, s.ProviderID, n.Name, cleanup.ErrDenied)
	case have.Metadata.DeletionTimestamp != nil:
		return nil
	}
	mark := mustJSON(map[string]any{"metadata": map[string]any{
		"uid": o.UID, "resourceVersion": have.Metadata.ResourceVersion, "annotations": map[string]string{annotationDeath: death},
	}})
	raw, err = c.deaths.Patch(types.MergePatchType).AbsPath(claimPath(o)).Param("fieldManager", manager).Body(mark).Do(ctx).Raw()
	if err != nil {
		return explain(err, "mark nodeclaim %s", o.Name)
	}
	if err := json.Unmarshal(raw, &have); err != nil {
		return fmt.Errorf("mark nodeclaim %s: %w", o.Name, err)
	}
	// A precondition can only be about the NodeClaim itself, and its machine may be back under a new Node by now.
	live, err := c.liveNode(ctx, n.Name)
	switch {
	case errors.Is(err, cleanup.ErrNotFound), err == nil && (string(live.UID) != n.UID || infoOf(live).BootID != n.BootID):
		return fmt.Errorf("delete nodeclaim %s of node %s: %w", o.Name, n.Name, cleanup.ErrConflict)
	case err != nil:
		return err
	}
	uid, version := types.UID(o.UID), have.Metadata.ResourceVersion
	err = c.deleteClaim(ctx, claimPath(o), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
	return explain(err, "delete nodeclaim %s", o.Name)
}

// deleteClaim encodes the options itself: the client would write its own group into them, which another group's server refuses.
func (c *Cluster) deleteClaim(ctx context.Context, path string, o metav1.DeleteOptions) error {
	o.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}
	return c.deaths.Delete().AbsPath(path).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(mustJSON(o)).Do(ctx).Error()
}

// trialsOnNodeClaim tries on the NodeClaim of some Node; without one there is nothing to protect.
func (c *Cluster) trialsOnNodeClaim() []trial {
	if !c.nodeClaims {
		return nil
	}
	for _, obj := range c.nodes.GetStore().List() {
		n := nodeFrom(obj.(*corev1.Node))
		if n.NodeClaim.Name == "" || n.Mark.Death != "" {
			continue
		}
		path, name := claimPath(n.NodeClaim), "nodeclaim "+n.NodeClaim.Name
		annotate := func(ctx context.Context) error {
			return c.deaths.Patch(types.MergePatchType).AbsPath(path).Param("dryRun", metav1.DryRunAll).
				Param("fieldManager", manager).Body(mustJSON(annotation(annotationDeath, proofName))).Do(ctx).Error()
		}
		remove := func(ctx context.Context) error {
			return c.deleteClaim(ctx, path, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		}
		return []trial{
			{"lastgasp-listener-nodeclaims", "its annotation to " + name, false, annotate},
			{"lastgasp-listener-nodeclaims", "the deletion of " + name + ", which it has not marked", true, remove},
		}
	}
	return nil
}
