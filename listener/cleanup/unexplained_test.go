package cleanup

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// record runs an engine over what happens to node 1, for half an hour after it, and returns what is on record.
func record(t *testing.T, c *ec2, before func(w *world), happens func(w *world)) (deaths []policy.Death, events []Event) {
	t.Helper()
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		if before != nil {
			before(w)
		}
		var fates Fates
		if c != nil {
			fates = c
		}
		runWith(t, testPolicy(), w, fates, "a")
		pass(5 * time.Second)
		happens(w)
		pass(29 * time.Minute)
		w.set(func() {
			for _, d := range w.deaths {
				deaths = append(deaths, d)
			}
			events = slices.Clone(w.events)
			if len(w.failures) > 0 {
				t.Errorf("%d pods failed: nothing may follow from a record", len(w.failures))
			}
		})
		for _, call := range w.log() {
			if strings.Contains(call, "fence") || strings.Contains(call, "delete") {
				t.Errorf("%s: nothing may follow from a record", call)
			}
		}
	})
	return deaths, events
}

// leaves deletes node 1, as a cloud controller does with the Node of an instance that is gone.
func leaves(w *world) {
	w.set(func() {
		w.ends(w.nodes["n1"])
		delete(w.nodes, "n1")
	})
}

// drain deletes the pods of node 1 that a drain deletes.
func drain(w *world) {
	w.set(func() {
		for key, p := range w.pods {
			if p.Node == "n1" && !p.Mirror && p.Owner.Kind != "DaemonSet" {
				delete(w.pods, key)
			}
		}
	})
}

