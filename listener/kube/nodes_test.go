package kube

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// load reads a Node as `kubectl get -o json` printed it.
func load(t *testing.T, name string) *corev1.Node {
	t.Helper()
	n := &corev1.Node{}
	if err := json.Unmarshal(read(t, name), n); err != nil {
		t.Fatal(err)
	}
	return n
}

// cacheNode puts n into c's cache the way the informer does.
func cacheNode(t *testing.T, c *Cluster, n *corev1.Node) {
	t.Helper()
	trimmed, err := trim(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.nodes.GetStore().Add(trimmed); err != nil {
		t.Fatal(err)
	}
}

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestNodeFrom(t *testing.T) {
	n := load(t, "node-kubelet-1.36.json")
	want := policy.Node{
		Name:            "ip-10-77-2-10.ec2.internal",
		UID:             "a83d2f7a-e972-4087-a809-b102a6207619",
		ResourceVersion: "341",
		Created:         time.Date(2026, 11, 21, 22, 10, 7, 0, time.UTC),
		ProviderID:      "aws:///use1-az1/i-0123456789abcdef0",
		Addresses:       []netip.Addr{netip.MustParseAddr("10.77.2.10")},
		BootID:          "0b6f9f5e-3a4e-4c39-8a54-6f0d9f2c7a11",
		Kernel:          "6.12.107+deb13-cloud-amd64",
		OSImage:         n.Status.NodeInfo.OSImage,
		MachineID:       n.Status.NodeInfo.MachineID,
		Ready:           true,
		Labels:          n.Labels,
	}
	if diff := cmp.Diff(want, nodeFrom(n), compareAddrs); diff != "" {
		t.Errorf("plain node (-want +got):\n%s", diff)
	}

	n.Labels["node-role.kubernetes.io/control-plane"] = ""
	n.Annotations[annotationPin], n.Annotations[annotationClaim] = "boot:sum", "boot:claimed"
	n.Annotations[annotationDeath], n.Annotations[annotationBoot], n.Annotations[annotationReason] = "r", "b", "x"
	n.Annotations[annotationOutOfService], n.Annotations[annotationUnhealthy] = "true", "b"
	n.Spec.Taints = []corev1.Taint{{Key: taintFence, Effect: corev1.TaintEffectNoSchedule}, {Key: corev1.TaintNodeOutOfService}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
	n.Spec.Unschedulable, n.Finalizers, n.DeletionTimestamp = true, []string{"karpenter.sh/termination"}, &metav1.Time{Time: time.Now()}
	n.Status.Conditions[3].Status = corev1.ConditionUnknown
	n.Status.Addresses = append(n.Status.Addresses,
		corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "::ffff:10.77.2.10"},
		corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "2001:db8:0:0::1"})
	want.Closed = true
	want.ControlPlane, want.Fenced, want.OutOfService, want.Ready, want.Silent = true, true, true, false, true
	want.SilentSince = n.Status.Conditions[3].LastTransitionTime.Time
	want.Unschedulable = true
	want.Quarantined, want.Leaving, want.Finalizers, want.Deleting, want.Unhealthy = true, true, n.Finalizers, true, "b"
	want.Pin, want.Claim = policy.Pin{Boot: "boot", Sum: "sum"}, policy.Pin{Boot: "boot", Sum: "claimed"}
	want.Mark = policy.Mark{Death: "r", Boot: "b", Reason: "x", OutOfService: true}
	want.Addresses = append(want.Addresses, netip.MustParseAddr("2001:db8::1"))
	if diff := cmp.Diff(want, nodeFrom(n), compareAddrs); diff != "" {
		t.Errorf("fenced node (-want +got):\n%s", diff)
	}

	reports := n.DeepCopy()
	reports.Status.Conditions[3].Status = corev1.ConditionFalse
	if got := nodeFrom(reports); got.Ready || got.Silent {
		t.Errorf("Ready is False: Ready %v, Silent %v; want neither, its kubelet said so", got.Ready, got.Silent)
	}

	trimmed, err := trim(n)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, nodeFrom(trimmed.(*corev1.Node)), compareAddrs); diff != "" {
		t.Errorf("trimmed node reads differently (-want +got):\n%s", diff)
	}
	whole, _ := json.Marshal(n)
	small, _ := json.Marshal(trimmed)
	if len(small) > len(whole)/2 {
		t.Errorf("trimmed node is %d bytes of %d", len(small), len(whole))
	}
	if again, err := trim(trimmed); err != nil || !cmp.Equal(trimmed, again) {
		t.Errorf("trimming twice changes the node: %v", err)
	}
}

