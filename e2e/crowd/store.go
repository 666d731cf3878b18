package crowd

import (
	"bytes"
	"context"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// storedNodes is how many nodes are encoded before they are written, with their pods: some tens of MiB.
const storedNodes = 50

// Store makes the crowd past the API server: hundreds of thousands of pods in a minute, in the encoding in which the API
// server itself keeps them.
func (w *World) Store(ctx context.Context, c Crowd) error {
	encoder := scheme.Codecs.EncoderForVersion(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), corev1.SchemeGroupVersion)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for from := 0; from < c.Nodes && ctx.Err() == nil; from += storedNodes {
		part := c.Part(from, min(storedNodes, c.Nodes-from))
		g.Go(func() error {
			objects, err := stored(encoder, part)
			if err != nil {
				return err
			}
			return w.Cluster.Store(ctx, objects)
		})
	}
	return g.Wait()
}

// stored encodes a crowd.
func stored(encoder kruntime.Encoder, c Crowd) (out []lab.Stored, err error) {
	now := metav1.Now()
	add := func(key string, uid string, object interface {
		kruntime.Object
		metav1.Object
	}) error {
		object.SetUID(types.UID(uid))
		object.SetCreationTimestamp(now)
		var b bytes.Buffer
		if err := encoder.Encode(object, &b); err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		out = append(out, lab.Stored{Key: key, Value: b.Bytes()})
		return nil
	}
	for n := c.First; n < c.First+c.Nodes; n++ {
		if err := add("/registry/minions/"+Name(n), fmt.Sprintf("00000000-0000-4000-8000-%012x", n), node(n, now)); err != nil {
			return nil, err
		}
		for i := range c.Pods {
			p := pod(n, i, now)
			uid := fmt.Sprintf("00000001-%04x-4000-8000-%012x", i, n)
			if err := add("/registry/pods/"+p.Namespace+"/"+p.Name, uid, p); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}
