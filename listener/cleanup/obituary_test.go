package cleanup

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	bootOld   = "11111111-0000-4000-8000-00000000000a"
	lastWords = "<0>[   99.000000] sysrq: Trigger a crash\n<0>[   99.100000] Kernel panic - not syncing: sysrq triggered crash\n"
)

// oopsWords are those of an oops.
const oopsWords = "<1>[   50.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000\n" +
	"<4>[   50.000003] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\n<4>[   50.000004] CPU: 0 UID: 0 PID: 7 Comm: insmod Not tainted 6.12.0 #1\n" +
	"<4>[   50.000005] RIP: 0010:foo+0x1/0x2 [bar]\n<4>[   50.000006] ---[ end trace 0000000000000000 ]---\n"

// said is what node 1 says on boot1, under its secret, about the boot before.
func said(change func(id *netconsole.Identity, o *netconsole.Obituary)) (netconsole.Identity, netconsole.Obituary) {
	id := netconsole.Identity{Instance: "i-1", Boot: boot1, Secret: secret1}
	o := netconsole.Obituary{Boot: bootOld, Cause: "KernelPanic", Evidence: "pstore", Kernel: "6.12.0", Text: []byte(lastWords)}
	if change != nil {
		change(&id, &o)
	}
	return id, o
}

// repeat hands an obituary over as often as its sender repeats it, and reports whether it was dealt with.
func repeat(e *Engine, src netip.Addr, id netconsole.Identity, o netconsole.Obituary) (done bool) {
	for range 6 {
		if done = e.Obituary(src, id, o, time.Now()); done {
			return true
		}
		pass(10 * time.Second)
	}
	return false
}

