package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// auditPolicy logs every request once, when it has been answered.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Request, verbs: [delete], resources: [{group: "", resources: [pods]}]} # whether it is a dry run is in its body
  - {level: Metadata}
`

// makeCredentials makes the authority, what the servers need on disk, and the administrator's access.
func (c *Cluster) makeCredentials(context.Context) error {
	ca, err := newAuthority(time.Now())
	if err != nil {
		return err
	}
	c.ca = ca
	loopback := netip.MustParseAddr("127.0.0.1")
	etcd, err := ca.server("etcd", []netip.Addr{loopback})
	if err != nil {
		return err
	}
	etcdClient, err := ca.client("kube-apiserver")
	if err != nil {
		return err
	}
	apiServer, err := ca.server("kube-apiserver", []netip.Addr{c.spec.Addr}, "kubernetes.default.svc")
	if err != nil {
		return err
	}
	admin, err := ca.client("admin", "system:masters")
	if err != nil {
		return err
	}
	signing, err := newSigningKey()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("logs"), 0o700); err != nil {
		return fmt.Errorf("make folder of logs: %w", err)
	}
	for name, content := range map[string][]byte{
		"ca.crt":             ca.pem,
		"etcd.crt":           etcd.cert,
		"etcd.key":           etcd.key,
		"apiserver-etcd.crt": etcdClient.cert,
		"apiserver-etcd.key": etcdClient.key,
		"apiserver.crt":      apiServer.cert,
		"apiserver.key":      apiServer.key,
		"sa.key":             signing,
		"audit.yaml":         []byte(auditPolicy),
	} {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return fmt.Errorf("write credentials: %w", err)
		}
	}
	c.admin, err = c.writeKubeconfig("admin", &clientcmdapi.AuthInfo{
		ClientCertificateData: admin.cert,
		ClientKeyData:         admin.key,
	})
	if err != nil {
		return err
	}
	c.config = &rest.Config{
		Host:            c.server(),
		TLSClientConfig: rest.TLSClientConfig{CAData: ca.pem, CertData: admin.cert, KeyData: admin.key},
		QPS:             -1,
		Dial:            c.spec.NS.Dial,
	}
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	return nil
}

// Kubeconfig writes a kubeconfig for the user, known to the API server by a client certificate, and returns its path.
// It is removed with the cluster.
func (c *Cluster) Kubeconfig(user string, groups ...string) (string, error) {
	pair, err := c.ca.client(user, groups...)
	if err != nil {
		return "", err
	}
	return c.writeKubeconfig(user, &clientcmdapi.AuthInfo{
		ClientCertificateData: pair.cert,
		ClientKeyData:         pair.key,
	})
}

// NodeKubeconfig writes the kubeconfig of the named node's kubelet: what the Node authorizer lets that node do, and no
// more.
func (c *Cluster) NodeKubeconfig(name string) (string, error) {
	return c.Kubeconfig("system:node:"+name, "system:nodes")
}

// Files of a kubelet's credentials, as kubeadm lays them out.
const (
	KubeletConf = "/etc/kubernetes/kubelet.conf"
	KubeletPEM  = "/var/lib/kubelet/pki/kubelet-client-current.pem"
)

// KubeletFiles are the credentials of the named node's kubelet for a guest, by their path there: what the Node authorizer
// and NodeRestriction let that node do, and no more. Each call issues another certificate, as a rotation does.
func (c *Cluster) KubeletFiles(name string) (map[string][]byte, error) {
	user := "system:node:" + name
	pair, err := c.ca.client(user, "system:nodes")
	if err != nil {
		return nil, err
	}
	conf, err := clientcmd.Write(*c.kubeconfig(user, &clientcmdapi.AuthInfo{ClientCertificate: KubeletPEM, ClientKey: KubeletPEM}))
	if err != nil {
		return nil, fmt.Errorf("write kubeconfig of %s: %w", user, err)
	}
	return map[string][]byte{KubeletConf: conf, KubeletPEM: append(pair.cert, pair.key...)}, nil
}

// PinKey is the annotation in which a node says by what its records are recognised.
const PinKey = "lastgasp.dev/pin"

// Enroll writes the pin of a node's boot to its Node with the kubelet's credentials, as its configurator would. Sum is the
// SHA-256 of the boot's secret.
func (c *Cluster) Enroll(ctx context.Context, node, boot, sum string) error {
	client, err := c.NodeClient(node)
	if err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%s:%s"}}}`, PinKey, boot, sum)
	if _, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("enrol node %s: %w", node, err)
	}
	return nil
}

// NodeClient is a clientset with the credentials of the named node's kubelet. It works from any namespace.
func (c *Cluster) NodeClient(name string) (kubernetes.Interface, error) {
	pair, err := c.ca.client("system:node:"+name, "system:nodes")
	if err != nil {
		return nil, err
	}
	config := c.RESTConfig()
	config.CertData, config.KeyData = pair.cert, pair.key
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client of node %s: %w", name, err)
	}
	return client, nil
}

// ServiceAccountKubeconfig writes a kubeconfig with a token of the service account, which must exist. The token lasts
// as long as the cluster's certificates.
func (c *Cluster) ServiceAccountKubeconfig(ctx context.Context, namespace, name string) (string, error) {
	seconds := int64(certificateLife / time.Second)
	request, err := c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ask for a token of service account %s/%s: %w", namespace, name, err)
	}
	return c.writeKubeconfig("system:serviceaccount:"+namespace+":"+name, &clientcmdapi.AuthInfo{
		Token: request.Status.Token,
	})
}

func (c *Cluster) writeKubeconfig(user string, auth *clientcmdapi.AuthInfo) (string, error) {
	path := c.path(strings.NewReplacer(":", "-", "/", "-").Replace(user) + ".kubeconfig")
	// Renamed into place: a listener that starts beside another with the same rights must not find it half written.
	draft, err := os.CreateTemp(filepath.Dir(path), "kubeconfig-*") // 0600
	if err == nil {
		err = draft.Close()
	}
	if err == nil {
		err = clientcmd.WriteToFile(*c.kubeconfig(user, auth), draft.Name())
	}
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("write kubeconfig of %s: %w", user, err)
	}
	return path, nil
}

func (c *Cluster) kubeconfig(user string, auth *clientcmdapi.AuthInfo) *clientcmdapi.Config {
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: c.server(), CertificateAuthorityData: c.ca.pem}
	config.AuthInfos[user] = auth
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: user}
	config.CurrentContext = "lab"
	return config
}

func (c *Cluster) server() string {
	return "https://" + netip.AddrPortFrom(c.spec.Addr, apiServerPort).String()
}

// Kubectl runs kubectl in the cluster's namespace as the administrator and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.KubectlAs(ctx, c.admin, "", args...)
}

// KubectlAs is Kubectl with a kubeconfig and stdin.
func (c *Cluster) KubectlAs(ctx context.Context, kubeconfig, stdin string, args ...string) (string, error) {
	cmd := c.spec.NS.Command(ctx, c.binaries.ControlPlane, append([]string{"kubectl"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "KUBECACHEDIR="+c.path("kubectl-cache"))
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread that forks
	defer runtime.UnlockOSThread()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}
