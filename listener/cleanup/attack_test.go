package cleanup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// unharmed checks that n1, which lives, has its pods, no fence and no mark.
func (w *world) unharmed() {
	w.t.Helper()
	if n := w.node("n1"); n.Name == "" || n.Fenced || n.OutOfService || n.Mark != (policy.Mark{}) || w.failed() > 0 {
		w.t.Errorf("node %+v, %d pods failed; want it as it was", n, w.failed())
	}
}

// A pod that shares its node's address sends the first canary of a boot that the node did not pin, also after the Node was
// deleted and registered anew within one boot, and then what the kernel would send if it died.
func TestClaimOfAPodActsOnNothing(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("node registered anew %v", again), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.unpin()
				if again {
					change(w, func(n *policy.Node) { n.UID = "uid-n1-again" })
				}
				a, _ := run(t, testPolicy(), w, "a")
				b, _ := run(t, testPolicy(), w, "b")
				forged := incident(1, boot1, "the pod's")
				for _, e := range []*Engine{a, b} {
					e.Canary(forged.Source.Addr(), forged.Identity, time.Now())
				}
				pass(10 * time.Second)
				if w.node("n1").Claim.Sum != netconsole.Secret("the pod's").Sum() {
					t.Fatal("not claimed: the test proves nothing")
				}
				for range 10 {
					forged.Time = time.Now()
					offer(t, w, forged, a, b)
					pass(time.Second)
					if w.failed() > 0 {
						t.Fatal("pods of a living node failed")
					}
					pass(time.Minute)
				}
				w.unharmed()
				if d := w.only(); d.Phase != policy.Refused || d.Authority != detect.Claimed {
					t.Errorf("phase %s on %v authority, want it refused on claimed", d.Phase, d.Authority)
				}
			})
		})
	}
}

// Whoever may create NodeDeaths, and nothing else, can say in them what he likes.
func TestDeathsOfOthersAreNotBelieved(t *testing.T) {
	for _, phase := range []policy.Phase{"", policy.Pending, policy.Cleaning, policy.Held} {
		for _, owner := range []string{"", "nobody", "a"} {
			t.Run(fmt.Sprintf("phase %q, owner %q", phase, owner), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.populate("n1")
					d := policy.NewDeath(incident(1, boot1, ""), detect.Pinned, w.node("n1"))
					d.UID, d.Version, d.Phase, d.Owner, d.Released = "forged", "1", phase, owner, true
					d.Time, d.Created = time.Now().Add(time.Hour), time.Now()
					for _, s := range policy.NewPlan(testPolicy(), d, w.node("n1")).Steps {
						if s.Name != policy.StepNode && phase == policy.Cleaning {
							d.SetStep(policy.StepStatus{Name: s.Name, Done: true})
						}
					}
					w.set(func() { w.deaths[d.Name] = d })
					run(t, testPolicy(), w, "a")
					run(t, testPolicy(), w, "b")
					pass(2 * time.Minute)
					w.unharmed()
					if d := w.only(); d.Phase != policy.Refused {
						t.Errorf("phase %s (%s), want it refused", d.Phase, d.Decision)
					}
				})
			})
		}
	}
}

// What a kubelet, or a datagram, says about the machine below never reaches the cloud.
func TestOnlyTheProviderIDReachesTheCloud(t *testing.T) {
	for _, tt := range []struct {
		name     string
		provider string
		want     []string
	}{
		{"of the Node that died", "aws:///zone/i-1", []string{"terminate i-1"}},
		{"or nothing", "", nil},
		{"nor where it names another kind of machine, as k3s does", "k3s://i-1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.panics(1)
				change(w, func(n *policy.Node) { n.ProviderID, n.MachineID = tt.provider, "i-2" })
				p, c := testPolicy(), &cloud{w: w}
				p.AfterPanic = policy.TerminateInstance
				a, _ := runOn(t, p, saysItIs{w, "n1"}, c, "a")
				inc := incident(1, boot1, secret1)
				inc.Identity.Instance = "i-2"
				offer(t, w, inc, a)
				pass(time.Minute)
				if got := fmt.Sprint(c.log()); got != fmt.Sprint(tt.want) {
					t.Errorf("asked %s, want %s", got, tt.want)
				}
				if d := w.only(); d.Phase != policy.Cleaned {
					t.Errorf("phase %s, want no wait for other Nodes", d.Phase)
				}
			})
		})
	}
}

