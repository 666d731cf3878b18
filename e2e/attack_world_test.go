//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// memoryLimit is that of packaging/kubernetes/base/deployment.yaml, in KiB.
const memoryLimit = 512 << 10

// attackWorld is a cluster with a listener that ships its records, and what may have happened to it in the end.
type attackWorld struct {
	*hollowWorld
	bin  string
	temp string // directory that lasts until the end

	mu      sync.Mutex
	dead    []string            // nodes that may be cleaned up
	secrets []netconsole.Secret // that must not be seen anywhere
	admin   []string            // what admin servers answered
	logs    []string            // files
}

func newAttackWorld(t *testing.T) *attackWorld {
	t.Setenv("GOMEMLIMIT", "400MiB") // as in deployment.yaml
	temp := t.TempDir()
	shipped := filepath.Join(temp, "shipped")
	w := &attackWorld{hollowWorld: newHollowWorld(t, "limits: {nodes: 100}\nship: {to: "+shipped+"}\n"), temp: temp}
	w.bin = must(story.Build(t.Context(), t))
	w.logs = append(w.logs, w.fleet.ListenerLog, shipped)
	go w.detach(t.Context())
	return w
}

// voice is one more socket at an address, as a pod has one that shares its node's.
func (w *attackWorld) voice(t *testing.T, addr netip.Addr) *story.Voice {
	t.Helper()
	return w.voices(t, addr, 1)[0]
}

func (w *attackWorld) voices(t *testing.T, addr netip.Addr, n int) []*story.Voice {
	t.Helper()
	all := make([]*story.Voice, n)
	for i := range all {
		all[i] = must(w.fleet.Voice(w.fleet.Net.Node, addr))
	}
	return all
}

// enroll writes the node's pin as the node itself, and waits until the listener knows it.
func (w *attackWorld) enroll(t *testing.T, name string, id netconsole.Identity) {
	t.Helper()
	w.hide(id.Secret)
	if err := w.lab.Enroll(t.Context(), name, id.Boot, id.Secret.Sum()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to know the pin of "+name, func() error { return w.listener().knows(w.kubeWorld, name) })
}

// hide notes a secret that must not be seen anywhere.
func (w *attackWorld) hide(secret netconsole.Secret) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = append(w.secrets, secret)
}

// mayDie notes that a node's cleanup is right.
func (w *attackWorld) mayDie(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = append(w.dead, name)
}

// joinDoomed makes a node that is going to die rightly a pinned one of the cluster, with pods and a volume; its secret must not be shown
// anywhere.
func (w *attackWorld) joinDoomed(t *testing.T, name string, i int) *doomed {
	t.Helper()
	d := newDoomed(name, i)
	w.mayDie(d.name)
	w.join(t, d)
	w.hide(d.secret)
	return d
}

// dies sends a pinned node's last words and waits for its cleanup.
func (w *attackWorld) dies(t *testing.T, name string, id netconsole.Identity, kernel *story.Voice) {
	t.Helper()
	w.mayDie(name)
	began := time.Now()
	if err := kernel.Say(story.Panic(id)...); err != nil {
		t.Fatal(err)
	}
	w.cleaned(t, policy.DeathName(name, id.Boot), "pinned")
	t.Logf("cleaned up %s after the panic", time.Since(began).Round(time.Millisecond))
}

// cleaned waits for the end of a cleanup that was begun on that authority.
func (w *attackWorld) cleaned(t *testing.T, death, authority string) {
	t.Helper()
	eventually(t, death+" to be cleaned up", func() error {
		d, err := w.cluster.Death(t.Context(), death)
		if err == nil && (d.Phase != policy.Cleaned || d.Authority.String() != authority) {
			err = fmt.Errorf("phase %s on %s authority: %s", d.Phase, d.Authority, d.Decision)
		}
		return err
	})
}

// userdata is that of netconsole, whatever stands in id.
func userdata(id netconsole.Identity) string {
	return fmt.Sprintf(" instance=%s\n boot=%s\n gasp=%s\n", id.Instance, id.Boot, string(id.Secret))
}

