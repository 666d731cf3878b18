package cloud

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
)

func TestList(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []entry
		written    string
		err        string
	}{
		{name: "nothing yet"},
		{name: "one address", text: "10.0.2.10:6666\n", want: []entry{{"10.0.2.10:6666", ""}}, written: "10.0.2.10:6666"},
		{name: "several", text: "10.0.2.10:6666, 10.0.3.10:6666", want: []entry{{"10.0.2.10:6666", ""}, {"10.0.3.10:6666", ""}},
			written: "10.0.2.10:6666,10.0.3.10:6666"},
		{name: "IPv6", text: "'[fd00::10]:6666'", want: []entry{{"[fd00::10]:6666", ""}}, written: "'[fd00::10]:6666'"},
		{name: "with zones", text: "- 10.0.2.10:6666\n- {address: '[fd00::10]:6666', zone: euw1-az2}\n",
			want:    []entry{{"10.0.2.10:6666", ""}, {"[fd00::10]:6666", "euw1-az2"}},
			written: "- \"10.0.2.10:6666\"\n- {address: \"[fd00::10]:6666\", zone: \"euw1-az2\"}\n"},
		{name: "JSON", text: `[{"address": "10.0.3.10:6666", "zone": "euw1-az2"}]`, want: []entry{{"10.0.3.10:6666", "euw1-az2"}},
			written: "- {address: \"10.0.3.10:6666\", zone: \"euw1-az2\"}\n"},
		{name: "something else", text: "hello", err: `line 1: "hello" is not host:port`},
		{name: "a key of a later version", text: "- 10.0.2.10:6666\n- {address: 10.0.3.10:6666, weight: 3}", err: `line 2: unknown key "weight"`},
		{name: "a nested list", text: "[[10.0.2.10:6666]]", err: "line 1: an endpoint is host:port or"},
		{name: "not YAML", text: "[", err: "did not find expected node content"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseList(tt.text)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("list (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.written, format(got)); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzList holds what is written to what the other side reads.
func FuzzList(f *testing.F) {
	for _, s := range []string{
		"10.0.2.10:6666", "'[fd00::10]:6666'", "- {address: '[fd00::10]:6666', zone: euw1-az2}", "a.example:1,b.example:2",
		"[{address: a:1, zone: 'é\x01\"'}]", "&a [*a]", "!!binary aGk=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, err := endpoint.ParseList(text)
		if err != nil {
			return // nodes do not follow it either
		}
		list, err := parseList(text)
		if err != nil {
			return // refused: nothing is written
		}
		got, err := endpoint.ParseList(format(list))
		if err != nil {
			t.Fatalf("%q became %q: %v", text, format(list), err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q became %q (-want +got):\n%s", text, format(list), diff)
		}
	})
}
