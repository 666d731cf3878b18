package kube

import (
	"net/http"
	"strconv"
)

// longestRetryAfter is how many seconds a call waits at most before it is repeated, whatever the API server asks for.
// Priority and fairness asks for more with every request it rejects, up to 32 s (k8s.io/apiserver
// pkg/util/flowcontrol/dropped_requests_tracker.go). That is longer than cleanup gives a call, and a waiting call holds
// up its node while the API server would take others. There are so few calls that repeating each once a second does no harm.
const longestRetryAfter = 1

// obeying shortens the Retry-After that client-go obeys.
type obeying struct{ server http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (o obeying) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.server.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > longestRetryAfter {
		resp.Header.Set("Retry-After", strconv.Itoa(longestRetryAfter))
	}
	return resp, nil
}
