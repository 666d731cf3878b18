package cleanup

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// counting counts the calls about deaths up to the first pod that is failed.
type counting struct {
	*world
	calls map[string]int // guarded by world.mu
}

func (c counting) count(call string) {
	c.set(func() {
		if len(c.failures) == 0 {
			c.calls[call]++
		}
	})
}

func (c counting) CreateDeath(ctx context.Context, d policy.Death) (policy.Death, error) {
	c.count("create")
	return c.world.CreateDeath(ctx, d)
}

func (c counting) Death(ctx context.Context, name string) (policy.Death, error) {
	c.count("read")
	return c.world.Death(ctx, name)
}

func (c counting) DeleteDeath(ctx context.Context, d policy.Death) error {
	c.count("delete")
	return c.world.DeleteDeath(ctx, d)
}

// Somebody says that a node dies just before it does. The true death then takes one call more, and not a creation in vain and
// a look at what is there besides.
func TestAForgedDeathGivesWayAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		c := counting{w, map[string]int{}}
		a, _ := run(t, testPolicy(), c, "a")
		offer(t, w, incident(1, boot1, "guessed"), a)
		pass(time.Second)
		if r := w.only(); r.Phase != policy.Pending || r.Authority >= detect.Pinned {
			t.Fatalf("the forged death is %s on %v authority, want it waiting for a witness", r.Phase, r.Authority)
		}
		w.set(func() { w.created = 0; clear(c.calls) })
		offer(t, w, incident(1, boot1, secret1), a)
		pass(3 * time.Second)
		w.cleanedOnce(pods)
		if diff := cmp.Diff(map[string]int{"delete": 1, "create": 1}, c.calls); diff != "" {
			t.Errorf("calls about deaths (-want +got):\n%s", diff)
		}
	})
}

// What is on record of a boot is not lost to a death that may not be created.
func TestARecordStaysWhileItsDeathIsDenied(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		record := policy.NewDeath(incident(1, boot1, ""), detect.Text, w.node("n1"))
		record.Phase, record.Owner, record.Started = policy.Recorded, "b", time.Now()
		record, err := w.CreateDeath(t.Context(), record)
		if err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.created = 0 })
		until := time.Now().Add(time.Minute)
		a, _ := run(t, testPolicy(), faulty{world: w, before: func(_ context.Context, call string) error {
			if call == "CreateDeath" && time.Now().Before(until) {
				return ErrDenied
			}
			return nil
		}}, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(50 * time.Second)
		if d := w.only(); d.UID != record.UID || d.Phase != policy.Recorded {
			t.Errorf("%+v is on record, want what was", d)
		}
		pass(30 * time.Second)
		w.cleanedOnce(pods)
	})
}

// behind is a cache that has not heard of the last change of the deaths.
type behind struct {
	faulty
	deaths []policy.Death
}

func (b behind) Deaths(context.Context) ([]policy.Death, error) { return b.deaths, nil }

func (b behind) CachedDeath(name string) (policy.Death, bool) {
	return b.deaths[0], b.deaths[0].Name == name
}

// The cache says that a weaker death waits for a witness, and another replica has found one and acts.
func TestADeathThatIsActedOnDoesNotGiveWay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		w.panics(1)
		inc := incident(1, boot1, "guessed")
		weaker := policy.NewDeath(inc, detect.Boot, w.node("n1"))
		weaker.Phase, weaker.Owner, weaker.Started = policy.Pending, "b", time.Now()
		weaker, err := w.CreateDeath(t.Context(), weaker)
		if err != nil {
			t.Fatal(err)
		}
		acting := weaker
		acting.Phase = policy.Cleaning
		if _, err := w.UpdateDeath(t.Context(), acting); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.replicas["b"] = time.Now().Add(time.Hour) })
		a, _ := run(t, testPolicy(), behind{faulty{world: w}, []policy.Death{weaker}}, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(10 * time.Second)
		if r := w.only(); r.UID != weaker.UID || r.Owner != "b" || r.Phase != policy.Cleaning || w.failed() > 0 {
			t.Errorf("death %s of %s is %s, %d of %d pods failed; want it left to its owner", r.UID, r.Owner, r.Phase, w.failed(), len(pods))
		}
	})
}

// The boot has a death on record that this replica was at work on before it was restarted, and the Node has been registered again since.
func TestAFormerNodesDeathIsNotContinued(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		pods := w.populate("n1")
		former := w.node("n1")
		former.UID = "uid of the former n1"
		d := policy.NewDeath(incident(1, boot1, secret1), detect.Pinned, former)
		d.Phase, d.Owner, d.Started = policy.Cleaning, "a", time.Now()
		if _, err := w.CreateDeath(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		w.panics(1)
		a, _ := run(t, testPolicy(), behind{faulty{world: w}, []policy.Death{{Name: "another"}}}, "a")
		offer(t, w, incident(1, boot1, secret1), a)
		pass(45 * time.Second)
		w.loses(1)
		pass(time.Minute)
		if d := w.only(); d.NodeUID == former.UID || d.Phase != policy.Cleaned || w.failed() != len(pods) {
			t.Errorf("death of Node %s is %s, %d pods failed; want that of the Node there is", d.NodeUID, d.Phase, w.failed())
		}
	})
}
