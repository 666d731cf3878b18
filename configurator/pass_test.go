package configurator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

func TestApplyArmsAndProves(t *testing.T) {
	w := newWorld(t)
	s, err := w.node("10.0.2.10:6666", "10.0.3.10:6666").Apply(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(w.kernel.targets) != 2 || w.proved != 1 {
		t.Errorf("%d targets, proved %d times", len(w.kernel.targets), w.proved)
	}
	for _, st := range w.kernel.targets {
		if diff := cmp.Diff([]string{"instance=0123456789abcdef0123456789abcdef", "boot=" + someone.Boot, "gasp=(secret)"}, View(st.Spec).Userdata); diff != "" {
			t.Errorf("userdata (-want +got):\n%s", diff)
		}
		if gasp := st.Userdata[2].Value; len(gasp) != 22 {
			t.Errorf("the secret has %d characters, 128 bits have 22 in base64url", len(gasp))
		}
	}
	for _, ts := range s.Targets {
		if ts.LastAck.IsZero() {
			t.Errorf("%s counts as never acknowledged", ts.Name)
		}
	}

	w.kernel.log = nil
	if _, err := w.node("10.0.2.10:6666", "10.0.3.10:6666").Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.kernel.log) > 0 {
		t.Errorf("a second pass touched what was right: %v", w.kernel.log)
	}
}

func TestSecretIsForRootAndOfOneBoot(t *testing.T) {
	w := newWorld(t)
	node := w.node("10.0.2.10:6666")
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(w.root.Path(machine.RunDir, "gasp"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	first := w.kernel.targets[0].Userdata[2].Value
	for _, file := range []string{"state.json", "lock"} {
		if data, _ := os.ReadFile(w.root.Path(machine.RunDir, file)); strings.Contains(string(data), first) {
			t.Errorf("%s holds the secret", file)
		}
	}
	draft, err := node.Draft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if shown, err := json.Marshal(draft.View(nil)); err != nil || strings.Contains(string(shown), first) {
		t.Errorf("--dry-run shows the secret (%v)", err)
	}

	if err := node.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := w.kernel.targets[0].Userdata[2].Value; again != first {
		t.Error("another secret in the same boot: the listener has pinned the first")
	}

	w.write(t, "proc/sys/kernel/random/boot_id", "another boot")
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.kernel.targets) != 1 || w.kernel.targets[0].Userdata[2].Value == first {
		t.Error("the secret of the former boot is in use")
	}
}

// A secret that cannot be kept, as on a full /run, is no reason to be silent; and no reason to touch what has one.
func TestWithoutASecretTheNodeIsArmedAllTheSame(t *testing.T) {
	w := newWorld(t)
	node := w.node(listenerA)
	w.write(t, machine.RunDir+"/gasp/in-the-way", "")
	if _, err := node.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "the secret of this boot") {
		t.Errorf("error %v", err)
	}
	if len(w.kernel.targets) != 1 || hasSecret(w.kernel.targets[0].Spec) || w.proved != 1 {
		t.Fatalf("armed %v, %d proofs", names(w.kernel.targets), w.proved)
	}
	if status, err := node.Status(nil); err != nil || status.Verdict != Unproven {
		t.Errorf("verdict %s, %v", status.Verdict, err)
	}
	if err := os.RemoveAll(w.root.Path(machine.RunDir, "gasp")); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.kernel.targets) != 1 || !hasSecret(w.kernel.targets[0].Spec) {
		t.Fatalf("the secret has not been added: %v", names(w.kernel.targets))
	}
	if err := os.Remove(w.root.Path(machine.RunDir, "gasp")); err != nil {
		t.Fatal(err)
	}
	w.write(t, machine.RunDir+"/gasp/in-the-way", "")
	if _, err := node.Apply(t.Context()); err == nil || len(w.kernel.targets) != 1 || !hasSecret(w.kernel.targets[0].Spec) {
		t.Errorf("what was armed has changed: %v, %v", names(w.kernel.targets), err)
	}
}

