package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// DeathReader reads NodeDeaths for people, with the columns that the API server prints them with: no trace crosses the
// network for a table.
type DeathReader struct{ client rest.Interface }

// asTable has the API server answer with the columns of the CRD (KEP-0555).
const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"

// errExpired: the version that a watch was to go on from is gone.
var errExpired = errors.New("the watch is too old")

// NewDeathReader returns a reader. It sends nothing.
func NewDeathReader(cfg *rest.Config) (*DeathReader, error) {
	_, deaths, err := clients(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster: %w", err)
	}
	return &DeathReader{deaths}, nil
}

// Table lists all NodeDeaths as rows, the oldest first. Columns of priority 1 are those of a wide table. The table's ResourceVersion is where
// Watch goes on.
func (r *DeathReader) Table(ctx context.Context) (*metav1.Table, error) {
	b, err := r.client.Get().Resource(v1alpha1.Resource).SetHeader("Accept", asTable).Do(ctx).Raw()
	if err != nil {
		return nil, explain(err, "list deaths")
	}
	t := &metav1.Table{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("list deaths: read the answer: %w", err)
	}
	slices.SortStableFunc(t.Rows, func(a, b metav1.TableRow) int {
		return metaOf(a).CreationTimestamp.Time.Compare(metaOf(b).CreationTimestamp.Time)
	})
	return t, nil
}

// metaOf is what the API server says of a row's object; zero if it says nothing.
func metaOf(row metav1.TableRow) (meta metav1.PartialObjectMetadata) {
	_ = json.Unmarshal(row.Object.Raw, &meta)
	return meta
}

// List lists all NodeDeaths in full, the oldest first, each with its apiVersion and kind.
func (r *DeathReader) List(ctx context.Context) ([]v1alpha1.NodeDeath, error) {
	list := &v1alpha1.NodeDeathList{}
	if err := r.client.Get().Resource(v1alpha1.Resource).Do(ctx).Into(list); err != nil {
		return nil, explain(err, "list deaths")
	}
	for i := range list.Items {
		nd := &list.Items[i]
		nd.APIVersion, nd.Kind, nd.ManagedFields = v1alpha1.GroupVersion().String(), "NodeDeath", nil
	}
	slices.SortStableFunc(list.Items, func(a, b v1alpha1.NodeDeath) int {
		return a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time)
	})
	return slices.Concat([]v1alpha1.NodeDeath{}, list.Items), nil // never null
}

// Watch calls each with every NodeDeath that is created or changes after version, and with its row as Table would have it, until
// each fails or ctx ends, which is not an error.
func (r *DeathReader) Watch(ctx context.Context, version string, each func(row metav1.Table) error) error {
	for ctx.Err() == nil {
		next, err := r.watchOnce(ctx, version, each)
		switch {
		case errors.Is(err, errExpired):
			t, err := r.Table(ctx)
			if err != nil {
				return err
			}
			next = t.ResourceVersion
		case err != nil && ctx.Err() == nil:
			return err
		}
		version = next
	}
	return nil
}

// watchOnce reads one watch to its end and returns the version to go on from.
func (r *DeathReader) watchOnce(ctx context.Context, version string, each func(metav1.Table) error) (string, error) {
	body, err := r.client.Get().Resource(v1alpha1.Resource).SetHeader("Accept", asTable).
		Param("watch", "true").Param("allowWatchBookmarks", "true").Param("resourceVersion", version).Stream(ctx)
	if err != nil {
		return version, explain(err, "watch deaths")
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var event struct {
			Type   watch.EventType
			Object json.RawMessage
		}
		if err := d.Decode(&event); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || ctx.Err() != nil {
			return version, nil // every watch ends now and then
		} else if err != nil {
			return version, fmt.Errorf("watch deaths: read the answer: %w", err)
		}
		if event.Type == watch.Error {
			status := &apierrors.StatusError{}
			if err := json.Unmarshal(event.Object, &status.ErrStatus); err != nil {
				return version, fmt.Errorf("watch deaths: read the answer: %w", err)
			}
			if apierrors.IsResourceExpired(status) || apierrors.IsGone(status) {
				return version, errExpired
			}
			return version, explain(status, "watch deaths")
		}
		var t metav1.Table
		if err := json.Unmarshal(event.Object, &t); err != nil {
			return version, fmt.Errorf("watch deaths: read the answer: %w", err)
		}
		for _, row := range t.Rows {
			version = cmp.Or(metaOf(row).ResourceVersion, version)
		}
		if event.Type == watch.Added || event.Type == watch.Modified {
			if err := each(t); err != nil {
				return version, err
			}
		}
	}
}
