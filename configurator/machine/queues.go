package machine

import (
	"os"
	"path"
	"strconv"
	"strings"
)

// queueRoom is how many bytes a transmit queue of an armed device must accept without waiting for the hardware.
//
// netpoll waits one jiffy for a full queue. If that is too short, nothing more is sent in a panic (__netpoll_send_skb,
// net/core/netpoll.c). With byte queue limits (ENA; virtio_net since 6.11) a queue is full after as many bytes as recent
// traffic needed, often a single frame. A long panic, 140 records of some 300 bytes to two targets, is 84 KB; this is three
// times that, and still less than such drivers' rings hold. Ordinary traffic sees at most 0.2 ms of queue at 10 Gbit/s.
const queueRoom = 256 << 10

// QueueSettings returns settings that give queueRoom to every transmit queue of the devices, and of those below a bond, bridge
// or VLAN, if the driver uses byte queue limits. A queue that has more already is left alone.
func (r Root) QueueSettings(devices []string) []Setting {
	var want []Setting
	for _, device := range r.withLower(devices) {
		dir := path.Join(netDir, device, "queues")
		queues, _ := os.ReadDir(r.Path(dir)) // a device that is gone has none
		link := r.number(path.Join(netDir, device, "ifindex"), 0)
		var of []Setting
		used := false
		for _, q := range queues {
			limits := path.Join(dir, q.Name(), "byte_queue_limits")
			least := r.number(path.Join(limits, "limit_min"), -1)
			if least < 0 { // a receive queue, or a kernel without byte queue limits
				continue
			}
			// Kernels before 6.9 show limits for every device. They never change if the driver does not use them.
			used = used || least > 0 || r.number(path.Join(limits, "limit"), 0) > 0
			if least <= queueRoom {
				of = append(of, Setting{File: path.Join(limits, "limit_min"), Set: strconv.Itoa(queueRoom), Link: link})
			}
		}
		if used {
			want = append(want, of...)
		}
	}
	return want
}

// withLower adds to the devices, each once, those that carry their frames: a stacked device links to them as lower_NAME.
func (r Root) withLower(devices []string) []string {
	var all []string
	seen := make(map[string]bool)
	for next := devices; len(next) > 0; {
		var lower []string
		for _, d := range next {
			if seen[d] {
				continue
			}
			seen[d] = true
			all = append(all, d)
			entries, _ := os.ReadDir(r.Path(netDir, d))
			for _, e := range entries {
				if name, ok := strings.CutPrefix(e.Name(), "lower_"); ok {
					lower = append(lower, name)
				}
			}
		}
		next = lower
	}
	return all
}

// applyRenames changes the file of each setting whose device was renamed since.
func (r Root) applyRenames(list []Setting) {
	for i, s := range list {
		rest, ok := strings.CutPrefix(s.File, netDir+"/")
		if !ok || s.Link == 0 {
			continue
		}
		_, file, _ := strings.Cut(rest, "/")
		for _, device := range r.devices() {
			if r.number(path.Join(netDir, device, "ifindex"), 0) == s.Link {
				list[i].File = path.Join(netDir, device, file)
			}
		}
	}
}