// A kubelet may register its Node with any providerID, and then let it die.
func TestInstanceThatTwoNodesClaim(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.panics(1)
		w.set(func() {
			n := w.nodes["n1"]
			n.ProviderID = w.nodes["n2"].ProviderID
			w.nodes["n1"] = n
		})
		p, c := testPolicy(), &cloud{w: w}
		p.AfterPanic = policy.TerminateInstance
		a, _ := runOn(t, p, toldApart{w}, c, "a")
		inc := incident(1, boot1, secret1)
		inc.Identity.Instance = "i-2"
		offer(t, w, inc, a)
		pass(2 * time.Minute)
		if got := c.log(); len(got) > 0 {
			t.Errorf("asked %s, want nothing", got)
		}
		if d := w.only(); d.Phase != policy.Cleaned {
			t.Errorf("phase %s (%s), want Cleaned", d.Phase, d.Decision)
		}
	})
}

// Where another Node does not say which machine it is, it may be the one whose instance a kubelet has registered its own Node with.
func TestInstanceThatAnotherNodeMayBe(t *testing.T) {
	for _, tt := range []struct {
		name  string
		named time.Duration // how long after the death the other Node says which machine it is; zero: never
		want  []string
	}{
		{"it never says", 0, nil},
		{"it says so later, as a Node that has just registered does", time.Minute, []string{"terminate i-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.panics(1)
				says := func(id string) {
					w.set(func() {
						n := w.nodes["n2"]
						n.ProviderID = id
						w.nodes["n2"] = n
					})
				}
				says("")
				p, c := testPolicy(), &cloud{w: w}
				p.AfterPanic = policy.TerminateInstance
				a, _ := runOn(t, p, w, c, "a")
				offer(t, w, incident(1, boot1, secret1), a)
				if tt.named > 0 {
					pass(tt.named)
					says("aws:///zone/i-2")
				}
				pass(3 * time.Minute)
				if diff := cmp.Diff(tt.want, c.log()); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
				note := w.only().Step(policy.StepInstance).Note
				if want := "left alone: node n2 does not say which machine it is, and may be i-1"; tt.named == 0 && note != want {
					t.Errorf("the step says %q, want %q", note, want)
				}
				if d := w.only(); d.Phase != policy.Cleaned || w.node("n1").Name != "" {
					t.Errorf("phase %s (%s), node %q; want the rest done", d.Phase, d.Decision, w.node("n1").Name)
				}
			})
		})
	}
}

// toldApart finds the Node that runs the boot where several have the instance.
type toldApart struct{ *world }

func (s toldApart) FindNode(ctx context.Context, who Sender) (policy.Node, error) {
	if who.Boot == boot1 {
		return s.world.Node(ctx, "n1")
	}
	return s.world.FindNode(ctx, who)
}

// saysItIs finds one Node, whatever instance is named.
type saysItIs struct {
	*world
	name string
}

func (s saysItIs) FindNode(ctx context.Context, _ Sender) (policy.Node, error) {
	return s.world.Node(ctx, s.name)
}

// One unprivileged address of a living node says the worst it can, thousands of times; meanwhile another node dies.
func TestFloodOfOneAddress(t *testing.T) {
	idle := cleanupTime(t, func(*testing.T, *world, *Engine) {})
	var reads atomic.Int32
	for name, forge := range map[string]func(i int) detect.Incident{
		"with an instance and another boot each time": func(i int) detect.Incident { return incident(2, fmt.Sprint("invented ", i), "x") },
		"without identity": func(int) detect.Incident {
			inc := incident(2, "", "")
			inc.Identity = netconsole.Identity{}
			return inc
		},
		"with the true boot and guessed secrets": func(i int) detect.Incident {
			return incident(2, "boot of node 2", netconsole.Secret(fmt.Sprint("guess ", i)))
		},
		"with another node's secret": func(i int) detect.Incident {
			inc := incident(2, boot1, secret1)
			inc.Identity.Instance = [...]string{"i-1", "i-2", ""}[i%3]
			return inc
		},
		"that no Node has": func(i int) detect.Incident { return incident(1000+i, boot1, secret1) },
	} {
		t.Run(name, func(t *testing.T) {
			reads.Store(0)
			took := cleanupTime(t, func(t *testing.T, w *world, e *Engine) {
				for i := range 8000 { // in a second
					e.Offer(forge(i))
					if i%80 == 0 {
						pass(10 * time.Millisecond)
					}
				}
				w.set(func() { reads.Store(int32(w.finds)) })
			})
			if took > 2*idle {
				t.Errorf("a death took %s, want twice %s at most", took, idle)
			}
			if n := reads.Load(); n > 10 && name != "that no Node has" { // these are looked up in the cache
				t.Errorf("%d look-ups for 8,000 datagrams", n)
			}
		})
	}
}

