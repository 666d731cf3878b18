package lab

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOtherModule(t *testing.T) {
	const theirs = `module k8s.io/kubernetes

go 1.25.0

godebug default=go1.25

require (
	bitbucket.org/bertimus9/systemstat v0.5.0
	github.com/google/cadvisor v0.53.0
	k8s.io/api v0.0.0
	k8s.io/klog/v2 v2.130.1
)

require go.etcd.io/etcd/server/v3 v3.6.5 // indirect

replace (
	k8s.io/api => ./staging/src/k8s.io/api
)
`
	const want = `module github.com/lastgasp/lastgasp/e2e/controlplane

go 1.26.0

require (
	k8s.io/kubernetes v1.35.4
	bitbucket.org/bertimus9/systemstat v0.5.0
	github.com/google/cadvisor v0.53.0
	k8s.io/api v0.35.4
	k8s.io/klog/v2 v2.130.1
	go.etcd.io/etcd/server/v3 v3.6.5
)
`
	if diff := cmp.Diff(want, otherModule(theirs, "v1.35.4")); diff != "" {
		t.Errorf("go.mod (-want +got):\n%s", diff)
	}
}

func TestOtherVersion(t *testing.T) {
	for _, tt := range []struct{ env, want, err string }{
		{"", "", ""},
		{kubernetesVersion, "", ""},
		{"v1.35.4", "v1.35.4", ""},
		{"1.35", "", `LAB_KUBERNETES: "1.35" is not a release of Kubernetes; write one like ` + kubernetesVersion},
	} {
		t.Setenv("LAB_KUBERNETES", tt.env)
		got, err := otherVersion()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tt.want || text != tt.err {
			t.Errorf("%q: %q, %q; want %q, %q", tt.env, got, text, tt.want, tt.err)
		}
	}
}
