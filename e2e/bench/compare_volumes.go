package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// volumes plays a CSI driver's attacher for the controllers: it marks every VolumeAttachment as attached. It delays no
// detachment, so that a volume is detached as soon as the controller lets go of it.
type volumes struct {
	client kubernetes.Interface

	mu       sync.Mutex
	attached map[string]bool      // by node
	detached map[string]time.Time // by node
	err      error
}

// watchVolumes attaches until ctx ends.
func watchVolumes(ctx context.Context, client kubernetes.Interface) *volumes {
	v := &volumes{client: client, attached: make(map[string]bool), detached: make(map[string]time.Time)}
	go func() {
		for tick := time.Tick(20 * time.Millisecond); ; {
			err := v.look(ctx)
			v.mu.Lock()
			v.err = err
			v.mu.Unlock()
			select {
			case <-tick:
			case <-ctx.Done():
				return
			}
		}
	}()
	return v
}

// look marks new attachments as attached and notes those that are gone.
func (v *volumes) look(ctx context.Context) error {
	list, err := v.client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("list volume attachments: %w", err)
	}
	now, there := time.Now(), make(map[string]bool)
	for _, a := range list.Items {
		there[a.Spec.NodeName] = true
		if err := v.attach(ctx, a); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for node := range v.attached {
		if _, known := v.detached[node]; !there[node] && !known {
			v.detached[node] = now
		}
	}
	for node := range there {
		v.attached[node] = true
	}
	return nil
}

func (v *volumes) attach(ctx context.Context, a storagev1.VolumeAttachment) error {
	if a.Status.Attached {
		return nil
	}
	_, err := v.client.StorageV1().VolumeAttachments().Patch(ctx, a.Name, types.MergePatchType,
		[]byte(`{"status":{"attached":true}}`), metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("attach %s: %w", a.Name, err)
	}
	return nil
}

// awaitDetached waits until the node's volume is detached and returns the time of that.
func (v *volumes) awaitDetached(ctx context.Context, node string) (time.Time, error) {
	for tick := time.Tick(time.Second); ; {
		v.mu.Lock()
		at, err := v.detached[node], v.err
		v.mu.Unlock()
		if !at.IsZero() {
			return at, nil
		}
		select {
		case <-tick:
		case <-ctx.Done():
			if err != nil {
				return time.Time{}, err
			}
			return time.Time{}, context.Cause(ctx)
		}
	}
}