func TestObituary(t *testing.T) {
	type edit = func(id *netconsole.Identity, o *netconsole.Obituary)
	for _, tt := range []struct {
		name   string
		src    int // node
		edit   edit
		before func(w *world, e *Engine)
		want   string // cause by evidence, authority; empty: no death
		undone bool   // it must not be acknowledged
		// unwritten: the Node must not say that the boot ended in good order.
		unwritten bool
	}{
		{name: "with the kernel's own words", src: 1, want: "KernelPanic by pstore, pinned"},
		{name: "from kdump", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) { o.Evidence = "kdump" }, want: "KernelPanic by kdump, pinned"},
		{name: "of the watchdog", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = "Watchdog", "watchdog", []byte("watchdog0 has bootstatus 32: it reset the machine\n")
		}, want: "Watchdog by watchdog, pinned"},
		{name: "without a word", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = netconsole.CauseUnexplained, "none", nil
		}, want: "Unexplained by none, pinned"},
		{name: "of a boot that survived an oops, and then ended without a word", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = netconsole.CauseUnexplained, "none", []byte(oopsWords)
		}, want: "Unexplained by none, pinned"},
		{name: "of the watchdog, after an oops", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = "Watchdog", "watchdog", []byte("watchdog0 has bootstatus 32: it reset the machine\n"+oopsWords)
		}, want: "Watchdog by watchdog, pinned"},
		{name: "of an oops that was its end", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Text = "KernelOops", []byte(oopsWords)
		}, want: "KernelOops by pstore, pinned"},
		{name: "with a cause that is no word", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = "<script>", "none", nil
		}, want: "Unexplained by none, pinned"},
		{name: "of a claimed boot", src: 1, before: func(w *world, _ *Engine) {
			w.claims()
		}, want: "KernelPanic by pstore, claimed"},
		{name: "of the boot that the watch saw end", src: 1, before: func(w *world, _ *Engine) {
			w.set(func() {
				w.ended = append(w.ended, policy.Node{Name: "n1", UID: "uid-n1", BootID: bootOld, Leaving: true})
			})
			pass(2 * time.Second)
		}, want: "KernelPanic by pstore, pinned"},

		{name: "of a boot that ended in good order", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = netconsole.CauseOrderly, "ledger", nil
		}},
		{name: "without a word, of a boot that has sent a farewell", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = netconsole.CauseUnexplained, "none", nil
		}, before: func(w *world, _ *Engine) {
			change(w, func(n *policy.Node) {
				n.Farewell = policy.Farewell{Boot: bootOld, Text: "rebooted", At: time.Now().Add(-time.Minute)}
			})
		}},
		{name: "without a word, of a boot that survived an oops and then sent a farewell", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = netconsole.CauseUnexplained, "none", []byte(oopsWords)
		}, before: func(w *world, _ *Engine) {
			change(w, func(n *policy.Node) {
				n.Farewell = policy.Farewell{Boot: bootOld, Text: "rebooted", At: time.Now().Add(-time.Minute)}
			})
		}},
		{name: "with the kernel's own words, of a boot that has sent a farewell", src: 1, want: "KernelPanic by pstore, pinned", before: func(w *world, _ *Engine) {
			change(w, func(n *policy.Node) {
				n.Farewell = policy.Farewell{Boot: bootOld, Text: "rebooted", At: time.Now().Add(-time.Minute)}
			})
		}},
		{name: "of a claimed boot, in good order", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = netconsole.CauseOrderly, "ledger", nil
		}, before: func(w *world, _ *Engine) {
			w.claims()
		}, unwritten: true},
		{name: "of another boot than the watch saw end", src: 1, before: func(w *world, _ *Engine) {
			w.set(func() {
				w.ended = append(w.ended, policy.Node{Name: "n1", UID: "uid-n1", BootID: "another", Leaving: true})
			})
			pass(2 * time.Second)
		}},
		{name: "of the boot that speaks", src: 1, edit: func(_ *netconsole.Identity, o *netconsole.Obituary) { o.Boot = boot1 }},
		{name: "with a wrong secret", src: 1, edit: func(id *netconsole.Identity, _ *netconsole.Obituary) { id.Secret = "guessed" }},
		{name: "without a secret", src: 1, edit: func(id *netconsole.Identity, _ *netconsole.Obituary) { id.Secret = "" }},
		{name: "of another node's address", src: 2, undone: true},
		{name: "by another node in this one's name", src: 2, edit: func(id *netconsole.Identity, _ *netconsole.Obituary) {
			id.Instance, id.Boot, id.Secret = "i-1", "boot of node 2", "secret of node 2"
		}, undone: true},
		{name: "of a boot that the Node does not run", src: 1, edit: func(id *netconsole.Identity, _ *netconsole.Obituary) { id.Boot = boot2 }, undone: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				e, _ := run(t, testPolicy(), w, "a")
				pass(time.Second)
				if tt.before != nil {
					tt.before(w, e)
				}
				id, o := said(tt.edit)
				if done := repeat(e, address(tt.src), id, o); done == tt.undone {
					t.Errorf("dealt with: %t", done)
				}
				pass(10 * time.Minute)
				if calls := w.log(); slices.ContainsFunc(calls, func(c string) bool { return !strings.Contains(c, "Recorded death") && !strings.Contains(c, "farewell") }) {
					t.Errorf("calls %q: an obituary only records", calls)
				}
				if tt.unwritten && w.node("n1").Farewell != (policy.Farewell{}) {
					t.Errorf("farewell %+v", w.node("n1").Farewell)
				}
				if tt.want == "" {
					if len(w.deaths) > 0 {
						t.Errorf("deaths: %+v", w.deaths)
					}
					return
				}
				d := w.only()
				if got := d.Cause + " by " + string(d.Evidence[0]) + ", " + d.Authority.String(); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
				if d.Node != "n1" || d.Boot != bootOld || d.Phase != policy.Recorded || d.Reason == "" || d.Release != "6.12.0" {
					t.Errorf("death: %+v", d)
				}
			})
		})
	}
}

// An obituary completes what was heard: the same death, a longer trace, the evidence added. Nothing is done twice.
func TestObituaryCompletesADeath(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		e, _ := run(t, p, w, "a")
		w.panics(1)
		inc := incident(1, boot1, secret1)
		inc.Title = "Fatal exception"
		offer(t, w, inc, e)
		pass(5 * time.Second)
		w.reboots(1, boot2)
		change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot2, Sum: netconsole.Secret("next").Sum()} })
		pass(10 * time.Second)
		before := w.only()
		calls := len(w.log())
		id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
			id.Boot, id.Secret = boot2, "next"
			o.Boot = boot1
			o.Text = []byte(strings.Repeat("<6>[   98.000000] a line before\n", 30) + lastWords)
		})
		for range 3 {
			if !repeat(e, address(1), id, o) {
				t.Fatal("not dealt with")
			}
		}
		d := w.only()
		if d.UID != before.UID || d.Phase != before.Phase || d.Authority != detect.Pinned || w.failed() != len(pods) || len(w.log()) != calls {
			t.Errorf("death %+v, %d pods failed, calls %v", d, w.failed(), w.log()[calls:])
		}
		if d.Reason != "sysrq triggered crash" || len(d.Trace) <= len(before.Trace) ||
			!slices.Equal(d.Evidence, []policy.Evidence{policy.ByNetconsole, policy.ByPstore}) {
			t.Errorf("reason %q, %d lines, evidence %v", d.Reason, len(d.Trace), d.Evidence)
		}
	})
}

