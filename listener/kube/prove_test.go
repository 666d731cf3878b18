package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

func TestJudge(t *testing.T) {
	status := func(code int32, reason metav1.StatusReason, message string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Message: message}}
	}
	byPolicy := func(name string) error {
		return status(403, metav1.StatusReasonForbidden, "nodes \"n\" is forbidden: ValidatingAdmissionPolicy '"+name+"' with binding '"+name+"' denied request: x")
	}
	byWebhook := status(403, metav1.StatusReasonForbidden, "admission webhook \"validation.gatekeeper.sh\" denied the request: not this one")
	noRight := status(403, metav1.StatusReasonForbidden, "nodes is forbidden: User cannot patch resource")
	away := errors.New("connection refused")
	for _, tt := range []struct {
		name      string
		forbidden bool
		answer    error
		held      bool // false: not held
		known     bool // false: no answer
		says      string
	}{
		{"forbidden and denied", true, byPolicy("p"), true, true, ""},
		{"forbidden and let pass", true, nil, false, true, "is not in force"},
		{"forbidden and denied by another policy", true, byPolicy("p-2"), false, true, "cannot be written"},
		{"forbidden and denied by a webhook", true, byWebhook, false, true, "cannot be written"},
		{"allowed and denied by another policy", false, byPolicy("p-2"), false, true, "cannot be written"},
		{"allowed and denied by a webhook", false, byWebhook, false, true, "cannot be written"},
		{"forbidden for want of a right", true, noRight, false, true, "something else forbids"},
		{"forbidden and no answer", true, away, false, false, "prove admission policy p"},
		{"allowed and let pass", false, nil, true, true, ""},
		{"allowed and denied", false, byPolicy("p"), false, true, "does not let the listener write x"},
		{"allowed for want of a right", false, noRight, false, true, "does not let the listener write x"},
		{"forbidden, and the object cannot be written", true, status(422, metav1.StatusReasonInvalid, "too long"), false, true, "cannot be written"},
		{"allowed, and the object cannot be written", false, status(422, metav1.StatusReasonInvalid, "too long"), false, true, "cannot be written"},
		{"allowed and no answer", false, away, false, false, "prove admission policy p"},
		{"the object is gone", true, status(404, metav1.StatusReasonNotFound, "gone"), false, false, "prove admission policy p"},
	} {
		err := trial{policy: "p", what: "x", forbidden: tt.forbidden}.judge(tt.answer)
		if (err == nil) != tt.held || err != nil && errors.Is(err, ErrNotHeld) != tt.known || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s: %v; want held %v, known %v, %q", tt.name, err, tt.held, tt.known, tt.says)
		}
	}
}

// Policies that are applied together with the listener are in force a moment after it starts: that is no reason to alarm
// anybody, or to let the nodes that die then wait.
func TestProveIsRepeatedSoonAfterAFailure(t *testing.T) {
	missing := fmt.Errorf("policy p is not in force: %w", ErrNotHeld)
	const inForce = "level=INFO msg=\"the admission policies are in force\"\n"
	for _, tt := range []struct {
		name    string
		answers []error // the last one stays
		at      []int   // seconds after the start
		logged  string
	}{
		{"in force", []error{nil}, []int{0, 600, 1200}, inForce},
		{"a moment later", []error{missing, nil}, []int{0, 1, 601}, inForce},
		{"missing", []error{missing}, []int{0, 1, 3, 7, 15, 25, 35},
			`level=ERROR msg="admission policies not proved: deaths are recorded, nothing else is done" err="` + missing.Error() + "\"\n"},
		{"lost for a moment", []error{nil, missing, nil}, []int{0, 600, 601}, inForce},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var logged strings.Builder
				var at []int
				start := time.Now()
				new(proof).keep(ctx, func(context.Context) error {
					answer := tt.answers[min(len(at), len(tt.answers)-1)]
					if at = append(at, int(time.Since(start).Seconds())); len(at) == len(tt.at) {
						cancel()
					}
					return answer
				}, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					if a.Key == slog.TimeKey {
						return slog.Attr{}
					}
					return a
				}})))
				if diff := cmp.Diff(tt.at, at); diff != "" {
					t.Errorf("proved at (-want +got, seconds):\n%s", diff)
				}
				if diff := cmp.Diff(tt.logged, logged.String()); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNothingIsWrittenUnproved(t *testing.T) {
	missing := fmt.Errorf("policy x: %w", ErrNotHeld)
	for _, tt := range []struct {
		name          string
		answers       []error
		writes, unfit bool
	}{
		{name: "not asked yet"},
		{name: "no answer", answers: []error{errors.New("away")}},
		{name: "proved", answers: []error{nil}, writes: true},
		{name: "missing", answers: []error{missing}, unfit: true},
		{name: "missing, then no answer", answers: []error{missing, errors.New("away")}, unfit: true},
		{name: "proved, then no answer", answers: []error{nil, errors.New("away")}, writes: true},
		{name: "proved, then missing", answers: []error{nil, missing}, unfit: true},
		{name: "missing, then proved", answers: []error{missing, nil}, writes: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newAPI(t, http.StatusOK, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
			c.proof = proof{}
			for _, a := range tt.answers {
				c.proof.note(a)
			}
			fence := true
			for name, write := range map[string]func() error{
				"patch node": func() error {
					_, err := c.PatchNode(t.Context(), policy.Node{Name: "n"}, cleanup.NodePatch{Fence: &fence})
					return err
				},
				"delete node": func() error { return c.DeleteNode(t.Context(), policy.Node{Name: "n"}) },
				"fail pod": func() error {
					_, err := c.FailPod(t.Context(), policy.Pod{Namespace: "ns", Name: "p"}, policy.Notice{})
					return err
				},
				"annotate pod": func() error {
					_, err := c.AnnotatePod(t.Context(), policy.Pod{Namespace: "ns", Name: "p"}, policy.Notice{})
					return err
				},
				"annotate pod with a farewell": func() error {
					return c.AnnotateFarewell(t.Context(), policy.Pod{Namespace: "ns", Name: "p"}, policy.Farewell{})
				},
				"delete pod": func() error { return c.DeletePod(t.Context(), policy.Pod{Namespace: "ns", Name: "p"}) },
			} {
				err := write()
				if errors.Is(err, errUnproved) == tt.writes || sentinel(err) != nil && !tt.writes {
					t.Errorf("%s: %v; want written %v, else an error that may pass", name, err, tt.writes)
				}
			}
			if asked := len(s.requests()) > 0; asked != tt.writes {
				t.Errorf("requests %v, want any %v", s.requests(), tt.writes)
			}
			if err := c.proof.notHeld(); (err != nil) != tt.unfit {
				t.Errorf("not held: %v, want %v", err, tt.unfit)
			}
		})
	}
}

