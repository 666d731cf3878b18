package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)

// answer is a source as a struct of answers.
type answer struct {
	list  []Endpoint
	where string
	err   error
}

func (a answer) Find(context.Context) ([]Endpoint, string, error) { return a.list, a.where, a.err }

// unasked is a source that must not be asked.
type unasked struct{}

func (unasked) Find(context.Context) ([]Endpoint, string, error) {
	panic("a source of lower rank was asked though a higher one answered")
}

func list(t *testing.T, s string) []Endpoint {
	t.Helper()
	l, err := ParseList(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFirstSourceThatAnswersWins(t *testing.T) {
	a := list(t, "10.0.2.10:6666")
	offline := errors.New("connection refused")
	resolver := Resolver{LookupNetIP: func(_ context.Context, _, host string) ([]netip.Addr, error) {
		switch host {
		case "listener.example":
			return []netip.Addr{netip.MustParseAddr("10.0.2.10"), netip.MustParseAddr("10.0.3.10")}, nil
		case "blocked.example":
			return []netip.Addr{netip.MustParseAddr("0.0.0.0")}, nil
		case "localhost":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
		case "node.example": // Debian's /etc/hosts
			return []netip.Addr{netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("10.0.1.5")}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}}
	for _, tt := range []struct {
		name    string
		sources []Source
		where   string
		hosts   []string
		passed  []string // begin with
		err     error
	}{
		{name: "static", sources: []Source{Static{Endpoints: a, Origin: "flag --endpoint"}, unasked{}},
			where: "static, flag --endpoint", hosts: []string{"10.0.2.10"}},
		{name: "a source that is empty is passed over", sources: []Source{answer{where: "ssm", err: ErrAbsent}, answer{list: a, where: "dns x"}},
			where: "dns x", hosts: []string{"10.0.2.10"}, passed: []string{"ssm: names no listener"}},
		{name: "so is one that cannot be asked", sources: []Source{answer{where: "ssm", err: offline}, answer{list: a, where: "dns x"}},
			where: "dns x", hosts: []string{"10.0.2.10"}, passed: []string{"ssm: connection refused"}},
		{name: "names are looked up", sources: []Source{answer{list: list(t, "listener.example:6666"), where: "dns x"}},
			where: "dns x", hosts: []string{"10.0.2.10", "10.0.3.10"}},
		{name: "one bad name does not spoil the others", sources: []Source{answer{list: list(t, "gone.example:6666,10.0.4.10:6666"), where: "file"}},
			where: "file", hosts: []string{"10.0.4.10"}},
		{name: "only bad names are no answer", sources: []Source{answer{list: list(t, "gone.example:6666"), where: "file"}, answer{list: a, where: "dns x"}},
			where: "dns x", hosts: []string{"10.0.2.10"}, passed: []string{"file: look up gone.example: "}},
		{name: "a blocked name is no answer", sources: []Source{answer{list: list(t, "blocked.example:6666"), where: "file"}},
			passed: []string{"file: look up blocked.example: 0.0.0.0 is not the address of another machine; use the listener's own address\nnames no listener"},
			err:    ErrNotFound},
		{name: "this machine's own name", sources: []Source{answer{list: list(t, "localhost:6666"), where: "file"}},
			passed: []string{"file: look up localhost: ::1 is not the address of another machine"}, err: ErrNotFound},
		{name: "a name with another address beside that", sources: []Source{answer{list: list(t, "node.example:6666"), where: "file"}},
			where: "file", hosts: []string{"10.0.1.5"}},
		{name: "nothing at all", sources: []Source{answer{where: "ssm", err: offline}, answer{where: "dns x", err: ErrAbsent}},
			passed: []string{"ssm: ", "dns x: "}, err: ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := Finder{Sources: tt.sources, Lookup: resolver.Lookup}
			found, err := f.Find(t.Context())
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			var hosts []string
			for _, e := range found.Endpoints {
				hosts = append(hosts, e.Host)
			}
			if diff := cmp.Diff(tt.hosts, hosts); diff != "" || found.Where != tt.where {
				t.Errorf("from %q (-want +got):\n%s", found.Where, diff)
			}
			if len(found.Passed) != len(tt.passed) {
				t.Fatalf("passed over: %q", found.Passed)
			}
			for i, p := range tt.passed {
				if !strings.HasPrefix(found.Passed[i], p) {
					t.Errorf("passed over: %q, want %q…", found.Passed[i], p)
				}
				if err != nil && !strings.Contains(err.Error(), found.Passed[i]) {
					t.Errorf("error %q hides %q", err, found.Passed[i])
				}
			}
		})
	}
}

func TestLoadBalancerIsEnteredInTheOwnZone(t *testing.T) {
	const nlb = "lastgasp-0123.elb.eu-west-1.amazonaws.com"
	asked := map[string][]netip.Addr{
		nlb:                 {netip.MustParseAddr("10.0.2.10"), netip.MustParseAddr("10.0.3.10")},
		"eu-west-1b." + nlb: {netip.MustParseAddr("10.0.3.10")},
	}
	r := Resolver{
		LookupNetIP: func(_ context.Context, _, host string) ([]netip.Addr, error) { return asked[host], nil },
		Zone:        func(context.Context) (string, string, error) { return "eu-west-1b", "euw1-az1", nil },
	}
	found, err := r.Lookup(t.Context(), Endpoint{Host: nlb, Port: 6666})
	if err != nil {
		t.Fatal(err)
	}
	chosen := Choose(found, 2, "euw1-az1", "i-0123456789abcdef0", nil)
	want := []Endpoint{{Host: "10.0.3.10", Port: 6666, Zone: "euw1-az1"}, {Host: "10.0.2.10", Port: 6666}}
	if diff := cmp.Diff(want, chosen); diff != "" {
		t.Errorf("chosen (-want +got):\n%s", diff)
	}
}

// Parameter Store named the listeners, and cannot be asked for a while. A record of lower rank names others: they are no
// reason to leave what works.
func TestASourceThatCannotBeAskedMovesNobody(t *testing.T) {
	offline := errors.New("connection refused")
	dns := answer{list: list(t, "10.0.9.9:6666"), where: "dns x"}
	resolver := Resolver{LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "i/o timeout", IsTimeout: true}
	}}
	for _, tt := range []struct {
		name string
		kept string // where the last known good list came from
		ssm  answer
		want string
	}{
		{"throttled", "ssm /lastgasp/endpoint version 3", answer{where: "ssm", err: ErrThrottled}, "10.0.2.10"},
		{"no answer", "ssm /lastgasp/endpoint version 3", answer{where: "ssm", err: offline}, "10.0.2.10"},
		{"a name in it cannot be looked up for now", "ssm /lastgasp/endpoint version 3",
			answer{where: "ssm /lastgasp/endpoint version 4", list: list(t, "listener.example:6666")}, "10.0.2.10"},
		{"the parameter was deleted", "ssm /lastgasp/endpoint version 3", answer{where: "ssm", err: ErrAbsent}, "10.0.9.9"},
		{"the record is what counted before", "dns x", answer{where: "ssm", err: offline}, "10.0.9.9"},
		{"nothing was kept", "", answer{where: "ssm", err: offline}, "10.0.9.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			last := LastGood{File: filepath.Join(t.TempDir(), "endpoints.json"), Instance: "i-1", MACs: []string{"02:00:00:00:00:01"}}
			if tt.kept != "" {
				if err := last.Save(Found{Endpoints: list(t, "10.0.2.10:6666"), Where: tt.kept}, "02:00:00:00:00:01", now); err != nil {
					t.Fatal(err)
				}
			}
			f := Finder{Sources: []Source{tt.ssm, dns}, Lookup: resolver.Lookup, Last: &last}
			found, err := f.Find(t.Context())
			if err != nil || len(found.Endpoints) != 1 || found.Endpoints[0].Host != tt.want || found.Stale != (tt.want == "10.0.2.10") {
				t.Errorf("found %+v (%v), want %s", found, err, tt.want)
			}
		})
	}
}

