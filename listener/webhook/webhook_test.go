package webhook

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

var start = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

func death(name string, phase policy.Phase, owner string, created time.Duration) policy.Death {
	return policy.Death{
		Name: name, UID: "uid-" + name, Node: "node-" + name, Created: start.Add(created), Time: start, Cause: "KernelPanic",
		Reason: "sysrq triggered crash", Phase: phase, Owner: owner, Authority: detect.Pinned, PodsTotal: 7, PodsFailed: 3,
	}
}

// explained is d with another cause and reason.
func explained(d policy.Death) policy.Death {
	d.Cause, d.Reason = "HardLockup", "hard LOCKUP in foo"
	return d
}

func TestChanges(t *testing.T) {
	type look []policy.Death
	for _, tt := range []struct {
		name  string
		looks []look
		want  []string // type and id
	}{
		{"nothing", []look{{}, {}}, nil},
		{
			"a death from its beginning to its end", []look{
				{}, {death("a", "", "", 1)}, {death("a", policy.Pending, "me", 1)}, {death("a", policy.Cleaning, "me", 1)},
				{death("a", policy.Cleaned, "me", 1)}, {death("a", policy.Cleaned, "me", 1)}, {},
			},
			[]string{"created uid-a/Pending", "changed uid-a/Cleaned"},
		},
		{
			"one that is seen only when it is over", []look{{death("a", policy.Cleaned, "me", 1)}},
			[]string{"created uid-a/Cleaned"},
		},
		{
			"of one from before the start only what changes", []look{{death("a", policy.Pending, "me", -1)}, {death("a", policy.Cleaned, "me", -1)}},
			[]string{"changed uid-a/Cleaned"},
		},
		{"one that was over before the start", []look{{death("a", policy.Cleaned, "me", -1)}, {death("a", policy.Cleaned, "me", -1)}}, nil},
		{"another replica's", []look{{death("a", policy.Pending, "other", 1)}, {death("a", policy.Cleaned, "other", 1)}}, nil},
		{
			"one that was another replica's", []look{{death("a", policy.Pending, "other", 1)}, {death("a", policy.Cleaning, "me", 1)}, {death("a", policy.Incomplete, "me", 1)}},
			[]string{"changed uid-a/Incomplete"},
		},
		{
			"held, and released", []look{{death("a", policy.Held, "me", 1)}, {death("a", policy.Cleaning, "me", 1)}, {death("a", policy.Cleaned, "me", 1)}},
			[]string{"created uid-a/Held", "changed uid-a/Cleaned"},
		},
		{
			"one that is explained afterwards, of whichever time", []look{
				{death("a", policy.Recorded, "me", 1), death("old", policy.Recorded, "me", -1)},
				{explained(death("a", policy.Recorded, "me", 1)), explained(death("old", policy.Recorded, "me", -1))},
				{explained(death("a", policy.Recorded, "me", 1)), explained(death("old", policy.Recorded, "me", -1))},
			},
			[]string{"created uid-a/Recorded", "amended uid-old/Recorded/b3ade89e", "amended uid-a/Recorded/b3ade89e"},
		},
		{
			"one whose reason gets better while its node is cleaned up", []look{
				{death("a", policy.Cleaning, "me", 1)}, {explained(death("a", policy.Cleaning, "me", 1))}, {explained(death("a", policy.Cleaned, "me", 1))},
			},
			[]string{"created uid-a/Cleaning", "changed uid-a/Cleaned"},
		},
		{
			"one that another replica explains, which owns it now", []look{
				{death("a", policy.Recorded, "other", 1)}, {death("a", policy.Recorded, "me", 1)}, {explained(death("a", policy.Recorded, "me", 1))},
			},
			[]string{"amended uid-a/Recorded/b3ade89e"},
		},
		{
			"more evidence for the same reason", []look{
				{death("a", policy.Recorded, "me", 1)}, {func() policy.Death {
					d := death("a", policy.Recorded, "me", 1)
					d.Evidence = []policy.Evidence{policy.ByPstore}
					return d
				}()},
			},
			[]string{"created uid-a/Recorded"},
		},
		{
			"two, the older one first", []look{{death("b", policy.Pending, "me", 2), death("a", policy.Pending, "me", 1)}},
			[]string{"created uid-a/Pending", "created uid-b/Pending"},
		},
		{
			"one that is deleted and comes again as another", []look{{death("a", policy.Refused, "me", 1)}, {}, {func() policy.Death {
				d := death("a", policy.Pending, "me", 2)
				d.UID = "uid-2"
				return d
			}()}},
			[]string{"created uid-a/Refused", "created uid-2/Pending"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &watch{replica: "me", since: start}
			var got []string
			for _, deaths := range tt.looks {
				for _, e := range w.changes(deaths) {
					got = append(got, strings.TrimPrefix(e.Type, "dev.lastgasp.nodedeath.")+" "+e.ID)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// The body is an interface.
func TestBody(t *testing.T) {
	const want = `{"specversion":"1.0","id":"uid-a/Cleaned","source":"/lastgasp/prod-1","type":"dev.lastgasp.nodedeath.changed",` +
		`"subject":"a","time":"2026-11-26T10:00:00Z","datacontenttype":"application/json","data":{"name":"a","node":"node-a",` +
		`"cause":"KernelPanic","reason":"sysrq triggered crash","authority":"pinned","phase":"Cleaned","pods":7,"podsFailed":3,` +
		`"summary":"node-a died: sysrq triggered crash (Cleaned)"}}`
	if diff := cmp.Diff(want, string(event(Changed, "prod-1", death("a", policy.Cleaned, "me", 1)).body())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	amended := event(Amended, "prod-1", explained(death("a", policy.Recorded, "me", 1)))
	amended.before("Unexplained", "the boot ended without a word")
	const wantAmended = `{"specversion":"1.0","id":"uid-a/Recorded/b3ade89e","source":"/lastgasp/prod-1","type":"dev.lastgasp.nodedeath.amended",` +
		`"subject":"a","time":"2026-11-26T10:00:00Z","datacontenttype":"application/json","data":{"name":"a","node":"node-a",` +
		`"cause":"HardLockup","reason":"hard LOCKUP in foo","authority":"pinned","phase":"Recorded","pods":7,"podsFailed":3,` +
		`"before":{"cause":"Unexplained","reason":"the boot ended without a word"},` +
		`"summary":"node-a died: hard LOCKUP in foo (Recorded); until now it was known as: the boot ended without a word"}}`
	if diff := cmp.Diff(wantAmended, string(amended.body())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	unknown := policy.Death{Name: "x", Source: netip.MustParseAddrPort("10.0.0.9:6665"), Reason: "x"}
	if got := event(Died, "", unknown); got.Data.Summary != "10.0.0.9 died: x (Pending)" || got.Source != "/lastgasp" {
		t.Errorf("%+v", got)
	}
	for _, tt := range []struct {
		name string
		d    policy.Death
		want string
	}{
		{"refused", death("a", policy.Refused, "me", 1), "node-a was said to have died: sysrq triggered crash (Refused)"},
		{"known by its instance only", policy.Death{Instance: "i-1", Reason: "x"}, "i-1 died: x (Pending)"},
	} {
		if got := event(Died, "", tt.d).Data.Summary; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// The API server's clock has whole seconds, and is another one. Twice is better than never.
func TestADeathOfTheFirstSecondsIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{codes: []int{200}}
		before, past := death("before", policy.Cleaned, "me", 0), death("past", policy.Cleaned, "me", 0)
		before.Created, past.Created = time.Now().Add(-5*time.Second), time.Now().Add(-time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		s := &Sender{
			URL: "https://hooks.example.com", Replica: "me", Log: slog.New(slog.DiscardHandler), transport: r,
			Deaths: func() ([]policy.Death, error) { return []policy.Death{before, past}, nil },
		}
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(5 * time.Second) // of the bubble
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"uid-before/Cleaned"}, r.got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// The example of the specification's own libraries: its signature is known.
func TestSign(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := readKey(file)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	sign(h, key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got, want := h.Get("Webhook-Signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
	if h.Get("Webhook-Id") != "msg_p5jXN8AQM9LWM0D4loKWxJek" || h.Get("Webhook-Timestamp") != "1614265330" {
		t.Errorf("headers %v", h)
	}
}

// receiver answers with one code after the other, and with the last one from then on.
type receiver struct {
	codes []int

	mu  sync.Mutex
	got []string // ids
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	var e Event
	if err := json.NewDecoder(req.Body).Decode(&e); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	code := r.codes[min(len(r.got), len(r.codes)-1)]
	r.got = append(r.got, e.ID)
	if code == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: http.Header{}, Body: http.NoBody}, nil
}

func TestDeliver(t *testing.T) {
	for _, tt := range []struct {
		name                        string
		codes                       []int
		requests                    int
		delivered, refused, dropped int64
	}{
		{"taken", []int{202}, 1, 1, 0, 0},
		{"taken after two faults", []int{0, 503, 200}, 3, 1, 0, 0},
		{"too many requests", []int{429, 204}, 2, 1, 0, 0},
		{"refused", []int{403}, 1, 0, 1, 0},
		{"a redirect is a refusal", []int{307}, 1, 0, 1, 0},
		{"never taken", []int{500}, 21, 0, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{codes: tt.codes}
				s := &Sender{URL: "https://hooks.example.com/secret", Log: slog.New(slog.DiscardHandler), transport: r}
				s.deliver(t.Context(), event(Died, "", death("a", policy.Pending, "me", 1)))
				delivered, refused, dropped := s.Counts()
				if len(r.got) != tt.requests || delivered != tt.delivered || refused != tt.refused || dropped != tt.dropped {
					t.Errorf("%d requests; %d delivered, %d refused, %d dropped", len(r.got), delivered, refused, dropped)
				}
			})
		})
	}
}

// A receiver that hangs delays nobody but the queue, whose end is counted.
func TestRunNeverWaitsForTheReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var deaths []policy.Death
		for range queued + 10 {
			d := death("a", policy.Pending, "me", 0)
			d.UID, d.Created = d.UID+string(rune(len(deaths))), began.Add(time.Second)
			deaths = append(deaths, d)
		}
		ctx, stop := context.WithCancel(t.Context())
		s := &Sender{
			URL: "https://hooks.example.com", Replica: "me", Log: slog.New(slog.DiscardHandler), transport: hanging{},
			Deaths: func() ([]policy.Death, error) { return deaths, nil },
		}
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(5 * time.Second) // of the bubble
		if _, _, dropped := s.Counts(); dropped < 9 {
			t.Errorf("%d dropped, want those beyond the queue", dropped)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type hanging struct{}

func (hanging) RoundTrip(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// Over a real connection: what a receiver sees, and an error that does not show the URL.
func TestSend(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := http.Header{}
		at := r.Header.Get("Webhook-Timestamp")
		seconds, err := time.ParseDuration(at + "s")
		if err != nil {
			t.Error(err)
		}
		sign(h, []byte("s3cret"), r.Header.Get("Webhook-Id"), time.Unix(0, 0).Add(seconds), body)
		if h.Get("Webhook-Signature") != r.Header.Get("Webhook-Signature") {
			t.Errorf("signature %s, want %s", r.Header.Get("Webhook-Signature"), h.Get("Webhook-Signature"))
		}
		seen <- r
	}))
	e := event(Died, "", death("a", policy.Pending, "me", 1))
	s := &Sender{URL: server.URL + "/token-in-path", SecretFile: file, Log: slog.New(slog.DiscardHandler)}
	if _, err := s.send(t.Context(), http.DefaultClient, e); err != nil {
		t.Fatal(err)
	}
	if r := <-seen; r.Method != "POST" || r.Header.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" {
		t.Errorf("%s %v", r.Method, r.Header)
	}
	server.Close()
	if _, err := s.send(t.Context(), http.DefaultClient, e); err == nil || strings.Contains(err.Error(), "token-in-path") {
		t.Errorf("without a server: %v", err)
	}
	s.SecretFile = file + ".gone"
	if _, err := s.send(t.Context(), http.DefaultClient, e); err == nil || !strings.HasPrefix(err.Error(), "read webhook.secretFile: open ") {
		t.Errorf("without a secret: %v", err)
	}
}