func TestBootsThatEndWithoutAWord(t *testing.T) {
	reboots := func(w *world) { w.panics(1); pass(time.Minute); w.reboots(1, boot2) }
	for _, tt := range []struct {
		name     string
		cloud    *ec2
		before   func(w *world)
		happens  func(w *world)
		want     string // cause by evidence, authority; empty: no death
		decision string // a part of it
	}{
		{name: "the node is back on another boot", happens: reboots, want: "Unexplained by none, text", decision: "node n1 is back on boot " + boot2},
		{name: "the node was silent before it came back", happens: func(w *world) {
			w.panics(1)
			pass(50 * time.Second)
			w.loses(1)
			pass(time.Minute)
			w.reboots(1, boot2)
		},
			want: "Unexplained by none, text", decision: "; Lease last renewed at "},
		{name: "the Node is gone", happens: func(w *world) { w.panics(1); pass(50 * time.Second); w.loses(1); pass(time.Minute); leaves(w) },
			want: "Unexplained by none, text", decision: "node n1 is gone"},
		{name: "claimed by a canary", before: func(w *world) { w.claims() },
			happens: reboots, want: "Unexplained by none, text"},
		{name: "registered again on another boot", happens: func(w *world) {
			leaves(w)
			w.addNode(1, boot2, "another")
			change(w, func(n *policy.Node) { n.UID = "another" })
		}, want: "Unexplained by none, text", decision: "was registered again"},

		{name: "never had lastgasp", before: func(w *world) { w.unpin() }, happens: reboots},
		{name: "seen for the first time", happens: func(w *world) { w.addNode(7, boot1, "secret of 7") }},
		{name: "the node said farewell", before: func(w *world) {
			change(w, func(n *policy.Node) { n.Farewell = policy.Farewell{Boot: boot1, Text: "rebooted", At: time.Now()} })
		}, happens: reboots},
		{name: "the node said farewell and is gone", before: func(w *world) {
			change(w, func(n *policy.Node) { n.Farewell = policy.Farewell{Boot: boot1, Text: "powered off", At: time.Now()} })
		}, happens: leaves},
		{name: "the node said farewell of another boot", before: func(w *world) {
			change(w, func(n *policy.Node) { n.Farewell = policy.Farewell{Boot: boot2, Text: "rebooted", At: time.Now()} })
		},
			happens: reboots, want: "Unexplained by none, text"},
		{name: "cordoned before, and its pods were there", before: func(w *world) { change(w, func(n *policy.Node) { n.Unschedulable = true }) }, happens: reboots,
			want: "Unexplained by none, text"},
		{name: "cordoned, and silent for good, and its pods were there", before: func(w *world) { change(w, func(n *policy.Node) { n.Unschedulable = true }) },
			happens: func(w *world) {
				w.panics(1)
				pass(50 * time.Second)
				w.loses(1)
				pass(5 * time.Minute)
				drain(w) // the control plane's taints have them deleted
				pass(30 * time.Minute)
			}, want: "Unexplained by none, text"},
		{name: "cordoned and drained before", before: func(w *world) {
			change(w, func(n *policy.Node) { n.Unschedulable = true })
			drain(w)
		}, happens: reboots},
		{name: "drained and powered off", before: func(w *world) {
			change(w, func(n *policy.Node) { n.Unschedulable = true })
			drain(w)
		}, happens: func(w *world) { w.panics(1); pass(50 * time.Second); w.loses(1); pass(time.Hour) }},
		{name: "cordoned once it was silent", happens: func(w *world) {
			w.panics(1)
			pass(50 * time.Second)
			w.loses(1)
			pass(time.Minute)
			change(w, func(n *policy.Node) { n.Unschedulable = true })
			drain(w)
			pass(30 * time.Minute)
		}, want: "Unexplained by none, text"},
		{name: "being taken away", before: func(w *world) { change(w, func(n *policy.Node) { n.Leaving = true }) }, happens: reboots},
		{name: "drained and deleted", before: func(w *world) { change(w, func(n *policy.Node) { n.Leaving = true }) }, happens: leaves},
		{name: "registered again on the same boot", happens: func(w *world) {
			leaves(w)
			w.addNode(1, boot1, secret1)
		}},
		{name: "the network was away", happens: func(w *world) {
			w.loses(1)
			pass(20 * time.Minute)
			change(w, func(n *policy.Node) { n.Ready, n.Silent = true, false })
		}},
		{name: "a pin that is newer than the kubelet's word", happens: func(w *world) {
			w.set(func() { // as the watch has it when the listener starts between the two
				n := w.nodes["n1"]
				n.BootID, n.Pin = boot2, policy.Pin{Boot: boot2, Sum: "sum"}
				w.ended = append(w.ended, n)
			})
			pass(10 * time.Second)
			change(w, func(n *policy.Node) { n.BootID, n.Pin = boot2, policy.Pin{Boot: boot2, Sum: "sum"} })
		}},

		{name: "the console tells of it afterwards", cloud: &ec2{console: says(boot1) + says(boot2)[:60], fate: policy.Fate{State: "running"}},
			happens: reboots, want: "KernelPanic by console, cloud", decision: "node n1 is back"},
		{name: "the console names no boot", cloud: &ec2{console: says(""), fate: policy.Fate{State: "running"}},
			happens: reboots, want: "KernelPanic by console, text"},
		{name: "the console tells of another boot", cloud: &ec2{console: says("another"), fate: policy.Fate{State: "running"}},
			happens: reboots, want: "Unexplained by none, text", decision: "instance i-1 is running"},
		{name: "EC2 took the instance back", cloud: &ec2{fate: policy.Fate{State: "terminated", Code: "Server.SpotInstanceTermination", Reason: "Server.SpotInstanceTermination: Spot instance termination"}},
			happens: func(w *world) { w.panics(1); pass(50 * time.Second); w.loses(1) },
			want:    "Terminated by cloud, cloud", decision: "EC2 says: instance i-1 is terminated (Server.SpotInstanceTermination: Spot instance termination)"},
		{name: "its hardware failed", cloud: &ec2{fate: policy.Fate{State: "stopped", Code: "Server.InternalError"}},
			happens: func(w *world) { w.panics(1); pass(50 * time.Second); w.loses(1) }, want: "HardwareError by cloud, cloud"},
		{name: "EC2 has hibernated the instance", cloud: &ec2{fate: policy.Fate{State: "stopped", Code: "Client.UserInitiatedHibernate"}},
			happens: func(w *world) { w.panics(1); pass(50 * time.Second); w.loses(1); pass(10 * time.Hour) }},
		{name: "EC2 runs an instance that is silent", cloud: &ec2{fate: policy.Fate{State: "running"}},
			happens: func(w *world) { w.panics(1); pass(50 * time.Second); w.loses(1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			deaths, _ := record(t, tt.cloud, tt.before, tt.happens)
			if tt.want == "" {
				if len(deaths) > 0 {
					t.Errorf("%d deaths, want none: %+v", len(deaths), deaths[0])
				}
				return
			}
			if len(deaths) != 1 {
				t.Fatalf("%d deaths, want 1", len(deaths))
			}
			d := deaths[0]
			if got := d.Cause + " by " + string(d.Evidence[0]) + ", " + d.Authority.String(); got != tt.want || len(d.Evidence) != 1 {
				t.Errorf("%s, evidence %v; want %s", got, d.Evidence, tt.want)
			}
			if d.Phase != policy.Recorded || d.Boot != boot1 || d.Node != "n1" || d.Completed.IsZero() || d.Reason == "" || !strings.Contains(d.Decision, tt.decision) {
				t.Errorf("death: %+v", d)
			}
		})
	}
}

// A network that is split, or a control plane that hears nobody, is not a thousand deaths. What is recorded all the same is bounded,
// and goes on once the window is over: the ends of boots are true, and a record is only later.
func TestUnexplainedRecordsAreBounded(t *testing.T) {
	const nodes = 25
	limit := testPolicy().MaxNodes
	lost := func(w *world) {
		for i := range nodes {
			w.addNode(10+i, fmt.Sprintf("boot of %d", i), "secret")
		}
		pass(5 * time.Second)
		for i := range nodes {
			w.panics(10 + i)
			w.loses(10 + i)
		}
	}
	t.Run("silent for good, and back", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			var log strings.Builder
			e, _ := runOn(t, testPolicy(), w, nil, "a", func(e *Engine) { e.log = slog.New(slog.NewTextHandler(&log, nil)) })
			lost(w)
			pass(silentForGood + e.policy.Window - 2*time.Minute)
			var said int
			w.set(func() {
				if n := len(w.deaths); n == 0 || n > limit {
					t.Errorf("%d deaths are on record, want at most %d", n, limit)
				}
				if n := len(w.events); n > 10*limit {
					t.Errorf("%d events", n)
				}
				for i := range nodes { // the network is back
					name := fmt.Sprintf("n%d", 10+i)
					n := w.nodes[name]
					n.Ready, n.Silent, n.ResourceVersion = true, false, w.next()
					w.nodes[name], w.dead[name] = n, false
				}
			})
			said = strings.Count(log.String(), "boots end without a word than are put on record")
			if said != 1 {
				t.Errorf("said %d times, want once", said)
			}
			pass(2 * e.policy.Window)
			w.set(func() {
				for _, d := range w.deaths {
					if d.Phase != policy.Refused {
						t.Errorf("%s of a node that is back: %s", d.Phase, d.Name)
					}
				}
				if n := len(w.deaths); n > limit {
					t.Errorf("%d deaths, want at most %d", n, limit)
				}
			})
		})
	})
	t.Run("all rebooted", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			e, _ := runOn(t, testPolicy(), w, nil, "a")
			lost(w)
			pass(time.Minute)
			for i := range nodes {
				w.reboots(10+i, fmt.Sprintf("next boot of %d", i))
			}
			for i := range 8 {
				pass(e.policy.Window)
				w.set(func() {
					if n := len(w.deaths); n > limit*(i+1) {
						t.Errorf("%d deaths after %d windows, want at most %d in each", n, i+1, limit)
					}
				})
			}
			w.set(func() {
				if n := len(w.deaths); n != nodes {
					t.Errorf("%d deaths are on record in the end, want %d", n, nodes)
				}
			})
		})
	})
}