// Whoever may write a source names listeners outside of where they may be, by address or by a name that is his.
func TestASourceThatNamesOutsidersMovesNobody(t *testing.T) {
	resolver := Resolver{LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("::ffff:203.0.113.9"), netip.MustParseAddr("2001:db8::9")}, nil
	}}
	within := func(e Endpoint) bool {
		addr, _ := e.Addr()
		return netip.MustParsePrefix("10.0.2.0/24").Contains(addr.Addr())
	}
	for _, tt := range []struct {
		name, named, want string
		kept              string // the last known good list, of the same parameter
	}{
		{"by address", "203.0.113.9:6666", "10.0.2.10", "10.0.2.10:6666"},
		{"by an address of both families", "[::ffff:203.0.113.9]:6666", "10.0.2.10", "10.0.2.10:6666"},
		{"by name", "listener.example:6666", "10.0.2.10", "10.0.2.10:6666"},
		{"beside one that is within", "203.0.113.9:6666, 10.0.2.11:6666", "10.0.2.11", "10.0.2.10:6666"},
		{"and the list that was kept is of before", "203.0.113.9:6666", "10.0.2.12", "203.0.113.9:6666"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			last := LastGood{File: filepath.Join(t.TempDir(), "endpoints.json"), Instance: "i-1", MACs: []string{"02:00:00:00:00:01"}}
			if err := last.Save(Found{Endpoints: list(t, tt.kept), Where: "ssm x"}, "02:00:00:00:00:01", now); err != nil {
				t.Fatal(err)
			}
			f := Finder{
				Sources: []Source{answer{where: "ssm x", list: list(t, tt.named)}, answer{where: "dns x", list: list(t, "10.0.2.12:6666")}},
				Lookup:  resolver.Lookup, Within: within, Last: &last,
			}
			found, err := f.Find(t.Context())
			if err != nil || len(found.Endpoints) != 1 || found.Endpoints[0].Host != tt.want || len(found.Passed) == 0 {
				t.Errorf("found %+v (%v), want %s", found, err, tt.want)
			}
			f.Sources, f.Last = f.Sources[:1], nil
			if found, err := f.Find(t.Context()); len(list(t, tt.named)) == 1 && (!errors.Is(err, ErrNotFound) || len(found.Endpoints) > 0) {
				t.Errorf("alone: found %+v (%v), want ErrNotFound", found, err)
			}
		})
	}
}

