//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// The attacks here are on listeners of their own. Nodes are API objects whose addresses are the listener's loopback (doomed).

// connections opens idle connections to the admin port, and ones that send their request byte by byte.
func (w *attackWorld) connections(t *testing.T) {
	t.Parallel()
	r := w.startReplica(t, w.bin, "", anyNumber)
	eventually(t, "the listener to be ready", func() error {
		if code, body, err := r.get(w.kubeWorld, "/readyz"); err != nil || code != http.StatusOK {
			return fmt.Errorf("readyz %d %s: %w, %v; it says:\n%s", code, body, err, r.Died(), r.says())
		}
		return nil
	})
	const idle, held = 20_000, 8_000 // the lab's limit of open files is 20,000
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := range idle {
		err := w.ns.Do(func() error {
			client := netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i%4)})
			dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0)), Timeout: busy}
			c, err := dialer.Dial("tcp", r.admin)
			if err == nil {
				open = append(open, c)
			}
			return err
		})
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if len(open) > held { // the listener has closed it long ago
			open[0].SetReadDeadline(time.Now().Add(busy))
			if _, err := io.Copy(io.Discard, open[0]); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("connection %d is open still: %v", i-held, err)
			}
			open[0].Close()
			open = open[1:]
		}
		if i%2 == 0 {
			fmt.Fprint(open[len(open)-1], "GET /metrics HTTP/1.1\r\nX-Slow: ") // an error means that it was closed, as it should be
		}
		if i%1000 == 999 {
			for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
				if code, body, err := r.get(w.kubeWorld, path); err != nil || code != http.StatusOK {
					t.Errorf("%s after %d connections: %d %s %v", path, i+1, code, body, err)
				}
			}
		}
	}
	if n := openFiles(t, r.PID()); n > 512 {
		t.Errorf("the listener has %d files open", n)
	}
	w.withinMemory(t, r.PID())
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// endedInAnOutage asks a listener to end that has a pinned death in hand and cannot reach the API server. Its successor carries
// the death out; nobody tells it again.
func (w *attackWorld) endedInAnOutage(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	asked := make(chan struct{}, 1)
	kubeconfig := w.proxy(t, func(rw http.ResponseWriter, r *http.Request, pass http.Handler) {
		if !away.Load() {
			pass.ServeHTTP(rw, r)
			return
		}
		if !ofCaches(r) {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
		panic(http.ErrAbortHandler)
	})
	d := w.joinDoomed(t, "in-hand", 60)
	spec := story.ListenerSpec{Binary: w.bin + "/lastgasp-listener", Kubeconfig: kubeconfig, Policy: anyNumber, Records: t.TempDir()}
	r := w.startReplicaWith(t, spec)
	eventually(t, "the listener to know the node", func() error { return r.knows(w.kubeWorld, d.name) })
	away.Store(true)
	if err := d.panics(w.kubeWorld, r); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(busy):
		t.Fatalf("the listener asked for nothing; it says:\n%s", r.says())
	}
	r.terminate(t)
	away.Store(false)
	spec.Kubeconfig = ""
	spec.Policy = anyNumber
	w.awaitPhase(t, d, w.startReplicaWith(t, spec), policy.Cleaned)
	if err := d.cleanedOnce(w.audit(t)); err != nil {
		t.Error(err)
	}
}

// fasterDryRun has a dry run hear a death before a listener that acts.
func (w *attackWorld) fasterDryRun(t *testing.T) {
	t.Parallel()
	d := w.joinDoomed(t, "rehearsed-first", 61)
	dry, acts := w.startReplica(t, w.bin, "", anyNumber, "--dry-run"), w.startReplica(t, w.bin, "", anyNumber)
	for _, r := range []*replica{dry, acts} {
		eventually(t, "the listener to know the node", func() error { return r.knows(w.kubeWorld, d.name) })
	}
	if err := d.panics(w.kubeWorld, dry); err != nil {
		t.Fatal(err)
	}
	rehearsed := *d
	rehearsed.death = policy.DryRunName(d.deathName(), d.boot)
	w.awaitPhase(t, &rehearsed, dry, policy.Refused)
	if err := d.panics(w.kubeWorld, acts); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(t, d, acts, policy.Cleaned)
}