// What nobody could explain is explained by the node when it runs again; in good order it is not even recorded.
func TestObituaryBeforeUnexplained(t *testing.T) {
	for cause, want := range map[string]int{netconsole.CauseOrderly: 0, "KernelPanic": 1} {
		bubble(t, func(t *testing.T, w *world) {
			w.populate("n1")
			e, _ := run(t, testPolicy(), w, "a")
			w.panics(1)
			pass(time.Minute)
			w.reboots(1, boot2)
			change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot2, Sum: netconsole.Secret("next").Sum()} })
			pass(time.Minute)
			id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
				id.Boot, id.Secret, o.Boot, o.Cause = boot2, "next", boot1, cause
			})
			if !repeat(e, address(1), id, o) {
				t.Error("not dealt with")
			}
			pass(time.Hour)
			if orderly := w.node("n1").Farewell.Boot == boot1; orderly != (want == 0) {
				t.Errorf("%s: farewell %+v", cause, w.node("n1").Farewell)
			}
			if len(w.deaths) != want {
				t.Errorf("%s: %d deaths, want %d", cause, len(w.deaths), want)
			}
		})
	}
}

// What a node says without its kernel's words does not end the question to EC2: the console may have them, and is read late.
func TestTheConsoleExplainsAnObituary(t *testing.T) {
	survived := strings.Repeat("<6>[   49.000000] a line before\n", 150) + oopsWords
	watchdog := "watchdog0 has bootstatus 32: it reset the machine\n"
	for _, tt := range []struct {
		name           string
		cause, by      string // what the node says
		text           string
		console        string
		fate           policy.Fate
		restart, never bool   // the listener's; the console is not asked for
		want           string // cause, reason, evidence
	}{
		{name: "a panic", console: says(boot1) + says(boot2)[:60], want: "KernelPanic: sysrq triggered crash [console]"},
		{name: "a panic, after a restart", console: says(boot1), restart: true, want: "KernelPanic: sysrq triggered crash [console]"},
		{name: "a panic of a boot that it does not name", console: says(""), want: "KernelPanic: sysrq triggered crash [console]"},
		{name: "a panic of another boot", console: says("another"), want: "Unexplained: the boot ended without a word [none]"},
		{name: "no panic", console: "[    0.000000] Linux version 6.12.0 (x) #1\n", want: "Unexplained: the boot ended without a word [none]"},
		{name: "a panic, long after an oops that the kernel survived", text: survived, console: says(boot1),
			want: "KernelPanic: sysrq triggered crash [console]"},
		{name: "a panic that the watchdog ended", cause: "Watchdog", by: "watchdog", text: watchdog, console: says(boot1),
			want: "KernelPanic: sysrq triggered crash [watchdog console]"},
		{name: "the watchdog, and a panic of nobody knows which boot", cause: "Watchdog", by: "watchdog", text: watchdog, console: says(""),
			want: "Watchdog: watchdog0 has bootstatus 32: it reset the machine [watchdog]"},
		{name: "hardware that fails", fate: policy.Fate{State: "running", Impaired: "the system status check fails"},
			want: "HardwareError: instance i-1 is running, the system status check fails [cloud]"},
		{name: "nothing that the kernel has not said itself", cause: "KernelPanic", by: "pstore", text: lastWords, console: says(boot1), never: true,
			want: "KernelPanic: sysrq triggered crash [pstore]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				c := &ec2{fate: tt.fate}
				if tt.fate.State == "" {
					c.fate = policy.Fate{State: "running"}
				}
				e, stop := runWith(t, testPolicy(), w, c, "a")
				w.panics(1)
				pass(time.Minute)
				w.reboots(1, boot2)
				change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot2, Sum: netconsole.Secret("next").Sum()} })
				id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
					id.Boot, id.Secret, o.Boot = boot2, "next", boot1
					o.Cause, o.Evidence = cmp.Or(tt.cause, netconsole.CauseUnexplained), cmp.Or(tt.by, "none")
					o.Text = []byte(tt.text)
				})
				if !repeat(e, address(1), id, o) {
					t.Fatal("not dealt with")
				}
				before := w.only()
				if tt.restart {
					stop()
					runWith(t, testPolicy(), w, c, "b")
				}
				pass(time.Minute)
				asked := len(c.log())
				c.set(func() { c.console = tt.console })
				pass(time.Hour)
				d := w.only()
				if got := fmt.Sprintf("%s: %s %v", d.Cause, d.Reason, d.Evidence); got != tt.want || d.UID != before.UID || d.Phase != policy.Recorded ||
					w.failed() > 0 || len(d.Trace) < len(before.Trace) {
					t.Errorf("%s; want %s\nbefore %+v\nafter %+v", got, tt.want, before, d)
				}
				if more := len(c.log()) - asked; tt.never && more > 0 || more > 20 {
					t.Errorf("EC2 was asked %d times more", more)
				}
				if d.Cause != before.Cause && !slices.ContainsFunc(w.events, func(e Event) bool {
					return e.Reason == d.Cause && e.Node.Name == "n1" && strings.Contains(e.Note, d.Reason)
				}) {
					t.Errorf("no event says %s: %+v", d.Reason, w.events)
				}
			})
		})
	}
}

