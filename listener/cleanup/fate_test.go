package cleanup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// ec2 answers what it was given, and remembers the instances it was asked about.
type ec2 struct {
	mu      sync.Mutex
	fate    policy.Fate
	fates   map[string]policy.Fate // of single instances, in place of fate
	console string
	at      time.Time // of the console; now if zero
	err     error
	takes   time.Duration // to answer
	asked   []string
}

func (c *ec2) Fate(_ context.Context, id string) (policy.Fate, error) {
	c.set(func() { c.asked = append(c.asked, id) })
	time.Sleep(c.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.fates[id]; ok {
		return f, c.err
	}
	return c.fate, c.err
}

func (c *ec2) Console(context.Context, string) (policy.Console, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.at
	if at.IsZero() {
		at = time.Now()
	}
	return policy.Console{Text: c.console, At: at}, c.err
}

func (c *ec2) set(change func()) { c.mu.Lock(); defer c.mu.Unlock(); change() }

func (c *ec2) log() []string { c.mu.Lock(); defer c.mu.Unlock(); return slices.Clone(c.asked) }

// says is a console that ends in a panic of that boot; without one the text names no boot.
func says(boot string) string {
	text := "[    0.000000] Linux version 6.12.0 (x) #1\n"
	if boot != "" {
		c := netconsole.Canary{Nonce: strings.Repeat("0", 32), Instance: "i-1", Boot: boot}
		text += "[    9.000000] " + c.Line() + "\n"
	}
	return text + "[   99.000000] sysrq: Trigger a crash\n[   99.100000] Kernel panic - not syncing: sysrq triggered crash\n" +
		"[   99.200000] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\n"
}

// runWith starts an engine that may ask c.
func runWith(t *testing.T, p policy.Policy, w Cluster, c Fates, replica string) (*Engine, func()) {
	t.Helper()
	return runOn(t, p, w, nil, replica, func(e *Engine) { e.Fates = c })
}

func TestConsoleOfASilentNode(t *testing.T) {
	for _, tt := range []struct {
		name    string
		console string
		change  func(w *world, c *ec2)
		phase   policy.Phase // empty: no death
		cause   string
	}{
		{name: "ends in the death of its boot", console: says(boot1), phase: policy.Cleaned, cause: "KernelPanic"},
		{name: "shows the next boot begin", console: says(boot1) + "[    0.000000] Linux version 6.12.0 (x) #1\n", phase: policy.Cleaned, cause: "KernelPanic"},
		{name: "does not name the boot", console: says("")},
		{name: "names another boot", console: says(boot2)},
		{name: "was read before the boot died", console: says(boot1), change: func(_ *world, c *ec2) { c.at = time.Now().Add(-time.Hour) }},
		{name: "was read before the machine was started", console: says(boot1), change: func(_ *world, c *ec2) { c.fate.Launched = time.Now().Add(time.Hour) }},
		{name: "shows a kernel that lives", console: says(boot1) + "[  300.000000] eth0: link up\n"},
		{name: "is not there", change: func(_ *world, c *ec2) { c.err = errors.New("throttled") }},
		{name: "is another Node's, too", console: says(boot1), change: func(w *world, _ *ec2) {
			n := w.nodes["n2"]
			n.ProviderID = "aws:///zone/i-1"
			w.nodes["n2"] = n
		}},
		{name: "is of a node of the control plane", console: says(boot1), change: func(w *world, _ *ec2) {
			n := w.nodes["n1"]
			n.ControlPlane = true
			w.nodes["n1"] = n
		}},
		{name: "is of a node that never had lastgasp", console: says(boot1), change: func(w *world, _ *ec2) {
			n := w.nodes["n1"]
			n.Pin = policy.Pin{}
			w.nodes["n1"] = n
		}},
		{name: "is of a Node that names no instance", console: says(boot1), change: func(w *world, _ *ec2) {
			n := w.nodes["n1"]
			n.ProviderID = ""
			w.nodes["n1"] = n
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				pods := w.populate("n1")
				c := &ec2{console: tt.console, fate: policy.Fate{State: "running"}}
				if tt.change != nil {
					w.set(func() { tt.change(w, c) })
				}
				runWith(t, testPolicy(), w, c, "a")
				pass(5 * time.Second)
				w.panics(1)
				pass(50 * time.Second)
				w.loses(1) // as the node controller does, 50 s after the last renewal
				pass(20 * time.Second)
				if tt.phase == "" {
					if len(w.deaths) != 0 || w.failed() != 0 {
						t.Errorf("deaths %+v, %d pods failed; want none", w.deaths, w.failed())
					}
					return
				}
				d := w.only()
				if d.Phase != tt.phase || d.Cause != tt.cause || d.Authority != detect.Cloud || d.Boot != boot1 ||
					!slices.Equal(d.Evidence, []policy.Evidence{policy.ByConsole}) || d.Instance != "i-1" {
					t.Errorf("death: %+v", d)
				}
				if w.failed() != len(pods) {
					t.Errorf("%d pods failed, want %d", w.failed(), len(pods))
				}
			})
		})
	}
}

