package enroll

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKubeconfig reads those that kubelets have: testdata/NAME.kubeconfig.
func TestKubeconfig(t *testing.T) {
	server := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, tt := range []struct {
		name string
		want access
	}{
		{"kubeadm", access{
			server: server("https://10.0.0.10:6443"), ca: pemBytes{data: []byte("authority\n")},
			cert: pemBytes{file: "/var/lib/kubelet/pki/kubelet-client-current.pem"},
			key:  pemBytes{file: "/var/lib/kubelet/pki/kubelet-client-current.pem"},
		}},
		{"eks-al2023", access{
			server: server("https://0123456789ABCDEF.gr7.eu-west-1.eks.amazonaws.com"), ca: pemBytes{file: "/etc/kubernetes/pki/ca.crt"},
			eks: &eksCluster{ID: "prod-1", Region: "eu-west-1"},
		}},
		{"eks-al2", access{
			server: server("https://0123456789ABCDEF.gr7.eu-west-1.eks.amazonaws.com"), ca: pemBytes{file: "/etc/kubernetes/pki/ca.crt"},
			eks: &eksCluster{ID: "prod-1", Region: "eu-west-1"},
		}},
		{"k3s", access{
			server: server("https://127.0.0.1:6444"), ca: pemBytes{file: "/var/lib/rancher/k3s/agent/server-ca.crt"},
			cert: pemBytes{file: "/var/lib/rancher/k3s/agent/client-kubelet.crt"},
			key:  pemBytes{file: "/var/lib/rancher/k3s/agent/client-kubelet.key"},
		}},
		{"token-file", access{
			server: server("https://api.example.internal"), name: "kubernetes", proxy: server("http://proxy.example.internal:3128"),
			ca: pemBytes{file: "testdata/ca.crt"}, tokenAt: "testdata/token",
		}},
		{"token", access{server: server("https://api.example.internal:6443/k8s/clusters/c-1"), token: "abc"}},
		{"data-before-file", access{
			server: server("https://10.0.0.10:6443"), ca: pemBytes{data: []byte("authority\n")},
			cert: pemBytes{data: []byte("certificate\n")}, key: pemBytes{data: []byte("key\n")},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := "testdata/" + tt.name + ".kubeconfig"
			tt.want.file = file
			got, err := readKubeconfig(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(access{}, pemBytes{})); diff != "" {
				t.Errorf("access (-want +got):\n%s", diff)
			}
		})
	}
}

// The first line of each testdata/invalid-*.kubeconfig is what an operator sees.
func TestKubeconfigIsRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.kubeconfig")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".kubeconfig"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(data), "\n")
			want := "read kubeconfig " + file + ": " + strings.TrimPrefix(first, "# ")
			a, err := readKubeconfig(file)
			if err == nil {
				t.Fatalf("it was taken: %+v", a)
			}
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKubeconfigThatIsNotThere(t *testing.T) {
	if _, err := readKubeconfig("testdata/none"); err == nil || !strings.HasPrefix(err.Error(), "read kubeconfig: open testdata/none: ") {
		t.Errorf("error %v", err)
	}
}