// TestHundredsOfListeners: a parameter holds up to 8 KiB, and what is wrong with all of them must fit on one screen.
func TestHundredsOfListeners(t *testing.T) {
	var addresses, names []Endpoint
	for i := range 400 {
		addresses = append(addresses, Endpoint{Host: fmt.Sprintf("10.9.%d.%d", i/250, i%250+1), Port: 6666})
		names = append(names, Endpoint{Host: fmt.Sprintf("listener-%d.example", i), Port: 6666})
	}
	for what, list := range map[string][]Endpoint{"outside": addresses, "no such name": names} {
		f := Finder{
			Sources: []Source{answer{where: "ssm x", list: list}},
			Within:  func(Endpoint) bool { return false },
			Lookup: func(_ context.Context, e Endpoint) ([]Endpoint, error) {
				return nil, &net.DNSError{Err: "no such host", Name: e.Host, IsNotFound: true}
			},
		}
		found, err := f.Find(t.Context())
		if lines := strings.Count(strings.Join(found.Passed, "\n"), "\n"); !errors.Is(err, ErrNotFound) || lines > 8 || len(err.Error()) > 1000 {
			t.Errorf("%s: %d lines, %d bytes: %v", what, lines, len(err.Error()), err)
		}
	}
}

func TestLoadBalancerNames(t *testing.T) {
	for _, tt := range []struct {
		name, host string
		want       bool
	}{
		{"the commercial partition", "lastgasp-0123.elb.eu-west-1.amazonaws.com", true},
		{"GovCloud", "lastgasp-0123.elb.us-gov-west-1.amazonaws.com", true},
		{"China", "lastgasp-0123.elb.cn-north-1.amazonaws.com.cn", true},
		{"the European Sovereign Cloud", "lastgasp-0123.elb.eusc-de-east-1.amazonaws.eu", true},
		{"ISO", "lastgasp-0123.elb.us-iso-east-1.c2s.ic.gov", true},
		{"ISOB", "lastgasp-0123.elb.us-isob-east-1.sc2s.sgov.gov", true},
		{"ISOE", "lastgasp-0123.elb.eu-isoe-west-1.cloud.adc-e.uk", true},
		{"ISOF", "lastgasp-0123.elb.us-isof-south-1.csp.hci.ic.gov", true},
		{"with its final dot, in capitals", "Lastgasp-0123.ELB.eu-west-1.amazonaws.com.", true},
		{"a host of somebody's own", "listener.elb.example.com", false},
		{"another service of AWS", "ssm.eu-west-1.amazonaws.com", false},
		{"elb as a name", "elb.eu-west-1.amazonaws.com", false},
		{"no label before the partition's", "amazonaws.com", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := isLoadBalancer(tt.host); got != tt.want {
				t.Errorf("isLoadBalancer(%s) = %t, want %t", tt.host, got, tt.want)
			}
		})
	}
}