// cleanupTime is how long the cleanup of n1 takes while before is what has been going on.
func cleanupTime(t *testing.T, before func(*testing.T, *world, *Engine)) (took time.Duration) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.set(func() { w.latency = time.Millisecond })
		e, _ := run(t, testPolicy(), w, "a")
		before(t, w, e)
		if n := w.node("n2"); w.failed() > 0 || n.Name == "" {
			t.Errorf("node %+v, %d pods failed by forged datagrams", n, w.failed())
		}
		w.panics(1)
		began := time.Now()
		for !e.Offer(incident(1, boot1, secret1)) {
			pass(time.Millisecond)
		}
		for w.failed() < len(pods) && time.Since(began) < time.Minute {
			pass(time.Millisecond)
		}
		took = time.Since(began)
	})
	return took
}

// An annotation on a Node is that node's word about itself.
func TestANodeNamesNoOtherNodesDeath(t *testing.T) {
	for name, lies := range map[string]time.Duration{"before": 0, "just before": 14 * time.Second, "after": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				a, _ := run(t, testPolicy(), w, "a")
				b, _ := run(t, testPolicy(), w, "b")
				time.AfterFunc(lies, func() {
					w.set(func() {
						n := w.nodes["n2"]
						n.Fenced, n.Mark = true, policy.Mark{Death: policy.DeathName("n1", boot1), Boot: "boot of node 2", Reason: "a lie"}
						w.nodes["n2"] = n
					})
				})
				pass(15 * time.Second)
				w.panics(1)
				offer(t, w, incident(1, boot1, secret1), a, b)
				pass(time.Minute)
				w.cleanedOnce(pods)
				if n := w.node("n2"); n.Name == "" || n.Fenced || n.Mark != (policy.Mark{}) {
					t.Errorf("node %+v, want it there and unfenced", n)
				}
			})
		})
	}
}

// An unpinned node whose address lied every ten minutes dies.
func TestTrueDeathAfterManyLies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.unpin()
		a, _ := run(t, testPolicy(), w, "a")
		bare := incident(1, "", "")
		bare.Identity = netconsole.Identity{}
		for range 25 {
			bare.Time = time.Now()
			offer(t, w, bare, a)
			pass(5 * time.Minute)
		}
		w.unharmed()
		w.set(func() { w.calls = nil })
		w.panics(1)
		bare.Time = time.Now()
		offer(t, w, bare, a)
		pass(time.Minute)
		w.set(func() { w.created = 1 })
		w.cleanedOnce(pods)
	})
}

// A listener that only rehearses, and is faster, takes nothing from one that acts.
func TestDryRunBesideARealOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		p := testPolicy()
		p.DryRun = true
		dry, _ := run(t, p, w, "dry")
		a, _ := run(t, testPolicy(), w, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), dry)
		pass(time.Second)
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Minute)
		w.set(func() {
			if d := w.deaths[policy.DeathName("n1", boot1)]; d.Phase != policy.Cleaned || len(w.deaths) != 2 {
				t.Errorf("phase %s (%s), %d deaths; want it cleaned, and the rehearsal beside it", d.Phase, d.Decision, len(w.deaths))
			}
		})
	})
}

