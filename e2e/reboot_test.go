//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestReboot makes a node panic and come back on another boot, as the same Node object, before the cleanup is over. The old boot's
// pods must have failed with the reason, and the new boot's pods must not be touched.
func TestReboot(t *testing.T) {
	w := newHollowWorld(t, "")
	for _, tt := range []struct {
		verb     string
		attached bool   // a volume that is not detached delays the last step, which would be over at once otherwise
		note     string // of that step
	}{
		{"delete", true, "unfenced: the node is back on boot "},
		{"await", false, "unfenced: the node is back on boot "},
		{"annotate", false, "fenced until it is back on a new boot"},
	} {
		t.Run(tt.verb, func(t *testing.T) {
			if err := w.fleet.Listen(t.Context(), "node: "+tt.verb); err != nil {
				t.Fatal(err)
			}
			r := w.newRebooter(t, "reboots-"+tt.verb)
			if tt.attached {
				r.attach(t)
			}
			r.die(t)
			r.comeBack(t)
			r.newPods(t)
			eventually(t, "the cleanup to end", func() error {
				rec, err := w.cluster.Death(t.Context(), r.record)
				if err == nil && rec.Phase != policy.Cleaned {
					err = fmt.Errorf("phase %s, steps %+v", rec.Phase, rec.Steps)
				}
				return err
			})
			eventually(t, "the node to be in service", r.inService)
			r.recorded(t, tt.note)
			r.newPods(t)
		})
	}
}

// rebooter is a node with a service that can run nowhere else.
type rebooter struct {
	*story.Hollow
	w      *hollowWorld
	watch  *story.Watcher
	node   types.UID
	died   map[types.UID]bool // pods of the old boot
	old    string             // boot
	record string
}

const rebooterPods = 2

func (w *hollowWorld) newRebooter(t *testing.T, name string) *rebooter {
	t.Helper()
	h, err := w.fleet.NewHollow(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rebooter{Hollow: h, w: w, node: w.getNode(t, name).UID, died: map[types.UID]bool{}}
	r.old, r.record = h.Identity.Boot, policy.DeathName(name, h.Identity.Boot)
	w.kubectl(t, "create", "namespace", name)
	err = w.fleet.Apply(t.Context(), name, fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {kubernetes.io/hostname: %s}
      containers: [{name: main, image: none}]
`, rebooterPods, name))
	if err != nil {
		t.Fatal(err)
	}
	if r.watch, err = story.Watch(t.Context(), w.lab.RESTConfig(), name); err != nil {
		t.Fatal(err)
	}
	for _, p := range r.newPods(t) {
		r.died[p.UID] = true
	}
	return r
}

// newPods waits until the service runs on pods that did not die, and checks that they are not marked as dead.
func (r *rebooter) newPods(t *testing.T) (running []corev1.Pod) {
	t.Helper()
	eventually(t, "the service to run", func() error {
		list, err := r.w.admin.CoreV1().Pods(r.Name).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		running = nil
		for _, p := range list.Items {
			if !r.died[p.UID] && p.Spec.NodeName == r.Name && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				running = append(running, p)
			}
		}
		if len(running) != rebooterPods {
			return fmt.Errorf("%d of %d pods run", len(running), rebooterPods)
		}
		return nil
	})
	for _, p := range running {
		if len(p.Annotations) != 0 {
			t.Errorf("pod %s has annotations %v", p.Name, p.Annotations)
		}
	}
	return running
}

// attach attaches a volume that nobody detaches.
func (r *rebooter) attach(t *testing.T) {
	t.Helper()
	_, err := r.w.admin.StorageV1().VolumeAttachments().Create(t.Context(), &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: r.Name},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: "csi.example.com", NodeName: r.Name,
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr("pv-of-" + r.Name)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// die ends the old boot, and waits until its pods have failed for that reason and are gone.
func (r *rebooter) die(t *testing.T) {
	t.Helper()
	r.Kill()
	if err := r.Panic(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	_, err := r.watch.Await(ctx, "the old pods to fail", func(seen []story.Sighting) bool {
		failed := map[types.UID]bool{}
		for _, s := range seen {
			if s.Pod != nil && r.died[s.Pod.UID] && s.Pod.Status.Phase == corev1.PodFailed && s.Pod.Status.Reason == "KernelPanic" {
				failed[s.Pod.UID] = true
			}
		}
		return len(failed) == rebooterPods
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old pods to be gone", func() error {
		rec, err := r.w.cluster.Death(t.Context(), r.record)
		if err == nil && !done(rec, policy.StepDelete) {
			err = fmt.Errorf("steps %+v", rec.Steps)
		}
		return err
	})
}

func (r *rebooter) comeBack(t *testing.T) {
	t.Helper()
	if err := r.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Arm(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// inService returns nil if the Node is the same object, on its new boot, with nothing of ours on it but the pin.
func (r *rebooter) inService() error {
	n, err := r.w.cluster.Node(context.Background(), r.Name)
	switch {
	case err != nil:
		return err
	case n.UID != string(r.node) || n.BootID != r.Identity.Boot:
		return errors.New("it is another")
	case n.Fenced || n.OutOfService || n.Mark != (policy.Mark{}):
		return fmt.Errorf("fenced %t, out of service %t, mark %+v", n.Fenced, n.OutOfService, n.Mark)
	}
	return nil
}

// recorded checks the NodeDeath of the old boot.
func (r *rebooter) recorded(t *testing.T, note string) {
	t.Helper()
	rec, err := r.w.cluster.Death(t.Context(), r.record)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Boot != r.old || rec.PodsFailed != rebooterPods || rec.PodsTotal != rebooterPods {
		t.Errorf("boot %s with %d of %d pods failed, want %s with %d of %d",
			rec.Boot, rec.PodsFailed, rec.PodsTotal, r.old, rebooterPods, rebooterPods)
	}
	for _, s := range rec.Steps {
		if s.Name == policy.StepNode && !strings.Contains(s.Note, note) {
			t.Errorf("the last step says %q, want …%s…", s.Note, note)
		}
	}
	for _, e := range r.w.audit(t) {
		if e.what == "delete nodes" {
			t.Errorf("node %s was deleted", e.name)
		}
	}
}

// done reports whether a step of the cleanup is done.
func done(r policy.Death, step string) bool {
	for _, s := range r.Steps {
		if s.Name == step && s.Done {
			return true
		}
	}
	return false
}