// watching is a cluster that has an informer of its own, as each replica does: an end that one has seen is news to the others.
type watching struct {
	faulty
	seen int
}

func (c *watching) EndedBoots() []policy.Node {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	ended := c.world.ended[c.seen:]
	c.seen += len(ended)
	return slices.Clone(ended)
}

// slow is a cluster in which an amendment takes long enough for others to read what was there before.
func slow(w *world) faulty {
	return faulty{world: w, before: func(_ context.Context, call string) error {
		if call == "AmendDeath" {
			time.Sleep(time.Second)
		}
		return nil
	}}
}

// Every replica asks EC2. One of them tells of the answer.
func TestTheConsoleExplainsAnObituaryOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		c := &ec2{fate: policy.Fate{State: "running"}}
		e, _ := runWith(t, testPolicy(), &watching{faulty: slow(w)}, c, "a")
		runWith(t, testPolicy(), &watching{faulty: slow(w)}, c, "b")
		runWith(t, testPolicy(), &watching{faulty: slow(w)}, c, "c")
		w.panics(1)
		pass(time.Minute)
		w.reboots(1, boot2)
		change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot2, Sum: netconsole.Secret("next").Sum()} })
		id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
			id.Boot, id.Secret, o.Boot = boot2, "next", boot1
			o.Cause, o.Evidence, o.Text = netconsole.CauseUnexplained, "none", nil
		})
		if !repeat(e, address(1), id, o) {
			t.Fatal("not dealt with")
		}
		c.set(func() { c.console = says(boot1) })
		pass(time.Hour)
		if d := w.only(); d.Cause != "KernelPanic" {
			t.Errorf("death %+v", d)
		}
		told := 0
		for _, e := range w.events {
			if e.Reason == "KernelPanic" && e.Node.Name == "n1" {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%d events about the node, want one: %+v", told, w.events)
		}
	})
}

// A node that makes up boots and secrets for itself fills no store, and one boot speaks of one boot only.
func TestObituariesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		id, o := said(nil)
		repeat(e, address(1), id, o)
		for i := range 10 { // another boot, under another secret of the same boot
			secret := netconsole.Secret(strings.Repeat("x", 1+i))
			change(w, func(n *policy.Node) { n.Pin.Sum = secret.Sum() })
			id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
				id.Secret, o.Boot = secret, "made up "+string(secret)
			})
			if !repeat(e, address(1), id, o) {
				t.Error("it is repeated without end")
			}
		}
		if len(w.deaths) != 1 {
			t.Errorf("%d deaths of one boot's word, want 1", len(w.deaths))
		}
		for i := range 20 { // another boot each time
			boot := strings.Repeat("y", 1+i)
			change(w, func(n *policy.Node) { n.BootID, n.Pin = boot, policy.Pin{Boot: boot, Sum: secret1.Sum()} })
			id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) { id.Boot, o.Boot = boot, "of "+boot })
			e.Obituary(address(1), id, o, time.Now())
			pass(2 * time.Second)
		}
		if n := len(w.deaths); n > 2*obituariesOfAddress {
			t.Errorf("%d deaths of one node, want at most %d", n, obituariesOfAddress)
		}
	})
}