// What a console says is asked again after a restart, and is not kept for it: without a sender it would be refused.
func TestConsoleIsNotSaved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := &ec2{console: says(boot1), fate: policy.Fate{State: "running"}}
		tried := false
		broken := faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "CreateDeath" {
				tried = true
				return errors.New("connection refused")
			}
			return nil
		}}
		dir := t.TempDir()
		_, stop := runOn(t, testPolicy(), broken, nil, "a", func(e *Engine) { e.Fates, e.State = c, dir })
		pass(5 * time.Second)
		w.panics(1)
		pass(50 * time.Second)
		w.loses(1)
		pass(20 * time.Second)
		stop()
		if files, err := os.ReadDir(dir); !tried || err != nil || len(files) > 0 {
			t.Errorf("tried %t, files %v, %v", tried, files, err)
		}
	})
}

// A Lease that is renewed after all, and a Node that is Ready again, contradict what a console says.
func TestConsoleOfANodeThatComesBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		c := &ec2{console: says(boot1), err: errors.New("throttled"), fate: policy.Fate{State: "running"}}
		runWith(t, testPolicy(), w, c, "a")
		pass(5 * time.Second)
		w.loses(1)
		pass(20 * time.Second)
		change(w, func(n *policy.Node) { n.Ready, n.Silent = true, false })
		c.set(func() { c.err = nil })
		pass(time.Hour)
		if len(w.deaths) != 0 || w.failed() != 0 {
			t.Errorf("deaths %v, %d pods failed; want none", w.deaths, w.failed())
		}
	})
}

// The cloud's word that a machine does not run is a witness for whatever was heard.
func TestTheCloudIsAWitness(t *testing.T) {
	for _, tt := range []struct {
		name string
		fate policy.Fate
		want policy.Phase // 30 s after the panic, when no Lease can have lapsed
	}{
		{"terminated", policy.Fate{State: "terminated", Code: "Client.UserInitiatedShutdown"}, policy.Cleaned},
		{"stopped", policy.Fate{State: "stopped"}, policy.Cleaned},
		{"hibernated: the boot goes on later", policy.Fate{State: "stopped", Code: "Client.UserInitiatedHibernate"}, policy.Pending},
		{"about to stop", policy.Fate{State: "stopping"}, policy.Pending},
		{"running", policy.Fate{State: "running"}, policy.Pending},
		{"unknown", policy.Fate{}, policy.Pending},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.populate("n1")
				w.unpin()
				c := &ec2{fate: tt.fate}
				e, _ := runWith(t, testPolicy(), w, c, "a")
				w.panics(1)
				offer(t, w, incident(1, boot1, ""), e)
				pass(30 * time.Second)
				if d := w.only(); d.Phase != tt.want || tt.want == policy.Cleaned && !strings.Contains(d.Decision, "EC2 says: instance i-1 is "+tt.fate.State) {
					t.Errorf("phase %s: %s; want %s", d.Phase, d.Decision, tt.want)
				}
			})
		})
	}
}

// A thousand nodes that fall silent use up no question that a death which waits for its witness needs.
func TestAWitnessComesFirst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.populate("n1")
		w.unpin()
		for i := range 1000 {
			w.addNode(10+i, fmt.Sprintf("boot of %d", 10+i), "secret")
		}
		c := &ec2{fate: policy.Fate{State: "running"}, fates: map[string]policy.Fate{"i-1": {State: "terminated"}}}
		e, _ := runWith(t, testPolicy(), w, c, "a")
		for i := range 1000 {
			w.loses(10 + i)
		}
		pass(20 * time.Second)
		w.panics(1)
		offer(t, w, incident(1, boot1, ""), e)
		pass(30 * time.Second)
		if d := w.only(); d.Phase != policy.Cleaned || !strings.Contains(d.Decision, "EC2 says: instance i-1 is terminated") {
			t.Errorf("phase %s: %s; want Cleaned, by EC2's word", d.Phase, d.Decision)
		}
	})
}

// A thousand nodes that fall silent at once cost no more questions than the limit.
func TestQuestionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for i := range 1000 {
			w.addNode(10+i, fmt.Sprintf("boot of %d", 10+i), "secret")
		}
		c := &ec2{fate: policy.Fate{State: "running"}}
		runWith(t, testPolicy(), w, c, "a")
		for i := range 1000 {
			w.loses(10 + i)
		}
		pass(59 * time.Second)
		if n := len(c.log()); n == 0 || n > 2*fatesPerMinute { // the window may turn in between
			t.Errorf("%d questions in a minute, want at most %d", n, fatesPerMinute)
		}
	})
}
