package configurator

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/machine"
)

const room = "262144" // queueRoom

// queue gives a device of w a transmit queue with byte queue limits.
func (w *world) queue(t *testing.T, device string, index, number int, limit, least string) {
	t.Helper()
	w.write(t, "sys/class/net/"+device+"/ifindex", fmt.Sprint(index))
	w.write(t, fmt.Sprintf("sys/class/net/%s/queues/rx-%d/rps_cpus", device, number), "0")
	limits := fmt.Sprintf("sys/class/net/%s/queues/tx-%d/byte_queue_limits/", device, number)
	w.write(t, limits+"limit", limit)
	w.write(t, limits+"limit_min", least)
}

func limitMin(device string, number int) string {
	return fmt.Sprintf("sys/class/net/%s/queues/tx-%d/byte_queue_limits/limit_min", device, number)
}

func TestQueuesFollowTheTargets(t *testing.T) {
	w := newWorld(t)
	w.queue(t, "ens5", 2, 0, "760", "1000")
	w.queue(t, "ens5", 2, 1, "760", "1000")
	node := w.node("10.0.2.10:6666")
	want := func(device, least string) {
		t.Helper()
		for n := range 2 {
			if got := w.read(limitMin(device, n)); got != least {
				t.Fatalf("limit_min of %s's queue %d is %s, want %s", device, n, got, least)
			}
		}
	}
	apply := func() {
		t.Helper()
		if _, err := node.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	draft, err := node.Draft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/sys/class/net/ens5/queues/tx-*/byte_queue_limits/limit_min=262144 on 2 queues"},
		machine.Summary(node.WantedSettings(draft.Devices()))); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	want("ens5", "1000")
	apply()
	want("ens5", room)
	apply()

	for n := range 2 { // the device was re-created
		w.write(t, limitMin("ens5", n), "0")
	}
	if !node.snapshot(snapshot{}, true).differ {
		t.Error("a watch would not notice")
	}
	apply()
	want("ens5", room)

	if err := os.Rename(w.root.Path("sys/class/net", "ens5"), w.root.Path("sys/class/net", "uplink")); err != nil {
		t.Fatal(err)
	}
	for i := range w.kernel.targets {
		w.kernel.targets[i].Device = "uplink" // as the kernel does
	}
	settings, err := w.root.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/sys/class/net/ens5/queues/tx-*/byte_queue_limits/limit_min=262144 (was 0) on 2 queues"}, machine.Summary(settings)); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if err := node.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("uplink", "0")
}

func TestQueuesAreLeftAloneIfDeclined(t *testing.T) {
	w := newWorld(t)
	w.queue(t, "ens5", 2, 0, "760", "1000")
	node := w.node(listenerA)
	for _, step := range []struct {
		queues bool
		want   string
	}{{true, room}, {false, "1000"}, {false, "1000"}, {true, room}} {
		node.Config.Queues = step.queues
		if _, err := node.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.read(limitMin("ens5", 0)); got != step.want {
			t.Errorf("queues: %t: limit_min is %s, want %s", step.queues, got, step.want)
		}
	}
}
