//go:build e2e && rollout

package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// podOf waits for the one pod of a Deployment to be bound to a node.
func (w *kubeWorld) podOf(t *testing.T, deployment string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, "a pod of "+deployment+" to be scheduled", func() error {
		d, err := w.admin.AppsV1().Deployments(w.namespace).Get(t.Context(), deployment, metav1.GetOptions{})
		if err != nil {
			return err
		}
		list, err := w.admin.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Spec.NodeName == "" {
			return fmt.Errorf("%d pods", len(list.Items))
		}
		pod = &list.Items[0]
		return nil
	})
	return pod
}

// runPod runs what the pod's container is, as a kubelet would have it run from the image: its entry point in its file system, with the
// pod's arguments, environment, user and volumes, and the account's token. It is not isolated from this machine otherwise.
func (w *kubeWorld) runPod(t *testing.T, image *image, pod *corev1.Pod) (d *lab.Daemon, log string) {
	t.Helper()
	container := pod.Spec.Containers[0]
	user := int(*pod.Spec.SecurityContext.RunAsUser)
	for _, mount := range container.VolumeMounts {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		files, err := w.volume(t, pod, pod.Spec.Volumes[i])
		if err != nil {
			t.Fatalf("volume %s: %v", mount.Name, err)
		}
		dir := filepath.Join(image.root, mount.MountPath)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, body := range files {
			if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if pod.Spec.Volumes[i].EmptyDir != nil {
			if err := os.Chown(dir, user, user); err != nil {
				t.Fatal(err)
			}
		}
	}
	proc := filepath.Join(image.root, "proc")
	if err := os.MkdirAll(proc, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "proc", "proc", proc).CombinedOutput(); err != nil {
		t.Fatalf("mount proc: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", proc).CombinedOutput(); err != nil {
			t.Errorf("unmount proc: %v: %s", err, out)
		}
	})
	command := container.Command
	if len(command) == 0 {
		command = image.Config.Entrypoint
	}
	args := slices.Concat([]string{fmt.Sprintf("--userspec=%d:%d", user, *pod.Spec.SecurityContext.RunAsGroup), image.root}, command, container.Args)
	cmd := w.ns.Command(t.Context(), "chroot", args...)
	cmd.Env = append(w.environment(t, pod), image.Config.Env...)
	log = filepath.Join(t.TempDir(), "listener.log")
	d, err := lab.StartDaemon(t, pod.Name, log, cmd)
	if err != nil {
		t.Fatal(err)
	}
	return d, log
}

// environment is what a kubelet would give to the pod's container.
func (w *kubeWorld) environment(t *testing.T, pod *corev1.Pod) []string {
	t.Helper()
	server := must(url.Parse(w.lab.RESTConfig().Host))
	env := []string{"KUBERNETES_SERVICE_HOST=" + server.Hostname(), "KUBERNETES_SERVICE_PORT=" + server.Port()}
	for _, e := range pod.Spec.Containers[0].Env {
		value := e.Value
		if e.ValueFrom != nil {
			switch e.ValueFrom.FieldRef.FieldPath {
			case "metadata.name":
				value = pod.Name
			case "metadata.namespace":
				value = pod.Namespace
			default:
				t.Fatalf("%s comes from %s, which this test does not know", e.Name, e.ValueFrom.FieldRef.FieldPath)
			}
		}
		env = append(env, e.Name+"="+value)
	}
	return env
}

// volume is what a kubelet would put into a volume of the pod.
func (w *kubeWorld) volume(t *testing.T, pod *corev1.Pod, v corev1.Volume) (map[string][]byte, error) {
	files := map[string][]byte{}
	switch {
	case v.EmptyDir != nil:
	case v.ConfigMap != nil:
		m, err := w.admin.CoreV1().ConfigMaps(pod.Namespace).Get(t.Context(), v.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		for name, text := range m.Data {
			files[name] = []byte(text)
		}
	case v.Secret != nil:
		s, err := w.admin.CoreV1().Secrets(pod.Namespace).Get(t.Context(), v.Secret.SecretName, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		files = s.Data
	case v.Projected != nil && strings.HasPrefix(v.Name, "kube-api-access-"):
		token, err := w.admin.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(t.Context(), pod.Spec.ServiceAccountName,
			&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		files["token"], files["ca.crt"], files["namespace"] = []byte(token.Status.Token), w.lab.RESTConfig().CAData, []byte(pod.Namespace)
	default:
		return nil, errors.New("is of a kind that this test does not know")
	}
	return files, nil
}
