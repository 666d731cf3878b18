package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

func TestRecordComesBackAsItWent(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)
	full := cleanup.Record{
		Name: "r", UID: "u", Version: "7", Created: at,
		Node: "n", NodeUID: "nu", Instance: "i-1", Boot: "b", Source: netip.MustParseAddrPort("10.0.0.1:6665"), Time: at,
		Code: "KernelPanic", Title: "sysrq triggered crash", Fingerprint: "9f31c2d07a64", Remedy: "m", Release: "6.12",
		Authority: detect.Boot, Trace: []string{"a", "", "b"},
		Phase: cleanup.Held, Decision: "d", Owner: "o", OwnerSeen: at,
		Steps:     []cleanup.StepStatus{{Name: "fence", Done: true, Time: at, Note: "x"}, {Name: "fail"}},
		PodsTotal: 12, PodsDone: 3, Released: true,
	}
	for name, want := range map[string]cleanup.Record{
		"full":        full,
		"of no node":  {Name: "r", Created: at, Time: at, Code: "KernelPanic", Phase: cleanup.Refused, Trace: []string{}},
		"just phased": {Name: "r", Created: at, Time: at, Phase: cleanup.Claimed, Trace: []string{}},
	} {
		kp := &v1alpha1.KernelPanic{
			ObjectMeta: metav1.ObjectMeta{
				Name: want.Name, UID: types.UID(want.UID), ResourceVersion: want.Version,
				CreationTimestamp: metav1.NewTime(want.Created),
			},
			Spec:   specFrom(want),
			Status: statusFrom(want),
		}
		if want.Released {
			kp.Annotations = map[string]string{v1alpha1.ReleaseAnnotation: "true"}
		}
		if diff := cmp.Diff(want, recordFrom(kp), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRecordWithoutStatus(t *testing.T) {
	created := metav1.NewTime(time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
	got := recordFrom(&v1alpha1.KernelPanic{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: created},
		Spec:       v1alpha1.KernelPanicSpec{Authority: "hearsay", Source: "nowhere"},
	})
	if got.Phase != cleanup.Claimed || !got.OwnerSeen.Equal(created.Time) || got.Owner != "" {
		t.Errorf("phase %s, owner %q seen %v; want Claimed by nobody at its creation", got.Phase, got.Owner, got.OwnerSeen)
	}
	if got.Authority != detect.Text || got.Source.IsValid() {
		t.Errorf("authority %v, source %v; want the weakest and none", got.Authority, got.Source)
	}
}

func TestAmend(t *testing.T) {
	have := v1alpha1.KernelPanicSpec{Node: "n", Boot: "b", Code: "KernelPanic", Reason: "x", Authority: "boot", Trace: []string{"a"}}
	for _, tt := range []struct {
		name string
		add  v1alpha1.KernelPanicSpec
		want v1alpha1.KernelPanicSpec // zero for unchanged
	}{
		{"nothing", v1alpha1.KernelPanicSpec{}, v1alpha1.KernelPanicSpec{}},
		{"the same", have, v1alpha1.KernelPanicSpec{}},
		{"another node and boot", v1alpha1.KernelPanicSpec{Node: "m", Boot: "c", Source: "s", NodeUID: "u"}, v1alpha1.KernelPanicSpec{}},
		{"more", v1alpha1.KernelPanicSpec{Reason: "y", Fingerprint: "f", Trace: []string{"a", "b"}},
			v1alpha1.KernelPanicSpec{Node: "n", Boot: "b", Code: "KernelPanic", Reason: "y", Fingerprint: "f", Authority: "boot", Trace: []string{"a", "b"}}},
	} {
		got := *(&v1alpha1.KernelPanic{Spec: have}).DeepCopy()
		changed := amend(&got.Spec, tt.add)
		want := tt.want
		if want.Node == "" {
			want = have
		}
		if diff := cmp.Diff(want, got.Spec); diff != "" || changed != (tt.want.Node != "") {
			t.Errorf("%s: changed %v (-want +got):\n%s", tt.name, changed, diff)
		}
	}
}

func TestBoundTrace(t *testing.T) {
	numbered := func(n, size int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf("%06d%s", i, strings.Repeat(".", size-6))
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		lines []string
		whole bool
	}{
		{"short", numbered(10, 80), true},
		{"just fits", numbered(1024, 128), true},
		{"one byte more", append(numbered(1024, 128), "x"), false},
		{"much too long", numbered(10_000, 100), false},
		{"many short lines", numbered(5000, 6), false},
		{"few long lines", numbered(100, 4096), false},
		{"just as many lines as may be", numbered(2048, 10), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := boundTrace(tt.lines)
			if tt.whole {
				if diff := cmp.Diff(tt.lines, got); diff != "" {
					t.Errorf("trace (-want +got):\n%s", diff)
				}
				return
			}
			size, gap := 0, -1
			for i, l := range got {
				size += len(l)
				if strings.HasPrefix(l, "[…") {
					gap = i
				}
			}
			if size > traceSize || len(got) > traceLines {
				t.Errorf("%d bytes in %d lines", size, len(got))
			}
			if gap < 0 {
				t.Fatal("nothing says that lines are missing")
			}
			tail := len(got) - gap - 1
			if diff := cmp.Diff(tt.lines[:gap], got[:gap]); diff != "" {
				t.Errorf("beginning (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.lines[len(tt.lines)-tail:], got[gap+1:]); diff != "" {
				t.Errorf("end (-want +got):\n%s", diff)
			}
			if want := fmt.Sprintf("[… %d lines left out …]", len(tt.lines)-gap-tail); got[gap] != want {
				t.Errorf("gap %q, want %q", got[gap], want)
			}
			if again := boundTrace(got); !cmp.Equal(got, again) {
				t.Error("bounding it again changes it")
			}
		})
	}
	if got := boundTrace([]string{strings.Repeat("x", 5000), "a\xffb"}); len(got[0]) != traceLineSize || got[1] != "a\uFFFDb" {
		t.Errorf("line of %d bytes, line %q", len(got[0]), got[1])
	}
}