// The listener is ended while the API server is away; the next one goes on, and knows what was heard.
func TestDeathsInHandSurviveARestart(t *testing.T) {
	for _, name := range []string{"taken in hand", "not taken in hand yet", "heard while it ends"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.panics(1)
				w.set(func() { w.down = true })
				state := t.TempDir()
				first := NewEngine(testPolicy(), w, nil, "a", nil)
				first.State, first.Drain = state, time.Second
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				inc := incident(1, boot1, secret1)
				switch name {
				case "taken in hand":
					time.AfterFunc(5*time.Second, cancel)
					offer(t, w, inc, first)
				case "not taken in hand yet":
					cancel()
					offer(t, w, inc, first)
				case "heard while it ends":
					offer(t, w, incident(99, boot1, ""), first) // so that something is in hand
					time.AfterFunc(5*time.Second, cancel)
					time.AfterFunc(5500*time.Millisecond, func() { first.Offer(inc) })
				}
				if err := first.Run(ctx); err != nil {
					t.Fatal(err)
				}
				w.set(func() { w.down = false })
				left := filepath.Join(state, "of another one"+stateSuffix+".new") // by a crash during a write
				if err := os.WriteFile(left, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				second := NewEngine(testPolicy(), w, nil, "another", nil)
				second.State, second.Drain = state, time.Second
				again, stop := context.WithCancel(t.Context())
				defer func() { stop(); pass(2 * time.Second) }()
				go second.Run(again)
				pass(5 * time.Second)
				w.cleanedOnce(pods) // at once: the secret counts as heard
				third := NewEngine(testPolicy(), w, nil, "third", nil)
				third.State = state
				third.restore()
				if files, err := os.ReadDir(state); !third.intake.empty() || err != nil || len(files) > 0 {
					t.Errorf("the state directory has %v, %v, though the death is dealt with", files, err)
				}
			})
		})
	}
}

// A weak incident is on record, and another replica works on it; then a replica hears the secret.
func TestStrongerIncidentReplacesAWeakerOne(t *testing.T) {
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprintf("on the same replica %v", same), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				a, _ := run(t, testPolicy(), w, "a")
				b, _ := run(t, testPolicy(), w, "b")
				forged := incident(1, boot1, "guessed")
				forged.Title = "a lie"
				offer(t, w, forged, a)
				pass(3 * time.Second)
				w.panics(1)
				if same {
					b = a
				}
				offer(t, w, incident(1, boot1, secret1), b)
				pass(3 * time.Second)
				w.set(func() { w.created-- })
				w.cleanedOnce(pods)
				if d := w.only(); d.Authority != detect.Pinned || d.Reason == "a lie" {
					t.Errorf("authority %v, reason %q", d.Authority, d.Reason)
				}
			})
		})
	}
}

// act.at: never has every death wait for its witness.
func TestActAtNever(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		p := testPolicy()
		p.ActAt = policy.Never
		a, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(41 * time.Second)
		if n := w.node("n1"); w.failed() > 0 || !n.Fenced {
			t.Errorf("%d pods failed, fenced %v; want the fence only", w.failed(), n.Fenced)
		}
		pass(5 * time.Second)
		w.cleanedOnce(pods)
	})
}

// Without the right to read Leases the witness is what the control plane says.
func TestLeasesThatMayNotBeRead(t *testing.T) {
	for _, dies := range []bool{true, false} {
		t.Run(fmt.Sprintf("node dies %v", dies), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				w.unpin()
				a, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
					if call == "LeaseRenewed" {
						return fmt.Errorf("leases: %w", ErrForbidden)
					}
					return nil
				}}, "a")
				offer(t, w, incident(1, boot1, ""), a)
				if dies {
					w.panics(1)
					time.AfterFunc(45*time.Second, func() { w.loses(1) })
				}
				pass(55 * time.Second)
				if dies {
					w.cleanedOnce(pods)
					return
				}
				if !w.node("n1").Fenced {
					t.Error("not fenced early")
				}
				pass(10 * time.Second)
				w.unharmed()
				pass(12 * time.Minute)
				if d := w.only(); d.Phase != policy.Refused || !strings.Contains(d.Decision, "could not be read") {
					t.Errorf("phase %s (%s)", d.Phase, d.Decision)
				}
			})
		})
	}
}

// A pod lies about a node whose status, or whose kubelet's Lease, its accomplice may write. The node lives.
func TestWitnessesThatOthersWrite(t *testing.T) {
	silence := func(w *world) {
		n := w.nodes["n1"]
		n.Ready, n.Silent, n.SilentSince = false, true, time.Now()
		w.nodes["n1"] = n
	}
	for _, tt := range []struct {
		name string
		do   func(w *world)
	}{
		{"the status says that nobody hears from the node", silence},
		{"the Lease says that it lasts a second", func(w *world) { w.lease = time.Second }},
		{"the status says so, and the Lease that it lasts for thirteen years", func(w *world) { silence(w); w.lease = 400_000_000 * time.Second }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.unpin()
				a, _ := run(t, testPolicy(), w, "a")
				offer(t, w, incident(1, boot1, ""), a)
				for range 20 { // the kubelet writes the truth in between
					w.set(func() { tt.do(w) })
					pass(time.Second)
				}
				w.unharmed()
				if d := w.only(); d.Phase != policy.Refused || !strings.Contains(d.Decision, "renewed its Lease") {
					t.Errorf("phase %s (%s)", d.Phase, d.Decision)
				}
			})
		})
	}
}