// A kubelet can report one boot after the other, and pin each. That is put on record a few times, and takes no room of other nodes, nor
// their questions to the cloud.
func TestManyBootsOfOneNode(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := &ec2{fate: policy.Fate{State: "running"}}
		runWith(t, testPolicy(), w, c, "a")
		w.addNode(2, "boot of 2", "secret")
		pass(5 * time.Second)
		ends := func(n policy.Node, boot string) {
			n.BootID, n.Pin = boot, policy.Pin{Boot: boot, Sum: "sum"}
			w.ended = append(w.ended, n)
		}
		w.set(func() {
			for i := range inquiries + 1 {
				ends(w.nodes["n1"], fmt.Sprintf("made up %d", i))
			}
		})
		pass(2 * time.Second)
		w.panics(2)
		w.reboots(2, "next boot of 2")
		pass(time.Minute)
		if n := len(c.log()); n > inquiriesPerMinute*2/3 {
			t.Errorf("the cloud was asked %d times in a minute, want room for others", n)
		}
		pass(2 * wordAfterBoot)
		w.set(func() {
			of := map[string]int{}
			for _, d := range w.deaths {
				of[d.Node]++
			}
			if of["n2"] != 1 || of["n1"] > inquiriesOfNode {
				t.Errorf("%d deaths of the node that died, and %d of the other; want 1, and %d at most", of["n2"], of["n1"], inquiriesOfNode)
			}
		})
	})
}