func TestOldKernelGetsNoUserdata(t *testing.T) {
	w := newWorld(t)
	w.kernel.support = configfs.Support{Netconsole: true, Extended: true}
	if _, err := w.node("10.0.2.10:6666").Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := w.kernel.targets[0]; st.Release || len(st.Userdata) > 0 || !st.Extended {
		t.Errorf("armed %+v", View(st.Spec))
	}
}

func TestMakeBeforeBreak(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(w *world) *Configurator
		err     error
		log     []string
		left    []string
		elsewhy string
	}{
		{
			name:   "a new listener that answers replaces the old one",
			change: func(w *world) *Configurator { return w.node(listenerB) },
			log:    []string{"arm lastgasp-10.0.3.10-1", "disarm lastgasp-10.0.2.10-1"},
			left:   []string{"lastgasp-10.0.3.10-1"},
		},
		{
			name: "a new listener that does not answer leaves the old one",
			change: func(w *world) *Configurator {
				w.deaf[netip.MustParseAddrPort(listenerB)] = true
				return w.node(listenerB)
			},
			err:  ErrUnproved,
			log:  []string{"arm lastgasp-10.0.3.10-1", "disarm lastgasp-10.0.3.10-1"},
			left: []string{"lastgasp-10.0.2.10-1"},
		},
		{
			name: "a listener that cannot be reached leaves the old one",
			change: func(w *world) *Configurator {
				w.routes["10.0.3.10"] = nexthop.ErrNoRoute
				return w.node(listenerB)
			},
			err:  nexthop.ErrNoRoute,
			left: []string{"lastgasp-10.0.2.10-1"},
		},
		{
			name: "of two listeners the one that can be reached is armed, the old one stays",
			change: func(w *world) *Configurator {
				w.routes["10.0.4.10"] = nexthop.ErrNoReply
				return w.node(listenerB, "10.0.4.10:6666")
			},
			err:  nexthop.ErrNoReply,
			log:  []string{"arm lastgasp-10.0.3.10-1"},
			left: []string{"lastgasp-10.0.2.10-1", "lastgasp-10.0.3.10-1"},
		},
		{
			name:   "a gateway with a new hardware address is followed",
			change: func(w *world) *Configurator { w.mac = movedMAC; return w.node(listenerA) },
			log:    []string{"arm lastgasp-10.0.2.10-2", "disarm lastgasp-10.0.2.10-1"},
			left:   []string{"lastgasp-10.0.2.10-2"},
		},
		{
			name: "a gateway with a new hardware address is followed though the listener is down",
			change: func(w *world) *Configurator {
				w.mac = movedMAC
				w.deaf[netip.MustParseAddrPort(listenerA)] = true
				return w.node(listenerA)
			},
			err:  ErrUnproved,
			log:  []string{"arm lastgasp-10.0.2.10-2"},
			left: []string{"lastgasp-10.0.2.10-1", "lastgasp-10.0.2.10-2"},
		},
		{
			name: "a target the kernel disabled is armed anew",
			change: func(w *world) *Configurator {
				w.kernel.targets[0].Enabled = false
				return w.node(listenerA)
			},
			log:  []string{"disarm lastgasp-10.0.2.10-1", "arm lastgasp-10.0.2.10-2"},
			left: []string{"lastgasp-10.0.2.10-2"},
		},
		{
			name: "a device that refuses leaves what is armed",
			change: func(w *world) *Configurator {
				w.kernel.refuse = configfs.ErrDevice
				return w.node(listenerB)
			},
			err:  configfs.ErrDevice,
			left: []string{"lastgasp-10.0.2.10-1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if _, err := w.node(listenerA).Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.kernel.log = nil
			s, err := tt.change(w).Apply(t.Context())
			if !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.log, w.kernel.log); diff != "" {
				t.Errorf("what was done (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.left, names(w.kernel.targets)); diff != "" {
				t.Errorf("what is armed (-want +got):\n%s", diff)
			}
			kept, stateErr := w.root.State()
			if stateErr != nil || kept == nil || (kept.Failed == "") != (tt.err == nil) {
				t.Errorf("state kept: %+v, %v", kept, stateErr)
			}
			if len(s.Targets) != len(tt.left) {
				t.Errorf("state has %d targets, %d are armed", len(s.Targets), len(tt.left))
			}
		})
	}
}

