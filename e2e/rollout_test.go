//go:build e2e && rollout

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

// TestRollout goes the way of somebody who installs lastgasp: the images are built, the chart is installed, the listener runs from
// its image as the chart's Deployment says, and a node is armed by the configurator from its own. Then the node's kernel panics: the
// death is seen on the page, in a browser, by a person with a token; and Prometheus' rule engine, fed by that listener's metrics,
// fires the alert, which it did not before.
func TestRollout(t *testing.T) {
	ctx := t.Context()
	browser, monitoring := compile(t, "browser"), compile(t, "../packaging/monitoring")
	if err := lab.InstallPackages(ctx, t, "chromium", "fonts-dejavu-core"); err != nil {
		t.Fatal(err)
	}
	archives := t.TempDir()
	build := exec.CommandContext(ctx, "../packaging/build", archives, "image")
	build.Env = append(os.Environ(), "ARCHES="+runtime.GOARCH)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	bin := t.TempDir()
	listener, configurator := openImage(t, archives, "lastgasp-listener"), openImage(t, archives, "lastgasp-configurator")
	for _, image := range []*image{listener, configurator} {
		program := image.Config.Entrypoint[0]
		if err := os.Link(filepath.Join(image.root, program), filepath.Join(bin, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	kernel, err := lab.FetchKernel(ctx, t, "6.12")
	if err != nil {
		t.Fatal(err)
	}

	var kube *kubeWorld
	w, err := story.NewWorldOf(ctx, t, bin, func(w *story.World, ctx context.Context, _ lab.Scope) error {
		kube = &kubeWorld{lab: w.Cluster, net: w.Net, ns: w.Net.Listener, admin: w.Cluster.Client(), namespace: "lastgasp"}
		kube.helm(t)("install", "lastgasp", "../packaging/helm/lastgasp", "--create-namespace", "--set=replicas=1,page.secret=listener-page")
		kube.secretOfPage(t)
		pod := kube.podOf(t, "listener")
		w.Listener, w.ListenerLog = kube.runPod(t, listener, pod)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.Explain(t)
		}
	})
	eventually(t, "the listener to be ready", func() error {
		if err := w.Listener.Died(); err != nil {
			t.Fatal(err)
		}
		out, err := kube.ns.Command(ctx, "curl", "--silent", "--fail-with-body", "http://127.0.0.1:9666/readyz").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	node, err := w.BootNode(ctx, t, story.NodeSpec{Name: "node-1", Kernel: kernel, Panic: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AwaitPin(ctx, node); err != nil {
		t.Fatal(err)
	}
	victims, err := w.Deploy(ctx, node.Namespace, node.Name)
	if err != nil {
		t.Fatal(err)
	}
	metrics := "ROLLOUT_METRICS=http://" + net.JoinHostPort(lab.ListenerAddr.Addr().String(), "9666") + "/metrics"
	page := "ROLLOUT_PAGE=https://oncall:" + kube.readerToken(t) + "@" + net.JoinHostPort(lab.ListenerAddr.Addr().String(), "9667")
	pictures := "PICTURES=" + os.Getenv("PICTURES")
	kube.runIn(t, browser, page, pictures)
	kube.runIn(t, monitoring, metrics, "ROLLOUT_ALERTS=")

	death, err := w.Kill(ctx, node, lab.CrashSysrq, victims, 2*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := death.Check(); err != nil {
		t.Error(err)
	}
	kube.runIn(t, browser, page, pictures, "ROLLOUT_NODE="+node.Name, "ROLLOUT_POD="+death.FailedPod.Name)
	kube.runIn(t, monitoring, metrics, "ROLLOUT_ALERTS=LastgaspNodeDied")
}

// compile compiles TestRollout of a module beside this one, and returns its path. It runs in the module's directory.
func compile(t *testing.T, module string) string {
	t.Helper()
	dir, err := filepath.Abs(module)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), filepath.Base(dir)+".test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags=rollout", "-o", program, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile the test of %s: %v\n%s", module, err, out)
	}
	return program
}

// runIn runs such a test where the listener is.
func (w *kubeWorld) runIn(t *testing.T, program string, env ...string) {
	t.Helper()
	cmd := w.ns.Command(t.Context(), program, "-test.run=^TestRollout$", "-test.v", "-test.timeout=5m")
	cmd.Dir = map[string]string{"browser.test": "browser", "monitoring.test": "../packaging/monitoring"}[filepath.Base(program)]
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("%s: %v", filepath.Base(program), err)
	}
}

// secretOfPage makes the Secret that the chart's value page.secret names, as cert-manager would.
func (w *kubeWorld) secretOfPage(t *testing.T) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"listener-page.lastgasp.svc"}, NotAfter: time.Now().Add(time.Hour),
	}
	cert := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "listener-page"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
			corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}),
		},
	}
	if _, err := w.admin.CoreV1().Secrets(w.namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// readerToken is the token of an account that may view the cluster, and so the deaths.
func (w *kubeWorld) readerToken(t *testing.T) string {
	t.Helper()
	w.kubectl(t, "create", "serviceaccount", "oncall", "--namespace=default")
	w.kubectl(t, "create", "clusterrolebinding", "oncall", "--clusterrole=view", "--serviceaccount=default:oncall")
	eventually(t, "the reader's right to be granted", func() error {
		out, err := w.lab.Kubectl(t.Context(), "auth", "can-i", "get", "nodedeaths.lastgasp.dev", "--as=system:serviceaccount:default:oncall")
		if err == nil && strings.TrimSpace(out) != "yes" {
			err = fmt.Errorf("kubectl auth can-i: %s", out)
		}
		return err
	})
	return strings.TrimSpace(w.kubectl(t, "create", "token", "oncall", "--namespace=default"))
}