// A node that stays silent for good is dead, whatever else is known; if it comes back after all it must not have been touched.
func TestSilentForGood(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		e, _ := runWith(t, testPolicy(), w, nil, "a")
		heard := time.Now()
		e.Canary(address(1), netconsole.Identity{Instance: "i-1", Boot: boot1, Secret: secret1}, heard)
		e.Canary(address(1), netconsole.Identity{Instance: "i-1", Boot: boot1, Secret: "made up"}, heard.Add(time.Hour))
		w.panics(1)
		pass(50 * time.Second)
		w.loses(1)
		pass(silentForGood - time.Minute)
		if len(w.deaths) > 0 {
			t.Fatalf("%d deaths before the time is up", len(w.deaths))
		}
		pass(3 * time.Minute)
		if d := w.only(); d.Cause != "Unexplained" || d.Phase != policy.Recorded || !strings.Contains(d.Decision, "has been silent since") ||
			!strings.Contains(d.Decision, "; last canary at "+heard.UTC().Format(time.RFC3339)+"; Lease last renewed at ") || w.failed() > 0 {
			t.Errorf("death: %+v, %d pods failed", d, w.failed())
		}
		w.set(func() { w.dead["n1"] = false })
		change(w, func(n *policy.Node) { n.Ready, n.Silent = true, false })
		pass(2 * time.Minute)
		if d := w.only(); d.Phase != policy.Refused || d.Decision != "node n1 is back on the same boot" {
			t.Errorf("the node lives: phase %s, %s", d.Phase, d.Decision)
		}
		pass(time.Hour)
		w.only()
	})
}

// What a replica recorded that is gone is taken back by another, whether that was there all the while or not, if the node turns
// out to live.
func TestSilentForGoodAndAnotherReplica(t *testing.T) {
	for _, tt := range []struct {
		name    string
		happens func(w *world)
		want    policy.Phase
	}{
		{"it is back on the same boot", func(w *world) {
			change(w, func(n *policy.Node) { n.Ready, n.Silent = true, false })
			w.set(func() { w.dead["n1"] = false })
		}, policy.Refused},
		{"it is silent still", func(*world) {}, policy.Recorded},
		{"it is back on another boot", func(w *world) { w.reboots(1, boot2) }, policy.Recorded},
		{"it is gone", leaves, policy.Recorded},
	} {
		for _, beside := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the other replica was there: %t", tt.name, beside), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.populate("n1")
					_, stop := run(t, testPolicy(), w, "a")
					w.panics(1)
					w.loses(1)
					pass(20 * time.Second) // so that they look at different times
					if beside {
						run(t, testPolicy(), w, "b")
					}
					pass(silentForGood + 2*time.Minute)
					if d := w.only(); d.Phase != policy.Recorded || d.Owner != "a" {
						t.Fatalf("phase %s, recorded by %s", d.Phase, d.Owner)
					}
					stop()
					if !beside {
						run(t, testPolicy(), w, "b")
					}
					pass(2 * time.Minute)
					tt.happens(w)
					pass(10 * time.Minute)
					d := w.only()
					if d.Phase != tt.want {
						t.Errorf("phase %s: %s; want %s", d.Phase, d.Decision, tt.want)
					}
					if d.Phase == policy.Refused && d.Owner != "b" {
						t.Errorf("taken back under the name of %s, which is gone: nobody sends a webhook", d.Owner)
					}
				})
			})
		}
	}
}