// lieToOneReplica has a pod claim a death to one replica. The kernel's own word reaches only the other one.
func (w *attackWorld) lieToOneReplica(t *testing.T) {
	t.Parallel()
	d := w.joinDoomed(t, "lied-about", 62)
	first, second := w.startReplica(t, w.bin, "", anyNumber), w.startReplica(t, w.bin, "", anyNumber)
	for _, r := range []*replica{first, second} {
		eventually(t, "the listener to know the node", func() error { return r.knows(w.kubeWorld, d.name) })
	}
	lie := *d
	lie.secret = randomSecret()
	if err := lie.panics(w.kubeWorld, first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lie to be on record", func() error {
		have, err := w.cluster.Death(t.Context(), d.deathName())
		if err == nil && have.Authority.String() != "kernel" {
			err = fmt.Errorf("%s authority", have.Authority)
		}
		return err
	})
	if err := d.panics(w.kubeWorld, second); err != nil {
		t.Fatal(err)
	}
	w.cleaned(t, d.deathName(), "pinned")
}

// replayAfterRestart replays a death to a listener that has not heard it, once its node is back.
func (w *attackWorld) replayAfterRestart(t *testing.T) {
	t.Parallel()
	d := w.joinDoomed(t, "replayed", 63)
	r := w.startReplica(t, w.bin, "", anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w.kubeWorld, d.name) })
	if err := d.panics(w.kubeWorld, r); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(t, d, r, policy.Cleaned)
	if err := w.comesBack(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	r.Kill()
	r = w.startReplica(t, w.bin, "", anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w.kubeWorld, d.name) })
	again := *d // with another boot's name nothing would be on record yet
	again.instance = ""
	for _, replayed := range []*doomed{d, &again} {
		if err := replayed.panics(w.kubeWorld, r); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the replay to be judged", func() error {
		text, err := os.ReadFile(r.log)
		if n := strings.Count(string(text), "already on record") + strings.Count(string(text), "msg=decided"); err == nil && n == 0 {
			err = errors.New("it is not")
		}
		return err
	})
	if err := within(t.Context(), busy, func() error { return w.untouched(t.Context(), d) }); err != nil {
		t.Error(err)
	}
	if err := d.spared(w.audit(t), back); err != nil {
		t.Error(err)
	}
}

// fullPod has a tenant fill a pod's annotations, so that no write of it is valid, and give it an image whose name must not reach a
// terminal. The node that it ran on is deleted all the same.
func (w *attackWorld) fullPod(t *testing.T) {
	t.Parallel()
	d := w.joinDoomed(t, "full-of-notes", 64)
	const key = "example.com/full"
	w.newPod(t, d.name+"-tenant", d.name, corev1.PodRunning, func(p *corev1.Pod) {
		p.Spec.Containers[0].Image = strings.ToValidUTF8(raw, "") + "x"
		p.Annotations = map[string]string{key: strings.Repeat("x", 256<<10-len(key))}
	})
	r := w.startReplica(t, w.bin, "", anyNumber)
	eventually(t, "the listener to know the node", func() error { return r.knows(w.kubeWorld, d.name) })
	if err := d.panics(w.kubeWorld, r); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(t, d, r, policy.Incomplete)
	if _, err := w.cluster.Node(t.Context(), d.name); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("the Node: %v, want it deleted", err)
	}
	if err := d.cleanedOnce(w.audit(t)); err != nil {
		t.Error(err)
	}
}

