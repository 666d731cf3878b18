package enroll

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// Kubeconfigs returns the usual paths of a kubelet's kubeconfig: EKS, kubeadm, k3s, RKE2.
func Kubeconfigs() []string {
	return []string{
		"/var/lib/kubelet/kubeconfig",
		"/etc/kubernetes/kubelet.conf",
		"/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
		"/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
	}
}

// access is how a kubeconfig's current context reaches its API server.
type access struct {
	file    string // the kubeconfig
	server  *url.URL
	name    string   // expected in the server's certificate; empty: the URL's host
	ca      pemBytes // certificate authorities; empty: this machine's
	proxy   *url.URL // nil: from the environment
	cert    pemBytes // of the client
	key     pemBytes
	token   string
	tokenAt string // file with the token
	eks     *eksCluster
}

// pemBytes is PEM in the kubeconfig itself or in a file. A file is read whenever it is needed: kubelets rotate it.
type pemBytes struct {
	data []byte
	file string
}

func (p pemBytes) given() bool { return len(p.data) > 0 || p.file != "" }

func (p pemBytes) read() ([]byte, error) {
	if len(p.data) > 0 {
		return p.data, nil
	}
	return os.ReadFile(p.file)
}

// kubeconfigFile is the part of a kubeconfig (k8s.io/client-go/tools/clientcmd/api/v1) that a kubelet's uses.
type kubeconfigFile struct {
	CurrentContext string `yaml:"current-context"`
	Contexts       []struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster string `yaml:"cluster"`
			User    string `yaml:"user"`
		} `yaml:"context"`
	} `yaml:"contexts"`
	Clusters []struct {
		Name    string      `yaml:"name"`
		Cluster clusterPart `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		Name string   `yaml:"name"`
		User userPart `yaml:"user"`
	} `yaml:"users"`
}

type clusterPart struct {
	Server   string `yaml:"server"`
	Name     string `yaml:"tls-server-name"`
	Insecure bool   `yaml:"insecure-skip-tls-verify"`
	CA       string `yaml:"certificate-authority"`
	CAData   string `yaml:"certificate-authority-data"`
	Proxy    string `yaml:"proxy-url"`
}

type userPart struct {
	Cert     string    `yaml:"client-certificate"`
	CertData string    `yaml:"client-certificate-data"`
	Key      string    `yaml:"client-key"`
	KeyData  string    `yaml:"client-key-data"`
	Token    string    `yaml:"token"`
	TokenAt  string    `yaml:"tokenFile"`
	Exec     *execPart `yaml:"exec"`
}

// readKubeconfig reads the current context of a kubeconfig. Paths in it are relative to its directory.
func readKubeconfig(file string) (access, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return access{}, fmt.Errorf("read kubeconfig: %w", err)
	}
	a, err := parseKubeconfig(file, data)
	if err != nil {
		return access{}, fmt.Errorf("read kubeconfig %s: %w", file, err)
	}
	return a, nil
}

func parseKubeconfig(file string, data []byte) (access, error) {
	var k kubeconfigFile
	if err := yaml.Unmarshal(data, &k); err != nil {
		return access{}, errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	cluster, user, err := k.current()
	if err != nil {
		return access{}, err
	}
	a := access{file: file}
	if err := a.setCluster(cluster); err != nil {
		return access{}, err
	}
	return a, a.setUser(user)
}

// current returns the cluster and the user that the current context names. As in the kubelet's own loader, a file with one
// context needs no current-context.
func (k kubeconfigFile) current() (clusterPart, userPart, error) {
	for _, c := range k.Contexts {
		if c.Name != k.CurrentContext && (k.CurrentContext != "" || len(k.Contexts) > 1) {
			continue
		}
		for _, cluster := range k.Clusters {
			if cluster.Name != c.Context.Cluster {
				continue
			}
			for _, user := range k.Users {
				if user.Name == c.Context.User {
					return cluster.Cluster, user.User, nil
				}
			}
			return clusterPart{}, userPart{}, fmt.Errorf("context %q names user %q, which is not in it", c.Name, c.Context.User)
		}
		return clusterPart{}, userPart{}, fmt.Errorf("context %q names cluster %q, which is not in it", c.Name, c.Context.Cluster)
	}
	return clusterPart{}, userPart{}, fmt.Errorf("its current-context %q is not in it", k.CurrentContext)
}

func (a *access) setCluster(c clusterPart) (err error) {
	if a.server, err = url.Parse(c.Server); err != nil || a.server.Scheme != "https" || a.server.Host == "" {
		return fmt.Errorf("server %q is not an https URL; the pin is written over TLS only", c.Server)
	}
	if c.Insecure {
		return errors.New("insecure-skip-tls-verify would give the kubelet's credentials to any server; name a certificate-authority")
	}
	if c.Proxy != "" {
		if a.proxy, err = url.Parse(c.Proxy); err != nil || a.proxy.Host == "" {
			return fmt.Errorf("proxy-url %q is not a URL", c.Proxy)
		}
	}
	a.name = c.Name
	a.ca, err = a.pem("certificate-authority", c.CA, c.CAData)
	return err
}

func (a *access) setUser(u userPart) (err error) {
	if a.cert, err = a.pem("client-certificate", u.Cert, u.CertData); err != nil {
		return err
	}
	if a.key, err = a.pem("client-key", u.Key, u.KeyData); err != nil {
		return err
	}
	a.token, a.tokenAt = u.Token, a.path(u.TokenAt)
	if u.Exec != nil {
		if a.eks, err = u.Exec.eks(); err != nil {
			return err
		}
	}
	switch {
	case a.cert.given() != a.key.given():
		return errors.New("client-certificate and client-key go together, and one of them is missing")
	case !a.cert.given() && a.token == "" && a.tokenAt == "" && a.eks == nil:
		return errors.New("its user has no client certificate, token or exec of aws eks get-token; only these are understood")
	}
	return nil
}

// pem prefers data in the kubeconfig to a file, as client-go does.
func (a *access) pem(key, file, data string) (pemBytes, error) {
	if data == "" {
		return pemBytes{file: a.path(file)}, nil
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(data), ""))
	if err != nil {
		return pemBytes{}, fmt.Errorf("%s-data is not base64", key)
	}
	return pemBytes{data: decoded}, nil
}

func (a *access) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(a.file), name)
}

// tls returns the configuration of connections to the API server. Each connection reads the client's certificate again.
func (a *access) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.name}
	if a.ca.given() {
		pem, err := a.ca.read()
		if err != nil {
			return nil, fmt.Errorf("read certificate-authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificate-authority of %s: there is no certificate in it", a.file)
		}
	}
	if a.cert.given() {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.certificate() }
	}
	return config, nil
}

func (a *access) certificate() (*tls.Certificate, error) {
	cert, err := a.cert.read()
	if err != nil {
		return nil, fmt.Errorf("read client-certificate: %w", err)
	}
	key, err := a.key.read()
	if err != nil {
		return nil, fmt.Errorf("read client-key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read client certificate of %s: %w", a.file, err)
	}
	return &pair, nil
}

func (a *access) proxyOf() func(*http.Request) (*url.URL, error) {
	if a.proxy != nil {
		return http.ProxyURL(a.proxy)
	}
	return http.ProxyFromEnvironment
}
