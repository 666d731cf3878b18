package story

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Hollow is a node of a Fleet: a kubelet at an address of its own, and the identity with which its kernel would be armed.
type Hollow struct {
	Name string
	Addr netip.Addr
	// Identity is that of its present boot.
	Identity netconsole.Identity

	fleet   *Fleet
	kubelet *lab.HollowNode
	voice   *Voice
	said    int // canaries of all boots
}

// Start starts the kubelet and waits until pods may come.
func (h *Hollow) Start(ctx context.Context) (err error) {
	h.kubelet, err = h.fleet.Cluster.StartHollowNode(ctx, h.fleet.scope, lab.HollowSpec{
		NS: h.fleet.Net.Node, Name: h.Name, IP: h.Addr, BootID: h.Identity.Boot, MachineID: h.Name,
		ProviderID: "aws:///lab-1a/" + h.Identity.Instance,
	})
	return err
}

// Arm enrols the node, proves by a canary that the listener hears it, and waits until the listener knows that its boot is pinned.
func (h *Hollow) Arm(ctx context.Context) error {
	h.said++
	if err := h.fleet.Cluster.Enroll(ctx, h.Name, h.Identity.Boot, h.Identity.Secret.Sum()); err != nil {
		return err
	}
	if err := h.voice.Prove(ctx, Canary(h.Identity, 100+h.said)); err != nil {
		return err
	}
	err := await(ctx, "the pin of "+h.Name, func(ctx context.Context) error {
		n, err := h.fleet.Cluster.Client().CoreV1().Nodes().Get(ctx, h.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pin := n.Annotations[lab.PinKey]; pin != h.Pin() {
			return fmt.Errorf("it reads %q", pin)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return awaitPinned(ctx, h.fleet.Net.Listener, h.Name)
}

// Pin is the annotation by which the listener recognises the secret of this boot.
func (h *Hollow) Pin() string { return h.Identity.Boot + ":" + h.Identity.Secret.Sum() }

// Panic sends what the kernel would send last.
func (h *Hollow) Panic() error { return h.voice.Say(Panic(h.Identity)...) }

// Say sends datagrams from the kernel's own source address and port.
func (h *Hollow) Say(datagrams ...[]byte) error { return h.voice.Say(datagrams...) }

// Kill ends the kubelet as a dying kernel does, without a farewell.
func (h *Hollow) Kill() { h.kubelet.Kill() }

// Reboot starts the dead node again, as another boot with another secret. It is not armed.
func (h *Hollow) Reboot(ctx context.Context) error {
	h.Identity = newBoot(h.Identity.Instance)
	return h.Start(ctx)
}

// newBoot makes the identity of an instance that has just booted.
func newBoot(instance string) netconsole.Identity {
	return netconsole.Identity{
		Instance: instance,
		Boot:     string(uuid.NewUUID()),
		Secret:   netconsole.Secret(base64.RawURLEncoding.EncodeToString(random(16))),
	}
}