// When more nodes speak at once than are put on record, as after the power was gone, the others are asked to say it again.
func TestObituariesBeyondTheLimitComeAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := runOn(t, testPolicy(), w, nil, "a", func(e *Engine) { e.obituaryLimit.Total = 2 })
		say := func(i int) bool {
			boot := fmt.Sprintf("boot of %d", i)
			id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
				*id = netconsole.Identity{Instance: fmt.Sprintf("i-%d", i), Boot: boot, Secret: "secret"}
				o.Boot = "old " + boot
			})
			return repeat(e, address(i), id, o)
		}
		for i := 10; i < 13; i++ {
			w.addNode(i, fmt.Sprintf("boot of %d", i), "secret")
			if done := say(i); done != (i < 12) {
				t.Errorf("node %d: dealt with %t", i, done)
			}
		}
		pass(e.policy.Window)
		if !say(12) || len(w.deaths) != 3 {
			t.Errorf("%d deaths are on record in the next window, want 3", len(w.deaths))
		}
	})
}

// A node that changes its secret and says more each time is heard a few times only.
func TestAmendmentsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		for i := range 30 {
			secret := netconsole.Secret(strings.Repeat("x", 1+i))
			change(w, func(n *policy.Node) { n.Pin.Sum = secret.Sum() })
			id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
				id.Secret, o.Text = secret, []byte(strings.Repeat("<6>[   98.000000] a line before\n", i)+"<0>[   99.100000] Kernel panic - not syncing: made up by "+strings.Repeat("y", 1+i)+"\n")
			})
			if !repeat(e, address(1), id, o) {
				t.Fatal("it is repeated without end")
			}
		}
		if n := len(w.events); n == 0 || n > 2*obituariesOfAddress {
			t.Errorf("%d events, want one for each that is heard", n)
		}
	})
}

// A boot that was only claimed, perhaps by a pod that was faster than the node, changes nothing of a death that was heard under
// a pinned secret.
func TestObituaryOfAClaimedBootRewritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		p := testPolicy()
		p.NodeVerb = policy.NodeAwait
		e, _ := run(t, p, w, "a")
		w.panics(1)
		offer(t, w, incident(1, boot1, secret1), e)
		pass(5 * time.Second)
		w.reboots(1, boot2)
		change(w, func(n *policy.Node) { n.Claim = policy.Pin{Boot: boot2, Sum: netconsole.Secret("next").Sum()} })
		pass(10 * time.Second)
		before := w.only()
		id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
			id.Boot, id.Secret, o.Boot = boot2, "next", boot1
			o.Text = []byte(strings.Repeat("<6>[   98.000000] a line before\n", 30) + "<0>[   99.100000] Kernel panic - not syncing: made up\n")
		})
		if !repeat(e, address(1), id, o) {
			t.Error("it is repeated without end")
		}
		if d := w.only(); d.Reason != before.Reason || len(d.Trace) != len(before.Trace) || !slices.Equal(d.Evidence, before.Evidence) {
			t.Errorf("reason %q, %d lines, evidence %v", d.Reason, len(d.Trace), d.Evidence)
		}
	})
}

// Who owns a death tells of it. The replica that recorded it may be gone when its node says more.
func TestObituaryTakesADeathOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		_, stop := run(t, testPolicy(), w, "a")
		w.panics(1)
		pass(time.Minute)
		w.reboots(1, boot2)
		change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot2, Sum: netconsole.Secret("next").Sum()} })
		pass(10 * time.Minute)
		before := w.only()
		stop()
		e, _ := run(t, testPolicy(), w, "b")
		id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) {
			id.Boot, id.Secret, o.Boot = boot2, "next", boot1
		})
		if !repeat(e, address(1), id, o) {
			t.Fatal("not dealt with")
		}
		d := w.only()
		if before.Owner != "a" || d.UID != before.UID || d.Owner != "b" || d.Cause != "KernelPanic" || d.Phase != policy.Recorded || d.Decision != before.Decision {
			t.Errorf("before %+v\nnow %+v", before, d)
		}
	})
}

