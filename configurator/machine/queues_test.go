package machine

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const room = "262144" // queueRoom

// queue gives a device of w a transmit queue with byte queue limits.
func (w world) queue(t *testing.T, device string, index, number int, limit, least string) {
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
		prepare func(t *testing.T, w world)
		want    []Setting
	}{
		{"every queue of a driver with byte queue limits, also the idle ones", func(t *testing.T, w world) {
			w.queue(t, "ens5", 2, 0, "0", "0")
			w.queue(t, "ens5", 2, 1, "760", "0")
		}, []Setting{{File: limitMin("ens5", 0), Set: room, Link: 2}, {File: limitMin("ens5", 1), Set: room, Link: 2}}},
		{"a driver without has limits that never move", func(t *testing.T, w world) {
			w.queue(t, "ens5", 2, 0, "0", "0")
		}, nil},
		{"a newer kernel shows no limits for it", func(t *testing.T, w world) {
			w.write(t, "sys/class/net/ens5/queues/tx-0/xps_cpus", "0")
		}, nil},
		{"a queue that was given more is left alone", func(t *testing.T, w world) {
			w.queue(t, "ens5", 2, 0, "1048576", "1048576")
			w.queue(t, "ens5", 2, 1, "0", "0")
		}, []Setting{{File: limitMin("ens5", 1), Set: room, Link: 2}}},
		{"what we raised stays wanted when a reset of the card has cleared the limit", func(t *testing.T, w world) {
			w.queue(t, "ens5", 2, 0, "0", room)
		}, []Setting{{File: limitMin("ens5", 0), Set: room, Link: 2}}},
		{"the cards below a bridge on a bond", func(t *testing.T, w world) {
			w.write(t, "sys/class/net/ens5/lower_bond0/ifindex", "3")
			w.write(t, "sys/class/net/bond0/lower_eth0/ifindex", "4")
			w.write(t, "sys/class/net/bond0/lower_eth1/ifindex", "5")
			w.queue(t, "eth0", 4, 0, "760", "0")
			w.queue(t, "eth1", 5, 0, "760", "0")
		}, []Setting{{File: limitMin("eth0", 0), Set: room, Link: 4}, {File: limitMin("eth1", 0), Set: room, Link: 5}}},
		{"no other device", func(t *testing.T, w world) { w.queue(t, "ens6", 3, 0, "760", "0") }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.prepare(t, w)
			if diff := cmp.Diff(tt.want, w.root.QueueSettings([]string{"ens5", "ens5"})); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}
