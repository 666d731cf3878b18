//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// rightsFile lists what the listener's token may ask for, as it is seen to be let in: a right that is not in it is denied.
const rightsFile = "testdata/listener-rights.txt"

// probe is one request and what is asked for by it.
type probe struct {
	verb, resource, scope string
	method, path, body    string
	contentType           string
}

// probes are requests for everything that the API server serves: each resource and subresource, by each verb and kind of patch. The
// objects that they name do not exist, and nothing would be written.
func (w *kubeWorld) probes(t *testing.T) (all []probe) {
	t.Helper()
	_, lists, err := w.admin.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, list := range lists {
		group, _, named := strings.Cut(list.GroupVersion, "/")
		root := "/apis/" + list.GroupVersion
		if !named {
			group, root = "", "/api/"+list.GroupVersion
		}
		for _, r := range list.APIResources {
			name := strings.TrimPrefix(group+"/"+r.Name, "/")
			if seen[name] {
				continue
			}
			seen[name] = true
			if !r.Namespaced {
				all = append(all, probesOf(name, "", root, r.Name)...)
				continue
			}
			for _, ns := range []string{w.namespace, "default", "kube-node-lease"} {
				all = append(all, probesOf(name, "in "+ns, root+"/namespaces/"+ns, r.Name)...)
			}
			if !strings.Contains(r.Name, "/") {
				at := root + "/" + r.Name
				all = append(all,
					probe{verb: "list", resource: name, scope: "everywhere", method: http.MethodGet, path: at + "?limit=1"},
					probe{verb: "watch", resource: name, scope: "everywhere", method: http.MethodGet, path: at + "?watch=true&timeoutSeconds=1"},
					probe{verb: "deletecollection", resource: name, scope: "everywhere", method: http.MethodDelete, path: at + "?dryRun=All"})
			}
		}
	}
	return all
}

// patches are the kinds of patch that the API server takes.
var patches = map[string]types.PatchType{
	"json": types.JSONPatchType, "merge": types.MergePatchType, "strategic": types.StrategicMergePatchType, "apply": types.ApplyYAMLPatchType,
}

func probesOf(name, scope, root, resource string) (all []probe) {
	plural, sub, _ := strings.Cut(resource, "/")
	collection := root + "/" + plural
	object := collection + "/no-such-object"
	add := func(verb, method, path, body, contentType string) {
		all = append(all, probe{verb, name, scope, method, path, body, contentType})
	}
	if sub != "" {
		object += "/" + sub
		add("create", http.MethodPost, object+"?dryRun=All", "{}", "application/json")
	} else {
		add("create", http.MethodPost, collection+"?dryRun=All", "{}", "application/json")
		add("list", http.MethodGet, collection+"?limit=1", "", "")
		add("watch", http.MethodGet, collection+"?watch=true&timeoutSeconds=1", "", "")
		add("deletecollection", http.MethodDelete, collection+"?dryRun=All", "", "")
	}
	add("get", http.MethodGet, object, "", "")
	add("update", http.MethodPut, object+"?dryRun=All", "{}", "application/json")
	add("delete", http.MethodDelete, object+"?dryRun=All", "", "")
	for kind, contentType := range patches {
		add("patch ("+kind+")", http.MethodPatch, object+"?dryRun=All&fieldManager=probe", "{}", string(contentType))
	}
	return all
}