// Nor is it one that the Lease is deleted whenever the kubelet has made it anew.
func TestLeaseThatIsDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.set(func() { n := w.nodes["n1"]; n.Pin = policy.Pin{}; w.nodes["n1"] = n })
		a, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "LeaseRenewed" {
				return fmt.Errorf("lease: %w", ErrNotFound)
			}
			return nil
		}}, "a")
		offer(t, w, incident(1, boot1, ""), a)
		pass(time.Second)
		w.loses(1)
		pass(12 * time.Minute)
		w.unharmed()
		if d := w.only(); d.Phase != policy.Refused || !strings.Contains(d.Decision, "could not be read") {
			t.Errorf("phase %s (%s)", d.Phase, d.Decision)
		}
	})
}

// A pinned secret was carried off, and used while its node lives: what has not been done is not done.
func TestLeaseRenewedDuringACleanup(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set(func() { w.dead["n1"] = false })
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, w, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Minute)
		w.unharmed()
		if d := w.only(); d.Phase != policy.Refused || !strings.Contains(d.Decision, "renewed its Lease") {
			t.Errorf("phase %s (%s)", d.Phase, d.Decision)
		}
	})
}

// Without the right to read Nodes nobody knows whether one is back.
func TestNodesThatMayNotBeReadAnyMore(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.panics(1)
		denied := true
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		a, _ := run(t, p, faulty{world: w, before: func(_ context.Context, call string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if call == "Node" && denied {
				return fmt.Errorf("nodes: %w", ErrForbidden)
			}
			return nil
		}}, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(2 * time.Minute)
		if d := w.only(); w.failed() > 0 || d.Phase != policy.Cleaning {
			t.Errorf("%d pods failed, phase %s; want it to wait", w.failed(), d.Phase)
		}
		w.reboots(1, boot2)
		w.set(func() { denied = false })
		pass(time.Minute)
		if w.failed() > 0 || w.node("n1").Fenced {
			t.Errorf("%d pods of a node that is back failed, fenced %v", w.failed(), w.node("n1").Fenced)
		}
	})
}

// As long as the API server does not let us write Nodes and pods, deaths are recorded, and their nodes looked at.
func TestNothingMayBeWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		pods := w.populate("n2")
		unproved := true
		c := faulty{world: w, before: func(_ context.Context, call string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if unproved && slices.Contains([]string{"PatchNode", "DeleteNode", "FailPod", "AnnotatePod", "DeletePod"}, call) {
				return errors.New("not proved yet")
			}
			return nil
		}}
		a, _ := run(t, testPolicy(), c, "a")
		offer(t, w, incident(1, boot1, "guessed"), a)
		w.panics(2)
		offer(t, w, incident(2, "boot of node 2", "secret of node 2"), a)
		pass(time.Minute)
		w.set(func() {
			if len(w.deaths) != 2 || w.deaths[policy.DeathName("n1", boot1)].Phase != policy.Refused {
				t.Errorf("deaths %+v, want both on record, and that of the living node refused", w.deaths)
			}
			unproved = false
		})
		pass(time.Minute)
		if w.failed() != len(pods) || w.node("n2").Name != "" {
			t.Errorf("%d pods failed, node %+v", w.failed(), w.node("n2"))
		}
	})
}

// A stranger anywhere names the boot of a node that died and is gone: the record is not his to rewrite.
func TestAStrangerDoesNotRewriteARecord(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.unpin()
		a, _ := run(t, testPolicy(), w, "a")
		w.panics(1)
		inc := incident(1, "", "")
		inc.Identity.Instance, inc.Complete = "", true
		offer(t, w, inc, a)
		pass(time.Minute)
		want := w.only()
		if want.Phase != policy.Cleaned {
			t.Fatalf("phase %s: the test proves nothing", want.Phase)
		}
		lie := incident(1000, boot1, "")
		lie.Identity.Instance, lie.Title = "", "a lie"
		offer(t, w, lie, a)
		pass(time.Second)
		lie.Complete = true
		lie.Trace = append(lie.Trace, "a", "longer", "trace")
		offer(t, w, lie, a)
		pass(10 * time.Second)
		if d := w.only(); d.Reason != want.Reason || len(d.Trace) != len(want.Trace) {
			t.Errorf("reason %q, %d lines, want it as it was", d.Reason, len(d.Trace))
		}
	})
}

