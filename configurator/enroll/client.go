package enroll

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	// callTimeout is for one request with its answer. The server bounds a watch.
	callTimeout = 30 * time.Second
	maxAnswer   = 4 << 20 // bytes; etcd takes no object larger than 1.5 MiB
	maxReason   = 300     // bytes of a server's error message
)

// client speaks to one API server with the credentials of a kubeconfig.
type client struct {
	access access
	http   *http.Client
	agent  string                                // User-Agent
	eks    func(context.Context) (string, error) // nil: the token is in the kubeconfig, if there is one
}

// newClient reads the files that the kubeconfig names. A nil dial means the network.
func newClient(a access, agent string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*client, error) {
	config, err := a.tls()
	if err != nil {
		return nil, err
	}
	return &client{access: a, agent: agent, http: &http.Client{
		// HTTP/1.1 connections have TCP keepalives: if the peer is gone, the watch ends within minutes.
		Transport: &http.Transport{
			Proxy: a.proxyOf(), DialContext: dial, TLSClientConfig: config,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: callTimeout,
			MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this server
	}}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// apiError is an answer other than success.
type apiError struct {
	code   int
	reason string
}

func (e *apiError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s: %s", e.code, http.StatusText(e.code), e.reason))
}

// do sends one request. The caller closes the body of the answer.
func (c *client) do(ctx context.Context, method, path string, query url.Values, contentType string, body []byte) (*http.Response, error) {
	u := c.access.server.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, answerError(res)
	}
	return res, nil
}

// token returns the bearer token for the next request, empty if there is none.
func (c *client) token(ctx context.Context) (string, error) {
	switch {
	case c.eks != nil:
		return c.eks(ctx)
	case c.access.tokenAt != "":
		data, err := os.ReadFile(c.access.tokenAt)
		if err != nil {
			return "", fmt.Errorf("read token file: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	}
	return c.access.token, nil
}

// call is do for an answer that is one object, which it decodes into to.
func (c *client) call(ctx context.Context, method, path string, query url.Values, contentType string, body []byte, to any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := c.do(ctx, method, path, query, contentType, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// answerError makes an error from an API server's Status, or from the text of whatever else answered.
func answerError(res *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // a part of it is better than nothing
	var status struct {
		Message string `json:"message"`
	}
	reason := string(data)
	if json.Unmarshal(data, &status) == nil && status.Message != "" {
		reason = status.Message
	}
	return &apiError{code: res.StatusCode, reason: printable(reason)}
}

// printable makes one printable line, of bounded length, of text from outside.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

const nodeUser = "system:node:"

// whoAmI returns the name of the Node that the credentials belong to. It asks the API server: NodeRestriction treats only a
// user system:node:<name> in group system:nodes as a kubelet.
func (c *client) whoAmI(ctx context.Context) (string, error) {
	var review struct {
		Status struct {
			UserInfo struct {
				Username string   `json:"username"`
				Groups   []string `json:"groups"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	err := c.call(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", nil, "application/json",
		[]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`), &review)
	var answer *apiError
	if errors.As(err, &answer) && answer.code == http.StatusNotFound {
		return "", errors.New("ask who these credentials are: the API server has no SelfSubjectReview; Kubernetes 1.28 or later is needed")
	}
	if err != nil {
		return "", fmt.Errorf("ask who these credentials are: %w", err)
	}
	user := review.Status.UserInfo
	name, ok := strings.CutPrefix(user.Username, nodeUser)
	if !ok || name == "" {
		return "", fmt.Errorf("these credentials belong to %q, which is not a node; set enroll.kubeconfig to the kubelet's own", printable(user.Username))
	}
	if slices.Contains(user.Groups, "system:nodes") {
		return name, nil
	}
	return "", fmt.Errorf("these credentials belong to %q outside of the group system:nodes, so the API server would not restrict them to one node; set enroll.kubeconfig to the kubelet's own", printable(user.Username))
}

// only selects the Node of this name: the Node authorizer lets a kubelet list and watch no other.
func only(name string) url.Values { return url.Values{"fieldSelector": {"metadata.name=" + name}} }

// get returns the Node, nil if there is none, and the resource version at which a watch continues. It lists, because a list
// gives that version even before the Node exists. The server may answer from its cache; the watch brings what that lacks.
func (c *client) get(ctx context.Context, name string) (*node, string, error) {
	query := only(name)
	query.Set("resourceVersion", "0")
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []node `json:"items"`
	}
	if err := c.call(ctx, http.MethodGet, "/api/v1/nodes", query, "", nil, &list); err != nil {
		return nil, "", fmt.Errorf("read Node %s: %w", name, err)
	}
	if len(list.Items) == 0 {
		return nil, list.Metadata.ResourceVersion, nil
	}
	return &list.Items[0], list.Metadata.ResourceVersion, nil
}

// pin writes the pin to the Node, if that is still the same object, and returns the Node afterwards.
func (c *client) pin(ctx context.Context, name string, n *node, p Pin) (*node, error) {
	after, err := c.patch(ctx, name, map[string]any{
		"metadata": map[string]any{"uid": n.Metadata.UID, "annotations": map[string]string{PinKey: p.String()}},
	})
	if err != nil {
		return nil, fmt.Errorf("pin this boot to Node %s: %w", name, err)
	}
	return after, nil
}

// cordon marks the Node unschedulable, if it is still the same object.
func (c *client) cordon(ctx context.Context, name string, n *node) error {
	_, err := c.patch(ctx, name, map[string]any{
		"metadata": map[string]any{"uid": n.Metadata.UID}, "spec": map[string]any{"unschedulable": true},
	})
	return err
}

// patch applies a merge patch to the Node and returns it as it is then. The uid in it is a precondition.
func (c *client) patch(ctx context.Context, name string, patch any) (*node, error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	var after node
	return &after, c.call(ctx, http.MethodPatch, "/api/v1/nodes/"+url.PathEscape(name), url.Values{"fieldManager": {"lastgasp-configurator"}},
		"application/merge-patch+json", body, &after)
}

// event is one event of a watch.
type event struct {
	node    *node  // the Node as it is now, nil if it was deleted
	version string // resource version at which a watch continues
	marker  bool   // a bookmark: only the version has changed
}

// watch sends the Node's events until the server ends the watch (nil), ctx ends or something fails.
func (c *client) watch(ctx context.Context, name, version string, lasts time.Duration, send func(event)) error {
	query := only(name)
	query.Set("watch", "1")
	query.Set("resourceVersion", version)
	query.Set("allowWatchBookmarks", "true")
	query.Set("timeoutSeconds", fmt.Sprint(int(lasts.Seconds())))
	res, err := c.do(ctx, http.MethodGet, "/api/v1/nodes", query, "", nil)
	if err != nil {
		return fmt.Errorf("watch Node %s: %w", name, err)
	}
	defer res.Body.Close()
	for in := json.NewDecoder(res.Body); ; {
		var line struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := in.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("watch Node %s: %w", name, err)
		}
		e, err := line2event(line.Type, line.Object)
		if err != nil {
			return fmt.Errorf("watch Node %s: %w", name, err)
		}
		send(e)
	}
}

func line2event(kind string, object []byte) (event, error) {
	if kind == "ERROR" {
		var status struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal(object, &status); err != nil {
			return event{}, err
		}
		return event{}, &apiError{code: status.Code, reason: printable(status.Message)}
	}
	var n node
	if err := json.Unmarshal(object, &n); err != nil {
		return event{}, err
	}
	e := event{version: n.Metadata.ResourceVersion}
	switch kind {
	case "ADDED", "MODIFIED":
		e.node = &n
	case "BOOKMARK":
		e.marker = true
	case "DELETED":
	default:
		return event{}, fmt.Errorf("an event of type %q is unknown", printable(kind))
	}
	return e, nil
}
