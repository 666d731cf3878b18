package endpoint

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/yamlkeys"
)

func TestParseList(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []Endpoint
		err        string
	}{
		{name: "one address", text: "10.0.2.10:6666", want: []Endpoint{{Host: "10.0.2.10", Port: 6666}}},
		{name: "as an editor leaves it", text: "10.0.2.10:6666\n", want: []Endpoint{{Host: "10.0.2.10", Port: 6666}}},
		{name: "IPv6", text: "'[fd00::10]:6666'", want: []Endpoint{{Host: "fd00::10", Port: 6666}}},
		{name: "IPv6 without quotes", text: "[fd00::10]:6666\n", want: []Endpoint{{Host: "fd00::10", Port: 6666}}},
		{name: "a StringList of both families", text: "[fd00::10]:6666,10.0.2.10:6666, [fd00::1:2]:6667",
			want: []Endpoint{{Host: "fd00::10", Port: 6666}, {Host: "10.0.2.10", Port: 6666}, {Host: "fd00::1:2", Port: 6667}}},
		{name: "a YAML list of IPv6 without quotes", text: "- [fd00::10]:6666\n- {address: [fd00::11]:6666, zone: euw1-az2}\n",
			want: []Endpoint{{Host: "fd00::10", Port: 6666}, {Host: "fd00::11", Port: 6666, Zone: "euw1-az2"}}},
		{name: "a flow list of IPv6 without quotes", text: "[[fd00::10]:6666, [fd00::11]:6666]",
			want: []Endpoint{{Host: "fd00::10", Port: 6666}, {Host: "fd00::11", Port: 6666}}},
		{name: "JSON with IPv6", text: `["[fd00::10]:6666",{"address":"[fd00::11]:6666"}]`,
			want: []Endpoint{{Host: "fd00::10", Port: 6666}, {Host: "fd00::11", Port: 6666}}},
		{name: "a name", text: "Listener.example.internal:6666", want: []Endpoint{{Host: "listener.example.internal", Port: 6666}}},
		{name: "a StringList parameter", text: "10.0.2.10:6666,10.0.3.10:6667",
			want: []Endpoint{{Host: "10.0.2.10", Port: 6666}, {Host: "10.0.3.10", Port: 6667}}},
		{name: "a YAML list with zones", text: "- 10.0.2.10:6666\n- {address: 10.0.3.10:6666, zone: euw1-az2}\n",
			want: []Endpoint{{Host: "10.0.2.10", Port: 6666}, {Host: "10.0.3.10", Port: 6666, Zone: "euw1-az2"}}},
		{name: "JSON", text: `[{"address": "10.0.3.10:6666", "zone": "euw1-az2"}]`,
			want: []Endpoint{{Host: "10.0.3.10", Port: 6666, Zone: "euw1-az2"}}},
		{name: "anchors", text: "- {address: &a 10.0.2.10:6666, zone: euw1-az1}\n- {address: *a, zone: euw1-az2}\n- *a\n",
			want: []Endpoint{{Host: "10.0.2.10", Port: 6666, Zone: "euw1-az1"}, {Host: "10.0.2.10", Port: 6666, Zone: "euw1-az2"}, {Host: "10.0.2.10", Port: 6666}}},
		{name: "other spellings of an address", text: "[FD00:0:0::0010]:6666 [::ffff:10.0.2.10]:06666",
			want: []Endpoint{{Host: "fd00::10", Port: 6666}, {Host: "10.0.2.10", Port: 6666}}},

		{name: "nothing", text: "", err: "it is empty"},
		{name: "an empty list", text: "[]", err: "no endpoint in it"},
		{name: "blanks", text: "' , '", err: "no endpoint in it"},
		{name: "no port", text: "10.0.2.10", err: `"10.0.2.10" has no port; write 10.0.2.10:6666`},
		{name: "IPv6 without brackets", text: "'fd00::10'", err: `"fd00::10" has no port; write [fd00::10]:6666`},
		{name: "IPv6 without brackets or quotes", text: "fd00::10", err: `"fd00::10" has no port; write [fd00::10]:6666`},
		{name: "link-local without quotes", text: "[fe80::1]:6666", err: "fe80::1 is link-local"},
		{name: "port 0", text: "10.0.2.10:0", err: `"10.0.2.10:0" has a bad port`},
		{name: "a mistyped address is not a name", text: "10.0.2.300:6666", err: `"10.0.2.300" is neither an address nor a host name`},
		{name: "the kernel would take this for 79.0.0.0", text: "'o :6666'", err: `"o" is not host:port`},
		{name: "all hosts", text: "0.0.0.0:6666", err: "0.0.0.0 is not the address of another machine"},
		{name: "broadcast", text: "255.255.255.255:6666", err: "255.255.255.255 is not the address of another machine"},
		{name: "multicast", text: "224.0.0.1:6666", err: "224.0.0.1 is not the address of another machine"},
		{name: "this machine", text: "127.0.0.1:6666", err: "127.0.0.1 is not the address of another machine"},
		{name: "this machine, dressed up", text: "'[::ffff:127.0.0.1]:6666'", err: "127.0.0.1 is not the address of another machine"},
		{name: "link-local", text: "'[fe80::1]:6666'", err: "fe80::1 is link-local"},
		{name: "a zone of IPv6", text: "'[fe80::1%eth0]:6666'", err: "netconsole cannot carry an address with a zone"},
		{name: "a zone of IPv6 without quotes", text: "[fe80::1%eth0]:6666", err: "netconsole cannot carry an address with a zone"},
		{name: "a number is no name in any base", text: "0x0a00020a:6666", err: `"0x0a00020a" is neither an address nor a host name`},
		{name: "a part with zeros in front", text: "10.0.2.08:6666", err: `"10.0.2.08" is neither an address nor a host name`},
		{name: "a number that no computer counts with", text: "99999999999999999999:6666", err: `"99999999999999999999" is neither an address nor a host name`},
		{name: "a name with a number in it", text: "node-08.0xide:6666", want: []Endpoint{{Host: "node-08.0xide", Port: 6666}}},
		{name: "two documents", text: "- 10.0.2.10:6666\n---\n- 10.0.2.11:6666\n", err: "a second document would be ignored; write one list"},
		{name: "an unknown key", text: "{address: 10.0.2.10:6666, port: 6666}", err: `unknown key "port"`},
		{name: "a mapping without address", text: "{zone: euw1-az1}", err: `"" is not host:port`},
		{name: "nested", text: "[[10.0.2.10:6666]]", err: "an endpoint is host:port or {address"},
		{name: "not YAML", text: "[", err: "line 1: did not find expected node content"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseList(tt.text)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("error %v, want one line with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("list (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorsKnowTheirLine(t *testing.T) {
	_, err := ParseList("- 10.0.2.10:6666\n- 10.0.3.10:6666\n- nonsense\n")
	var node *yamlkeys.Error
	if !errors.As(err, &node) || node.Line != 3 {
		t.Errorf("error %#v", err)
	}
}

func FuzzParseList(f *testing.F) {
	for _, s := range []string{
		"10.0.2.10:6666", "- {address: '[fd00::10]:6666', zone: euw1-az2}", "a.example:1,b.example:2",
		"&a [*a]", "{{}}", "\x00", "!!binary aGk=", "- - -", "? x", "'\xff:1'", "[fd00::10]:6666", "[[fd00::10]:6666]",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseList(text)
		if err != nil {
			return
		}
		if len(list) == 0 {
			t.Error("accepted, and yet nothing in it")
		}
		for _, e := range list {
			again, err := Parse(e.String())
			if err != nil || again.String() != e.String() || e.Port == 0 {
				t.Errorf("%q is accepted but does not read back: %v", e, err)
			}
		}
	})
}