// TestAddressesAreBounded has a kubelet report all addresses of a prefix as its own. A machine's first ones count.
func TestAddressesAreBounded(t *testing.T) {
	n, first := &corev1.Node{}, netip.MustParseAddr("2001:db8::")
	for addr := first; len(n.Status.Addresses) < 10_000; addr = addr.Next() {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Address: addr.String()})
	}
	n.Status.Addresses = append(n.Status.Addresses, n.Status.Addresses[:10]...)
	if got := addressesOf(n); len(got) != maxAddresses || got[0] != first {
		t.Errorf("%d addresses from %s on, want %d from %s on", len(got), got[0], maxAddresses, first)
	}
}

// TestWhatAKubeletSaysIsBounded has a kubelet report texts as long as etcd takes them.
func TestWhatAKubeletSaysIsBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	n := &corev1.Node{Spec: corev1.NodeSpec{ProviderID: "aws:///" + long}}
	n.Status.NodeInfo = corev1.NodeSystemInfo{MachineID: long, BootID: long, KernelVersion: long, OSImage: long}
	trimmed, err := trim(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*corev1.Node{n, trimmed.(*corev1.Node)} {
		got := nodeFrom(n)
		if size := len(got.ProviderID + got.MachineID + got.BootID + got.Kernel + got.OSImage); size > 2048 {
			t.Errorf("%d bytes, want a few hundred", size)
		}
	}
	if m := machineOf(trimmed.(*corev1.Node)); len(m.providerID+m.machineID) > 1024 {
		t.Errorf("%d bytes are remembered of a Node that is gone", len(m.providerID+m.machineID))
	}
}

