package yamlkeys

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

type config struct {
	Name    string
	On      bool
	Count   int
	Wait    time.Duration
	Mode    string
	Ports   []string
	Names   []string
	Members []string
}

func (c *config) keys() Keys {
	port := func(text string) (string, bool) { return text, strings.HasPrefix(text, ":") }
	return Keys{
		"name":       Text(&c.Name),
		"group.on":   Bool(&c.On),
		"group.n":    Int(&c.Count, 1, 8),
		"group.wait": Duration(&c.Wait, time.Second, time.Hour),
		"mode":       Word(&c.Mode, "a mode; write fast or slow", "fast", "slow"),
		"names":      CommaValues(&c.Names, "a name; use letters", func(text string) (string, bool) { return text, text != "" }),
		"ports":      Values(&c.Ports, "a port; write one like :80", port),
		"members": func(n *yaml.Node) error {
			items, err := List(n)
			if err != nil {
				return err
			}
			for _, item := range items {
				var name string
				if err := Group(item, Keys{"name": Text(&name)}); err != nil {
					return err
				}
				c.Members = append(c.Members, name)
			}
			return nil
		},
	}
}

func TestEveryKindOfValueIsRead(t *testing.T) {
	var got config
	lines, err := Read("f.yaml", []byte(`
name: 6666
group: {on: true, n: 8, wait: 90s}
mode: &m slow
ports: [":80", ":81"]
names: [a, "b, c", *m]
members:
  - {name: *m}
  - name: b
`), got.keys())
	if err != nil {
		t.Fatal(err)
	}
	want := config{Name: "6666", On: true, Count: 8, Wait: 90 * time.Second, Mode: "slow", Ports: []string{":80", ":81"}, Names: []string{"a", "b", "c", "slow"}, Members: []string{"slow", "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	for key, want := range map[string]string{
		"group.wait": "f.yaml:3: group.wait: is wrong",
		"group.x":    "f.yaml:3: group.x: is wrong", // the section's line
		"other.x":    "f.yaml: other.x: is wrong",
	} {
		if got := lines.Locate("f.yaml", key, errors.New("is wrong")).Error(); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestAbsentKeysLeaveTheirDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "group:\n  # on: true\n", "---\n"} {
		got := config{Name: "default"}
		if _, err := Read("f.yaml", []byte(text), got.keys()); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(config{Name: "default"}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestMistakesAreLocated(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"an unknown key", "name: a\nnmae: b\n", "f.yaml:2: nmae: unknown key; known here are group, members, mode, name, names, ports"},
		{"an unknown key in a section", "group:\n  of: 1\n", "f.yaml:2: group.of: unknown key; known here are n, on, wait"},
		{"an unknown key in a list", "members:\n  - name: a\n  - nmae: b\n", "f.yaml:3: members.nmae: unknown key; known here are name"},
		{"a key twice", "mode: fast\nmode: slow\n", "f.yaml:2: mode: is here twice; remove one"},
		{"a key twice, once with its section", "group: {n: 1}\ngroup.n: 2\n", "f.yaml:2: group.n: is here twice; remove one"},
		{"a key that is no word", "\"a\\nb\": 1\n", `f.yaml:1: "a\nb": unknown key; known here are group, members, mode, name, names, ports`},
		{"a value for a section", "\ngroup: 5\n", "f.yaml:2: group: must have keys below it; known are n, on, wait"},
		{"a value for a document", "hello\n", "f.yaml:1: must have keys below it; known are group, members, mode, name, names, ports"},
		{"a list for a word", "mode:\n  - fast\n", "f.yaml:2: mode: a list is not a mode; write fast or slow"},
		{"a mapping for a text", "name: {a: b}\n", "f.yaml:1: name: must be plain text; write one value"},
		{"a text without a value", "name:\n", "f.yaml:1: name: must be plain text; write one value"},
		{"a word for a list", "ports: :80\n", `f.yaml:1: ports: ":80" is not a list; write one`},
		{"a wrong item", "ports:\n- :80\n- '81'\n", `f.yaml:3: ports: "81" is not a port; write one like :80`},
		{"nothing between commas", "names: a,,b\n", `f.yaml:1: names: "" is not a name; use letters`},
		{"a mapping among names", "names:\n- a\n- {b: c}\n", "f.yaml:3: names: a mapping is not a name; use letters"},
		{"a number too high", "group: {n: 9}\n", `f.yaml:1: group.n: "9" is not a number from 1 to 8; write one`},
		{"a time too short", "group: {wait: 1ms}\n", `f.yaml:1: group.wait: "1ms" is not a time from 1s to 1h0m0s; write it like 30s or 10m`},
		{"half a boolean", "group: {on: yes}\n", `f.yaml:1: group.on: "yes" is not true or false; write one of them`},
		{"an alias into itself", "group: &a {on: *a}\n", "f.yaml:1: group.on: a mapping is not true or false; write one of them"},
		{"a second document", "name: a\n---\nname: b\n", "f.yaml:2: a second document would be ignored; remove this ---"},
		{"no YAML", "ports: [\":80\"\n", "f.yaml: is not YAML: line 1: did not find expected ',' or ']'; correct it"},
		{"no YAML behind the document", "name: a\n---\n\t[", "f.yaml: is not YAML: line 3: found character that cannot start any token; correct it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read("f.yaml", []byte(tt.text), new(config).keys())
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if e := new(Error); err != nil && !errors.As(err, &e) {
				t.Errorf("%T is not an *Error", err)
			}
		})
	}
}
