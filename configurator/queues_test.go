package configurator

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
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

func TestQueueSettings(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, w *world)
		want    []Setting
	}{
		{"every queue of a driver with byte queue limits, also the idle ones", func(t *testing.T, w *world) {
			w.queue(t, "ens5", 2, 0, "0", "0")
			w.queue(t, "ens5", 2, 1, "760", "0")
		}, []Setting{{File: limitMin("ens5", 0), Set: room, Link: 2}, {File: limitMin("ens5", 1), Set: room, Link: 2}}},
		{"a driver without has limits that never move", func(t *testing.T, w *world) {
			w.queue(t, "ens5", 2, 0, "0", "0")
		}, nil},
		{"a newer kernel shows no limits for it", func(t *testing.T, w *world) {
			w.write(t, "sys/class/net/ens5/queues/tx-0/xps_cpus", "0")
		}, nil},
		{"a queue that was given more is left alone", func(t *testing.T, w *world) {
			w.queue(t, "ens5", 2, 0, "1048576", "1048576")
			w.queue(t, "ens5", 2, 1, "0", "0")
		}, []Setting{{File: limitMin("ens5", 1), Set: room, Link: 2}}},
		{"what we raised stays wanted when a reset of the card has cleared the limit", func(t *testing.T, w *world) {
			w.queue(t, "ens5", 2, 0, "0", room)
		}, []Setting{{File: limitMin("ens5", 0), Set: room, Link: 2}}},
		{"the cards below a bridge on a bond", func(t *testing.T, w *world) {
			w.write(t, "sys/class/net/ens5/lower_bond0/ifindex", "3")
			w.write(t, "sys/class/net/bond0/lower_eth0/ifindex", "4")
			w.write(t, "sys/class/net/bond0/lower_eth1/ifindex", "5")
			w.queue(t, "eth0", 4, 0, "760", "0")
			w.queue(t, "eth1", 5, 0, "760", "0")
		}, []Setting{{File: limitMin("eth0", 0), Set: room, Link: 4}, {File: limitMin("eth1", 0), Set: room, Link: 5}}},
		{"no other device", func(t *testing.T, w *world) { w.queue(t, "ens6", 3, 0, "760", "0") }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.prepare(t, w)
			if diff := cmp.Diff(tt.want, w.root.queueSettings([]string{"ens5", "ens5"})); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQueuesFollowTheTargets(t *testing.T) {
	w := newWorld(t)
	w.queue(t, "ens5", 2, 0, "760", "1000")
	w.queue(t, "ens5", 2, 1, "760", "1000")
	node := w.node("10.0.2.10:6666")
	want := func(device, least string) {
		t.Helper()
		for n := range 2 {
			if got := w.root.text(limitMin(device, n)); got != least {
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
		summary(node.WantedSettings(draft.Devices()))); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	want("ens5", "1000")
	apply()
	want("ens5", room)
	apply()

	for n := range 2 { // the device was re-created
		w.write(t, limitMin("ens5", n), "0")
	}
	if !node.look().unsettled {
		t.Error("a watch would not notice")
	}
	apply()
	want("ens5", room)

	if err := os.Rename(w.root.Path(netDir, "ens5"), w.root.Path(netDir, "uplink")); err != nil {
		t.Fatal(err)
	}
	for i := range w.kernel.targets {
		w.kernel.targets[i].Device = "uplink" // as the kernel does
	}
	settings, err := w.root.Settings()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/sys/class/net/ens5/queues/tx-*/byte_queue_limits/limit_min=262144 (was 0) on 2 queues"}, summary(settings)); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if err := node.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("uplink", "0")
}