// checkEveryRight makes every request that there is with the listener's token, and compares what is not denied with what it may do.
func (w *kubeWorld) checkEveryRight(t *testing.T) {
	client, err := rest.HTTPClientFor(w.account)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context, p probe) (denied bool, err error) {
		for n := 1; ; n++ { // until the API server is not too busy
			req, err := http.NewRequestWithContext(ctx, p.method, w.account.Host+p.path, strings.NewReader(p.body))
			if err != nil {
				return false, err
			}
			req.Header.Set("Content-Type", p.contentType)
			resp, err := client.Do(req)
			if err != nil && n < 10 && ctx.Err() == nil {
				time.Sleep(time.Second)
				continue
			}
			if err != nil {
				return false, err
			}
			body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
			resp.Body.Close()
			if resp.StatusCode == http.StatusTooManyRequests {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			// A policy's denial comes behind the authorizer's consent.
			return resp.StatusCode == http.StatusForbidden && !bytes.Contains(body, []byte("ValidatingAdmissionPolicy")), err
		}
	}
	probes := w.probes(t)
	for _, path := range []string{
		"/metrics", "/metrics/slis", "/logs/", "/debug/pprof/", "/configz", "/flagz", "/statusz", "/healthz", "/livez", "/readyz", "/version",
		"/api", "/apis", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/.well-known/openid-configuration",
	} {
		probes = append(probes, probe{verb: "get", resource: path, method: http.MethodGet, path: path})
	}
	var mu sync.Mutex
	allowed := map[string][]string{}
	at, ctx := errgroup.WithContext(t.Context())
	at.SetLimit(8)
	for _, p := range probes {
		at.Go(func() error {
			denied, err := ask(ctx, p)
			if err != nil {
				return fmt.Errorf("%s %s: %w", p.method, p.path, err)
			}
			if !denied {
				mu.Lock()
				defer mu.Unlock()
				what := strings.TrimSpace(p.resource + " " + p.scope)
				allowed[what] = append(allowed[what], p.verb)
			}
			return nil
		})
	}
	if err := at.Wait(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for what, verbs := range allowed {
		slices.Sort(verbs)
		lines = append(lines, what+": "+strings.Join(verbs, ", ")+"\n")
	}
	slices.Sort(lines)
	want, err := os.ReadFile(rightsFile)
	if err != nil {
		t.Fatal(err)
	}
	var rights []string
	for line := range strings.Lines(string(want)) {
		if !strings.HasPrefix(line, "#") {
			rights = append(rights, line)
		}
	}
	if diff := cmp.Diff(strings.Join(rights, ""), strings.Join(lines, "")); diff != "" {
		t.Errorf("the listener's token may do other things than %s says; mend the right, or the file and security.md (-want +got):\n%s\nall of it:\n%s",
			rightsFile, diff, strings.Join(lines, ""))
	}
	t.Logf("%d requests", len(probes))
}

// checkKubelets has a node's kubelet try to write whatever decides about another node, and to become the listener.
func (w *kubeWorld) checkKubelets(t *testing.T) {
	ctx := t.Context()
	w.newNode(t, "accomplice", nil)
	w.newNode(t, "victim", nil)
	w.newPod(t, "victims-pod", "victim", corev1.PodRunning, nil)
	w.newPod(t, "accomplices-pod", "accomplice", corev1.PodRunning, nil)
	d := kubeDeath("victims-death")
	if _, err := w.cluster.CreateDeath(ctx, d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if have, err := w.cluster.Death(context.Background(), d.Name); err == nil {
			w.cluster.DeleteDeath(context.Background(), have)
		}
	})
	path, err := w.lab.NodeKubeconfig("accomplice")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dial = w.ns.Dial
	self := must(kubernetes.NewForConfig(cfg))
	records := must(dynamic.NewForConfig(cfg)).Resource(deaths)
	core := self.CoreV1()
	lease := func(ns, name string) func() error {
		return func() error {
			_, err := self.CoordinationV1().Leases(ns).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			return err
		}
	}
	sub := func(name, resource string) func() error {
		return func() error {
			return core.RESTClient().Post().Namespace("default").Resource("pods").Name(name).SubResource(resource).
				Body([]byte("{}")).SetHeader("Content-Type", "application/json").Do(ctx).Error()
		}
	}
	patch := func(path, body string) func() error {
		return func() error {
			return core.RESTClient().Patch(types.MergePatchType).AbsPath(path).Body([]byte(body)).Do(ctx).Error()
		}
	}
	const policies = "/apis/admissionregistration.k8s.io/v1/"
	for name, do := range map[string]func() error{
		"mark another Node":              patchNode(ctx, self, "victim", `{"metadata":{"annotations":{"lastgasp.dev/death":"r"}}}`),
		"pin another Node by its status": patchNode(ctx, self, "victim", `{"metadata":{"annotations":{"lastgasp.dev/pin":"boot-1:aaaa"}}}`, "status"),
		"taint another Node":             patchNode(ctx, self, "victim", `{"spec":{"taints":[{"key":"lastgasp.dev/dead","effect":"NoSchedule"}]}}`),
		"silence another Node":           patchNode(ctx, self, "victim", `{"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}}`, "status"),
		"delete another Node":            func() error { return core.Nodes().Delete(ctx, "victim", metav1.DeleteOptions{}) },
		"be of the control plane":        patchNode(ctx, self, "accomplice", `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`),
		"create a NodeDeath": func() error {
			_, err := records.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "lastgasp.dev/v1alpha1", "kind": "NodeDeath", "metadata": map[string]any{"name": "made-up"},
			}}, metav1.CreateOptions{})
			return err
		},
		"raise a NodeDeath": func() error {
			_, err := records.Patch(ctx, d.Name, types.MergePatchType, []byte(`{"spec":{"authority":"pinned"}}`), metav1.PatchOptions{})
			return err
		},
		"end a NodeDeath": func() error {
			_, err := records.Patch(ctx, d.Name, types.MergePatchType, []byte(`{"status":{"phase":"Cleaned"}}`), metav1.PatchOptions{}, "status")
			return err
		},
		"release a NodeDeath": func() error {
			_, err := records.Patch(ctx, d.Name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"lastgasp.dev/release":"true"}}}`), metav1.PatchOptions{})
			return err
		},
		"delete a NodeDeath":      func() error { return records.Delete(ctx, d.Name, metav1.DeleteOptions{}) },
		"read a NodeDeath":        func() error { _, err := records.Get(ctx, d.Name, metav1.GetOptions{}); return err },
		"renew a replica's Lease": lease(w.namespace, "lastgasp-listener-x"),
		"renew another kubelet's": lease("kube-node-lease", "victim"),
		"delete another kubelet's": func() error {
			return self.CoordinationV1().Leases("kube-node-lease").Delete(ctx, "victim", metav1.DeleteOptions{})
		},
		"fail another node's pod":   patchPod(ctx, self, "victims-pod", `{"status":{"phase":"Failed"}}`, "status"),
		"delete another node's pod": deletePod(ctx, self, "victims-pod"),
		"evict another node's pod": func() error {
			return core.Pods("default").EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "victims-pod"}})
		},
		"exec":                       sub("victims-pod", "exec"),
		"attach":                     sub("victims-pod", "attach"),
		"portforward":                sub("victims-pod", "portforward"),
		"exec on its own node":       sub("accomplices-pod", "exec"),
		"bind a pod":                 sub("victims-pod", "binding"),
		"add an ephemeral container": patch("/api/v1/namespaces/default/pods/victims-pod/ephemeralcontainers", `{}`),
		"resize another node's pod":  patch("/api/v1/namespaces/default/pods/victims-pod/resize", `{}`),
		"reach a node through the API": func() error {
			return core.RESTClient().Get().AbsPath("/api/v1/nodes/victim/proxy/pods").Do(ctx).Error()
		},
		"obtain the listener's token": func() error {
			_, err := core.ServiceAccounts(w.namespace).CreateToken(ctx, "listener", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
		"run a pod as the listener": func() error {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "as-the-listener-accomplice", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}},
				Spec:       corev1.PodSpec{NodeName: "accomplice", ServiceAccountName: "listener", Containers: []corev1.Container{{Name: "main", Image: "none"}}},
			}
			_, err := core.Pods(w.namespace).Create(ctx, pod, metav1.CreateOptions{})
			return err
		},
		"remove a policy": func() error {
			return core.RESTClient().Delete().AbsPath(policies + "validatingadmissionpolicies/lastgasp-pin").Do(ctx).Error()
		},
		"weaken a policy":   patch(policies+"validatingadmissionpolicybindings/lastgasp-pin", `{"spec":{"validationActions":["Warn"]}}`),
		"be the listener":   patch("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/lastgasp-listener", `{"subjects":[]}`),
		"approve a kubelet": patch("/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval", `{}`),
		"be another's kubelet": func() error {
			as := rest.CopyConfig(cfg)
			as.Impersonate = rest.ImpersonationConfig{UserName: "system:node:victim", Groups: []string{"system:nodes"}}
			return patchNode(ctx, must(kubernetes.NewForConfig(as)), "victim", `{"metadata":{"annotations":{"lastgasp.dev/pin":"boot-1:aaaa"}}}`)()
		},
	} {
		if err := do(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", name, err)
		}
	}
	if n := w.readNode(t, "victim"); n.Fenced || n.Mark != (policy.Mark{}) || n.Pin != (policy.Pin{}) || n.Silent {
		t.Errorf("the other Node is %+v", n)
	}
}

// checkProofOfOthers fills Nodes and pods with annotations, as their owners may, so that no write of them is valid. The proof must
// not take that for a policy that is missing or denies too much.
func (w *kubeWorld) checkProofOfOthers(t *testing.T) {
	ctx := t.Context()
	full := func(have map[string]string) string {
		const key, most = "example.com/full", 256 << 10 // ValidateAnnotations in k8s.io/apimachinery/pkg/api/validation
		room := most - len(key)
		for k, v := range have {
			room -= len(k) + len(v)
		}
		return fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, strings.Repeat("x", room))
	}
	fit := w.newNode(t, "fit", nil).Name
	w.newPod(t, "z-fit", fit, corev1.PodRunning, nil)
	for i := range 6 {
		name := fmt.Sprint("full-", i)
		w.newNode(t, name, nil)
		kubelet := w.kubelet(t, name)
		eventually(t, "the Node to be full", func() error { // controllers write annotations, too
			return patchNode(ctx, kubelet, name, full(w.getNode(t, name).Annotations))()
		})
		w.newPod(t, "a-"+name, fit, corev1.PodRunning, nil)
		if err := patchPod(ctx, w.admin, "a-"+name, full(w.getPod(t, "a-"+name).Annotations))(); err != nil {
			t.Fatal(err)
		}
	}
	c := w.connect(t, kube.Config{REST: w.account, Namespace: w.namespace, Replica: "prover"})
	for range 5 {
		if err := c.Prove(ctx); errors.Is(err, kube.ErrNotHeld) {
			t.Errorf("the proof of policies that are in force: %.500v", err)
		}
	}
	eventually(t, "the policies to be proved", func() error { return c.Prove(ctx) })
}
