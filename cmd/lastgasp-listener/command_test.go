package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener"
)

// do runs the command line and returns what it prints.
func do(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	c := command()
	var out bytes.Buffer
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config, empty := file("bad.yaml", "node: remove\n"), file("empty.yaml", "")
	capture := file("bad.jsonl", "{\n")
	for _, tt := range []struct {
		name  string
		args  []string
		usage bool // exit code 2, else 1
		want  string
	}{
		{"an unknown command", []string{"frobnicate"}, true, `unknown command "frobnicate"; write run, replay, nodes, deaths or uninstall`},
		{"an unknown flag", []string{"run", "--fast"}, true, "unknown flag: --fast"},
		{"too many arguments", []string{"run", "now"}, true, `unexpected argument "now"`},
		{"a wrong config", []string{"run", "--config", config}, true, config + `:1: node: "remove" is not what to do with the node; write delete, nodeclaim, await or annotate`},
		{"a wrong config for replay", []string{"replay", "--config", config, "-"}, true, config + `:1: node: "remove" is not what to do with the node; write delete, nodeclaim, await or annotate`},
		{"no file", []string{"replay"}, true, "replay wants a FILE, or - for standard input"},
		{"an unknown format", []string{"replay", "--format=pcap", "-"}, true, `unknown --format "pcap"; write auto, datagrams or log`},
		{"a capture that is none", []string{"replay", "--format=datagrams", "--config", empty, capture}, false, capture + ":1: not a JSON object: unexpected end of JSON input"},
		{"standard input that is none", []string{"replay", "--format=datagrams", "--config", empty, "-"}, false, "-:2: not a JSON object: invalid character 'h' looking for beginning of value"},
		{"a file that is not there", []string{"replay", "--config", empty, dir + "/gone"}, false, "open " + dir + "/gone: no such file or directory"},
		{"an unknown output", []string{"nodes", "-o", "xml"}, true, `unknown --output "xml"; write table or json`},
		{"an unknown output of deaths", []string{"deaths", "-o", "xml"}, true, `unknown --output "xml"; write table, wide, json or yaml`},
		{"a watch of objects", []string{"deaths", "-w", "-o", "json"}, true, "--watch prints a table; write --output table or wide"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := do(t, "\nhello\n", tt.args...)
			if err == nil || err.Error() != tt.want || errors.As(err, new(usageError)) != tt.usage || out != "" {
				t.Errorf("error %v, printed %q; want %s", err, out, tt.want)
			}
		})
	}
}

func TestHelpShowsEveryKey(t *testing.T) {
	out, err := do(t, "", "run", "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"listen:", "admin:", "cluster:", "kubeconfig:", "records:", "act:", "limits:", "node:", "pods:",
		"controlPlane:", "ec2:", "announce:", "annotations:", "ship:", "rules:"} {
		if !strings.Contains(out, key) {
			t.Errorf("the help of run does not show %s", key)
		}
	}
}