// startWithoutCluster starts a listener that writes deaths into a directory.
func (w *attackWorld) startWithoutCluster(t *testing.T, records string) *replica {
	t.Helper()
	r := w.newReplica()
	dir, err := os.MkdirTemp(w.temp, "")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("listen: [%q]\nadmin: %s\nrecords: %s\nkeep: {records: 200}\n", r.listen, r.admin, records)
	file := filepath.Join(dir, "listener.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.log = filepath.Join(dir, "listener.log")
	w.mu.Lock()
	w.logs = append(w.logs, r.log)
	w.mu.Unlock()
	r.Daemon, err = lab.StartDaemon(t, "lastgasp-listener", r.log, w.ns.Command(t.Context(), w.bin+"/lastgasp-listener", "run", "--config", file))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to answer", func() error { _, _, err := r.get(w.kubeWorld, "/healthz"); return err })
	return r
}

// onFile returns an error unless a death of d is in the directory.
func (d *doomed) onFile(records string) error {
	files, err := filepath.Glob(filepath.Join(records, "*.death.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), d.boot) {
			return nil
		}
	}
	return fmt.Errorf("none of %d deaths on file is that of boot %s", len(files), d.boot)
}

// withoutCluster makes up deaths from ever new ports of one address, which is that of one of three nodes that die.
func (w *attackWorld) withoutCluster(t *testing.T) {
	t.Parallel()
	records := t.TempDir()
	r := w.startWithoutCluster(t, records)
	dying := []*doomed{newDoomed("a", 70), newDoomed("b", 71), newDoomed("c", 72)}
	var ports []net.PacketConn
	for range 2000 {
		ports = append(ports, must(lab.Listen(w.ns, netip.AddrPortFrom(dying[0].addr, 0))))
	}
	defer func() {
		for _, c := range ports {
			c.Close()
		}
	}()
	to := net.UDPAddrFromAddrPort(r.listen)
	f := &flood{queue: fmt.Sprintf("/proc/%d/net/udp", r.PID())}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	sent := 0
	go func() {
		for ; ctx.Err() == nil || sent < 20_000; sent++ {
			if sent%paceEvery == 0 {
				if err := f.pace(t.Context()); err != nil {
					over <- err
					return
				}
			}
			lie := fmt.Appendf(nil, "6.12.0,0,%d,%d,-;Kernel panic - not syncing: made up\n instance=i-%d\n boot=%08d\n", sent, sent, sent, sent)
			if _, err := ports[sent%len(ports)].WriteTo(lie, to); err != nil {
				over <- err
				return
			}
		}
		over <- nil
	}()
	for _, d := range dying {
		if err := d.panics(w.kubeWorld, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range dying {
		eventually(t, "the death to be on file", func() error { return d.onFile(records) })
	}
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
	for _, d := range dying {
		if err := d.onFile(records); err != nil {
			t.Errorf("after %d made-up deaths: %v", sent, err)
		}
	}
	files, err := os.ReadDir(records)
	if err != nil || len(files) > 201 { // one may be in the making
		t.Errorf("%d files, %v; want 200 at most", len(files), err)
	}
	t.Logf("%d made-up deaths", sent)
	w.ask(t, r)
	w.withinMemory(t, r.PID())
}

// fullDisk has a node die while nothing can be written. The listener says so, and writes when it can.
func (w *attackWorld) fullDisk(t *testing.T) {
	t.Parallel()
	records := t.TempDir()
	if err := unix.Mount("tmpfs", records, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(records, unix.MNT_DETACH) })
	r := w.startWithoutCluster(t, records)
	eventually(t, "the listener to be ready", func() error {
		if code, body, err := r.get(w.kubeWorld, "/readyz"); err != nil || code != http.StatusOK {
			return fmt.Errorf("readyz %d %s %v", code, body, err)
		}
		return nil
	})
	filler := filepath.Join(records, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	d := newDoomed("full", 73)
	if err := d.panics(w.kubeWorld, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to say so", func() error {
		if code, body, err := r.get(w.kubeWorld, "/readyz"); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "no space left") {
			return fmt.Errorf("readyz %d %s %v", code, body, err)
		}
		return nil
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the death to be on file", func() error { return d.onFile(records) })
	eventually(t, "the listener to be ready again", func() error {
		if code, body, err := r.get(w.kubeWorld, "/readyz"); err != nil || code != http.StatusOK {
			return fmt.Errorf("readyz %d %s %v", code, body, err)
		}
		return nil
	})
	t.Run("ended meanwhile, its log has the death", func(t *testing.T) {
		if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
		last := newDoomed("last", 74)
		if err := last.panics(w.kubeWorld, r); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the listener to have tried", func() error {
			if code, body, err := r.get(w.kubeWorld, "/readyz"); err != nil || code != http.StatusServiceUnavailable {
				return fmt.Errorf("readyz %d %s %v", code, body, err)
			}
			return nil
		})
		r.terminate(t)
		if text, err := os.ReadFile(r.log); err != nil || !strings.Contains(string(text), last.boot) {
			t.Errorf("its log, %v:\n%s", err, r.says())
		}
	})
}
