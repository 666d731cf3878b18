package configurator

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// A pass that fails prints no acknowledgement of an older one, and still sends a canary through what is armed.
func TestAFailedPassShowsNoOlderAcknowledgement(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fail  func(w *world, node *Configurator)
		heard bool // what is armed is still heard
	}{
		{"no route, and nothing is heard", func(w *world, _ *Configurator) {
			w.routes["10.0.2.10"] = nexthop.ErrNoRoute
			w.deaf[netip.MustParseAddrPort(listenerA)] = true
		}, false},
		{"no route according to the tables, but what is armed is heard", func(w *world, _ *Configurator) {
			w.routes["10.0.2.10"] = nexthop.ErrNoRoute
		}, true},
		{"nobody says where listeners are", func(_ *world, node *Configurator) {
			node.Sources = []endpoint.Source{unreachable{}}
			node.fresh = true
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			node := w.node(listenerA)
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			tt.fail(w, node)
			proved := w.proved
			s, err := node.Apply(t.Context())
			if err == nil {
				t.Fatal("the pass succeeded")
			}
			var b strings.Builder
			if err := WriteState(&b, s); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(b.String(), "armed, acknowledged in"); got != tt.heard || len(s.Targets) != 1 {
				t.Errorf("printed %q", b.String())
			}
			if w.proved != proved+1 {
				t.Errorf("%d canaries through what is armed, want 1", w.proved-proved)
			}
			if status, err := node.Status(nil); err != nil || status.Verdict != Unproven {
				t.Errorf("verdict %s, %v; want %s", status.Verdict, err, Unproven)
			}
		})
	}
}

// Whoever sets the clock changes nothing about what is proved.
func TestVerdictDoesNotDependOnTheWallClock(t *testing.T) {
	one := armed(specTo(listenerA, gatewayMAC), "lastgasp-10.0.2.10-1", 6665)
	for _, wall := range []time.Duration{-24 * 365 * time.Hour, 0, 24 * 365 * time.Hour} {
		for _, tt := range []struct {
			age  time.Duration
			want Verdict
		}{{time.Minute, Covered}, {time.Hour, Unproven}} {
			last := &machine.State{
				Time: at(wall), Uptime: up - tt.age, Interval: 10 * time.Minute,
				Targets: []machine.TargetState{{Name: one.Name, Listener: one.Remote(), Acked: true, Known: true, LastAck: at(wall), LastAckUptime: up - tt.age}},
			}
			if got := newStatus(up, goodFacts, []configfs.State{one}, nil, nil, last).Verdict; got != tt.want {
				t.Errorf("wall clock off by %s, acknowledged %s ago: %s, want %s", wall, tt.age, got, tt.want)
			}
		}
	}
}

// A /run that survived a reboot says nothing about this boot.
func TestStateOfAnotherBootIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	node := w.node(listenerA)
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.write(t, "proc/sys/kernel/random/boot_id", "another boot")
	if status, err := node.Status(nil); err != nil || status.Verdict != Unproven || status.LastPass != nil {
		t.Errorf("verdict %s, last pass %v, %v", status.Verdict, status.LastPass, err)
	}
}

// A directory that root has made with its own umask hides our files from other users: status is a screen all the same.
func TestStatusShowsWhatItCanRead(t *testing.T) {
	for _, file := range []string{"state.json", "settings.json", "enroll.json"} {
		w := newWorld(t)
		node := w.node(listenerA)
		if _, err := node.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		os.Remove(w.root.Path("run/lastgasp", file))
		w.write(t, "run/lastgasp/"+file+"/x", "as good as a file that may not be read: root may read all")
		status, err := node.Status(nil)
		if err != nil || len(status.Targets) != 1 || !slices.ContainsFunc(status.Findings, func(f machine.Finding) bool {
			return strings.Contains(f.String(), " cannot be read: ") && strings.Contains(f.Mend, file)
		}) {
			t.Errorf("%s: targets %v, findings %v, %v", file, status.Targets, status.Findings, err)
		}
	}
}

func TestStatusWithoutNetconsole(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // the finding begins with
	}{
		{"a kernel that has none", map[string]string{"etc/os-release": "NAME=\"Ubuntu\"\nID=ubuntu"},
			"this kernel has no netconsole module: a panic is not heard; apt install linux-modules-extra-6.12.117-cloud-amd64"},
		{"a distribution that has none", map[string]string{"etc/os-release": "ID=\"amzn\""},
			"this kernel has no netconsole module: a panic is not heard; no kernel of this distribution is known to have it"},
		{"a distribution we know nothing of", nil,
			"this kernel has no netconsole module: a panic is not heard; boot a kernel with CONFIG_NETCONSOLE=m"},
		{"a module that is not loaded", map[string]string{"lib/modules/6.12.117-cloud-amd64/modules.dep": "kernel/net/a.ko:\nkernel/drivers/net/netconsole.ko.xz: kernel/fs/configfs/configfs.ko.xz"},
			"netconsole is not loaded: a panic is not heard; run lastgasp-configurator apply"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.kernel.support = configfs.Support{}
			for file, text := range tt.files {
				w.write(t, file, text)
			}
			status, err := w.node(listenerA).Status(nil)
			if err != nil || status.Verdict != Mute || len(status.Findings) != 1 || !strings.HasPrefix(status.Findings[0].String(), tt.want) {
				t.Errorf("verdict %s, findings %v, %v", status.Verdict, status.Findings, err)
			}
			_, err = w.node(listenerA).Verify(t.Context())
			want := "no netconsole: " + tt.want
			if w.root.HasNetconsole() {
				want = "not acknowledged: no target is armed; run lastgasp-configurator apply"
			}
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("verify: %v, want %s", err, want)
			}
		})
	}
}

