package kube

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/listener/policy"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// newNodeInformer watches all Nodes and keeps of each what trim leaves.
func newNodeInformer(client kubernetes.Interface) (cache.SharedIndexInformer, error) {
	inf := coreinformers.NewNodeInformer(client, 0, cache.Indexers{
		byBoot: func(obj any) ([]string, error) { return nonEmpty(obj.(*corev1.Node).Status.NodeInfo.BootID), nil },
		byPin: func(obj any) ([]string, error) {
			return nonEmpty(pinFrom(obj.(*corev1.Node).Annotations[annotationPin]).Boot), nil
		},
		byAddress: func(obj any) ([]string, error) {
			var keys []string
			for _, a := range addressesOf(obj.(*corev1.Node)) {
				keys = append(keys, a.String())
			}
			return keys, nil
		},
		byInstance: func(obj any) ([]string, error) { return nonEmpty(nodeFrom(obj.(*corev1.Node)).Instance()), nil },
		byMachine:  func(obj any) ([]string, error) { return nonEmpty(obj.(*corev1.Node).Status.NodeInfo.MachineID), nil },
		byMark: func(obj any) ([]string, error) {
			if n := nodeFrom(obj.(*corev1.Node)); n.Fenced || n.Mark.Death != "" || n.Unhealthy != "" {
				return []string{marked}, nil
			}
			return nil, nil
		},
		bySilence: func(obj any) ([]string, error) {
			if nodeFrom(obj.(*corev1.Node)).Silent {
				return []string{silent}, nil
			}
			return nil, nil
		},
		byKernel: func(obj any) ([]string, error) {
			if hasLinux(obj.(*corev1.Node)) {
				return nil, nil
			}
			return []string{foreign}, nil
		},
	})
	return inf, inf.SetTransform(trim)
}

// trim keeps what find, fence and breaker need: a Node as the API serves it is some 20 KiB, mostly the names of images.
func trim(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil // cache.DeletedFinalStateUnknown around what was trimmed before
	}
	t := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:              n.Name,
			UID:               n.UID,
			ResourceVersion:   n.ResourceVersion,
			CreationTimestamp: n.CreationTimestamp,
			DeletionTimestamp: n.DeletionTimestamp,
			Finalizers:        n.Finalizers,
			OwnerReferences:   n.OwnerReferences,
			Labels:            n.Labels, // node pools are told apart by any of them
		},
		Spec: corev1.NodeSpec{ProviderID: clip(n.Spec.ProviderID, providerSize), Taints: n.Spec.Taints, Unschedulable: n.Spec.Unschedulable},
		Status: corev1.NodeStatus{
			Addresses: n.Status.Addresses,
			NodeInfo:  infoOf(n),
		},
	}
	for k, v := range n.Annotations {
		if strings.HasPrefix(k, prefix) {
			metav1.SetMetaDataAnnotation(&t.ObjectMeta, k, v)
		}
	}
	if isClosed(n) {
		t.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: n.Status.Allocatable[corev1.ResourcePods]}
	}
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			t.Status.Conditions = []corev1.NodeCondition{
				{Type: cond.Type, Status: cond.Status, LastTransitionTime: cond.LastTransitionTime},
			}
			if strings.Contains(cond.Message, shuttingDown) {
				t.Status.Conditions[0].Message = shuttingDown
			}
		}
	}
	return t, nil
}

// infoOf is what a Node says of its machine. A kubelet can say anything there, of any length, and change it all the time, and some
// of it is remembered for long.
func infoOf(n *corev1.Node) corev1.NodeSystemInfo {
	info := n.Status.NodeInfo
	return corev1.NodeSystemInfo{
		MachineID: clip(info.MachineID, wordSize), BootID: clip(info.BootID, wordSize),
		KernelVersion: clip(info.KernelVersion, releaseSize), OSImage: clip(info.OSImage, instanceSize),
	}
}

func nodeFrom(n *corev1.Node) policy.Node {
	info := infoOf(n)
	node := policy.Node{
		Name:            n.Name,
		UID:             string(n.UID),
		ResourceVersion: n.ResourceVersion,
		Created:         n.CreationTimestamp.Time,
		ProviderID:      clip(n.Spec.ProviderID, providerSize),
		Addresses:       addressesOf(n),
		BootID:          info.BootID,
		Kernel:          info.KernelVersion,
		OSImage:         info.OSImage,
		MachineID:       info.MachineID,
		ControlPlane:    isControlPlane(n),
		Labels:          n.Labels,
		Unschedulable:   n.Spec.Unschedulable,
		Quarantined:     isQuarantined(n),
		Leaving:         isLeaving(n),
		Finalizers:      n.Finalizers,
		NodeClaim:       claimOf(n),
		Deleting:        n.DeletionTimestamp != nil,
		Pin:             pinFrom(n.Annotations[annotationPin]),
		Claim:           pinFrom(n.Annotations[annotationClaim]),
		Farewell:        policy.ParseFarewell(n.Annotations[annotationFarewell]),
		Mark:            markFrom(n.Annotations),
		Unhealthy:       n.Annotations[annotationUnhealthy],
		Fenced:          slices.ContainsFunc(n.Spec.Taints, isFence),
		Closed:          isClosed(n),
	}
	for _, cond := range n.Status.Conditions {
		if cond.Type != corev1.NodeReady {
			continue
		}
		node.Ready = cond.Status == corev1.ConditionTrue
		if node.Silent = cond.Status == corev1.ConditionUnknown; node.Silent {
			node.SilentSince = cond.LastTransitionTime.Time
		}
	}
	for _, t := range n.Spec.Taints {
		node.OutOfService = node.OutOfService || t.Key == corev1.TaintNodeOutOfService
	}
	return node
}

// isControlPlane goes by either of the well-known labels, as the policy does
// (https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane).
func isControlPlane(n *corev1.Node) bool {
	for _, label := range []string{"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"} {
		if _, ok := n.Labels[label]; ok {
			return true
		}
	}
	return false
}

// isVirtual goes by the labels that virtual-kubelet (https://virtual-kubelet.io/docs/usage/) and Fargate
// (https://docs.aws.amazon.com/eks/latest/userguide/fargate.html) put on their Nodes. They have no kernel that lastgasp could hear. A
// virtual kubelet's may have the address of the machine that it runs on, and each pod on Fargate is a Node with the pod's address.
func isVirtual(n *corev1.Node) bool {
	return n.Labels["type"] == "virtual-kubelet" || n.Labels["eks.amazonaws.com/compute-type"] == "fargate"
}

// hasLinux reports whether the Node has a Linux kernel of its own, which could be heard.
func hasLinux(n *corev1.Node) bool {
	return !isVirtual(n) && n.Labels[corev1.LabelOSStable] != "windows"
}

// addressesOf lists the IP addresses among status.addresses in canonical form, each once and maxAddresses at most: those that a
// kernel of the Node's own can send from. A name may look like an address, that of another machine by now.
func addressesOf(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	if isVirtual(n) {
		return nil
	}
	for _, a := range n.Status.Addresses {
		if len(out) == maxAddresses {
			break
		}
		if a.Type == corev1.NodeHostName || a.Type == corev1.NodeInternalDNS || a.Type == corev1.NodeExternalDNS {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil && !slices.Contains(out, canonical(addr)) {
			out = append(out, canonical(addr))
		}
	}
	return out
}

// canonical is the one form in which addresses are compared: a socket for both families reports ::ffff:10.0.0.1.
func canonical(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