// As long as the owner of a record lives, only it looks at the silent node again.
func TestSilentNodeIsLookedAtByOneReplica(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		asked := map[string]int{} // how often for the Node's Lease
		stops := map[string]func(){}
		for _, replica := range []string{"a", "b", "c"} {
			_, stops[replica] = run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
				if call == "LeaseRenewed" {
					w.set(func() { asked[replica]++ })
				}
				return nil
			}}, replica)
			pass(3 * time.Second)
		}
		w.panics(1)
		w.loses(1)
		pass(silentForGood + 5*time.Minute)
		owner := w.only().Owner
		looks := func() (own, others int) {
			w.set(func() {
				for replica, n := range asked {
					if replica == owner {
						own = n
					} else {
						others += n
					}
				}
				clear(asked)
			})
			return own, others
		}
		looks()
		pass(time.Hour)
		if own, others := looks(); own < 50 || others > 0 {
			t.Errorf("in an hour the owner asked %d times and the others %d times; want once a minute, and never", own, others)
		}
		stops[owner]()
		pass(time.Minute)
		looks()
		pass(10 * time.Minute)
		if _, others := looks(); others < 9 {
			t.Errorf("asked %d times in ten minutes after the owner was gone, want once a minute", others)
		}
	})
}

// Pods that lost a container to the death get an event, and so does the node; others do not.
func TestEventsOfARecord(t *testing.T) {
	deaths, events := record(t, nil, nil, func(w *world) {
		w.panics(1)
		pass(time.Minute)
		w.reboots(1, boot2)
		w.set(func() {
			p := w.pods["default/n1-web"]
			p.Lost = true
			w.pods["default/n1-web"] = p
		})
	})
	var about []string
	for _, e := range events {
		if e.Reason == "Unexplained" && e.Warning && strings.Contains(e.Note, "see nodedeath "+deaths[0].Name) {
			about = append(about, e.Node.Name+e.Pod.Name)
		}
	}
	if !slices.Equal(about, []string{"n1", "n1-web"}) {
		t.Errorf("events about %q, want the node and its pod that was lost", about)
	}
	if len(deaths[0].Pods) == 0 {
		t.Error("the record names no pods")
	}
}

// A panic that was heard is the death; another replica's record is left alone; a restart invents none.
func TestNoSecondRecord(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		a, stop := runWith(t, testPolicy(), w, nil, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), a)
		pass(2 * time.Second)
		stop()
		w.addNode(1, boot2, "another") // it was deleted, and is back
		runWith(t, testPolicy(), w, nil, "b")
		runWith(t, testPolicy(), w, nil, "c")
		pass(time.Hour)
		if d := w.only(); d.Cause != "KernelPanic" {
			t.Errorf("death: %+v", d)
		}
		w.set(func() {
			w.ended = append(w.ended, policy.Node{Name: "n1", UID: "x", BootID: boot2, Pin: policy.Pin{Boot: boot2}})
		})
		pass(time.Hour)
		if len(w.deaths) != 1 {
			t.Errorf("%d deaths: a boot that runs has not ended", len(w.deaths))
		}
	})
}

// A machine that said farewell and stays off is not dead, however long its Node stays, and nobody is asked about it each minute.
func TestPoweredOffInOrder(t *testing.T) {
	for _, state := range []string{"", "stopped"} { // without EC2's word, and with it
		bubble(t, func(t *testing.T, w *world) {
			w.populate("n1")
			c := &ec2{fate: policy.Fate{State: state}}
			var fates Fates
			if state != "" {
				fates = c
			}
			runWith(t, testPolicy(), w, fates, "a")
			pass(5 * time.Second)
			change(w, func(n *policy.Node) { n.Farewell = policy.Farewell{Boot: boot1, Text: "powered off", At: time.Now()} })
			w.panics(1)
			pass(50 * time.Second)
			w.loses(1)
			pass(2 * silentForGood)
			asked := len(c.log())
			pass(2 * time.Hour)
			if len(w.deaths) > 0 {
				t.Errorf("state %q: deaths %+v, want none", state, w.deaths)
			}
			if more := len(c.log()) - asked; more > 0 {
				t.Errorf("state %q: asked %d times more about a machine that was powered off", state, more)
			}
			w.reboots(1, boot2)
			pass(time.Hour)
			if len(w.deaths) > 0 {
				t.Errorf("state %q: deaths %+v after it is on again, want none", state, w.deaths)
			}
		})
	}
}

// A boot that ends while EC2 is being asked about the silent node is not lost.
func TestBootEndsDuringAnInquiry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		c := &ec2{fate: policy.Fate{State: "running"}, takes: 4 * time.Second}
		runWith(t, testPolicy(), w, c, "a")
		pass(5 * time.Second)
		w.panics(1)
		pass(50 * time.Second)
		w.loses(1)
		for asked := 0; asked < 3; asked = len(c.log()) {
			pass(time.Second)
		}
		w.reboots(1, boot2)
		pass(15 * time.Minute)
		if d := w.only(); d.Boot != boot1 || d.Cause != "Unexplained" {
			t.Errorf("death: %+v", d)
		}
	})
}