// A pod that was faster than the node claims its boot and makes up how the last one ended. The node's own words take the place of
// that as soon as it has pinned; not of what was heard live, unless there are words.
func TestThePinnedWordsWin(t *testing.T) {
	madeUp := func(o *netconsole.Obituary) {
		o.Text = []byte(strings.Repeat("<6>[   98.000000] a line before\n", 300) + "<0>[   99.100000] Kernel panic - not syncing: made up\n")
	}
	silent := func(o *netconsole.Obituary) {
		o.Cause, o.Evidence, o.Text = netconsole.CauseUnexplained, "none", nil
	}
	for _, tt := range []struct {
		name           string
		live           bool // the panic was heard, too, under a secret that was only claimed
		claimed, truth func(o *netconsole.Obituary)
		want           string
	}{
		{"the kernel's", false, madeUp, func(*netconsole.Obituary) {}, "sysrq triggered crash [pstore] pinned"},
		{"no word", false, madeUp, silent, "the boot ended without a word [none] pinned"},
		{"a cause without evidence", false, func(o *netconsole.Obituary) { o.Cause, o.Evidence, o.Text = "HardwareError", "none", nil }, silent,
			"the boot ended without a word [none] pinned"},
		{"the kernel's, after a panic that was heard", true, nil, func(*netconsole.Obituary) {}, "sysrq triggered crash [netconsole pstore] pinned"},
		{"no word, after a panic that was heard", true, nil, silent, "made up live [netconsole] claimed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				e, _ := run(t, testPolicy(), w, "a")
				pass(time.Second)
				if tt.live {
					change(w, func(n *policy.Node) {
						n.BootID, n.Pin, n.Claim = bootOld, policy.Pin{}, policy.Pin{Boot: bootOld, Sum: secret1.Sum()}
					})
					inc := incident(1, bootOld, secret1)
					inc.Title = "made up live"
					inc.Trace = slices.Repeat([]string{"a line"}, 300)
					offer(t, w, inc, e)
					pass(time.Second)
				}
				change(w, func(n *policy.Node) {
					n.BootID, n.Pin, n.Claim = boot1, policy.Pin{}, policy.Pin{Boot: boot1, Sum: netconsole.Secret("a pod's").Sum()}
				})
				pass(10 * time.Second)
				say := func(secret netconsole.Secret, words func(*netconsole.Obituary)) {
					id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) { id.Secret = secret; words(o) })
					if !repeat(e, address(1), id, o) {
						t.Fatalf("what %s says is not dealt with", secret)
					}
				}
				if tt.claimed != nil {
					say("a pod's", tt.claimed)
				}
				change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot1, Sum: secret1.Sum()} })
				say(secret1, tt.truth)
				if d := w.only(); fmt.Sprint(d.Reason, " ", d.Evidence, " ", d.Authority) != tt.want || d.Phase != policy.Recorded {
					t.Errorf("%s %v %s, phase %s; want %s", d.Reason, d.Evidence, d.Authority, d.Phase, tt.want)
				}
			})
		})
	}
}

