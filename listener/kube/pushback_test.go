package kube

import (
	"errors"
	"net/http"
	"testing"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestObeying(t *testing.T) {
	for _, tt := range []struct{ name, asked, want string }{
		{"no longer than a second", "32", "1"},
		{"a second if that is asked for", "1", "1"},
		{"at once if that is asked for", "0", "0"},
		{"a date is left to client-go", "Sun, 22 Nov 2026 01:40:00 GMT", "Sun, 22 Nov 2026 01:40:00 GMT"},
		{"nothing asked, nothing said", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := roundTrip(func(*http.Request) (*http.Response, error) {
				resp := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{}}
				if tt.asked != "" {
					resp.Header.Set("Retry-After", tt.asked)
				}
				return resp, nil
			})
			resp, err := obeying{server}.RoundTrip(new(http.Request))
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Retry-After"); got != tt.want {
				t.Errorf("asked to wait %q: %q, want %q", tt.asked, got, tt.want)
			}
		})
	}
	t.Run("no answer is passed on", func(t *testing.T) {
		away := errors.New("away")
		server := roundTrip(func(*http.Request) (*http.Response, error) { return nil, away })
		if _, err := (obeying{server}).RoundTrip(new(http.Request)); !errors.Is(err, away) {
			t.Errorf("error %v, want %v", err, away)
		}
	})
}