// The state of a doubtful change is not the end: when the listener is back one pass tidies up.
func TestDoubtIsResolvedByALaterPass(t *testing.T) {
	w := newWorld(t)
	a := netip.MustParseAddrPort("10.0.2.10:6666")
	pass := func() error { _, err := w.node(a.String()).Apply(t.Context()); return err }
	if err := pass(); err != nil {
		t.Fatal(err)
	}
	w.deaf[a] = true
	for _, mac := range [][]byte{movedMAC, gatewayMAC, {2, 0, 0, 0, 0, 9}, movedMAC} {
		w.mac = mac
		if err := pass(); !errors.Is(err, ErrUnproved) {
			t.Fatalf("error %v", err)
		}
		if n := len(w.kernel.targets); n > 2 {
			t.Fatalf("%d targets pile up: %v", n, names(w.kernel.targets))
		}
	}
	w.deaf = nil
	if err := pass(); err != nil {
		t.Fatal(err)
	}
	if len(w.kernel.targets) != 1 || w.kernel.targets[0].RemoteMAC.String() != w.mac.String() {
		t.Errorf("left: %v", names(w.kernel.targets))
	}
}

func TestLastGoodListenersAreUsedOnlyWhereTheyWereProved(t *testing.T) {
	w := newWorld(t)
	if _, err := w.node("10.0.2.10:6666").Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	offline := w.node("10.0.2.10:6666")
	offline.Sources = []endpoint.Source{unreachable{}}

	s, err := offline.Apply(t.Context())
	if err != nil || !strings.HasPrefix(s.Where, "last known good since ") || len(s.Passed) != 1 {
		t.Errorf("from %q, passed over %q, %v", s.Where, s.Passed, err)
	}
	if _, err := offline.Reload(t.Context()); !errors.Is(err, endpoint.ErrNotFound) {
		t.Errorf("reload: error %v, want ErrNotFound", err)
	}
	w.write(t, "sys/class/net/ens5/address", "02:00:00:00:00:99") // the image boots elsewhere
	if _, err := offline.Apply(t.Context()); !errors.Is(err, endpoint.ErrNotFound) {
		t.Errorf("on another machine: error %v, want ErrNotFound", err)
	}
	if len(w.kernel.targets) != 1 {
		t.Errorf("a failed look-up disarmed: %v", w.kernel.log)
	}
}

// hanging is a source that never answers, as Parameter Store is where its endpoint is missing.
type hanging struct{}

func (hanging) Find(ctx context.Context) ([]endpoint.Endpoint, string, error) {
	<-ctx.Done()
	return nil, "ssm", ctx.Err()
}

