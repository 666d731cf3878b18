package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"
)

const (
	// storedAtOnce is how many objects one transaction of etcd writes; it takes 128 at most (--max-txn-ops).
	storedAtOnce = 100
	// storesInFlight keeps both cores busy, ours and etcd's.
	storesInFlight = 4
)

// Stored is one object as the API server keeps it: its key in etcd, /registry/pods/default/web-0, and its encoding.
type Stored struct {
	Key   string
	Value []byte
}

// Store writes objects directly to etcd, as another API server would. It is for clusters that are too large to be made through
// the API.
func (c *Cluster) Store(ctx context.Context, objects []Stored) error {
	client, err := c.etcdClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(storesInFlight)
	for batch := range slices.Chunk(objects, storedAtOnce) {
		g.Go(func() error { return store(ctx, client, batch) })
	}
	return g.Wait()
}

// store is one transaction through etcd's own HTTP gateway (etcd api/etcdserverpb/rpc.proto: KV.Txn).
func store(ctx context.Context, client *http.Client, batch []Stored) error {
	type put struct {
		Key   []byte `json:"key"` // both are base64 in JSON
		Value []byte `json:"value"`
	}
	type operation struct {
		Put put `json:"requestPut"`
	}
	var txn struct {
		Success []operation `json:"success"`
	}
	for _, o := range batch {
		txn.Success = append(txn.Success, operation{put{[]byte(o.Key), o.Value}})
	}
	body, err := json.Marshal(txn)
	if err != nil {
		return fmt.Errorf("store objects: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://127.0.0.1:"+etcdPort+"/v3/kv/txn", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("store objects: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("store objects: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd answers %s: %s", resp.Status, answer)
	}
	if err != nil {
		return fmt.Errorf("store objects: %w", err)
	}
	return nil
}

// etcdClient is known to etcd as the API server is.
func (c *Cluster) etcdClient() (*http.Client, error) {
	pair, err := c.ca.client("etcd-writer")
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.cert, pair.key)
	if err != nil {
		return nil, fmt.Errorf("reach etcd: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.ca.pem)
	return &http.Client{Transport: &http.Transport{
		DialContext:         c.spec.NS.Dial,
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}},
		MaxIdleConnsPerHost: storesInFlight,
	}}, nil
}