// Nodes that are left out are told about, too: what was heard of them stays on record, and a console is not offered for
// acting on it.
func TestEndsOfNodesThatAreLeftOut(t *testing.T) {
	leftOut := func(w *world) {
		change(w, func(n *policy.Node) { n.Labels = map[string]string{policy.ExcludeLabel: ""} })
	}
	t.Run("its panic was heard", func(t *testing.T) {
		for _, gone := range []bool{false, true} {
			bubble(t, func(t *testing.T, w *world) {
				leftOut(w)
				w.populate("n1")
				created := faulty{world: w, before: func(_ context.Context, call string) error {
					if call != "Pods" {
						return nil
					}
					w.set(func() { // what is on record before anything else is done
						for _, d := range w.deaths {
							if d.Condition(policy.Complete).Reason != "NodeExcluded" {
								t.Errorf("phase %s without its reason: %+v", d.Phase, d.Conditions)
							}
						}
					})
					return nil
				}}
				e, _ := runOn(t, testPolicy(), created, nil, "a")
				w.panics(1)
				offer(t, w, incident(1, boot1, secret1), e)
				pass(2 * time.Minute)
				if gone {
					leaves(w)
				} else {
					w.reboots(1, boot2)
				}
				pass(time.Hour)
				d := w.only()
				if c := d.Condition(policy.Complete); c.Reason != "NodeExcluded" || c.Status != policy.True {
					t.Errorf("gone %t: condition %+v", gone, c)
				}
				if n := w.node("n1"); n.Fenced || n.Unhealthy != "" {
					t.Errorf("node %+v: it was touched", n)
				}
				if d.Phase != policy.Recorded || d.Known() != policy.KnownLive || d.Cause != "KernelPanic" || !strings.Contains(d.Decision, "is left out by its label") || len(d.Pods) == 0 {
					t.Errorf("gone %t: death %+v", gone, d)
				}
			})
		}
	})
	t.Run("its panic was heard, and waits for its witness", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			w.populate("n1")
			w.unpin()
			change(w, func(n *policy.Node) { n.ControlPlane = true })
			e, _ := runWith(t, testPolicy(), w, nil, "a")
			w.panics(1)
			offer(t, w, incident(1, boot1, ""), e)
			pass(5 * time.Second)
			if d := w.only(); d.Phase != policy.Pending || w.node("n1").Fenced {
				t.Errorf("before it: phase %s, fenced %t", d.Phase, w.node("n1").Fenced)
			}
			pass(time.Minute)
			if d := w.only(); d.Phase != policy.Recorded || d.Condition(policy.Complete).Reason != "ControlPlane" || w.node("n1").Fenced || w.failed() > 0 || len(d.Pods) == 0 {
				t.Errorf("phase %s, condition %+v, fenced %t, %d pods failed", d.Phase, d.Condition(policy.Complete), w.node("n1").Fenced, w.failed())
			}
		})
	})
	t.Run("a lie was heard", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			leftOut(w)
			e, _ := runWith(t, testPolicy(), w, nil, "a")
			offer(t, w, incident(1, boot1, ""), e)
			pass(time.Minute)
			if d := w.only(); d.Phase != policy.Refused || !strings.Contains(d.Decision, "renewed its Lease") {
				t.Errorf("phase %s: %s", d.Phase, d.Decision)
			}
		})
	})
	t.Run("a false alarm was heard long before", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			leftOut(w)
			e, _ := runWith(t, testPolicy(), w, nil, "a")
			offer(t, w, incident(1, boot1, ""), e)
			pass(time.Hour)
			w.panics(1)
			w.reboots(1, boot2)
			pass(time.Hour)
			if d := w.only(); d.Cause != "Unexplained" || d.Phase != policy.Recorded {
				t.Errorf("death %+v", d)
			}
		})
	})
	t.Run("its console tells of it", func(t *testing.T) {
		deaths, events := record(t, &ec2{console: says(boot1), fate: policy.Fate{State: "running"}}, leftOut, func(w *world) {
			w.panics(1)
			pass(50 * time.Second)
			w.loses(1)
			pass(silentForGood)
		})
		if len(deaths) != 1 || deaths[0].Phase != policy.Recorded || deaths[0].Cause != "KernelPanic" {
			t.Errorf("deaths %+v", deaths)
		}
		if slices.ContainsFunc(events, func(e Event) bool { return e.Action == "Refuse" }) {
			t.Errorf("events %+v: nobody asked", events)
		}
	})
}

