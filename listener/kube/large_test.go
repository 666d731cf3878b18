package kube

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// largeList answers every request with a list of n items of some size each, and notes how much memory is in use meanwhile.
type largeList struct {
	kind string
	item func(i int) string
	n    int
	most uint64 // bytes in use, beside what was before
}

func (l *largeList) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.most = 0
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"kind":%q,"apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[`, l.kind)
	for i := range l.n {
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		if _, err := fmt.Fprint(w, l.item(i)); err != nil {
			return // it had enough
		}
		if i%(l.n/5) == l.n/5-1 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			l.most = max(l.most, m.HeapAlloc)
		}
	}
	fmt.Fprint(w, `]}`)
}

func (l *largeList) cluster(t *testing.T) *Cluster {
	t.Helper()
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	c, err := New(Config{REST: &rest.Config{Host: server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Whoever may create pods binds pods as large as the API server takes them, and as many, to a node. Its death is then listed, by
// one replica after the other.
func TestPodsThatFillNoMemory(t *testing.T) {
	const n, size, limit = 60, 1 << 20, 100 << 20 // 322 MiB at once; others allocate between a collection and its count
	for name, pod := range map[string]string{
		"a long argument": `"spec":{"nodeName":"n","containers":[{"name":"a","image":"i","args":["` + strings.Repeat("x", size) + `"]}]}`,
		"a long image":    `"spec":{"nodeName":"n","containers":[{"name":"a","image":"` + strings.Repeat("x", size) + `"}]}`,
		"a long owner":    `"spec":{"nodeName":"n"}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := &largeList{kind: "PodList", n: n, item: func(i int) string {
				owner := "x"
				if name == "a long owner" {
					owner = strings.Repeat("x", size)
				}
				return fmt.Sprintf(`{"metadata":{"namespace":"ns","name":"p-%d","uid":"u-%d","ownerReferences":[{"apiVersion":"v1","kind":"K","name":%q,
					"uid":"o","controller":true}]},%s,"status":{"phase":"Running"}}`, i, i, owner, pod)
			}}
			c := l.cluster(t)
			pods, err := c.Pods(t.Context(), "n")
			if err != nil || len(pods) != n || pods[n-1].Name != fmt.Sprintf("p-%d", n-1) || pods[0].Node != "n" || pods[0].Owner.Kind != "K" {
				t.Fatalf("%d pods, %v; want %d", len(pods), err, n)
			}
			if l.most > limit {
				t.Errorf("%d MiB in use while a list of %d MiB was read, want %d at most", l.most>>20, n*size>>20, limit>>20)
			}
			runtime.KeepAlive(pods)
		})
	}
}

// A fleet of tens of thousands of nodes has several times as many volumes.
func TestVolumesThatFillNoMemory(t *testing.T) {
	const n, limit = 20_000, 24 << 20
	l := &largeList{kind: "VolumeAttachmentList", n: n, item: func(i int) string {
		return fmt.Sprintf(`{"metadata":{"name":"csi-%064d","annotations":{"a":%q}},"spec":{"attacher":"ebs.csi.aws.com","nodeName":"n-%d",
			"source":{"persistentVolumeName":"pvc-%d"}},"status":{"attached":true}}`, i, strings.Repeat("x", 1000), i%1000, i)
	}}
	c := l.cluster(t)
	counts, err := countAttachments(t.Context(), c.core.StorageV1().RESTClient()) // however long it takes here
	if attached := counts["n-7"]; err != nil || attached != n/1000 {
		t.Errorf("%d volumes attached, %v; want %d", attached, err, n/1000)
	}
	if l.most > limit {
		t.Errorf("%d MiB in use, want %d at most", l.most>>20, limit>>20)
	}
}
