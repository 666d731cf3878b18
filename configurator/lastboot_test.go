package configurator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// without is a node whose kernel has no netconsole.
func (w *world) without(endpoints ...string) *Configurator {
	w.kernel.support = configfs.Support{}
	node := w.node(endpoints...)
	node.Load = func(context.Context) error {
		return fmt.Errorf("%w: modprobe netconsole: not found", configfs.ErrNoModule)
	}
	return node
}

const (
	pstoreEntry = "sys/fs/pstore/dmesg-efi_pstore-410244480001001" // of 2100: no test runs later
	panicText   = "<0>[   60.000001] Kernel panic - not syncing: sysrq triggered crash"
)

// died makes another boot of w die of a panic, and boots it again.
func (w *world) died(t *testing.T) {
	t.Helper()
	if _, err := w.node("10.0.2.10:6666").Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.write(t, pstoreEntry, "Panic#1 Part1\n"+panicText)
	w.write(t, "proc/sys/kernel/random/boot_id", "another-boot")
	w.kernel.targets = nil
	if err := os.RemoveAll(w.root.Path(machine.RunDir)); err != nil {
		t.Fatal(err)
	}
}

func TestObituaryIsSentOnce(t *testing.T) {
	w := newWorld(t)
	w.died(t)
	node := w.node("10.0.2.10:6666")
	node.Config.Cluster = "prod-1"
	if err := node.sendObituary(t.Context(), false); !errors.Is(err, errNoneProved) {
		t.Errorf("before a listener has proved itself: %v", err)
	}
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.loses = true
	if err := node.sendObituary(t.Context(), false); !errors.Is(err, errCable) {
		t.Errorf("lost: %v", err)
	}
	if w.read(pstoreEntry) == "" {
		t.Error("an entry was removed that no listener knows")
	}
	w.loses = false
	for range 2 {
		if err := node.sendObituary(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	want := []netconsole.Obituary{{
		Boot: someone.Boot, Cause: "KernelPanic", Evidence: "pstore", Kernel: "6.12.117-cloud-amd64", Cluster: "prod-1",
		Time: time.Unix(4102444800, 0).UTC(), Text: []byte(panicText + "\n"),
	}}
	if diff := cmp.Diff(want, w.sent); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	status, err := node.Status(nil)
	if err != nil {
		t.Fatal(err)
	}
	var text, metrics strings.Builder
	if err := errors.Join(status.WriteText(&text, node.Uptime()), status.writeMetrics(&metrics)); err != nil {
		t.Fatal(err)
	}
	if want := "previous boot  KernelPanic: sysrq triggered crash (pstore); a listener has acknowledged that\n"; !strings.Contains(text.String(), want) {
		t.Errorf("%q is not in\n%s", want, text.String())
	}
	if want := `lastgasp_configurator_previous_boot_died{cause="KernelPanic",evidence="pstore"} 1`; !strings.Contains(metrics.String(), want) {
		t.Errorf("%q is not in\n%s", want, metrics.String())
	}
	if w.read(pstoreEntry) != "" {
		t.Error("the entry would keep the next panic from being stored")
	}
}

func TestObituaryWaitsFor(t *testing.T) {
	const pinned = `{"enrolled": true}`
	for _, tt := range []struct {
		name    string
		strange bool   // the cluster has no Node for this one
		pinned  string // the state of enrolment
		waits   bool   // for the pin
		want    error
	}{
		{"a Node", true, pinned, true, errNoneProved},
		{"the pin", false, "", true, errUnpinned},
		{"the pin that is refused", false, `{"why": "forbidden"}`, true, errUnpinned},
		{"nothing once it is pinned", false, pinned, true, nil},
		{"no pin for ever", false, "", false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.died(t)
			node := w.node("10.0.2.10:6666")
			w.strange = tt.strange
			if tt.pinned != "" {
				w.write(t, "run/lastgasp/enroll.json", tt.pinned)
			}
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := node.sendObituary(t.Context(), tt.waits)
			if !errors.Is(err, tt.want) || len(w.sent) == 1 != (tt.want == nil) {
				t.Errorf("sent %d, error %v, want %v", len(w.sent), err, tt.want)
			}
		})
	}
}

// TestABootThatDiedYoung: what it could not tell is told by the next, before its own end.
func TestABootThatDiedYoung(t *testing.T) {
	w := newWorld(t)
	w.died(t)
	node := w.node("10.0.2.10:6666")
	if _, err := node.Apply(t.Context()); err != nil { // it dies at once
		t.Fatal(err)
	}
	w.write(t, "proc/sys/kernel/random/boot_id", "a-third-boot")
	w.kernel.targets = nil
	if err := os.RemoveAll(w.root.Path(machine.RunDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := node.sendObituary(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	for _, o := range w.sent {
		told = append(told, o.Boot+" "+o.Cause)
	}
	if diff := cmp.Diff([]string{someone.Boot + " KernelPanic"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if w.read(pstoreEntry) != "" {
		t.Error("the entry would keep the next panic from being stored")
	}
}

// TestAShutdownIsToldUnderThePinOnly: listeners believe it of nobody else, and what they have refused is not sent again.
func TestAShutdownIsToldUnderThePinOnly(t *testing.T) {
	w := newWorld(t)
	node := w.node("10.0.2.10:6666")
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := lastboot.MarkEnding(w.root, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.write(t, "proc/sys/kernel/random/boot_id", "another-boot")
	w.kernel.targets = nil
	if err := os.RemoveAll(w.root.Path(machine.RunDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.sendObituary(t.Context(), false); !errors.Is(err, errUnpinned) || len(w.sent) != 0 {
		t.Errorf("without a pin: %v, %d sent", err, len(w.sent))
	}
	w.write(t, "run/lastgasp/enroll.json", `{"enrolled": true}`)
	if err := node.sendObituary(t.Context(), false); err != nil || len(w.sent) != 1 || w.sent[0].Cause != netconsole.CauseOrderly {
		t.Errorf("with one: %v, sent %+v", err, w.sent)
	}
}

func TestEntriesOfPstoreAreKept(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, w *world, c *Configurator)
	}{
		{"where the configuration says so", func(_ *testing.T, _ *world, c *Configurator) { c.Config.LastBoot.KeepPstore = true }},
		{"for systemd-pstore", func(t *testing.T, w *world, _ *Configurator) {
			w.write(t, "etc/systemd/system/sysinit.target.wants/systemd-pstore.service", "")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.died(t)
			node := w.node("10.0.2.10:6666")
			tt.change(t, w, node)
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := node.sendObituary(t.Context(), false); err != nil || len(w.sent) != 1 || w.read(pstoreEntry) == "" {
				t.Errorf("%v, %d sent, entry %q", err, len(w.sent), w.read(pstoreEntry))
			}
		})
	}
}

// TestAfterTheFact: on a kernel without netconsole a pass succeeds once the listeners have proved that they would be told.
func TestAfterTheFact(t *testing.T) {
	w := newWorld(t)
	node := w.without("10.0.2.10:6666")
	state, err := node.Apply(t.Context())
	if err != nil || !state.AfterTheFact || len(state.Targets) != 1 || !state.Targets[0].Acked {
		t.Fatalf("%+v, %v", state, err)
	}
	own := w.proofs[0].Own
	if len(w.kernel.log) != 0 || own == nil || own.Boot != someone.Boot || own.Secret == "" {
		t.Errorf("kernel %v, sent as %+v", w.kernel.log, own)
	}
	status, err := node.Status(nil)
	if err != nil || status.Verdict != AfterTheFact {
		t.Errorf("verdict %s, %v", status.Verdict, err)
	}
	var text strings.Builder
	if err := status.WriteText(&text, node.Uptime()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"listener   10.0.2.10:6666, acknowledged\n",
		"MUTE: this kernel has no netconsole module: a panic is heard only after the fact, once this node runs again; boot a kernel with CONFIG_NETCONSOLE=m",
		"heard only after the fact: a panic of this node would NOT be heard, its next boot says how it died\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
	// A quiet pass has nothing to prove again.
	if _, err := node.passes(t.Context(), nil, true); err != nil || w.proved != 1 {
		t.Errorf("%d proofs, %v", w.proved, err)
	}
}

func TestAfterTheFactCanFail(t *testing.T) {
	w := newWorld(t)
	node := w.without("10.0.2.10:6666")
	w.deaf[netip.MustParseAddrPort("10.0.2.10:6666")] = true
	if _, err := node.Apply(t.Context()); !errors.Is(err, ErrUnproved) {
		t.Errorf("error %v", err)
	}
	if status, err := node.Status(nil); err != nil || status.Verdict != Mute {
		t.Errorf("verdict %s, %v", status.Verdict, err)
	}
	// A kernel that has the module, but does not load it, is to be mended.
	w.write(t, "lib/modules/6.12.117-cloud-amd64/modules.dep", "kernel/drivers/net/netconsole.ko:")
	if _, err := node.Apply(t.Context()); !errors.Is(err, configfs.ErrNoModule) {
		t.Errorf("error %v", err)
	}
}

// A kernel without configfs has no netconsole either, if its list of modules says so. In a container there is no list, and no configfs for
// other reasons.
func TestAfterTheFactWithoutConfigfs(t *testing.T) {
	for _, tt := range []struct {
		name, modules string // content of modules.dep
		want          error
	}{
		{"a kernel that has neither", "kernel/net/a.ko:", nil},
		{"a kernel that has netconsole", "kernel/drivers/net/netconsole.ko:", configfs.ErrNoConfigfs},
		{"a container", "", configfs.ErrNoConfigfs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			node := w.without(listenerA)
			node.Load = func(context.Context) error { return configfs.ErrNoConfigfs }
			if tt.modules != "" {
				w.write(t, "lib/modules/6.12.117-cloud-amd64/modules.dep", tt.modules)
			}
			if s, err := node.Apply(t.Context()); !errors.Is(err, tt.want) || s.AfterTheFact != (tt.want == nil) {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// TestAfterTheFactTheListenerProvesItselfFirst: with endpoint.key nobody gets the secret before.
func TestAfterTheFactTheListenerProvesItselfFirst(t *testing.T) {
	w := newWorld(t)
	node := w.without("10.0.2.10:6666")
	node.Config.Endpoint.Key = make([]byte, 32)
	w.during = func() {
		if w.proofs[0].Own.Secret != "" {
			t.Error("the secret was sent to a listener that has proved nothing")
		}
	}
	if _, err := node.Apply(t.Context()); err != nil || w.proved != 2 || w.proofs[0].Own.Secret == "" {
		t.Errorf("%v, %d proofs, the last as %+v", err, w.proved, w.proofs[0].Own)
	}
}

func TestAfterTheFactObituary(t *testing.T) {
	w := newWorld(t)
	w.died(t)
	node := w.without("10.0.2.10:6666")
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.sendObituary(t.Context(), false); err != nil || len(w.sent) != 1 {
		t.Errorf("%v, %d sent", err, len(w.sent))
	}
}
