package cloud

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// store is Parameter Store as far as announcing goes, in AWS JSON 1.1.
type store struct {
	mu     sync.Mutex
	values map[string]string
	writes int
	refuse string                   // error code of every answer
	read   func(name string) string // what is read, if it is not what was written last
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{values: make(map[string]string)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	setEnvironment(t)
	t.Setenv("AWS_ENDPOINT_URL_SSM", server.URL)
	return s
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in struct {
		Names       []string
		Name, Value string
		Type        string
		Overwrite   bool
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		panic(err)
	}
	fail := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": "because"})
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	action := r.Header.Get("X-Amz-Target")
	_, exists := s.values[in.Name]
	switch {
	case s.refuse != "":
		fail(s.refuse)
	case action == "AmazonSSM.GetParameters":
		out := struct{ Parameters []map[string]string }{}
		for _, name := range in.Names {
			value, ok := s.values[name]
			if s.read != nil {
				value = s.read(name)
				ok = value != ""
			}
			if ok {
				out.Parameters = append(out.Parameters, map[string]string{"Name": name, "Value": value})
			}
		}
		json.NewEncoder(w).Encode(out)
	case action != "AmazonSSM.PutParameter":
		fail("UnknownOperationException")
	case exists && !in.Overwrite:
		fail("ParameterAlreadyExists")
	case !exists && in.Type == "":
		fail("ValidationException")
	default:
		s.values[in.Name] = in.Value
		s.writes++
		fmt.Fprint(w, `{"Version": 1}`)
	}
}

const parameter = "/lastgasp/prod-1/eu-west-1/endpoint"

func announcer(address, zone string) *Announcer {
	return &Announcer{
		Parameter: "/lastgasp/{cluster}/{region}/endpoint", Cluster: "prod-1", Address: address, Zone: zone,
		Account: NewAccount(nil), Log: slog.New(slog.DiscardHandler),
	}
}

func (s *store) list(t *testing.T) []entry {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := parseList(s.values[parameter])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Parameter Store knows no compare and swap: of writers at the same time the last one wins.
func TestReplicasThatStartAtOnceAreAllAnnouncedAndThenQuiet(t *testing.T) {
	s := newStore(t)
	replicas := []*Announcer{
		announcer("10.0.1.10:6666", "euw1-az1"), announcer("10.0.2.10:6666", "euw1-az2"), announcer("10.0.3.10:6666", "euw1-az3"),
	}
	s.values[parameter] = "10.0.9.9:6666"
	s.read = func(string) string { return "10.0.9.9:6666" } // they all have read before any has written
	for _, a := range replicas {
		if wait := a.turn(t.Context()); wait != checkSoon {
			t.Errorf("next look after %s, want %s", wait, checkSoon)
		}
	}
	s.read = nil
	if n := len(s.list(t)); n != 2 {
		t.Fatalf("%d entries: the later writers did not overwrite the earlier", n)
	}
	for range 3 {
		for _, a := range replicas {
			a.turn(t.Context())
		}
	}
	want := []entry{{"10.0.9.9:6666", ""}, {"10.0.1.10:6666", "euw1-az1"}, {"10.0.2.10:6666", "euw1-az2"}, {"10.0.3.10:6666", "euw1-az3"}}
	if diff := cmp.Diff(want, s.list(t)); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	writes := s.writes
	for range 10 {
		for _, a := range replicas {
			if wait := a.turn(t.Context()); wait != checkEvery {
				t.Errorf("next look after %s, want %s", wait, checkEvery)
			}
		}
	}
	if s.writes != writes {
		t.Errorf("%d more writes, each of which reloads a fleet", s.writes-writes)
	}
}

func TestAParameterThatAppearsMeanwhileIsNotOverwritten(t *testing.T) {
	s := newStore(t)
	s.values[parameter] = "10.0.2.10:6666"
	s.read = func(string) string { return "" }
	if wait := announcer("10.0.1.10:6666", "euw1-az1").turn(t.Context()); wait != againMin {
		t.Errorf("next look after %s, want %s", wait, againMin)
	}
	if s.writes > 0 {
		t.Errorf("overwritten with %q", s.values[parameter])
	}
}

func TestReplicasOfOneZoneDoNotFight(t *testing.T) {
	s := newStore(t)
	old, successor := announcer("10.0.1.10:6666", "euw1-az1"), announcer("10.0.1.20:6666", "euw1-az1")
	old.turn(t.Context())
	successor.turn(t.Context())
	for range 10 {
		old.turn(t.Context())
		successor.turn(t.Context())
	}
	if diff := cmp.Diff([]entry{{"10.0.1.20:6666", "euw1-az1"}}, s.list(t)); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	if s.writes != 2 {
		t.Errorf("%d writes, want one each", s.writes)
	}
	delete(s.values, parameter) // somebody starts over
	old.turn(t.Context())
	if diff := cmp.Diff([]entry{{"10.0.1.10:6666", "euw1-az1"}}, s.list(t)); diff != "" {
		t.Errorf("announced after the parameter was deleted (-want +got):\n%s", diff)
	}
}

func TestClustersDoNotOverwriteEachOther(t *testing.T) {
	s := newStore(t)
	blue, green := announcer("10.0.1.10:6666", "euw1-az1"), announcer("10.1.1.10:6666", "euw1-az1")
	blue.Cluster, green.Cluster = "blue", "green"
	for range 3 {
		blue.turn(t.Context())
		green.turn(t.Context())
	}
	want := map[string]string{
		"/lastgasp/blue/eu-west-1/endpoint":  format([]entry{{"10.0.1.10:6666", "euw1-az1"}}),
		"/lastgasp/green/eu-west-1/endpoint": format([]entry{{"10.1.1.10:6666", "euw1-az1"}}),
	}
	if diff := cmp.Diff(want, s.values); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
}

func TestAListenerThatMovesReplacesItsEntry(t *testing.T) {
	s := newStore(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true") // nobody knows the zone
	a := announcer("10.0.1.10:6666", "")
	a.turn(t.Context())
	a.Address = "10.0.1.30:6666"
	a.turn(t.Context())
	if diff := cmp.Diff([]entry{{"10.0.1.30:6666", ""}}, s.list(t)); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
}

func TestAnUnreadableParameterIsLeftAlone(t *testing.T) {
	s := newStore(t)
	s.values[parameter] = "see the wiki"
	if wait := announcer("10.0.1.10:6666", "euw1-az1").turn(t.Context()); wait != againMin {
		t.Errorf("next look after %s", wait)
	}
	if s.writes > 0 {
		t.Errorf("overwritten with %q", s.values[parameter])
	}
}

func TestFailuresAreRepeatedLessAndLess(t *testing.T) {
	s := newStore(t)
	s.refuse = "AccessDeniedException"
	a := announcer("10.0.1.10:6666", "euw1-az1")
	want := againMin
	for range 12 {
		if wait := a.turn(t.Context()); wait != want {
			t.Fatalf("next look after %s, want %s", wait, want)
		}
		want = min(2*want, againMax)
	}
	s.refuse = ""
	if wait := a.turn(t.Context()); wait != checkSoon || a.failures != 0 {
		t.Errorf("next look after %s and %d failures", wait, a.failures)
	}
}

func TestAParameterOfItsZoneNeedsAZone(t *testing.T) {
	newStore(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	a := announcer("10.0.1.10:6666", "")
	a.Parameter = "/lastgasp/{az-id}/endpoint"
	if _, _, err := a.announce(t.Context()); err == nil {
		t.Error("announced nowhere in particular")
	}
}
