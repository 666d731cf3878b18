package cleanup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// A Job's pod kills one node after the other. It is suspected from the second on, and from its third replacement on its
// failures count, if that is wanted. The pods beside it stay victims.
func TestPodThatKillsItsNodes(t *testing.T) {
	for _, hold := range []bool{false, true} {
		t.Run(fmt.Sprintf("hold %v", hold), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				const nodes = 5
				for i := 3; i <= nodes; i++ {
					w.addNode(i, fmt.Sprint("boot of node ", i), netconsole.Secret(fmt.Sprint("secret of node ", i)))
				}
				p := testPolicy()
				p.HoldSuspects, p.MaxNodes = hold, nodes
				a, _ := run(t, p, w, "a")
				for i := 1; i <= nodes; i++ {
					node := fmt.Sprintf("n%d", i)
					w.addPod(node, fmt.Sprintf("crunch-%05d", i), "batch/v1 Job", func(pod *policy.Pod) {
						pod.Owner.Name, pod.Owner.UID, pod.Created, pod.Started = "crunch", "uid-crunch", time.Now(), time.Now()
					})
					w.addPod(node, fmt.Sprintf("web-%05d", i), "apps/v1 ReplicaSet", func(pod *policy.Pod) {
						pod.Owner.Name, pod.Created = "web", time.Now().Add(-24*time.Hour)
					})
					pass(10 * time.Second)
					n := w.node(node)
					w.panics(i)
					inc := incident(i, n.BootID, netconsole.Secret(fmt.Sprint("secret of node ", i)))
					offer(t, w, inc, a)
					pass(20 * time.Second)
				}
				var chains []int
				events := 0
				w.set(func() {
					for _, d := range w.deaths {
						for _, s := range d.Suspects {
							if s.String() != "Job default/crunch" {
								t.Errorf("%s is suspected", s)
							}
							chains = append(chains, len(s.Deaths))
						}
					}
					for _, e := range w.events {
						if e.Reason == "NodeDeathSuspect" {
							events++
							if e.Owner.UID != "uid-crunch" || !strings.HasPrefix(strings.TrimPrefix(e.Note, "its failures count from now on: "), "pods crunch of Job default/crunch died with ") {
								t.Errorf("event %+v", e)
							}
						}
					}
				})
				slices.Sort(chains)
				if diff := cmp.Diff([]int{2, 3, 4, 5}, chains); diff != "" {
					t.Errorf("deaths that a suspect is suspected of (-want +got):\n%s", diff)
				}
				if events != nodes-1 {
					t.Errorf("%d events, want %d", events, nodes-1)
				}
				var want []string
				if hold {
					want = []string{"crunch-00004", "crunch-00005"}
				}
				w.set(func() {
					if diff := cmp.Diff(want, w.counted); diff != "" {
						t.Errorf("pods whose failure counts (-want +got):\n%s", diff)
					}
				})
			})
		})
	}
}
