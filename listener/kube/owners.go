package kube

import (
	"context"
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/discovery"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// ownersKnown bounds what is remembered of owners. When it is full, it is forgotten.
const ownersKnown = 4096

// owners answers what writeEvents asks about the owners of pods, and remembers the answers: nodes that die together had the same
// workloads. A cache of every ReplicaSet and Job would cost more memory than all the rest.
type owners struct {
	c           *Cluster
	controllers map[types.UID]*corev1.ObjectReference // of ReplicaSets and Jobs, nil for none
	clusterWide map[string]bool                       // by apiVersion and kind
}

// mayBeRegarded reports whether an event may be about the object: Nodes, and what belongs to a namespace. Whoever creates a pod
// chooses its owners, and must not get events written on other cluster-scoped objects by naming one. A kind unknown to the API
// server counts as namespaced, as nearly all owners are.
func (o *owners) mayBeRegarded(ctx context.Context, object corev1.ObjectReference) bool {
	switch {
	case object.Namespace == "":
		return true
	case len(validation.IsDNS1123Subdomain(strings.ReplaceAll(object.APIVersion, "/", "."))) > 0:
		return false // the API server takes any text for it, and this becomes a path
	}
	kind := object.APIVersion + " " + object.Kind
	if is, known := o.clusterWide[kind]; known {
		return !is
	}
	reading, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	found, err := discovery.ToDiscoveryInterfaceWithContext(o.c.core.Discovery()).
		ServerResourcesForGroupVersionWithContext(reading, object.APIVersion)
	if err != nil && !errors.Is(sentinel(err), cleanup.ErrNotFound) {
		return true
	}
	if o.clusterWide == nil || len(o.clusterWide) >= ownersKnown {
		o.clusterWide = make(map[string]bool)
	}
	o.clusterWide[kind] = false
	if found != nil {
		for _, r := range found.APIResources {
			if r.Kind == object.Kind && !r.Namespaced {
				o.clusterWide[kind] = true
			}
		}
	}
	return !o.clusterWide[kind]
}

// controllerOf is what controls a ReplicaSet or a Job, most often a Deployment or a CronJob: people look there. It is nil if there
// is none or it cannot be read: the pods' owner has its event already.
func (o *owners) controllerOf(ctx context.Context, of corev1.ObjectReference) *corev1.ObjectReference {
	if above, known := o.controllers[of.UID]; known {
		return above
	}
	reading, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	var owner metav1.Object
	var err error
	switch of.APIVersion + " " + of.Kind {
	case "apps/v1 ReplicaSet":
		owner, err = o.c.core.AppsV1().ReplicaSets(of.Namespace).Get(reading, of.Name, metav1.GetOptions{})
	case "batch/v1 Job":
		owner, err = o.c.core.BatchV1().Jobs(of.Namespace).Get(reading, of.Name, metav1.GetOptions{})
	default:
		return nil
	}
	if err != nil {
		if !errors.Is(sentinel(err), cleanup.ErrNotFound) && ctx.Err() == nil {
			o.c.log.Info("event written on the pods' owner only", "owner", of.Name, "namespace", of.Namespace, "err", err)
		}
		return nil
	}
	if owner.GetUID() != of.UID {
		return nil
	}
	if o.controllers == nil || len(o.controllers) >= ownersKnown {
		o.controllers = make(map[types.UID]*corev1.ObjectReference)
	}
	o.controllers[of.UID] = nil
	// The API server bounds the length of none of these, and they are remembered.
	if above := metav1.GetControllerOf(owner); above != nil {
		o.controllers[of.UID] = &corev1.ObjectReference{
			APIVersion: clip(above.APIVersion, nameSize), Kind: clip(above.Kind, nameSize), Namespace: of.Namespace,
			Name: clip(above.Name, nameSize), UID: types.UID(clip(string(above.UID), nameSize)),
		}
	}
	return o.controllers[of.UID]
}
