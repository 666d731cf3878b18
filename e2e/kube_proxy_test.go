//go:build e2e

package e2e

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// meddle does to one API call what a test wants. pass sends it on to the API server, and the answer to whomever it is
// given; panic(http.ErrAbortHandler) cuts the caller's connection.
type meddle func(rw http.ResponseWriter, r *http.Request, pass http.Handler)

// proxy puts m between the API server and whoever uses the kubeconfig that it returns: the listener's service account.
func (w *kubeWorld) proxy(t *testing.T, m meddle) (kubeconfig string) {
	t.Helper()
	api, err := url.Parse(w.account.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(w.account))
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(api)
			r.Out.Header.Set("Authorization", "Bearer "+w.account.BearerToken) // clients keep theirs where there is no TLS
		},
		Transport:     transport,
		FlushInterval: -1, // watches
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	var listener net.Listener
	err = w.ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:  http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { m(rw, r, pass) }),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	config := clientcmdapi.NewConfig()
	config.Clusters["proxy"] = &clientcmdapi.Cluster{Server: "http://" + listener.Addr().String()}
	config.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	config.CurrentContext = "proxy"
	kubeconfig = filepath.Join(t.TempDir(), "proxy.kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// ofCaches reports whether a call only fills a cache, renews the replica's Lease or proves a policy. Listeners make these all
// the time; all others belong to a cleanup.
func ofCaches(r *http.Request) bool {
	return r.Method == http.MethodGet &&
		(r.URL.Path == "/api/v1/nodes" || r.URL.Path == "/apis/lastgasp.dev/v1alpha1/nodedeaths") ||
		strings.Contains(r.URL.Path, "/namespaces/lastgasp/leases") || r.URL.Query().Has("dryRun")
}