func TestUnnamed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nodes map[string]string // spec.providerID by name
		want  string
	}{
		{"no Nodes", nil, ""},
		{"all are instances", map[string]string{"a": "aws:///az/i-1", "b": "aws:///az/i-2"}, ""},
		{"one runs on Fargate, one is a hybrid node", map[string]string{"a": "aws:///az/ab/fargate-ip-10-0-0-1", "b": "eks-hybrid:///r/c/mi-1"}, ""},
		{"one says nothing", map[string]string{"a": "aws:///az/i-1", "b": ""}, "b"},
		{"one names itself", map[string]string{"a": "aws:///az/i-1", "b": "k3s://b"}, "b"},
		{"one is virtual", map[string]string{"a": "aws:///az/i-1", "virtual": ""}, ""},
	} {
		_, c := newAPI(t, 500, "")
		for name, id := range tt.nodes {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: id}}
			if name == "virtual" {
				n.Labels = map[string]string{"type": "virtual-kubelet"}
			}
			cacheNode(t, c, n)
		}
		if got := c.Unnamed(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPinFrom(t *testing.T) {
	for value, want := range map[string]policy.Pin{
		"":         {},
		"rubbish":  {},
		":sum":     {},
		"boot:":    {},
		"boot:sum": {Boot: "boot", Sum: "sum"},
	} {
		if got := pinFrom(value); got != want {
			t.Errorf("pinFrom(%q) = %+v, want %+v", value, got, want)
		}
		if got := pinValue(want); want != (policy.Pin{}) && got != value {
			t.Errorf("pinValue(%+v) = %q, want %q", want, got, value)
		}
	}
}

func TestCandidate(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	node := func(name, providerID, machineID string, addrs ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: providerID}}
		n.Status.NodeInfo.MachineID = machineID
		for _, a := range addrs {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Address: a})
		}
		return n
	}
	boots := func(n *corev1.Node, boot, pin string) *corev1.Node {
		n.Status.NodeInfo.BootID = boot
		n.Annotations = map[string]string{annotationPin: pin}
		return n
	}
	virtual := func(n *corev1.Node) *corev1.Node {
		n.Labels = map[string]string{"type": "virtual-kubelet"}
		return n
	}
	called := func(n *corev1.Node, name string) *corev1.Node {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name})
		return n
	}
	fargate := func(n *corev1.Node) *corev1.Node {
		n.Labels = map[string]string{"eks.amazonaws.com/compute-type": "fargate"}
		return n
	}
	const machineA = "0123456789abcdef0123456789abcdef"
	type gone struct {
		node *corev1.Node
		ago  time.Duration
	}
	for _, tt := range []struct {
		name           string
		nodes          []*corev1.Node
		departed       []gone
		instance, addr string
		boot, sum      string
		want           string
		err            error
	}{
		{name: "no nodes", addr: "10.0.0.1", err: cleanup.ErrNotFound},
		{name: "instance id is the last element of the provider id",
			nodes: []*corev1.Node{node("a", "aws:///az/i-1", "", "10.0.0.1"), node("b", "aws:///az/i-11", "", "10.0.0.2")},
			addr:  "10.0.0.1", instance: "i-1", want: "a"},
		{name: "an id of the cloud is never a machine id",
			nodes: []*corev1.Node{node("a", "", "i-1", "10.0.0.1")},
			addr:  "10.0.0.2", instance: "i-1", err: cleanup.ErrNotFound},
		{name: "a Node without an id of the cloud is known by its address",
			nodes: []*corev1.Node{node("a", "", machineA, "10.0.0.1"), node("b", "k3s://b", machineA, "10.0.0.2")},
			addr:  "10.0.0.1", instance: "i-1", want: "a"},
		{name: "a Node with an id of another kind is known by its address",
			nodes: []*corev1.Node{node("a", "", machineA, "10.0.0.1"), node("b", "k3s://b", machineA, "10.0.0.2")},
			addr:  "10.0.0.2", instance: "i-1", want: "b"},
		{name: "of two such Nodes of one address, the one that runs the boot",
			nodes: []*corev1.Node{boots(node("a", "", "1", "10.0.0.1"), "A", ""), boots(node("b", "k3s://b", "2", "10.0.0.1"), "B", "")},
			addr:  "10.0.0.1", instance: "i-1", boot: "B", want: "b"},
		{name: "such a Node, where one with an id of the cloud says that it has the address, too",
			nodes: []*corev1.Node{node("a", "", "1", "10.0.0.1"), node("b", "aws:///az/i-2", "2", "10.0.0.1")},
			addr:  "10.0.0.1", instance: "i-1", want: "a"},
		{name: "a machine, where one with another machine id says that it has the address, too",
			nodes: []*corev1.Node{node("a", "", "", "10.0.0.1"), node("b", "", machineA, "10.0.0.1")},
			addr:  "10.0.0.1", instance: machineA[1:] + "0", want: "a"},
		{name: "several with other ids",
			nodes: []*corev1.Node{node("a", "aws:///az/i-2", "", "10.0.0.1"), node("b", "aws:///az/i-3", "", "10.0.0.1")},
			addr:  "10.0.0.1", instance: "i-1", err: cleanup.ErrNotFound},
		{name: "such a Node, whose address was another node's a minute ago",
			nodes:    []*corev1.Node{boots(node("a", "k3s://a", "", "10.0.0.1"), "B", "")},
			departed: []gone{{node("a", "k3s://b", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", instance: "i-1", boot: "A", err: cleanup.ErrAmbiguous},
		{name: "a machine id is never an id of the cloud",
			nodes: []*corev1.Node{node("a", "x://"+machineA, "", "10.0.0.1"), node("b", "x://2", machineA, "10.0.0.2")},
			addr:  "10.0.0.2", instance: machineA, want: "b"},
		{name: "of two nodes, one of which says that it is the instance, and the other has no id, the one that runs the boot",
			nodes: []*corev1.Node{boots(node("a", "aws:///az/i-1", "1", "10.0.0.2"), "A", ""), boots(node("b", "k3s://b", "2", "10.0.0.1"), "B", "")},
			addr:  "10.0.0.1", instance: "i-1", boot: "B", want: "b"},
		{name: "and neither if the one has copied all that the other says",
			nodes: []*corev1.Node{boots(node("a", "aws:///az/i-1", "1", "10.0.0.1"), "B", "B:s"), boots(node("b", "k3s://b", "2", "10.0.0.1"), "B", "B:s")},
			addr:  "10.0.0.1", instance: "i-1", boot: "B", sum: "s", err: cleanup.ErrAmbiguous},
		{name: "of two nodes with a cloned machine id, the one that runs the boot",
			nodes: []*corev1.Node{node("a", "", machineA, "10.0.0.1"), boots(node("b", "", machineA, "10.0.0.2"), "B", "")},
			addr:  "10.0.0.2", instance: machineA, boot: "B", want: "b"},
		{name: "of two nodes of one address, the one that runs the boot",
			nodes: []*corev1.Node{boots(node("a", "", "1", "10.0.0.1"), "A", ""), boots(node("b", "", "2", "10.0.0.1"), "B", "")},
			addr:  "10.0.0.1", boot: "B", want: "b"},
		{name: "of two nodes of one address, the one that is not virtual",
			nodes: []*corev1.Node{node("a", "x://1", "", "10.0.0.1"), virtual(node("b", "", "", "10.0.0.1"))},
			addr:  "10.0.0.1", want: "a"},
		{name: "a virtual node of that address was deleted a minute ago",
			nodes:    []*corev1.Node{node("a", "x://1", "", "10.0.0.1")},
			departed: []gone{{virtual(node("b", "", "", "10.0.0.1")), time.Minute}},
			addr:     "10.0.0.1", want: "a"},
		{name: "of two nodes, the one whose address it is and not the one that is called so",
			nodes: []*corev1.Node{called(node("10.0.0.1", "x://1", "", "10.0.0.2"), "10.0.0.1"), node("b", "x://2", "", "10.0.0.1")},
			addr:  "10.0.0.1", want: "b"},
		{name: "a pod on Fargate that has the address of a former machine",
			nodes: []*corev1.Node{node("a", "x://1", "", "10.0.0.1"), fargate(node("b", "aws:///az/x/fargate-ip-10-0-0-1", "", "10.0.0.1"))},
			addr:  "10.0.0.1", want: "a"},
		{name: "nothing but a virtual node", nodes: []*corev1.Node{virtual(node("b", "", "", "10.0.0.1"))},
			addr: "10.0.0.1", err: cleanup.ErrNotFound},
		{name: "of two nodes that say they run the boot, the one whose secret it is",
			nodes: []*corev1.Node{boots(node("a", "", "1", "10.0.0.1"), "B", "B:x"), boots(node("b", "", "2", "10.0.0.1"), "B", "B:s")},
			addr:  "10.0.0.1", boot: "B", sum: "s", want: "b"},
		{name: "two nodes with one machine id, boot and pin: one has copied what the other's Node says",
			nodes: []*corev1.Node{boots(node("a", "", machineA, "10.0.0.1"), "B", "B:s"), boots(node("b", "", machineA, "10.0.0.1"), "B", "B:s")},
			addr:  "10.0.0.1", instance: machineA, boot: "B", sum: "s", err: cleanup.ErrAmbiguous},
		{name: "two nodes that say they run the boot",
			nodes: []*corev1.Node{boots(node("a", "", "1", "10.0.0.1"), "B", "B:x"), boots(node("b", "", "2", "10.0.0.1"), "B", "B:s")},
			addr:  "10.0.0.1", boot: "B", err: cleanup.ErrAmbiguous},
		{name: "two nodes of one address, neither runs the boot",
			nodes: []*corev1.Node{boots(node("a", "", "1", "10.0.0.1"), "A", ""), boots(node("b", "", "2", "10.0.0.1"), "B", "")},
			addr:  "10.0.0.1", boot: "C", err: cleanup.ErrAmbiguous},
		{name: "address was another node's a minute ago, and this one runs the boot",
			nodes:    []*corev1.Node{boots(node("a", "x://2", "", "10.0.0.1"), "B", "")},
			departed: []gone{{node("a", "x://1", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", boot: "B", want: "a"},
		{name: "address was another node's a minute ago, and this one runs another boot",
			nodes:    []*corev1.Node{boots(node("a", "x://2", "", "10.0.0.1"), "B", "")},
			departed: []gone{{node("a", "x://1", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", boot: "A", err: cleanup.ErrAmbiguous},
		{name: "an instance that is not there is not replaced by its address",
			nodes: []*corev1.Node{node("a", "aws:///az/i-1", "", "10.0.0.1")},
			addr:  "10.0.0.1", instance: "i-2", err: cleanup.ErrNotFound},
		{name: "two nodes of one instance",
			nodes: []*corev1.Node{node("a", "aws:///az/i-1", ""), node("b", "aws:///az/i-1", "")},
			addr:  "10.0.0.1", instance: "i-1", err: cleanup.ErrAmbiguous},
		{name: "two nodes of one address",
			nodes: []*corev1.Node{node("a", "", "1", "10.0.0.1"), node("b", "", "2", "10.0.0.1")},
			addr:  "10.0.0.1", err: cleanup.ErrAmbiguous},
		{name: "node deleted a minute ago",
			departed: []gone{{node("a", "x://1", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", err: cleanup.ErrNotFound},
		{name: "address was another node's a minute ago",
			nodes:    []*corev1.Node{node("a", "x://2", "", "10.0.0.1")},
			departed: []gone{{node("a", "x://1", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", err: cleanup.ErrAmbiguous},
		{name: "address was another node's ten minutes ago",
			nodes:    []*corev1.Node{node("a", "x://2", "", "10.0.0.1")},
			departed: []gone{{node("a", "x://1", "", "10.0.0.1"), 10 * time.Minute}},
			addr:     "10.0.0.1", want: "a"},
		{name: "the same machine registered again",
			nodes:    []*corev1.Node{node("a", "x://1", "", "10.0.0.1")},
			departed: []gone{{node("a", "x://1", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", want: "a"},
		{name: "the same machine, and another before it",
			nodes:    []*corev1.Node{node("a", "x://1", "", "10.0.0.1")},
			departed: []gone{{node("b", "x://2", "", "10.0.0.1"), 2 * time.Minute}, {node("a", "x://1", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", err: cleanup.ErrAmbiguous},
		{name: "machine ids decide without provider ids",
			nodes:    []*corev1.Node{node("a", "", "m", "10.0.0.1")},
			departed: []gone{{node("a", "", "m", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", want: "a"},
		{name: "nothing known of either machine",
			nodes:    []*corev1.Node{node("a", "", "", "10.0.0.1")},
			departed: []gone{{node("a", "", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", err: cleanup.ErrAmbiguous},
		{name: "an instance id tells apart what shares an address",
			nodes:    []*corev1.Node{node("a", "x://2", "", "10.0.0.1")},
			departed: []gone{{node("a", "x://1", "", "10.0.0.1"), time.Minute}},
			addr:     "10.0.0.1", instance: "2", want: "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, c := newAPI(t, 500, "")
			for _, n := range tt.nodes {
				cacheNode(t, c, n)
			}
			for _, d := range tt.departed {
				c.departed.remember(d.node, now.Add(-d.ago))
			}
			node, err := c.candidate(cleanup.Sender{
				Instance: tt.instance, Boot: tt.boot, Sum: tt.sum, Addr: netip.MustParseAddr(tt.addr),
			}, now)
			got := ""
			if node != nil {
				got = node.Name
			}
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("candidate %q, error %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// The cache may be behind: another machine may have registered the name since, with the address of the old one, and its Node may say
// only later which instance it is.
func TestStillIdentified(t *testing.T) {
	const machineA, machineB = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	node := func(providerID, machineID, addr string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: corev1.NodeSpec{ProviderID: providerID}}
		n.Status.NodeInfo.MachineID = machineID
		n.Status.Addresses = []corev1.NodeAddress{{Address: addr}}
		return n
	}
	for _, tt := range []struct {
		name         string
		cached, live *corev1.Node
		instance     string
		found        bool
	}{
		{"as it was", node("aws:///az/i-1", "", "10.0.0.1"), node("aws:///az/i-1", "", "10.0.0.1"), "i-1", true},
		{"another instance", node("aws:///az/i-1", "", "10.0.0.1"), node("aws:///az/i-2", "", "10.0.0.1"), "i-1", false},
		{"not yet an instance", node("aws:///az/i-1", "", "10.0.0.1"), node("", "", "10.0.0.1"), "i-1", false},
		{"another machine", node("", machineA, "10.0.0.1"), node("", machineB, "10.0.0.1"), machineA, false},
		{"not yet a machine", node("", machineA, "10.0.0.1"), node("", "", "10.0.0.1"), machineA, false},
		{"an instance by now", node("", "", "10.0.0.1"), node("aws:///az/i-1", "", "10.0.0.1"), "i-1", true},
		{"another instance by now", node("", "", "10.0.0.1"), node("aws:///az/i-2", "", "10.0.0.1"), "i-1", false},
		{"by its address, an instance by now", node("", "", "10.0.0.1"), node("aws:///az/i-1", "", "10.0.0.1"), "", true},
		{"without ids of EC2", node("k3s://a", machineA, "10.0.0.1"), node("k3s://a", machineA, "10.0.0.1"), "i-1", true},
		{"another address", node("k3s://a", "", "10.0.0.1"), node("k3s://a", "", "10.0.0.2"), "i-1", false},
	} {
		err := stillIdentified(tt.cached, tt.live, cleanup.Sender{Instance: tt.instance, Addr: netip.MustParseAddr("10.0.0.1")})
		if (err == nil) != tt.found || err != nil && !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("%s: %v, want it found: %t", tt.name, err, tt.found)
		}
	}
}

func TestDepartedHearsOfDeletions(t *testing.T) {
	node := func(uid, providerID, addr string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: types.UID(uid)}, Spec: corev1.NodeSpec{ProviderID: providerID}}
		n.Status.Addresses = []corev1.NodeAddress{{Address: addr}}
		return n
	}
	for _, tt := range []struct {
		name   string
		happen func(cache.ResourceEventHandler)
		want   bool
	}{
		{"deleted", func(h cache.ResourceEventHandler) { h.OnDelete(node("1", "x://1", "10.0.0.1")) }, true},
		{"deleted while the watch was cut", func(h cache.ResourceEventHandler) {
			h.OnDelete(cache.DeletedFinalStateUnknown{Key: "n", Obj: node("1", "x://1", "10.0.0.1")})
		}, true},
		{"replaced while the watch was cut", func(h cache.ResourceEventHandler) {
			h.OnUpdate(node("1", "x://1", "10.0.0.1"), node("2", "x://2", "10.0.0.1"))
		}, true},
		{"updated", func(h cache.ResourceEventHandler) {
			h.OnUpdate(node("1", "x://1", "10.0.0.1"), node("1", "x://1", "10.0.0.1"))
		}, false},
		{"added", func(h cache.ResourceEventHandler) { h.OnAdd(node("1", "x://1", "10.0.0.1"), false) }, false},
	} {
		var d departed
		tt.happen(nodeEvents(new(boots), &d))
		_, got := d.other(netip.MustParseAddr("10.0.0.1"), machine{providerID: "x://2"}, time.Now())
		if got != tt.want {
			t.Errorf("%s: remembered %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestDepartedForgets(t *testing.T) {
	var d departed
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for i := range 1000 {
		n := &corev1.Node{}
		n.Status.Addresses = []corev1.NodeAddress{{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()}}
		d.remember(n, now.Add(time.Duration(i)*time.Second))
	}
	if got, want := len(d.owners), int(departedFor/time.Second); got != want {
		t.Errorf("%d addresses are remembered, want the %d of the last %s", got, want, departedFor)
	}
}

func TestProves(t *testing.T) {
	node := func(name, boot string, annotations map[string]string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}
		n.Status.NodeInfo.BootID = boot
		return n
	}
	for _, tt := range []struct {
		name      string
		nodes     []*corev1.Node
		boot, sum string
		want      detect.Authority
	}{
		{name: "no boot", nodes: []*corev1.Node{node("a", "", map[string]string{annotationPin: ":s"})}, sum: "s"},
		{name: "no sum", nodes: []*corev1.Node{node("a", "A", map[string]string{annotationPin: "A:"})}, boot: "A"},
		{name: "no pin", nodes: []*corev1.Node{node("a", "A", nil)}, boot: "A", sum: "s"},
		{name: "pinned", nodes: []*corev1.Node{node("a", "A", map[string]string{annotationPin: "A:s"})}, boot: "A", sum: "s", want: detect.Pinned},
		{name: "another sum", nodes: []*corev1.Node{node("a", "A", map[string]string{annotationPin: "A:s"})}, boot: "A", sum: "t"},
		{name: "claimed", nodes: []*corev1.Node{node("a", "A", map[string]string{annotationClaim: "A:s"})}, boot: "A", sum: "s", want: detect.Claimed},
		{name: "a claim beside a pin", nodes: []*corev1.Node{node("a", "A", map[string]string{annotationPin: "A:s", annotationClaim: "A:c"})},
			boot: "A", sum: "c"},
		{name: "the pin of the boot before, of a node that is back", nodes: []*corev1.Node{node("a", "B", map[string]string{annotationPin: "A:s"})},
			boot: "A", sum: "s", want: detect.Pinned},
		{name: "the pin of the boot before, for the new one", nodes: []*corev1.Node{node("a", "B", map[string]string{annotationPin: "A:s"})},
			boot: "B", sum: "s"},
		{name: "the claim of the boot before", nodes: []*corev1.Node{node("a", "B", map[string]string{annotationClaim: "A:s"})},
			boot: "A", sum: "s"},
		{name: "the claim of this boot beside the pin of the one before",
			nodes: []*corev1.Node{node("a", "A", map[string]string{annotationPin: "0:s", annotationClaim: "A:c"})},
			boot:  "A", sum: "c", want: detect.Claimed},
		{name: "another node says that it runs the boot", nodes: []*corev1.Node{
			node("a", "A", map[string]string{annotationPin: "A:t"}), node("b", "A", map[string]string{annotationPin: "A:s"}), node("c", "A", nil)},
			boot: "A", sum: "s", want: detect.Pinned},
	} {
		_, c := newAPI(t, 500, "")
		for _, n := range tt.nodes {
			cacheNode(t, c, n)
		}
		got, ok := c.Proves(tt.boot, tt.sum)
		if got != tt.want || ok != (tt.want != 0) || c.Pinned(tt.boot, tt.sum) != ok {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, ok, tt.want)
		}
	}
}

// Nodes whose kernels cannot be heard neither count for the limits nor are they missed.
func TestNodesWithoutLinux(t *testing.T) {
	_, c := newAPI(t, 500, "")
	for name, labels := range map[string]map[string]string{
		"worker":  {"kubernetes.io/os": "linux"},
		"old":     nil,
		"windows": {"kubernetes.io/os": "windows"},
		"virtual": {"kubernetes.io/os": "linux", "type": "virtual-kubelet"},
		"fargate": {"kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": "fargate"},
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
		n.Status.Addresses = []corev1.NodeAddress{{Address: "10.0.0.1"}}
		cacheNode(t, c, n)
	}
	var names []string
	for _, n := range c.Nodes() {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"old", "worker"}, names); diff != "" || c.NodeCount() != 2 {
		t.Errorf("%d nodes, want 2 (-want +got):\n%s", c.NodeCount(), diff)
	}
}

func TestKnown(t *testing.T) {
	const machineA = "0123456789abcdef0123456789abcdef"
	_, c := newAPI(t, 500, "")
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: corev1.NodeSpec{ProviderID: "aws:///az/i-1"}}
	n.Status.NodeInfo.MachineID = machineA
	n.Status.Addresses = []corev1.NodeAddress{{Address: "10.0.0.1"}}
	cacheNode(t, c, n)
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: corev1.NodeSpec{ProviderID: "k3s://b"}}
	other.Status.NodeInfo.MachineID = machineA[1:] + "0"
	other.Status.Addresses = []corev1.NodeAddress{{Address: "10.0.0.3"}}
	cacheNode(t, c, other)
	for _, tt := range []struct {
		instance, addr string
		want           bool
	}{
		{"i-3", "10.0.0.3", true}, // the Node has no such id
		{"i-1", "10.0.0.3", true}, // another Node may only say that it is this instance
		{"i-1", "10.0.0.4", false},
		{machineA, "10.0.0.3", false},
		{machineA[:31] + "e", "10.0.0.3", false},
		{"i-1", "10.0.0.1", true},
		{"i-1", "::ffff:10.0.0.1", true},
		{"i-1", "10.0.0.2", false},
		{"i-2", "10.0.0.1", false},
		{machineA, "10.0.0.1", true},
		{"", "10.0.0.1", true},
		{"", "10.0.0.2", false},
	} {
		if got := c.Known(tt.instance, netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("Known(%q, %s) = %v, want %v", tt.instance, tt.addr, got, tt.want)
		}
	}
}