// A Node was deleted and registered anew within one boot, so that the death on record of that boot was none. Then its
// kernel dies.
func TestTrueDeathOfANodeRegisteredAnew(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Pending, policy.Held, policy.Cleaning, policy.Recorded, policy.Cleaned, policy.Incomplete} {
		t.Run(string(phase), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				a, _ := run(t, testPolicy(), w, "a")
				old := policy.NewDeath(incident(1, boot1, secret1), detect.Pinned, w.node("n1"))
				old.UID, old.Version, old.Phase, old.Owner = "old", "1", phase, "b"
				old.NodeUID, old.Created = "uid of a former n1", time.Now()
				w.set(func() { w.deaths[old.Name] = old })
				w.panics(1)
				offer(t, w, incident(1, boot1, secret1), a)
				pass(30 * time.Second)
				if w.failed() > 0 {
					t.Error("pods failed without a witness, on a secret that was used while the node lived")
				}
				w.set(func() { w.calls = nil })
				pass(time.Minute)
				w.set(func() { w.created = 1 })
				w.cleanedOnce(pods)
			})
		})
	}
}

// One address of a living node claims ever new boots, as a pod that shares it may; meanwhile other nodes boot.
func TestCanariesOfOneAddress(t *testing.T) {
	for _, boot := range []string{"invented", boot1} {
		canariesOfOneAddress(t, boot)
	}
}

func canariesOfOneAddress(t *testing.T, boot string) {
	bubble(t, func(t *testing.T, w *world) {
		w.addNode(3, "", "") // it does not report its boot yet
		e, _ := run(t, testPolicy(), w, "a")
		for i := range 2 * claimsWaiting {
			id := netconsole.Identity{Instance: "i-1", Boot: boot, Secret: netconsole.Secret(fmt.Sprint("guess ", i))}
			if boot != boot1 {
				id.Boot += fmt.Sprint(" ", i)
			}
			e.Canary(address(1), id, time.Now())
			pass(time.Second / 128)
		}
		e.Canary(address(3), netconsole.Identity{Instance: "i-3", Boot: "boot of node 3", Secret: "true"}, time.Now())
		pass(time.Second)
		w.set(func() {
			if w.finds > 200 {
				t.Errorf("%d look-ups in a minute for one address", w.finds)
			}
			w.finds = 0
			n := w.nodes["n3"]
			n.BootID = "boot of node 3"
			w.nodes["n3"] = n
		})
		pass(time.Minute)
		if n := w.node("n3"); n.Claim.Boot != "boot of node 3" {
			t.Errorf("claim %+v of a node whose address said nothing else", n.Claim)
		}
		w.set(func() {
			if w.finds > 200 {
				t.Errorf("%d look-ups in a minute for one address", w.finds)
			}
		})
	})
}

// A pod that shares the address of a node makes up trouble of its kernel. What people read of a node is what it said.
func TestMadeUpTroubleOfAPinnedNode(t *testing.T) {
	for _, tt := range []struct {
		name   string
		secret netconsole.Secret
		kernel string
		want   string // notes of the events on n1
	}{
		{"pinned", secret1, "6.12.0", "[true]"},
		{"unpinned", "", "6.12.0", "[a lie]"}, // it could be the kernel's
		{"pinned, and its kernel can send no secret", secret1, "6.1.0", "[a lie true]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				change(w, func(n *policy.Node) { n.Kernel = tt.kernel })
				if tt.secret == "" {
					w.unpin()
				}
				e, _ := run(t, testPolicy(), w, "a")
				say := func(title string, secret netconsole.Secret) {
					inc := incident(1, boot1, secret)
					inc.Verdict, inc.Cause, inc.Title, inc.Complete = detect.Sick, "TaskHung", title, true
					inc.Verified = secret != ""
					offer(t, w, inc, e)
					pass(time.Second)
				}
				say("a lie", "")
				if tt.secret != "" {
					say("true", tt.secret)
				}
				var notes []string
				w.set(func() {
					for _, e := range w.events {
						notes = append(notes, e.Note)
					}
				})
				if fmt.Sprint(notes) != tt.want {
					t.Errorf("events %q, want %s", notes, tt.want)
				}
			})
		})
	}
}