// A machine that has the dead one's name is not called dead by an event; the same machine is, also on a new Node.
func TestEventsOnlyOfTheMachineThatDied(t *testing.T) {
	for machine, want := range map[string]bool{"aws:///zone/i-1": true, "aws:///zone/i-other": false} {
		_, events := record(t, nil, nil, func(w *world) {
			leaves(w)
			w.addNode(1, boot2, "another")
			change(w, func(n *policy.Node) { n.UID, n.ProviderID = "another", machine })
		})
		if got := slices.ContainsFunc(events, func(e Event) bool { return e.Reason == "Unexplained" && e.Node.Name == "n1" }); got != want {
			t.Errorf("event about a node of that name on %s: %t, want %t", machine, got, want)
		}
	}
}

// statusless is a cluster in which a death is created, and its status is not written.
type statusless struct{ *world }

func (s statusless) CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	d.Phase, d.Decision, d.Owner, d.Started, d.Completed, d.Conditions = "", "", "", time.Time{}, time.Time{}, nil
	return s.world.CreateDeath(ctx, d)
}

// Nor is one whose replica died before it could write the status.
func TestRecordOfADeadReplica(t *testing.T) {
	for _, evidence := range []policy.Evidence{policy.ByNothing, policy.ByPstore, policy.ByCloud} {
		bubble(t, func(t *testing.T, w *world) {
			w.populate("n1")
			d := policy.Ending{Node: w.node("n1"), Boot: boot1, At: time.Now()}.Death()
			d.Evidence = []policy.Evidence{evidence}
			if _, err := (statusless{w}).CreateDeath(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			runWith(t, testPolicy(), w, nil, "a")
			w.panics(1)
			pass(50 * time.Second)
			w.loses(1)
			pass(time.Minute)
			if d := w.only(); d.Phase != policy.Recorded || d.Decision == "" || d.Completed.IsZero() || w.failed() > 0 {
				t.Errorf("%s: phase %q, %s, %d pods failed", evidence, d.Phase, d.Decision, w.failed())
			}
			if about := slices.DeleteFunc(w.events, func(e Event) bool { return e.Action != "Record" }); len(about) != 1 || about[0].Node.Name != "n1" {
				t.Errorf("%s: events %+v, want one about the node", evidence, about)
			}
		})
	}
}

// A record whose status did not get through is none that somebody has to work on.
func TestRecordWithoutItsStatus(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		runWith(t, testPolicy(), statusless{w}, nil, "a")
		pass(5 * time.Second)
		w.panics(1)
		pass(time.Minute)
		leaves(w)
		pass(15 * time.Minute)
		if d := w.only(); d.Phase != policy.Recorded || d.Cause != "Unexplained" || d.Decision == "" {
			t.Errorf("phase %q, %s", d.Phase, d.Decision)
		}
	})
}

// beaten is a cluster in which another replica records the same death at the same moment: the death is there, and its status is the other's.
type beaten struct{ *world }

func (c beaten) CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	d.Owner = "b"
	out, err := c.world.CreateDeath(ctx, d)
	out.Version, out.Phase, out.Owner = "of the creation", "", ""
	return out, err
}

// Two replicas that record the same death at once emit its events once.
func TestRecordOfTwoReplicas(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		finished := 0
		e, _ := runOn(t, testPolicy(), beaten{w}, nil, "a", func(e *Engine) {
			e.Observer.Finished = func(policy.Phase, time.Duration) { finished++ }
		})
		if !e.recordDeath(t.Context(), w.node("n1"), policy.Ending{Node: w.node("n1"), Boot: boot1, At: time.Now()}.Death()) {
			t.Error("it is to be recorded again")
		}
		d := w.only()
		w.set(func() {
			if d.Owner != "b" || finished > 0 || len(w.events) > 0 {
				t.Errorf("of %s, finished %d times, events %+v; want the other's only", d.Owner, finished, w.events)
			}
		})
	})
}
