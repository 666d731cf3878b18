package kube

import (
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

func TestRenewLease(t *testing.T) {
	ctx := t.Context()
	lease := func(name string, renewed time.Time) *coordinationv1.Lease {
		r := metav1.NewMicroTime(renewed)
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "lastgasp", Name: name, Labels: map[string]string{labelLease: ""}},
			Spec:       coordinationv1.LeaseSpec{RenewTime: &r},
		}
	}
	_, c := newAPI(t, 500, "")
	core := fake.NewClientset(
		lease("lastgasp-listener-old", at.Add(-2*time.Hour)),
		lease("lastgasp-listener-other", at.Add(-time.Minute)),
		lease("not-ours", at.Add(-2*time.Hour)),
	)
	c.core, c.replica = core, "pod_1"
	leases := core.CoordinationV1().Leases("lastgasp")

	first, err := c.renew(ctx, nil, at)
	if err != nil || first.Name != "lastgasp-listener-pod-1" || *first.Spec.HolderIdentity != "pod_1" {
		t.Fatalf("created %+v, %v", first, err)
	}
	list, err := leases.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 3 {
		t.Errorf("%d leases, %v; want the forgotten one of ours gone", len(list.Items), err)
	}
	second, err := c.renew(ctx, first, at.Add(time.Second))
	if err != nil || !second.Spec.RenewTime.Equal(&metav1.MicroTime{Time: at.Add(time.Second)}) {
		t.Fatalf("renewed %+v, %v", second, err)
	}
	if err := leases.Delete(ctx, first.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if last, err := c.renew(ctx, second, at.Add(2*time.Second)); last != nil || !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("renew a lease that is gone: %v, %v; want to make it anew the next time", last, err)
	}
	if _, err := c.renew(ctx, nil, at.Add(3*time.Second)); err != nil {
		t.Errorf("make it anew: %v", err)
	}
	third, err := c.renew(ctx, nil, at.Add(4*time.Second)) // as if the answer to the creation had been lost
	if err != nil || third.Name != first.Name {
		t.Fatalf("make what is there: %+v, %v", third, err)
	}
	if _, err := c.renew(ctx, third, at.Add(5*time.Second)); err != nil {
		t.Errorf("renew it: %v", err)
	}
	c.dropLease(ctx, third)
	replicas, err := c.Replicas(ctx)
	if err != nil || len(replicas) != 0 {
		t.Errorf("replicas %v, %v; want none with a holder", replicas, err)
	}
}

// Whoever may write Leases in the namespace may not write those of replicas, but can label others like them.
func TestLeasesThatOthersLabel(t *testing.T) {
	renewed := metav1.NewMicroTime(at)
	lease := func(name, holder string) *coordinationv1.Lease {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "lastgasp", Name: name, Labels: map[string]string{labelLease: "", labelCoverage: ""},
				Annotations: map[string]string{annotationCoverage: base64.StdEncoding.EncodeToString([]byte(name))},
			},
			Spec: coordinationv1.LeaseSpec{RenewTime: &renewed, HolderIdentity: &holder},
		}
	}
	_, c := newAPI(t, 500, "")
	c.core = fake.NewClientset(lease("lastgasp-listener-a", "a"), lease("forged", "a"), lease("lastgasp-listener-b", "c"))
	replicas, err := c.Replicas(t.Context())
	if diff := cmp.Diff([]cleanup.Replica{{Name: "a", Renewed: at}}, replicas); err != nil || diff != "" {
		t.Errorf("replicas (-want +got): %v\n%s", err, diff)
	}
	parts, err := c.SharedCoverage(t.Context())
	want := [][]byte{[]byte("lastgasp-listener-a"), []byte("lastgasp-listener-b")}
	if diff := cmp.Diff(want, parts, cmpopts.SortSlices(func(a, b []byte) bool { return string(a) < string(b) })); err != nil || diff != "" {
		t.Errorf("coverage (-want +got): %v\n%s", err, diff)
	}
}

func TestLeaseName(t *testing.T) {
	for replica, want := range map[string]string{
		"listener-7d9f-abcde-1": "lastgasp-listener-listener-7d9f-abcde-1",
		"Host_A.example.com-77": "lastgasp-listener-host-a-example-com-77",
		"-x-":                   "lastgasp-listener-x",
	} {
		if got := leaseName(replica); got != want {
			t.Errorf("lease of replica %q: %q, want %q", replica, got, want)
		}
	}
}