// flood has say send datagram after datagram until stop, as fast as the listener reads; a number of them at least.
func (w *attackWorld) flood(t *testing.T, atLeast int, say func(i int) error) (stop func(*testing.T)) {
	t.Helper()
	f := &flood{queue: fmt.Sprintf("/proc/%d/net/udp", w.fleet.Listener.PID())}
	ctx, cancel := context.WithCancel(t.Context())
	type sent struct {
		n   int
		err error
	}
	over := make(chan sent, 1)
	go func() {
		n := 0
		for ; n < atLeast || ctx.Err() == nil; n++ {
			if n%paceEvery == 0 {
				if err := f.pace(t.Context()); err != nil || t.Context().Err() != nil {
					over <- sent{n, err}
					return
				}
			}
			if err := say(n); err != nil {
				over <- sent{n, err}
				return
			}
		}
		over <- sent{n, nil}
	}()
	began := time.Now()
	return func(t *testing.T) {
		t.Helper()
		cancel()
		s := <-over
		if s.err != nil {
			t.Errorf("the flood ended: %v", s.err)
		}
		t.Logf("%d datagrams in %s", s.n, time.Since(began).Round(time.Millisecond))
	}
}

// ask notes what an admin server answers to everything that people and Prometheus ask.
func (w *attackWorld) ask(t *testing.T, r *replica) {
	t.Helper()
	for _, path := range []string{"/metrics", "/nodes", "/readyz", "/debug/state"} {
		_, body, err := r.get(w.kubeWorld, path)
		if err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		w.admin = append(w.admin, body)
		w.mu.Unlock()
	}
}

// onlyTheDeadTouched checks in the audit log that no pod was failed or deleted and no Node deleted but those of nodes that died.
func (w *attackWorld) onlyTheDeadTouched(t *testing.T) {
	t.Helper()
	dead := func(name string) bool {
		for _, d := range w.dead {
			if name == d || strings.HasPrefix(name, d+"-") {
				return true
			}
		}
		return false
	}
	for _, e := range w.audit(t) {
		if (e.what == "delete pods" || e.what == "delete nodes" || e.what == "patch pods/status") && !dead(e.name) {
			t.Errorf("a listener did %s %s", e.what, e.name)
		}
	}
}

// seen is everything that people can get to see of the attacks, by where.
func (w *attackWorld) seen(t *testing.T) map[string]string {
	t.Helper()
	w.ask(t, w.listener())
	all := map[string]string{
		"kubectl get nd -o wide": w.kubectl(t, "get", "nodedeaths", "--output=wide"),
		"kubectl describe nd":    w.kubectl(t, "describe", "nodedeaths"),
		"kubectl describe nodes": w.kubectl(t, "describe", "nodes"),
		"kubectl get events":     w.kubectl(t, "get", "events", "--output=wide"),
		"the admin server":       strings.Join(w.admin, "\n"),
	}
	w.logs = append(w.logs, w.fleet.ListenerLog)
	for i, file := range w.logs {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		all[fmt.Sprintf("log %d", i)] = string(text)
	}
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(w.kubectl(t, "get", "nodedeaths", "--output=json")), &list); err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, item := range list.Items { // as a page or a script would print them
		values = append(values, texts(t, item)...)
	}
	all["the NodeDeaths' texts"] = strings.Join(values, "\n")
	return all
}

// texts are all strings in a JSON value.
func texts(t *testing.T, data []byte) (all []string) {
	t.Helper()
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			all = append(all, v)
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				all = append(all, k)
				walk(e)
			}
		}
	}
	walk(value)
	return all
}

// nothingRaw checks that nobody's terminal gets what a datagram said.
func nothingRaw(t *testing.T, seen map[string]string) {
	t.Helper()
	found := false
	for where, text := range seen {
		found = found || strings.Contains(text, "owned")
		for line := range strings.Lines(text) {
			if i := strings.IndexFunc(strings.TrimRight(line, "\n"), unprintable); i >= 0 || !utf8.ValidString(line) {
				t.Errorf("%s prints %q", where, line[:min(len(line), 300)])
			}
		}
	}
	if !found {
		t.Error("nothing of the control characters was seen anywhere: the test proves nothing")
	}
}

// unprintable leaves out the tab, which kubectl describe and the log may have.
func unprintable(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }

// noSecrets checks that no secret was printed anywhere.
func (w *attackWorld) noSecrets(t *testing.T, seen map[string]string) {
	t.Helper()
	for where, text := range seen {
		for _, secret := range w.secrets {
			if i := strings.Index(text, string(secret)); i >= 0 {
				t.Errorf("%s has a secret: %q", where, text[max(0, i-100):min(len(text), i+40)])
			}
		}
	}
}

// withinMemory checks what a process has taken at most.
func (w *attackWorld) withinMemory(t *testing.T, pid int) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &kib); n == 1 {
			t.Logf("the listener took %d MiB at most", kib>>10)
			if kib > memoryLimit {
				t.Errorf("%d KiB, want %d at most", kib, memoryLimit)
			}
			return
		}
	}
	t.Error("no VmHWM")
}