// A node that boots while nobody says where its listeners are is armed by apply, in the time that its unit gives it.
func TestWithoutAnAnswerTheLastGoodListenersAreArmedInTime(t *testing.T) {
	unit, err := os.ReadFile("../systemd/lastgasp-configurator.service")
	if err != nil {
		t.Fatal(err)
	}
	var seconds time.Duration
	_, command, _ := strings.Cut(string(unit), "\nExecStart=")
	if _, err := fmt.Sscanf(command, "/usr/bin/timeout --kill-after=1 %d /usr/bin/lastgasp-configurator apply\n", &seconds); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.node(listenerA).Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.write(t, "proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555")
		w.kernel.targets = nil
		node := w.node(listenerA)
		node.Sources = []endpoint.Source{hanging{}}
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		s, err := node.Apply(ctx)
		if err != nil || len(s.Targets) != 1 || !s.Targets[0].Acked || !strings.HasPrefix(s.Where, "last known good since ") {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

type unreachable struct{}

func (unreachable) Find(context.Context) ([]endpoint.Endpoint, string, error) {
	return nil, "ssm", errCable
}

func TestDisarmLeavesNothingButTheSecret(t *testing.T) {
	w := newWorld(t)
	w.write(t, "proc/sys/kernel/osrelease", "7.2.13-cloud-amd64")
	node := w.node("10.0.2.10:6666")
	node.Config.Panic.Hold = true
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.read(panicFile); got != "0" {
		t.Fatalf("kernel.panic is %s while held", got)
	}
	if err := node.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.read(panicFile); got != "10" {
		t.Errorf("kernel.panic is %s after disarm", got)
	}
	if len(w.kernel.targets) > 0 {
		t.Errorf("left: %v", names(w.kernel.targets))
	}
	var files []string
	fs.WalkDir(os.DirFS(w.root.Path(machine.RunDir)), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if diff := cmp.Diff([]string{"gasp", "lock"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestVerifyNamesWhoIsSilent(t *testing.T) {
	w := newWorld(t)
	node := w.node("10.0.2.10:6666", "10.0.3.10:6666")
	if _, err := node.Verify(t.Context()); !errors.Is(err, ErrUnproved) {
		t.Errorf("with nothing armed: error %v", err)
	}
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Verify(t.Context()); err != nil {
		t.Errorf("with both listening: %v", err)
	}
	w.deaf[netip.MustParseAddrPort("10.0.3.10:6666")] = true
	proofs, err := node.Verify(t.Context())
	if !errors.Is(err, ErrUnproved) || !strings.Contains(err.Error(), "10.0.3.10:6666") || len(proofs) != 2 {
		t.Errorf("with one silent: %+v, %v", proofs, err)
	}
	status, err := node.Status(nil)
	if err != nil || status.Verdict != Unproven {
		t.Errorf("one of two listeners is silent: %s, %v", status.Verdict, err)
	}
}

// What verify was about to prove when it was interrupted, and what `status` would say if its file could be read, change nothing.
func TestVerifyThatIsInterruptedOrCannotBeSaved(t *testing.T) {
	w := newWorld(t)
	node := w.node(listenerA)
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	interrupted, cancel := context.WithCancel(t.Context())
	prove := node.Prove
	node.Prove = func(ctx context.Context, _ machine.Identity, _ machine.Facts, _ []canary.Route) ([]canary.Proof, error) {
		cancel()
		return nil, ctx.Err()
	}
	if _, err := node.Verify(interrupted); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: error %v", err)
	}
	if status, err := node.Status(nil); err != nil || status.Verdict != Covered {
		t.Errorf("interrupted: %s, %v", status.Verdict, err)
	}
	node.Prove = prove
	w.write(t, machine.RunDir+"/state.json", "{")
	if proofs, err := node.Verify(t.Context()); err != nil || len(proofs) != 1 || !proofs[0].Acked {
		t.Errorf("the state cannot be read: %+v, %v", proofs, err)
	}
}

// Somebody writes something else into our target, or the card's address changes: what was proved before says nothing about it, and
// verify does.
func TestWhatSomebodyElseWroteIsNotCovered(t *testing.T) {
	other := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	for name, write := range map[string]func(*configfs.State){
		"another next hop":                 func(st *configfs.State) { st.RemoteMAC = other },
		"another listener":                 func(st *configfs.State) { st.RemotePort++ },
		"another source":                   func(st *configfs.State) { st.LocalIP = st.LocalIP.Next() },
		"another source port":              func(st *configfs.State) { st.LocalPort-- },
		"another card, or its new address": func(st *configfs.State) { st.LocalMAC = other },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			node := w.node(listenerA)
			verdict := func() Verdict {
				t.Helper()
				status, err := node.Status(nil)
				if err != nil {
					t.Fatal(err)
				}
				return status.Verdict
			}
			if _, err := node.Apply(t.Context()); err != nil || verdict() != Covered {
				t.Fatalf("verdict %s, %v", verdict(), err)
			}
			write(&w.kernel.targets[0])
			if v := verdict(); v != Unproven {
				t.Errorf("verdict %s", v)
			}
			if _, err := node.Verify(t.Context()); err != nil || verdict() != Covered {
				t.Errorf("after verify: verdict %s, %v", verdict(), err)
			}
		})
	}
}

// What cannot be tried is not proved, whatever was said before, and a target inherits nothing from one of its name.
func TestNothingIsProvedByAProofThatFails(t *testing.T) {
	failing := func(context.Context, machine.Identity, machine.Facts, []canary.Route) ([]canary.Proof, error) {
		return nil, errCable
	}
	apply := func(t *testing.T, c *Configurator) error { _, err := c.Apply(t.Context()); return err }
	verify := func(t *testing.T, c *Configurator) error { _, err := c.Verify(t.Context()); return err }
	for _, tt := range []struct {
		name string
		gone bool // somebody took the target away
		do   func(*testing.T, *Configurator) error
		ack  bool // the former one still counts as the last
	}{
		{name: "a pass", do: apply, ack: true},
		{name: "a pass that arms anew under the name of one that was acknowledged", gone: true, do: apply},
		{name: "verify", do: verify, ack: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			node := w.node(listenerA)
			if _, err := node.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			was := names(w.kernel.targets)
			if tt.gone {
				w.kernel.targets = nil
			}
			node.Prove = failing
			if err := tt.do(t, node); !errors.Is(err, errCable) {
				t.Errorf("error %v, want %v", err, errCable)
			}
			if diff := cmp.Diff(was, names(w.kernel.targets)); diff != "" {
				t.Fatalf("armed (-want +got):\n%s", diff)
			}
			status, err := node.Status(nil)
			if err != nil {
				t.Fatal(err)
			}
			if status.Verdict != Unproven {
				t.Errorf("verdict %s, want %s", status.Verdict, Unproven)
			}
			got := status.Targets[0]
			if got.Why != errCable.Error() || got.RTT != 0 || got.LastAck.IsZero() == tt.ack {
				t.Errorf("why %q, last ack %s in %s", got.Why, got.LastAck, got.RTT)
			}
		})
	}
}

// An old target that stays because its successor is silent was not asked: what it failed to do before still holds.
func TestATargetThatWasNotAskedKeepsWhatIsKnown(t *testing.T) {
	w := newWorld(t)
	if _, err := w.node(listenerA).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.deaf[netip.MustParseAddrPort(listenerA)] = true
	w.deaf[netip.MustParseAddrPort(listenerB)] = true
	for _, listener := range []string{listenerA, listenerB} {
		node := w.node(listener)
		if _, err := node.Apply(t.Context()); !errors.Is(err, ErrUnproved) {
			t.Fatalf("error %v, want %v", err, ErrUnproved)
		}
		status, err := node.Status(nil)
		if err != nil || status.Verdict != Unproven {
			t.Errorf("after a pass for %s: %s, %v", listener, status.Verdict, err)
		}
	}
}

// A dry run may have to make a target for a moment to see what the kernel can do: not beside a pass, and not if
// anything else shows it.
func TestDraftProbesAloneOrNotAtAll(t *testing.T) {
	present := []configfs.State{armed(specTo(listenerA, gatewayMAC), "lastgasp-10.0.2.10-1", 6665)}
	for _, tt := range []struct {
		name    string
		support configfs.Support
		present []configfs.State
		probes  int
	}{
		{"nothing is armed", kernel612, nil, 1},
		{"a target shows it", kernel612, present, 0},
		{"there is no netconsole", configfs.Support{}, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.kernel.support, w.kernel.targets = tt.support, tt.present
			ended, end := context.WithCancel(t.Context())
			end()
			probes := 0
			w.kernel.probing = func() {
				probes++
				if unlock, err := w.root.Lock(ended, nil); err == nil {
					unlock()
					t.Error("it probes while a pass could begin")
				}
			}
			d, err := w.node(listenerA).Draft(t.Context())
			if err != nil || d.Support != tt.support {
				t.Errorf("support %+v, %v", d.Support, err)
			}
			if probes != tt.probes {
				t.Errorf("%d probes, want %d", probes, tt.probes)
			}
			if _, err := os.Stat(w.root.Path(machine.RunDir)); (err == nil) != (tt.probes > 0) {
				t.Errorf("%s is made though there is nothing to wait for: %v", machine.RunDir, err)
			}
		})
	}
}

// On EC2 the network drops packets from an address that is not on the interface: the metadata service decides.
func TestOnEC2TheMetadataServiceIsHeeded(t *testing.T) {
	instance := ec2.Instance{
		ID: "i-0123456789abcdef0", Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1",
		Interfaces: []ec2.Interface{{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, Primary: true, Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}},
	}
	for _, tt := range []struct {
		name   string
		answer ec2.Instance
		err    error
		query  nexthop.Query
		first  string // listener
	}{
		{name: "it answers", answer: instance, first: "10.0.3.10",
			query: nexthop.Query{Sources: []netip.Addr{netip.MustParseAddr("10.0.1.5")}, Prefer: "ens5"}},
		{name: "it does not: the node is armed all the same", err: errCable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write(t, "sys/class/dmi/id/sys_vendor", "Amazon EC2")
			node := w.node("10.0.2.10:6666")
			list, err := endpoint.ParseList("[{address: 10.0.2.10:6666, zone: euw1-az2}, {address: 10.0.3.10:6666, zone: euw1-az1}]")
			if err != nil {
				t.Fatal(err)
			}
			node.Sources = []endpoint.Source{endpoint.Static{Endpoints: list, Origin: "test"}}
			asked := 0
			node.Instance = func(context.Context) (ec2.Instance, error) { asked++; return tt.answer, tt.err }
			var queries []nexthop.Query
			node.Resolve = func(ctx context.Context, q nexthop.Query) (nexthop.Hop, error) {
				queries = append(queries, q)
				return w.resolve(ctx, q)
			}
			s, err := node.Apply(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if asked != 1 {
				t.Errorf("asked %d times in one pass", asked)
			}
			for _, q := range queries {
				want := tt.query
				want.Destination = q.Destination
				if diff := cmp.Diff(want, q, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Errorf("query (-want +got):\n%s", diff)
				}
			}
			if tt.first != "" && (queries[0].Destination.String() != tt.first || s.Identity.Instance != tt.answer.ID) {
				t.Errorf("first %s for %s, want the listener of the own zone", queries[0].Destination, s.Identity.Instance)
			}
			if len(w.kernel.targets) != 2 {
				t.Errorf("%d targets", len(w.kernel.targets))
			}
		})
	}
}

// A metadata service that does not answer for a while changes nothing about what is armed and proved.
func TestWithoutTheMetadataServiceWhatIsArmedStays(t *testing.T) {
	instance := ec2.Instance{
		ID: "i-0123456789abcdef0", Region: "eu-west-1", ZoneName: "eu-west-1b", ZoneID: "euw1-az1",
		Interfaces: []ec2.Interface{{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, Primary: true, Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.5")}}},
	}
	w := newWorld(t)
	w.write(t, "sys/hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef") // a Xen instance, which has to ask for its id
	node := w.node(listenerA)
	list, err := endpoint.ParseList("[{address: 10.0.2.10:6666, zone: euw1-az2}, {address: 10.0.3.10:6666, zone: euw1-az1}, {address: 10.0.4.10:6666, zone: euw1-az3}]")
	if err != nil {
		t.Fatal(err)
	}
	node.Config.Targets = 1
	node.Sources = []endpoint.Source{endpoint.Static{Endpoints: list, Origin: "test"}}
	var answers error
	node.Instance = func(context.Context) (ec2.Instance, error) {
		if answers != nil {
			return ec2.Instance{}, answers
		}
		return instance, nil
	}
	// The route is by the second interface, unless the source says otherwise.
	node.Resolve = func(ctx context.Context, q nexthop.Query) (nexthop.Hop, error) {
		hop, err := w.resolve(ctx, q)
		if len(q.Sources) == 0 {
			hop.Device, hop.Source = "ens6", netip.MustParseAddr("10.0.3.5")
		}
		return hop, err
	}
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := w.kernel.targets[0]
	answers, w.kernel.log = errCable, nil
	if _, err := node.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.kernel.log) > 0 {
		t.Errorf("%v: from %s to %s became %s to %s", w.kernel.log, before.LocalIP, before.RemoteIP, w.kernel.targets[0].LocalIP, w.kernel.targets[0].RemoteIP)
	}
}