// A disk that keeps nothing costs the next boot its last known good listeners, and this one nothing.
func TestAFullDiskIsAWarning(t *testing.T) {
	w := newWorld(t)
	w.write(t, "var/lib/lastgasp", "a file where the directory should be")
	var log bytes.Buffer
	node := w.node(listenerA)
	node.Log = slog.New(slog.NewTextHandler(&log, nil))
	node.Textfile = w.root.Path("var/lib/lastgasp")
	if _, err := node.Apply(t.Context()); err != nil {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"would not find these", "metrics are not written"} {
		if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log.String())
		}
	}
	if status, err := node.Status(nil); err != nil || status.Verdict != Covered {
		t.Errorf("verdict %s, %v", status.Verdict, err)
	}
}

// A state that cannot be written must not leave an older one behind that says covered.
func TestAStateThatCannotBeWrittenIsNotAnOlderOne(t *testing.T) {
	w := newWorld(t)
	node := w.node(listenerA)
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.root.Path("run/lastgasp/state.json.new"), 0o755); err != nil { // as good as a full disk
		t.Fatal(err)
	}
	w.write(t, "run/lastgasp/state.json.new/x", "")
	if _, err := node.Apply(t.Context()); err == nil {
		t.Error("the pass succeeded")
	}
	if status, err := node.Status(nil); err != nil || status.Verdict != Unproven {
		t.Errorf("verdict %s, %v", status.Verdict, err)
	}
}

func TestCorruptFilesHeal(t *testing.T) {
	for _, file := range []string{"run/lastgasp/state.json", "run/lastgasp/settings.json", "run/lastgasp/gasp", "var/lib/lastgasp/endpoints.json"} {
		for _, content := range []string{"", "{", "\x00\x00\x00", "[1,2]"} {
			w := newWorld(t)
			node := w.node(listenerA)
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.write(t, file, content)
			if _, err := node.Status(nil); err != nil {
				t.Errorf("status with %q in %s: %v", content, file, err)
			}
			if _, err := node.Apply(t.Context()); err != nil {
				t.Errorf("apply with %q in %s: %v", content, file, err)
			}
			if status, err := node.Status(nil); err != nil || status.Verdict != Covered {
				t.Errorf("after %q in %s: %s, %v", content, file, status.Verdict, err)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	node := w.node(listenerA)
	node.Textfile = w.root.Path("var/lib/lastgasp")
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(w.root.Path("var/lib/lastgasp", MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"lastgasp_configurator_verdict{verdict=\"covered\"} 1\n", "lastgasp_configurator_verdict{verdict=\"mute\"} 0\n",
		"lastgasp_configurator_last_pass_failed 0\n",
		"lastgasp_configurator_target_acknowledged{target=\"lastgasp-10.0.2.10-1\",listener=\"10.0.2.10:6666\",device=\"ens5\"} 1\n",
		"lastgasp_configurator_target_round_trip_seconds{target=\"lastgasp-10.0.2.10-1\",listener=\"10.0.2.10:6666\",device=\"ens5\"} 0.001\n",
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%q is not in\n%s", want, data)
		}
	}
	if !strings.HasSuffix(string(data), "# EOF\n") {
		t.Error("OpenMetrics ends with # EOF")
	}
	w.deaf[netip.MustParseAddrPort(listenerA)] = true
	if _, err := node.Verify(t.Context()); err == nil {
		t.Error("a deaf listener has acknowledged")
	}
	if text := w.read("var/lib/lastgasp/" + MetricsFile); !strings.Contains(text, "{verdict=\"unproven\"} 1") {
		t.Errorf("after verify:\n%s", text)
	}
	if left, _ := os.ReadDir(w.root.Path("var/lib/lastgasp")); len(left) != 3 { // with endpoints.json and the ledger of boots
		t.Errorf("left behind: %v", left)
	}
	for range 2 {
		if err := node.Disarm(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text := w.read("var/lib/lastgasp/" + MetricsFile); text != "" {
			t.Errorf("a node that is disarmed goes on saying\n%s", text)
		}
	}
}

// A wait that takes long says what it waits for.
func TestWaitsAreNotSilent(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	node := w.node(listenerA)
	node.Log = slog.New(slog.NewTextHandler(&log, nil))
	unlock, err := w.root.Lock(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := node.Apply(ctx); err == nil {
		t.Error("two passes at once")
	}
	unlock()
	if diff := cmp.Diff(true, strings.Contains(log.String(), "waiting for another lastgasp-configurator to finish")); diff != "" {
		t.Errorf("the log says %q", log.String())
	}
}
