package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/lastgasp/lastgasp/listener/kube"
)

// deathServer answers as an API server does whose CRD has four columns, one of them for wide tables.
func deathServer(t *testing.T) *httptest.Server {
	const columns = `"columnDefinitions":[{"name":"Name","type":"string"},{"name":"Reason","type":"string"},{"name":"Phase","type":"string"},{"name":"Cause","type":"string","priority":1}]`
	row := func(name, reason, phase, created, version string) string {
		return fmt.Sprintf(`{"cells":[%q,%q,%q,"KernelPanic"],"object":{"metadata":{"name":%q,"resourceVersion":%q,"creationTimestamp":%q}}}`,
			name, reason, phase, name, version, created)
	}
	table := func(rows ...string) string {
		return `{"kind":"Table","metadata":{"resourceVersion":"7"},` + columns + `,"rows":[` + strings.Join(rows, ",") + `]}`
	}
	older, newer := row("b-1", "old", "Cleaned", "2026-11-26T10:00:00Z", "3"), row("a-1", "new", "Pending", "2026-11-26T11:00:00Z", "5")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path != "/apis/lastgasp.dev/v1alpha1/nodedeaths":
			http.NotFound(w, r)
		case r.URL.Query().Get("watch") == "":
			if strings.Contains(r.Header.Get("Accept"), "as=Table") {
				fmt.Fprintln(w, table(newer, older))
				return
			}
			fmt.Fprintln(w, `{"kind":"NodeDeathList","apiVersion":"lastgasp.dev/v1alpha1","metadata":{},"items":[{"metadata":{"name":"a-1"},"spec":{"node":"a","reason":"new"}}]}`)
		case r.URL.Query().Get("resourceVersion") == "7":
			fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`+"\n", table(row("a-1", "new", "Cleaned", "2026-11-26T11:00:00Z", "9")))
			fmt.Fprintf(w, `{"type":"DELETED","object":%s}`+"\n", table(older))
			fmt.Fprintf(w, `{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired","message":"too old"}}`+"\n")
		default:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintln(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"nobody may watch"}`)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestPrintDeaths(t *testing.T) {
	for _, tt := range []struct{ output, want string }{
		{"table", "NAME REASON PHASE\nb-1 old Cleaned\na-1 new Pending\n"},
		{"wide", "NAME REASON PHASE CAUSE\nb-1 old Cleaned KernelPanic\na-1 new Pending KernelPanic\n"},
		{"json", `[{"kind":"NodeDeath","apiVersion":"lastgasp.dev/v1alpha1","metadata":{"name":"a-1"},"spec":{"node":"a","time":null,"cause":"","reason":"new","authority":""},"status":{"pods":{"total":0,"failed":0}}}]` + "\n"},
	} {
		t.Run(tt.output, func(t *testing.T) {
			r, err := kube.NewDeathReader(&rest.Config{Host: deathServer(t).URL})
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := printDeaths(t.Context(), &out, r, tt.output, false); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, squeeze(out.String())); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// squeeze makes one blank of several: how wide a column is does not matter here.
func squeeze(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		out.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return out.String()
}

// A watch prints what changes, not what is deleted, and goes on from a new list where its version is gone.
func TestWatchDeaths(t *testing.T) {
	r, err := kube.NewDeathReader(&rest.Config{Host: deathServer(t).URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	out := &lineCounter{stopAt: 5, stop: stop}
	if err := printDeaths(ctx, out, r, "table", true); err != nil {
		t.Fatal(err)
	}
	want := "NAME REASON PHASE\nb-1 old Cleaned\na-1 new Pending\na-1 new Cleaned\na-1 new Cleaned\n"
	if got := squeeze(out.String()); got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// lineCounter calls stop once it holds that many lines.
type lineCounter struct {
	bytes.Buffer
	stopAt int
	stop   func()
}

func (c *lineCounter) Write(b []byte) (int, error) {
	n, err := c.Buffer.Write(b)
	if bytes.Count(c.Bytes(), []byte("\n")) >= c.stopAt {
		c.stop()
	}
	return n, err
}

func TestNoKubeconfig(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, command := range []string{"deaths", "uninstall"} {
		if _, err := do(t, "", command); err == nil || !strings.HasPrefix(err.Error(), "no kubeconfig is found; name one with --kubeconfig") {
			t.Errorf("%s: %v", command, err)
		}
	}
	config := filepath.Join(t.TempDir(), "listener.yaml")
	if err := os.WriteFile(config, []byte("kubernetes: true\nlisten: [\"127.0.0.1:0\"]\nadmin: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, "", "run", "--config", config); err == nil || err.Error() != "kubernetes: true outside a pod needs the key kubeconfig; name the file" {
		t.Errorf("run: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	for file, text := range map[string]string{
		empty:  "",
		config: "kubernetes: true\nkubeconfig: " + empty + "\nlisten: [\"127.0.0.1:0\"]\nadmin: 127.0.0.1:0\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := "kubeconfig " + empty + " is empty; write a cluster, a user and a context into it"
	if _, err := do(t, "", "run", "--config", config); err == nil || err.Error() != want {
		t.Errorf("an empty one: %v", err)
	}
	bad := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, "", "deaths", "--kubeconfig", bad); err == nil || !strings.HasPrefix(err.Error(), "read kubeconfig: ") {
		t.Errorf("a bad one: %v", err)
	}
}