// A replica that is killed at any call while it records what a node says, in whatever place, loses nothing: the node repeats it to another.
func TestKilledWhileAnObituaryIsRecorded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		phase policy.Phase // of what is on record
		by    policy.Evidence
	}{
		{name: "of nothing"},
		{"of what somebody made up", policy.Recorded, policy.ByPstore},
		{"of what was heard of another death", policy.Recorded, policy.ByNetconsole},
		{"of a false alarm", policy.Refused, policy.ByNetconsole},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("in the place %s, answer lost %t", tt.name, late), func(t *testing.T) {
				atEveryCall(t, func(t *testing.T, w *world, n int) bool {
					w.populate("n1")
					if tt.phase != "" {
						inc := incident(1, bootOld, "a pod's")
						inc.Title, inc.Fingerprint = "made up", "ba9876543210"
						d := policy.NewDeath(inc, detect.Claimed, w.node("n1"))
						d.Phase, d.Evidence, d.Owner = tt.phase, []policy.Evidence{tt.by}, "a"
						if _, err := w.CreateDeath(t.Context(), d); err != nil {
							t.Fatal(err)
						}
					}
					c, dead, calls := dying(w, n, late)
					a, kill := run(t, testPolicy(), c, "a")
					id, o := said(nil)
					a.Obituary(address(1), id, o, time.Now())
					select {
					case <-dead:
					case <-time.After(10 * time.Second):
					}
					kill()
					b, _ := run(t, testPolicy(), w, "b")
					if !repeat(b, address(1), id, o) {
						t.Error("it is repeated without end")
					}
					pass(time.Minute)
					if d := w.only(); d.Reason != "sysrq triggered crash" || d.Authority != detect.Pinned || d.Phase != policy.Recorded ||
						d.Condition(policy.Complete).Status != policy.True || len(d.Pods) == 0 || !slices.Contains(d.Evidence, policy.ByPstore) {
						t.Errorf("death %+v", d)
					}
					return calls() >= n
				})
			})
		}
	}
}

// A boot that died young leaves what it could not tell to the next, which then speaks of two. The one that the cluster has seen is put on
// record, in whatever order they come; and nobody can go on like that.
func TestObituariesOfTwoBoots(t *testing.T) {
	for _, tt := range []struct {
		order []string
		want  int
	}{
		{[]string{bootOld, "died young"}, 1},
		{[]string{"died young", bootOld}, 1},
		{[]string{"x", "y", bootOld, "z"}, 1},
		{[]string{"v", "w", "x", "y", bootOld}, 0},
	} {
		t.Run(strings.Join(tt.order, ", "), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				e, _ := run(t, testPolicy(), w, "a")
				w.set(func() {
					w.ended = append(w.ended, policy.Node{Name: "n1", UID: "uid-n1", BootID: bootOld, Leaving: true})
				})
				pass(2 * time.Second)
				for _, boot := range tt.order {
					id, o := said(func(_ *netconsole.Identity, o *netconsole.Obituary) { o.Boot = boot })
					if !repeat(e, address(1), id, o) {
						t.Errorf("%s is repeated without end", boot)
					}
				}
				if _, ok := w.deaths[policy.DeathName("n1", bootOld)]; ok != (tt.want == 1) || len(w.deaths) != tt.want {
					t.Errorf("deaths: %+v, want %d", w.deaths, tt.want)
				}
			})
		})
	}
}

// What a node says late of its boot before does not replace its farewell of the boot that it runs.
func TestObituaryInOrderAfterTheNextFarewell(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		now := policy.Farewell{Boot: boot1, Text: "rebooted by alice", At: time.Now()}
		change(w, func(n *policy.Node) { n.Farewell = now })
		id, o := said(func(_ *netconsole.Identity, o *netconsole.Obituary) {
			o.Cause, o.Evidence, o.Text = netconsole.CauseOrderly, "ledger", nil
		})
		if !repeat(e, address(1), id, o) {
			t.Error("it is repeated without end")
		}
		if got := w.node("n1").Farewell; got != now {
			t.Errorf("farewell %+v, want that of the boot that ends", got)
		}
	})
}

// A pod that was the first to claim the boot keeps out nothing that the node says once it has pinned.
func TestObituaryOfAClaimedBootKeepsOutNoTrueOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e, _ := run(t, testPolicy(), w, "a")
		change(w, func(n *policy.Node) {
			n.Pin, n.Claim = policy.Pin{}, policy.Pin{Boot: boot1, Sum: netconsole.Secret("a pod's").Sum()}
		})
		id, o := said(func(id *netconsole.Identity, o *netconsole.Obituary) { id.Secret, o.Boot = "a pod's", "made up" })
		if !repeat(e, address(1), id, o) {
			t.Error("it is repeated without end")
		}
		change(w, func(n *policy.Node) { n.Pin = policy.Pin{Boot: boot1, Sum: secret1.Sum()} })
		id, o = said(nil)
		if !repeat(e, address(1), id, o) {
			t.Error("it is repeated without end")
		}
		if _, ok := w.deaths[policy.DeathName("n1", bootOld)]; !ok {
			t.Errorf("the node's own word is not on record: %+v", w.deaths)
		}
	})
}
