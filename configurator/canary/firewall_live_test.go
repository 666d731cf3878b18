//go:build live

package canary

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// inNewNamespaces runs f on a thread in a network namespace of its own, the node's, wired to another one in which a
// listener has its socket.
func inNewNamespaces(t *testing.T, f func(listener *net.UDPConn)) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	enter := func() netns.NsHandle {
		ns, err := netns.New()
		if err != nil {
			t.Fatalf("make network namespace (needs root): %v", err)
		}
		t.Cleanup(func() { ns.Close() })
		return ns
	}
	far := enter()
	listener, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 6666})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	run(t, "ip link add far type veth peer name near")
	near := enter()
	if err := netns.Set(far); err != nil {
		t.Fatal(err)
	}
	run(t, "ip link set near netns "+fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(near)), "ip addr add 10.0.2.10/16 dev far", "ip link set far up")
	if err := netns.Set(near); err != nil {
		t.Fatal(err)
	}
	run(t, "ip link set lo up", "ip addr add 10.0.1.5/16 dev near", "ip link set near up")
	awaitUp(t, "near")
	if err := netns.Set(far); err != nil {
		t.Fatal(err)
	}
	awaitUp(t, "far")
	if err := netns.Set(near); err != nil {
		t.Fatal(err)
	}
	f(listener)
}

// awaitUp waits until the kernel has noticed the carrier of a device: before that it drops what is sent, and it may take a second
// (net/core/link_watch.c).
func awaitUp(t *testing.T, device string) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for range 6000 {
		out, err := exec.Command("ip", "-oneline", "link", "show", device).CombinedOutput()
		if err != nil {
			t.Fatalf("look at %s: %v: %s", device, err, out)
		}
		if strings.Contains(string(out), " state UP ") {
			return
		}
		<-again.C
	}
	t.Fatalf("%s never comes up", device)
}

func run(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// TestLiveFirewallOfTheNode has acknowledgements meet the node's own firewall. The canary itself does not: netpoll bypasses
// it, here by going straight to the listener.
func TestLiveFirewallOfTheNode(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skipf("cannot: there is no nft here (Debian package nftables): %v", err)
	}
	for _, tt := range []struct {
		name  string
		rules string
		acked bool
		why   string
	}{
		{"none", "", true, ""},
		{"a stateful one", "chain input { type filter hook input priority 0; policy drop; ct state established,related accept; }", true, ""},
		{"one with the rule that verify's help has", "chain input { type filter hook input priority 0; policy drop; udp sport 6666 udp dport 6663-6665 accept; }", true, ""},
		{"one that lets nothing in", "chain input { type filter hook input priority 0; policy drop; }", false,
			"it reaches this node and the node's own firewall drops it; accept UDP from port 6666 to port 6665"},
		{"one that drops before conntrack", "chain early { type filter hook prerouting priority -400; udp sport 6666 drop; }", false,
			"it reaches this node and the node's own firewall drops it"},
		{"one at the device", `chain ingress { type filter hook ingress device "near" priority 0; udp sport 6666 drop; }`, false,
			"it reaches this node and the node's own firewall drops it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNewNamespaces(t, func(listener *net.UDPConn) {
				if tt.rules != "" {
					nft := exec.Command("nft", "-f", "-")
					nft.Stdin = strings.NewReader("table inet node {\n" + tt.rules + "\n}\n")
					if out, err := nft.CombinedOutput(); err != nil {
						t.Fatalf("nft: %v: %s", err, out)
					}
				}
				local := netip.MustParseAddrPort("10.0.1.5:6665")
				root := machine.Root(t.TempDir())
				kmsg(t, root, func(_ string, c netconsole.Canary) {
					listener.WriteToUDPAddrPort([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 7, Known: true}.Line()), local)
				})
				timeout := time.Second
				if tt.acked {
					timeout = time.Minute // it ends with the acknowledgement
				}
				prove := func() []Proof {
					got, err := Prover{Root: root, Timeout: timeout}.Prove(t.Context(), someone, goodFacts,
						[]Route{{Target: "a", Local: local, Remote: netip.MustParseAddrPort("10.0.2.10:6666")}})
					if err != nil {
						t.Fatal(err)
					}
					return got
				}
				got := prove()
				for range 5 { // on a busy machine the acknowledgement may be later than that
					if strings.Contains(got[0].Why, tt.why) {
						break
					}
					got = prove()
				}
				if got[0].Acked != tt.acked || !strings.Contains(got[0].Why, tt.why) {
					t.Errorf("acknowledged %t, why %q", got[0].Acked, got[0].Why)
				}
			})
		})
	}
}
