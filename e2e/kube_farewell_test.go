//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// checkFarewell sends the datagram of a node that is rebooted, and looks at what the API server has then. A node that has not
// pinned the secret that it sends has said nothing.
func (w *kubeWorld) checkFarewell(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	const secret, boot = netconsole.Secret("c2VjcmV0LW9mLWEtYnllLg"), "boot-1"
	addr := netip.MustParseAddr("10.9.7.7")
	w.newNode(t, "farewell", func(n *corev1.Node) {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr.String()}}
		n.Spec.ProviderID = "aws:///zone/i-0fa4e3e11"
	})
	for _, name := range []string{"farewell-web", "farewell-db"} {
		w.newPod(t, name, "farewell", corev1.PodRunning, nil)
	}
	w.newPod(t, "farewell-over", "farewell", corev1.PodSucceeded, nil)

	engine := cleanup.NewEngine(policy.DefaultPolicy(), w.cluster, nil, "farewell", slog.New(slog.NewTextHandler(t.Output(), nil)))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() {
		if err := engine.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	shard := receive.NewShard(&receive.Config{
		Judge: &detect.Config{}, Metrics: new(receive.Metrics), Sink: engine, Pins: w.cluster, Nodes: w.cluster, Farewells: engine,
	})
	bye := netconsole.Bye{
		Nonce: strings.Repeat("0", 32), Cause: netconsole.ByeReboot, By: "alice", Command: "reboot", Sudo: true,
		Instance: "i-0fa4e3e11", Boot: boot, Secret: secret,
	}
	say := func() string {
		return string(shard.Receive(time.Now(), netip.AddrPortFrom(addr, 6665), []byte(bye.Line())))
	}

	eventually(t, "the node to be known", func() error {
		if !w.cluster.Known(bye.Instance, addr) {
			return errors.New("not in the cache")
		}
		return nil
	})
	if ack := say(); !strings.Contains(ack, " node=known") {
		t.Errorf("answered %q", ack)
	}
	if err := patchNode(ctx, w.kubelet(t, "farewell"), "farewell",
		fmt.Sprintf(`{"metadata":{"annotations":{"lastgasp.dev/pin":"%s:%s"}}}`, boot, secret.Sum()))(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pin to be known", func() error {
		if !w.cluster.Pinned(boot, secret.Sum()) {
			return errors.New("not in the cache")
		}
		return nil
	})
	if got := w.getNode(t, "farewell").Annotations["lastgasp.dev/farewell"]; got != "" {
		t.Errorf("without a pin the node says %q", got)
	}
	say()
	const text = "rebooted by alice (sudo reboot) at "
	eventually(t, "the farewell on the Node and its pods", func() error {
		if got := w.getNode(t, "farewell").Annotations["lastgasp.dev/farewell"]; !strings.HasPrefix(got, boot+": "+text) {
			return fmt.Errorf("the node says %q", got)
		}
		for _, name := range []string{"farewell-web", "farewell-db"} {
			pod := w.getPod(t, name)
			if got := pod.Annotations["lastgasp.dev/farewell"]; !strings.HasPrefix(got, text) || !strings.HasSuffix(got, ", says the node") ||
				pod.Status.Phase != corev1.PodRunning || len(pod.Annotations) != 1 {
				return fmt.Errorf("pod %s in phase %s says %v", name, pod.Status.Phase, pod.Annotations)
			}
		}
		return nil
	})
	if got := w.getPod(t, "farewell-over").Annotations; len(got) > 0 {
		t.Errorf("a pod that was over says %v", got)
	}
	eventually(t, "the events", func() error {
		list, err := w.admin.EventsV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		notes := map[string]string{}
		for _, ev := range list.Items {
			if ev.Reason == "Farewell" {
				notes[ev.Regarding.Kind+" "+ev.Regarding.Name] = ev.Note
			}
		}
		if notes["Node farewell"] != "this node was rebooted by alice (sudo reboot), says the node" ||
			notes["Pod farewell-web"] != "node farewell was rebooted by alice (sudo reboot), says the node" || len(notes) != 3 {
			return fmt.Errorf("events %v", notes)
		}
		return nil
	})
	if n := w.getNode(t, "farewell"); len(w.ownTaints(t, "farewell")) > 0 || n.Annotations["lastgasp.dev/death"] != "" {
		t.Errorf("the node was fenced: %+v", n.ObjectMeta)
	}
}
