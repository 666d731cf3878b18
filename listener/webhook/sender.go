package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	queued       = 1024             // events that wait at most
	every        = time.Second      // how often the deaths on record are looked at
	sinceBefore  = time.Minute      // deaths that old at the start are sent: the clock that dates them may be behind
	callTimeout  = 10 * time.Second // for one request
	firstPause   = time.Second      // after the first failure; it doubles
	longestPause = time.Minute
	giveUpAfter  = 15 * time.Minute // a page about a death is worth less and less
)

// Sender sends events to one URL.
type Sender struct {
	URL        string
	SecretFile string // the key that requests are signed with, read again for each; empty: they are not signed
	Cluster    string // name of the cluster
	Replica    string // name of this listener, as in Death.Owner
	// Deaths lists the NodeDeaths on record, from a cache; traces and pods are not needed.
	Deaths func() ([]policy.Death, error)
	Log    *slog.Logger

	transport                   http.RoundTripper // nil outside of tests
	delivered, refused, dropped atomic.Int64
}

// Counts says what became of events: delivered, refused by the receiver, or dropped because it could not be reached or too many
// were waiting.
func (s *Sender) Counts() (delivered, refused, dropped int64) {
	return s.delivered.Load(), s.refused.Load(), s.dropped.Load()
}

// Run sends until ctx ends. What waits then is lost: the NodeDeaths are on record.
func (s *Sender) Run(ctx context.Context) error {
	queue := make(chan Event, queued)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-queue:
				s.deliver(ctx, e)
			}
		}
	}()
	w := &watch{cluster: s.Cluster, replica: s.Replica, since: time.Now().Add(-sinceBefore)}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if deaths, err := s.Deaths(); err == nil { // an error: they have not been listed yet
			for _, e := range w.changes(deaths) {
				select {
				case queue <- e:
				default:
					s.drop(e, errors.New("too many events are waiting"))
				}
			}
		}
		select {
		case <-ctx.Done():
			<-done
			return nil
		case <-tick.C:
		}
	}
}

// errRefused: the receiver will not take this event, however often it is sent.
var errRefused = errors.New("refused")

// deliver sends one event, again and again for giveUpAfter.
func (s *Sender) deliver(ctx context.Context, e Event) {
	client := &http.Client{
		Transport:     s.transport,
		Timeout:       callTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the signature is for this URL
	}
	give := time.Now().Add(giveUpAfter)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		wait, err := s.send(ctx, client, e)
		switch {
		case err == nil:
			s.delivered.Add(1)
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, errRefused):
			s.refused.Add(1)
			s.Log.Error("webhook refused; check webhook.url, webhook.secretFile and the receiver", "death", e.Subject, "event", e.Type, "err", err)
			return
		case time.Now().After(give):
			s.drop(e, err)
			return
		case pause == firstPause:
			s.Log.Warn("webhook not delivered yet; it will be sent again", "death", e.Subject, "event", e.Type, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(max(wait, pause), longestPause)):
		}
	}
}

func (s *Sender) drop(e Event, err error) {
	s.dropped.Add(1)
	s.Log.Error("webhook dropped; the NodeDeath is on record", "death", e.Subject, "event", e.Type, "err", err)
}

// send makes one request. wait is how long the receiver asks to wait before the next one. Errors do not name the URL, which may
// hold a secret.
func (s *Sender) send(ctx context.Context, client *http.Client, e Event) (wait time.Duration, err error) {
	body := e.body()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("%w: webhook.url is not a URL", errRefused)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "lastgasp-listener")
	if s.SecretFile != "" {
		key, err := readKey(s.SecretFile)
		if err != nil {
			return 0, fmt.Errorf("read webhook.secretFile: %w", err)
		}
		sign(req.Header, key, e.ID, time.Now(), body)
	}
	resp, err := client.Do(req)
	if err != nil {
		if wrong := new(url.Error); errors.As(err, &wrong) {
			err = wrong.Err
		}
		return 0, fmt.Errorf("send event: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // the connection is used again
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return 0, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code/100 == 5:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // 0 if it is a date
		return time.Duration(seconds) * time.Second, fmt.Errorf("the receiver answered %s", resp.Status)
	}
	return 0, fmt.Errorf("%w: the receiver answered %s", errRefused, resp.Status)
}

// readKey reads a key: base64 after whsec_, as Standard Webhooks writes it, or any text.
func readKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSpace(text)
	if coded, ok := bytes.CutPrefix(text, []byte("whsec_")); ok {
		return base64.StdEncoding.DecodeString(string(coded))
	}
	if len(text) == 0 {
		return nil, errors.New("it is empty")
	}
	return text, nil
}

// sign writes the headers of Standard Webhooks: an HMAC-SHA256 over id, time and body.
func sign(h http.Header, key []byte, id string, now time.Time, body []byte) {
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", at)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