// lineCounter counts the lines of a log.
type lineCounter struct{ n atomic.Int64 }

func (c *lineCounter) Write(b []byte) (int, error) {
	c.n.Add(int64(bytes.Count(b, []byte("\n"))))
	return len(b), nil
}

// Root on some machine has any number of addresses, of an IPv6 prefix, and sends one gasp from each: they fill no log.
func TestManyAddressesFillNoLog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		log := new(lineCounter)
		a, _ := runOn(t, testPolicy(), w, nil, "a", func(e *Engine) { e.log = slog.New(slog.NewTextHandler(log, nil)) })
		const gasps = 5000
		for i := range gasps {
			inc := incident(1, boot1, "")
			inc.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)}), 6665)
			inc.Identity.Instance = ""
			offer(t, w, inc, a)
			pass(20 * time.Millisecond)
		}
		if n := log.n.Load(); n > refusalsLogged+2*refusalsInAll {
			t.Errorf("%d lines of log for %d gasps", n, gasps)
		}
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), a)
		pass(time.Minute)
		if !w.dead["n1"] || w.node("n1").Name != "" {
			t.Error("the true death is not acted on")
		}
	})
}

// Root on some machine gasps from many addresses, and pods from those of their nodes. A node whose death is only put on record,
// because nothing is done about it, dies meanwhile: it is.
func TestLiesKeepNoDeathOffTheRecord(t *testing.T) {
	for _, tt := range []struct {
		name   string
		secret netconsole.Secret // that the node's last word comes with
		pause  time.Duration     // between lies: an address waits after one
		lie    func(w *world, i int) detect.Incident
	}{
		{"from addresses of no Node", "", time.Second, func(_ *world, i int) detect.Incident {
			inc := incident(1, boot1, "")
			inc.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)}), 6665)
			inc.Identity.Instance = ""
			return inc
		}},
		{"from addresses of Nodes", secret1, time.Second, func(w *world, i int) detect.Incident {
			const nodes = refusalsInAll/refusalsPerAddress + 5
			n := 100 + i%nodes
			if i < nodes {
				w.addNode(n, fmt.Sprintf("boot of node %d", n), "x")
			}
			return incident(n, fmt.Sprintf("made up %d", i), "")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				change(w, func(n *policy.Node) { n.ControlPlane = true })
				a, _ := run(t, testPolicy(), w, "a")
				for i := range refusalsInAll + 20 {
					offer(t, w, tt.lie(w, i), a)
					pass(tt.pause)
				}
				w.panics(1)
				offer(t, w, incident(1, boot1, tt.secret), a)
				pass(50 * time.Second)
				w.loses(1) // the witness of what comes without the secret
				pass(10 * time.Second)
				w.set(func() {
					if d := w.deaths[policy.DeathName("n1", boot1)]; d.Phase != policy.Recorded || !strings.Contains(d.Decision, "control plane") {
						t.Errorf("%d deaths are on record, that of n1 is %+v", len(w.deaths), d)
					}
				})
			})
		})
	}
}

// Root on some machine makes up trouble from as many addresses as are remembered. A node's own trouble is told.
func TestManyAddressesHideNoFinding(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		say := func(title string, src netip.Addr, instance string, secret netconsole.Secret) {
			inc := incident(1, boot1, secret)
			inc.Verdict, inc.Cause, inc.Title, inc.Complete = detect.Sick, "TaskHung", title, true
			inc.Source, inc.Identity.Instance, inc.Verified = netip.AddrPortFrom(src, 6665), instance, secret != ""
			offer(t, w, inc, e)
		}
		for i := range maxFindings {
			say("a lie", netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)}), "", "")
			if i%intakeSize == intakeSize-1 {
				pass(time.Second)
			}
		}
		say("true", address(1), "i-1", secret1)
		pass(time.Second)
		w.set(func() {
			if len(w.events) != 1 || w.events[0].Note != "true" {
				t.Errorf("events %+v, want the node's", w.events)
			}
		})
	})
}