func TestReplayWithRules(t *testing.T) {
	config := filepath.Join(t.TempDir(), "rules.yaml")
	rules := "rules: [{cause: Teapot, verdict: dying, match: \"I'm a teapot\", examples: [\"I'm a teapot\"]}]\n"
	if err := os.WriteFile(config, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := do(t, "[    1.000000] I'm a teapot\n", "replay", "--format=log", "--config", config, "-")
	if err != nil || !strings.Contains(out, `"code":"Teapot"`) {
		t.Errorf("printed %s, %v", out, err)
	}
}

// A file that cannot be read keeps nobody from the others, and what was read is judged.
func TestReplayOfSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	good, gone, wrong := dir+"/good", dir+"/gone", dir+"/wrong"
	for file, text := range map[string]string{good: "[    1.000000] Kernel panic - not syncing: Fatal exception\n", wrong: `{"payload_b64": 7}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := do(t, "", "replay", gone, good, wrong, dir, good)
	if n := strings.Count(out, `"code":"KernelPanic"`); n != 2 {
		t.Errorf("%d incidents, want that of each readable file:\n%s", n, out)
	}
	want := "open " + gone + ": no such file or directory\n" + wrong + `:1: "payload_b64" is a number` + "\n" +
		"replay " + dir + ": read " + dir + ": is a directory"
	if err == nil || errors.As(err, new(usageError)) || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}

// A log that nothing is found in may be one that replay cannot read.
func TestReplayOfSomethingElse(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"another program's log", "\n127.0.0.1 GET /\n", "-:2: no kernel line recognised; the first other line is \"127.0.0.1 GET /\"\n"},
		{"nothing", "\n", "-: no kernel line recognised\n"},
		{"a healthy kernel's", "[    1.000000] eth0: up\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := command()
			var out, stderr bytes.Buffer
			c.SetIn(strings.NewReader(tt.in))
			c.SetOut(&out)
			c.SetErr(&stderr)
			c.SetArgs([]string{"replay", "-"})
			if err := c.ExecuteContext(t.Context()); err != nil || out.Len() > 0 || stderr.String() != tt.want {
				t.Errorf("%v, printed %q and %q, want %q", err, out.String(), stderr.String(), tt.want)
			}
		})
	}
}

func TestNodesTable(t *testing.T) {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	addr := netip.MustParseAddr("10.0.1.5")
	var out strings.Builder
	err := printNodes(&out, []listener.NodeCover{
		{Node: "ip-10-0-1-5", Address: addr, Cover: listener.Mute, Kernel: "7.1.0", Canary: now.Add(-time.Minute), Why: "it reboots first"},
		{Address: addr.Next(), Instance: "i-0abc", Cover: listener.Stranger, Kernel: "6\x1b[2J\u202e\t1", Canary: now.Add(-90 * time.Second)},
		{Node: "ip-10-0-1-7", Address: addr.Next().Next(), Cover: listener.Unproven, Why: "no canary has arrived from it"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	want := `
NODE          ADDRESS    COVER      CANARY      KERNEL                   WHY
ip-10-0-1-5   10.0.1.5   mute       1m0s ago    7.1.0                    it reboots first
(i-0abc)      10.0.1.6   stranger   1m30s ago   6\x1b[2J\xe2\x80\xae 1   
ip-10-0-1-7   10.0.1.7   unproven   -           -                        no canary has arrived from it

0 covered, 1 mute, 0 silent, 1 unproven, 1 strangers
`
	if diff := cmp.Diff(want[1:], out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestNodesAsksTheListener(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/nodes" {
			http.NotFound(w, r)
		}
		w.Write([]byte("[]"))
	}))
	defer srv.Close()
	admin := strings.TrimPrefix(srv.URL, "http://")
	out, err := do(t, "", "nodes", "--admin", admin)
	if err != nil || out != "no canary has arrived yet, and no Nodes are known\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	srv.Close()
	if _, err := do(t, "", "nodes", "--admin", admin); err == nil || !strings.HasPrefix(err.Error(), "ask the listener at "+admin) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestCompletion(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"nodes", "-o", ""}, "table\njson\n:4\n"},
		{[]string{"replay", "--format", ""}, "auto\ndatagrams\nlog\n:4\n"},
	} {
		out, err := do(t, "", append([]string{"__complete"}, tt.args...)...)
		if err != nil || out != tt.want {
			t.Errorf("%v: offered %q, %v; want %q", tt.args, out, err, tt.want)
		}
	}
}

// What help and man page say to ask must exist.
func TestHelpNamesTheDeployment(t *testing.T) {
	manifest, err := os.ReadFile("../../packaging/kubernetes/base/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, c := range command().Commands() {
		for _, m := range regexp.MustCompile(`-n (\S+) \S+ deploy(?:ment)?/(\S+)`).FindAllStringSubmatch(c.Example+c.Long, -1) {
			named++
			if want := fmt.Sprintf("\n  name: %s\n  namespace: %s\n", m[2], m[1]); !strings.Contains(string(manifest), "kind: Deployment\nmetadata:"+want) {
				t.Errorf("help of %s names the Deployment %s in %s, which does not exist", c.Name(), m[2], m[1])
			}
		}
	}
	if named == 0 {
		t.Error("help names no Deployment")
	}
}

// Scripts read an array even if there are no nodes yet.
func TestNodesAsJSONWhereThereAreNone(t *testing.T) {
	admin := listener.Admin{Gatherer: prometheus.NewRegistry(), Coverage: new(listener.Coverage)}
	srv := httptest.NewServer(admin.Handler())
	defer srv.Close()
	out, err := do(t, "", "nodes", "-o", "json", "--admin", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil || out != "[]\n" {
		t.Errorf("printed %q, %v; want []", out, err)
	}
}