func TestProveTriesOnWorkers(t *testing.T) {
	_, c := newAPI(t, http.StatusOK, "{}")
	nodes := func() []*corev1.Node {
		workers, controlPlane := c.nodesForTrial()
		return atMost(objectsForTrial, workers, controlPlane)
	}
	if got := nodes(); len(got) > 0 {
		t.Errorf("%d nodes for trials without a node", len(got))
	}
	for name, label := range map[string]string{"a": "node-role.kubernetes.io/control-plane", "worker": "x", "z": "node-role.kubernetes.io/master"} {
		cacheNode(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: ""}}})
	}
	if got := nodes(); len(got) != 3 || got[0].Name != "worker" {
		t.Errorf("tries on %s, want worker first", names(got))
	}
	for i := range 2 * objectsForTrial {
		cacheNode(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("worker-", i)}})
	}
	if got := nodes(); len(got) != objectsForTrial || slices.ContainsFunc(got, isControlPlane) {
		t.Errorf("tries on %s, want %d workers", names(got), objectsForTrial)
	}
}

// The fence on a node of the control plane is tried where such nodes are fenced, with all of their taints.
func TestProveTriesTheControlPlane(t *testing.T) {
	const denial = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"nodes \"m\" is forbidden: ` +
		`ValidatingAdmissionPolicy 'lastgasp-listener-nodes' with binding 'x' denied request: a control-plane node is never the listener's to fence"}`
	s, c := newAPI(t, http.StatusForbidden, denial)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "m", UID: "u", ResourceVersion: "7", Labels: map[string]string{"node-role.kubernetes.io/control-plane": ""},
	}}
	n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Effect: corev1.TaintEffectNoSchedule}}
	err := errors.Join(tryOneOf(t.Context(), [][]trial{c.trialsOnControlPlane(n)})...)
	if !errors.Is(err, ErrNotHeld) || !strings.Contains(err.Error(), "controlPlane: true") || !strings.Contains(err.Error(), "never the listener's to fence") {
		t.Errorf("%v; want the policy's denial, and the key", err)
	}
	want := []request{{"PATCH", "/api/v1/nodes/m?dryRun=All&fieldManager=lastgasp-listener", "application/strategic-merge-patch+json",
		`{"metadata":{"resourceVersion":"7","uid":"u"},"spec":{"taints":[{"key":"dedicated","effect":"NoSchedule"},{"key":"lastgasp.dev/dead","effect":"NoSchedule"}]}}`}}
	if diff := cmp.Diff(want, s.requests()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestProveTriesOnWhatCanBeWritten has one object after the other that its owner has filled, so that every write of it is invalid, or
// that a webhook of others guards.
func TestProveTriesOnWhatCanBeWritten(t *testing.T) {
	full := &apierrors.StatusError{ErrStatus: metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid}}
	others := &apierrors.StatusError{ErrStatus: metav1.Status{
		Code: 403, Reason: metav1.StatusReasonForbidden, Message: `admission webhook "validation.gatekeeper.sh" denied the request: not this one`,
	}}
	for _, tt := range []struct {
		name    string
		objects []error // what the API server answers to a write of each
		tried   int
		proved  bool
	}{
		{"none", nil, 0, true},
		{"the first can be written", []error{nil, nil}, 1, true},
		{"the last can be written", []error{full, full, nil}, 3, true},
		{"none can be written", []error{full, full}, 2, false},
		{"a webhook denies the first", []error{others, nil}, 2, true},
		{"a webhook denies all", []error{others, others}, 2, false},
		{"no answer to the first", []error{errors.New("away"), nil}, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tried := 0
			var objects [][]trial
			for _, answer := range tt.objects {
				objects = append(objects, []trial{{policy: "p", what: "x", write: func(context.Context) error { tried++; return answer }}})
			}
			if err := errors.Join(tryOneOf(t.Context(), objects)...); tried != tt.tried || (err == nil) != tt.proved {
				t.Errorf("tried on %d: %v; want %d, proved %v", tried, err, tt.tried, tt.proved)
			}
		})
	}
}