func TestLastGood(t *testing.T) {
	file := filepath.Join(t.TempDir(), "var/lib/lastgasp/endpoints.json")
	here := LastGood{File: file, Instance: "i-1", MACs: []string{"02:00:00:00:00:01", "02:00:00:00:00:02"}}
	found := Found{Endpoints: list(t, "10.0.2.10:6666"), Where: "ssm /lastgasp/endpoint version 3"}

	if _, _, err := here.Find(t.Context()); !errors.Is(err, ErrAbsent) {
		t.Errorf("before anything was kept: error %v", err)
	}
	if err := here.Save(found, "02:00:00:00:00:02", now); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := here.Save(found, "02:00:00:00:00:02", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(file); err != nil || string(again) != string(first) {
		t.Errorf("written anew though nothing is new (%v)", err)
	}

	f := Finder{Sources: []Source{answer{where: "ssm", err: errors.New("timeout")}}, Last: &here}
	got, err := f.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Found{
		Endpoints: found.Endpoints, Stale: true,
		Where:  "last known good since 2026-11-21T22:00:00Z, from ssm /lastgasp/endpoint version 3",
		Passed: []string{"ssm: timeout"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if err := here.Save(got, "02:00:00:00:00:02", now); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(file); err != nil || string(again) != string(first) {
		t.Errorf("what was read from it was written back (%v)", err)
	}

	for _, tt := range []struct {
		name string
		l    LastGood
	}{
		{"another instance", LastGood{File: file, Instance: "i-2", MACs: here.MACs}},
		{"the interface is gone", LastGood{File: file, Instance: "i-1", MACs: here.MACs[:1]}},
	} {
		if _, _, err := tt.l.Find(t.Context()); !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: error %v, want ErrAbsent", tt.name, err)
		}
	}

	for _, bad := range []string{"", "{", `{"instance":"i-1","mac":"02:00:00:00:00:01","endpoints":[]}`,
		`{"instance":"i-1","mac":"02:00:00:00:00:01","endpoints":[{"host":"0.0.0.0","port":6666}]}`} {
		if err := os.WriteFile(file, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, _, err := here.Find(t.Context()); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func TestSRV(t *testing.T) {
	for _, tt := range []struct {
		name    string
		records []*net.SRV
		err     error
		want    []Endpoint
		absent  bool
		fails   bool
	}{
		{name: "with priorities", records: []*net.SRV{{Target: "a.example.", Port: 6666, Priority: 10}, {Target: "b.example.", Port: 6667, Priority: 20}},
			want: []Endpoint{{Host: "a.example", Port: 6666, Priority: 10}, {Host: "b.example", Port: 6667, Priority: 20}}},
		{name: "no such record", err: &net.DNSError{IsNotFound: true}, absent: true, fails: true},
		{name: "not offered here", records: []*net.SRV{{Target: "."}}, absent: true, fails: true},
		{name: "a resolver that is down", err: &net.DNSError{IsTemporary: true}, fails: true},
		{name: "nonsense", records: []*net.SRV{{Target: "a b.", Port: 6666}}, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := SRV{Name: "_lastgasp._udp.example", LookupSRV: func(context.Context, string, string, string) (string, []*net.SRV, error) {
				return "", tt.records, tt.err
			}}
			got, where, err := s.Find(t.Context())
			if (err != nil) != tt.fails || errors.Is(err, ErrAbsent) != tt.absent || where != "dns _lastgasp._udp.example" {
				t.Errorf("%q: %v", where, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("list (-want +got):\n%s", diff)
			}
		})
	}
}
