package receive

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// The identity of nodeA, which is that of userdata.
const (
	bootA   = "7f3c2f6e-0000-4000-8000-000000000001"
	secretA = "c2VjcmV0LXNlY3JldC1zZQ"
)

// pins are the sums of the secrets by boot.
type pins map[string]string

func (p pins) Pinned(boot, sum string) bool { return p[boot] == sum }

// member is the nth node of a cluster: where it sends from, and what its records end in.
func member(n int) (from netip.AddrPort, boot, secret, userdata string) {
	boot, secret = fmt.Sprintf("%08x-0000-4000-8000-00000000000b", n), fmt.Sprintf("secret%016d", n)
	return nth(n), boot, secret, fmt.Sprintf("\n instance=i-%d\n boot=%s\n gasp=%s\n", n, boot, secret)
}

// clusterShard knows the secrets of so many members, and of nodeA.
func clusterShard(s Sink, members int) (*Shard, pins) {
	p := pins{bootA: netconsole.Secret(secretA).Sum()}
	for n := range members {
		_, boot, secret, _ := member(n)
		p[boot] = netconsole.Secret(secret).Sum()
	}
	return NewShard(&Config{Judge: &detect.Config{}, Sink: s, Metrics: new(Metrics), Pins: p}), p
}

func says(seq int, text, userdata string) []byte {
	return fmt.Appendf(nil, "6.12.117,0,%d,%d,-;%s%s", seq, seq*1000, text, userdata)
}

const panicLine = "Kernel panic - not syncing: Fatal exception"

// verifiedDeath reports whether the death of that boot was handed over as verified.
func verifiedDeath(s *sink, boot string) bool {
	return slices.ContainsFunc(s.incidents, func(inc detect.Incident) bool {
		return inc.Verified && inc.Verdict == detect.Dying && inc.Identity.Boot == boot
	})
}

// TestWhoIsVerified: only the secret counts, and only for its own boot.
func TestWhoIsVerified(t *testing.T) {
	_, otherBoot, otherSecret, _ := member(1)
	for _, tt := range []struct {
		name    string
		from    netip.AddrPort
		payload string
		want    bool
	}{
		{"the node", nodeA, "0,1,1,-;" + panicLine + userdata, true},
		{"the node from another address", nth(77), "0,1,1,-;" + panicLine + userdata, true},
		{"the node with what newer kernels add", nodeA, "0,1,1,-;" + panicLine + userdata + " cpu=1\n taskname=x\n", true},
		{"somebody at its address", nodeA, "0,1,1,-;" + panicLine + "\n", false},
		{"somebody who knows its boot", nodeA, "0,1,1,-;" + panicLine + "\n instance=i-0abc\n boot=" + bootA + "\n", false},
		{"somebody with a made-up secret", nodeA, "0,1,1,-;" + panicLine + another, false},
		{"another node with its own secret for this boot", nodeA, "0,1,1,-;" + panicLine + "\n boot=" + bootA + "\n gasp=" + otherSecret + "\n", false},
		{"this node's secret for another boot", nodeA, "0,1,1,-;" + panicLine + "\n boot=" + otherBoot + "\n gasp=" + secretA + "\n", false},
		{"the beginning of the secret", nodeA, "0,1,1,-;" + panicLine + "\n boot=" + bootA + "\n gasp=" + secretA[:21] + "\n", false},
		{"the secret and more", nodeA, "0,1,1,-;" + panicLine + "\n boot=" + bootA + "\n gasp=" + secretA + "x\n", false},
		{"an unknown boot", nodeA, "0,1,1,-;" + panicLine + "\n boot=unknown\n gasp=" + secretA + "\n", false},
		{"the secret of the record's own text", nodeA, "0,1,1,-;" + panicLine + " boot=" + bootA + " gasp=" + secretA + "\n", false},
		{"the basic format", nodeA, "[    1.000000] " + panicLine + userdata, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, before := range []string{"", "0,1,1,-;hello" + userdata} { // whether the secret is cached
				s := new(sink)
				sh, _ := clusterShard(s, 2)
				if before != "" {
					sh.Receive(epoch, nodeA, []byte(before))
				}
				sh.Receive(epoch.Add(time.Second), tt.from, []byte(strings.Replace(tt.payload, "0,1,1,", "0,2,2,", 1)))
				if len(s.incidents) == 0 || s.incidents[0].Verified != tt.want {
					t.Errorf("incidents %+v, want one that is verified: %v", s.incidents, tt.want)
				}
			}
		})
	}
}

// A pin can change within a boot, when a node is installed a second time; and it goes with its Node.
func TestPinsThatChange(t *testing.T) {
	const second = "c2Vjb25kLXNlY29uZC1zZQ"
	userdata2 := strings.Replace(userdata, secretA, second, 1)
	for _, tt := range []struct {
		name  string
		do    func(pins)
		after time.Duration
		line  string
		want  bool
	}{
		{"as it was", func(pins) {}, time.Hour, userdata, true},
		{"another secret is pinned, and used", func(p pins) { p[bootA] = netconsole.Secret(second).Sum() }, 2 * time.Second, userdata2, true},
		{"another secret is pinned, and the old one used for long", func(p pins) { p[bootA] = netconsole.Secret(second).Sum() }, 2 * pinGrace, userdata, false},
		{"the Node is gone, and its kernel goes on with its trace", func(p pins) { delete(p, bootA) }, 5 * time.Second, userdata, true},
		{"the Node is long gone", func(p pins) { delete(p, bootA) }, 2 * pinGrace, userdata, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(sink)
			sh, p := clusterShard(s, 0)
			sh.Receive(epoch, nodeA, says(1, "hello", userdata))
			tt.do(p)
			sh.Receive(epoch.Add(tt.after), nodeA, says(2, panicLine, tt.line))
			if len(s.incidents) != 1 || s.incidents[0].Verified != tt.want {
				t.Errorf("incidents %+v, want one that is verified: %v", s.incidents, tt.want)
			}
		})
	}
}

// TestStrangersDoNotKeepANodeOut: whatever they send, from the node's own address and port and in its name, the node's
// panic is handed over at once, and told to its end.
func TestStrangersDoNotKeepANodeOut(t *testing.T) {
	cut := "[    1.000000] " + strings.Repeat("x", 985) // looks as if it went on
	for _, tt := range []struct {
		name string
		n    int
		send func(i int) (netip.AddrPort, []byte)
	}{
		{"nothing", 0, nil},
		{"lines from its address and port", 2 * quotaBurst, func(i int) (netip.AddrPort, []byte) { return nodeA, says(i, "noise", another) }},
		{"deaths in its name", 2 * quotaBurst, func(i int) (netip.AddrPort, []byte) { return nodeA, says(i, panicLine, another) }},
		{"deaths of ever new boots", 3000, func(i int) (netip.AddrPort, []byte) {
			return nodeA, says(i, panicLine, fmt.Sprintf("\n instance=i-0abc\n boot=%d\n gasp=x\n", i))
		}},
		{"deaths from ever new ports", 3000, func(i int) (netip.AddrPort, []byte) {
			return netip.AddrPortFrom(nodeA.Addr(), uint16(10000+i)), says(i, panicLine, another)
		}},
		{"deaths from ever new addresses", 10000, func(i int) (netip.AddrPort, []byte) { return nth(i), says(i, panicLine, "\n") }},
		{"canaries from its address", 3000, func(i int) (netip.AddrPort, []byte) {
			return netip.AddrPortFrom(nodeA.Addr(), uint16(i)), canaryDatagram(i, canaryA(true), another)
		}},
		{"fragments from its address and port", 3000, func(i int) (netip.AddrPort, []byte) {
			return nodeA, fmt.Appendf(nil, "6.12.117,0,%d,%d,-,ncfrag=0/60000;%s", i, i, strings.Repeat("x", 900))
		}},
		{"basic records that look cut", 3000, func(int) (netip.AddrPort, []byte) { return nodeA, []byte(cut) }},
		{"records with the secret of another node", 3000, func(i int) (netip.AddrPort, []byte) {
			_, _, secret, userdata := member(1)
			if i%2 == 0 {
				userdata = "\n instance=i-0abc\n boot=" + bootA + "\n gasp=" + secret + "\n"
			}
			return nodeA, says(i, panicLine, userdata)
		}},
		{"records whose boot is long", 3000, func(i int) (netip.AddrPort, []byte) {
			return nodeA, says(i, panicLine, "\n boot="+strings.Repeat("b", 1800)+fmt.Sprint(i)+"\n gasp=x\n")
		}},
	} {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the Sink is full: %v", tt.name, full), func(t *testing.T) {
				s := &sink{full: full}
				sh, _ := clusterShard(s, 2)
				sh.table.limits.sources = 1024
				sh.Receive(epoch, nodeA, says(1, "the line before", userdata))
				for i := range tt.n {
					from, payload := tt.send(i)
					sh.Receive(epoch, from, payload)
				}
				sh.Receive(epoch, nodeA, says(100, panicLine, userdata))
				for i := range tt.n {
					from, payload := tt.send(tt.n + i)
					sh.Receive(epoch, from, payload)
				}
				sh.Receive(epoch, nodeA, says(101, "CPU: 1 UID: 0 PID: 1 Comm: init", userdata))
				if !full && !verifiedDeath(s, bootA) {
					t.Fatal("the panic is not handed over")
				}
				s.full = false
				s.incidents = slices.DeleteFunc(s.incidents, func(inc detect.Incident) bool { return !inc.Verified || inc.Identity.Boot != bootA })
				advance(sh, epoch, epoch.Add(time.Minute))
				own := func(inc detect.Incident) bool { return inc.Verified && inc.Identity.Boot == bootA }
				if at := slices.IndexFunc(s.incidents, own); at < 0 || at > 1 { // another node may have its turn before
					t.Errorf("the node's death is handed over as number %d", at)
				}
				whole := slices.IndexFunc(s.incidents, func(inc detect.Incident) bool {
					return inc.Verified && inc.Identity.Boot == bootA && inc.Complete
				})
				if whole < 0 || len(s.incidents[whole].Trace) != 3 {
					t.Errorf("the death is not told with its three lines: %d of %d incidents", whole, len(s.incidents))
				}
				checkKept(t, sh)
			})
		}
	}
}

// pinsOfMany has several secrets of a boot, one for each Node that says it runs it.
type pinsOfMany map[[2]string]bool

func (p pinsOfMany) Pinned(boot, sum string) bool { return p[[2]string{boot, sum}] }

// A kubelet may pin a secret for another node's boot, whose id is no secret, before the node itself is heard. Wrong secrets that it then sends
// without end do not keep the node from being verified.
func TestAPinOfAnothersBoot(t *testing.T) {
	const theirs = "dGhlaXJzLXRoZWlycy10aGU"
	sum := func(secret string) [2]string { return [2]string{bootA, netconsole.Secret(secret).Sum()} }
	s := new(sink)
	sh := NewShard(&Config{Judge: &detect.Config{}, Sink: s, Metrics: new(Metrics), Pins: pinsOfMany{sum(theirs): true, sum(secretA): true}})
	with := func(secret string) string { return "\n boot=" + bootA + "\n gasp=" + secret + "\n" }
	sh.Receive(epoch, nth(5), says(1, "hello", with(theirs)))
	for i := range 1000 {
		sh.Receive(epoch, nth(5), says(i, "noise", with(fmt.Sprintf("wrong%d", i))))
	}
	sh.Receive(epoch, nodeA, says(1, panicLine, userdata))
	if !verifiedDeath(s, bootA) {
		t.Error("the node that is dying is taken for a stranger")
	}
}

// Root on a node pins one secret after the other, for its own boots or for another node's, and sends with each of them from one address and
// port. What is kept of it, and what each datagram is compared with, stays small, and others are verified.
func TestANodeThatPinsManySecrets(t *testing.T) {
	for _, tt := range []struct {
		name string
		boot func(i int) string
	}{
		{"for ever new boots", func(i int) string { return fmt.Sprintf("boot-%d", i) }},
		{"for one boot", func(int) string { return "boot" }},
		{"for another node's boot", func(int) string { return bootA }},
	} {
		for _, text := range []string{"noise", panicLine} { // with nothing in hand, and with a death
			t.Run(tt.name+", "+text, func(t *testing.T) {
				s := new(sink)
				truth := [2]string{bootA, netconsole.Secret(secretA).Sum()}
				known := pinsOfMany{truth: true}
				sh := NewShard(&Config{Judge: &detect.Config{}, Sink: s, Metrics: new(Metrics), Pins: known})
				sh.Receive(epoch, nodeA, says(1, "hello", userdata))
				at, evil := epoch, nth(5)
				for i := range 500 {
					at = at.Add(20 * time.Millisecond)
					clear(known)
					secret := fmt.Sprintf("secret%d", i)
					known[truth], known[[2]string{tt.boot(i), netconsole.Secret(secret).Sum()}] = true, true
					sh.Receive(at, evil, says(i, text, "\n boot="+tt.boot(i)+"\n gasp="+secret+"\n"))
					sh.Tick(at)
					siblings := 0
					for src := sh.table.sources[evil]; src != nil; src = src.sibling {
						siblings++
					}
					if siblings > maxSiblings+1 { // and strangers
						t.Fatalf("%d sources have one address and port, want %d at most", siblings, maxSiblings+1)
					}
					if n := len(sh.table.nodes[tt.boot(i)]); n > maxPerBoot {
						t.Fatalf("%d secrets are known of one boot, want %d at most", n, maxPerBoot)
					}
				}
				sh.Receive(at, netip.AddrPortFrom(nodeA.Addr(), 6664), says(2, panicLine, userdata))
				if !verifiedDeath(s, bootA) {
					t.Error("the node that is dying is taken for a stranger")
				}
				checkKept(t, sh)
			})
		}
	}
}

// Whatever one node sends that can prove who it is, others are heard and handed over as if it were silent.
func TestNoNodeStarvesAnother(t *testing.T) {
	_, boot, secret, stormy := member(0)
	for _, tt := range []struct {
		name string
		send func(i int) (netip.AddrPort, []byte)
	}{
		{"a storm of lines", func(i int) (netip.AddrPort, []byte) { return nth(0), says(i, strings.Repeat("storm ", 100), stormy) }},
		{"a storm from ever new ports", func(i int) (netip.AddrPort, []byte) {
			return netip.AddrPortFrom(nth(0).Addr(), uint16(i)), says(i, panicLine, stormy)
		}},
		{"a storm from ever new addresses", func(i int) (netip.AddrPort, []byte) { return nth(100 + i), says(i, panicLine, stormy) }},
		{"deaths and troubles of every kind", func(i int) (netip.AddrPort, []byte) {
			return nth(100 + i%50), says(i, fmt.Sprintf("INFO: task x%d:%d blocked for more than 120 seconds.", i, i), stormy)
		}},
		{"its secret in the name of another", func(i int) (netip.AddrPort, []byte) {
			return nth(1), says(i, panicLine, "\n instance=i-1\n boot="+boot+"\n gasp="+secret+"\n")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &sink{full: true}
			const members = 50
			sh, _ := clusterShard(s, members)
			for n := 1; n < members; n++ {
				from, _, _, userdata := member(n)
				sh.Receive(epoch, from, says(1, "the line before", userdata))
			}
			for i := range 2 * quotaBurst {
				from, payload := tt.send(i)
				sh.Receive(epoch.Add(time.Duration(i)*10*time.Microsecond), from, payload)
			}
			at := epoch.Add(time.Second)
			for n := 1; n < members; n++ {
				from, _, _, userdata := member(n)
				sh.Receive(at, from, says(100, panicLine, userdata))
			}
			waiting := sh.handover.lanes[verified].size[deaths]
			if mine := waiting - (members - 1); mine > maxPerParty {
				t.Errorf("%d deaths of the one node wait, want %d at most", mine, maxPerParty)
			}
			s.full = false
			sh.Tick(at.Add(offerAgain))
			if len(s.incidents) < members-1 {
				t.Fatalf("%d incidents handed over", len(s.incidents))
			}
			turn := s.incidents[:members] // each has its turn before anybody has a second one
			for n := 1; n < members; n++ {
				_, boot, _, _ := member(n)
				if !slices.ContainsFunc(turn, func(inc detect.Incident) bool { return inc.Identity.Boot == boot }) {
					t.Errorf("node %d is not among the first", n)
				}
			}
			if n := len(sh.table.nodes[boot][0].sources); n > maxPerNode {
				t.Errorf("the node has %d sources, want %d at most", n, maxPerNode)
			}
			checkKept(t, sh)
		})
	}
}

// A fragmented panic is verified when it is complete; what is made of its beginning is withdrawn.
func TestFragmentsAreVerifiedWhenComplete(t *testing.T) {
	body := panicLine + strings.Repeat(" x", 400) + userdata
	const at = 500
	first := fmt.Appendf(nil, "6.12.117,0,400,9000,-,ncfrag=0/%d;%s", len(body), body[:at])
	second := fmt.Appendf(nil, "6.12.117,0,400,9000,-,ncfrag=%d/%d;%s", at, len(body), body[at:])
	forged := bytes.Replace(first, []byte("Fatal"), []byte("FATAL"), 1)
	for _, tt := range []struct {
		name      string
		datagrams [][]byte
		want      bool
	}{
		{"alone", [][]byte{first, second}, true},
		{"the second one before", [][]byte{second, first}, true},
		{"with a forged beginning", [][]byte{forged, first, second}, false},
		{"with a forged beginning alone", [][]byte{forged}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(sink)
			sh, _ := clusterShard(s, 0)
			sh.Receive(epoch, nodeA, says(1, "the line before", userdata))
			for _, d := range tt.datagrams {
				sh.Receive(epoch, nodeA, d)
			}
			if len(s.incidents) == 0 {
				t.Error("the panic is not heard at once")
			}
			advance(sh, epoch, epoch.Add(time.Minute))
			if got := verifiedDeath(s, bootA); got != tt.want {
				t.Errorf("the death is verified: %v, want %v", got, tt.want)
			}
			complete := 0
			for _, inc := range s.incidents {
				if inc.Complete {
					complete++
				}
				if inc.Verified && strings.Contains(strings.Join(inc.Trace, "\n"), "FATAL") {
					t.Error("the forged line is in the node's own trace")
				}
			}
			if tt.want && complete != 1 {
				t.Errorf("%d incidents told to their end, want the death alone", complete)
			}
			if sh.dying != 0 {
				t.Errorf("%d deaths are never told to their end", sh.dying)
			}
		})
	}
}

// A fragment that was lost may have contradicted the one that is there: nothing is verified by what is left.
func TestFragmentsProveNothingAfterALoss(t *testing.T) {
	body := panicLine + strings.Repeat(" x", 400) + userdata
	const at = 500
	forged := fmt.Appendf(nil, "6.12.117,0,400,9000,-,ncfrag=0/%d;%s", len(body), body[:at])
	second := fmt.Appendf(nil, "6.12.117,0,400,9000,-,ncfrag=%d/%d;%s", at, len(body), body[at:])
	for _, tt := range []struct {
		name string
		lose func(*Shard)
		want bool
	}{
		{"nothing is lost", func(*Shard) {}, true},
		{"the kernel dropped datagrams", func(sh *Shard) { sh.lost(epoch) }, false},
		{"the address was over its quota", func(sh *Shard) {
			for i := range 2 * quotaBurst {
				sh.Receive(epoch, nodeA, says(i, "noise", "\n"))
			}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(sink)
			sh, _ := clusterShard(s, 0)
			tt.lose(sh)
			later := epoch.Add(500 * time.Millisecond)
			sh.Receive(later, nodeA, forged)
			sh.Receive(later, nodeA, second)
			if got := verifiedDeath(s, bootA); got != tt.want {
				t.Errorf("verified: %v, want %v", got, tt.want)
			}
			for _, inc := range s.incidents {
				if !tt.want && inc.Identity.Secret != "" {
					t.Errorf("%+v has a secret", inc)
				}
			}
		})
	}
}

// What a node's canary said before its secret was pinned counts for it afterwards.
func TestFactsFromBeforeThePin(t *testing.T) {
	s := new(sink)
	sh, p := clusterShard(s, 0)
	delete(p, bootA)
	sh.Receive(epoch, nodeA, canaryDatagram(7, canaryA(true), userdata))
	p[bootA] = netconsole.Secret(secretA).Sum()
	sh.Receive(epoch.Add(time.Minute), nodeA, says(600, "BUG: kernel NULL pointer dereference, address: 0000000000000000", userdata))
	if len(s.incidents) != 1 || !s.incidents[0].Verified || s.incidents[0].Verdict != detect.Dying {
		t.Errorf("incidents %+v, want a verified death", s.incidents)
	}
}

// Strangers, however many, push no verified node out of the table, and get no more than their share of it.
func TestStrangersTakeNoNodesPlace(t *testing.T) {
	const members = 400
	sh, _ := clusterShard(new(sink), members)
	sh.table.limits.sources = 512
	for n := range members {
		from, _, _, userdata := member(n)
		sh.Receive(epoch, from, says(1, "hello", userdata))
	}
	for i := range 5000 {
		sh.Receive(epoch.Add(time.Duration(i)*time.Millisecond), nth(10000+i), says(1, "hello", "\n"))
	}
	if n := sh.table.lanes[verified].count; n != members {
		t.Errorf("%d nodes in the table, want %d", n, members)
	}
	if n := sh.table.size(); n > 512 {
		t.Errorf("%d sources in the table, want 512 at most", n)
	}
	if n := sh.table.lanes[strangers].count; n == 0 {
		t.Error("no stranger is heard at all")
	}
}

// nodes are the addresses of the Nodes of a cluster.
type nodes []netip.Addr

func (n nodes) Known(_ string, addr netip.Addr) bool { return slices.Contains(n, addr) }

func TestAckSaysWhoseItIs(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	canary := canaryA(true)
	canary.Cluster = "prod-1"
	foreign, none := canary, canary
	foreign.Cluster, none.Cluster = "prod-2", ""
	for _, tt := range []struct {
		name   string
		from   netip.AddrPort
		canary netconsole.Canary
		key    ed25519.PrivateKey
		want   string // nonce and signature left out; empty: none
	}{
		{"of a Node", nodeA, canary, nil, "lastgasp: ack v1 nonce= seq=7 node=known"},
		{"of a Node, signed", nodeA, canary, key, "lastgasp: ack v2 nonce= seq=7 node=known sig="},
		{"of no Node", nth(9), canary, nil, "lastgasp: ack v1 nonce= seq=7 node=unknown"},
		{"of no Node, signed", nth(9), canary, key, "lastgasp: ack v2 nonce= seq=7 node=unknown sig="},
		{"of another cluster", nodeA, foreign, key, ""},
		{"of no cluster", nodeA, none, key, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, a := new(sink), new(answered)
			sh := NewShard(&Config{
				Judge: &detect.Config{}, Sink: s, Metrics: new(Metrics), Canaries: a, Nodes: nodes{nodeA.Addr()}, Cluster: "prod-1", Key: tt.key,
			})
			got := string(sh.Receive(epoch, tt.from, canaryDatagram(7, tt.canary, userdata)))
			ack, ok := netconsole.ParseAck(got)
			if plain := strings.Replace(strings.Replace(got, ack.Signature, "", 1), tt.canary.Nonce, "", 1); plain != tt.want && got != tt.want {
				t.Fatalf("answered %q, want %q", got, tt.want)
			}
			if !ok {
				if len(a.canaries) != 0 || len(s.pins) != 0 || sh.metrics.CanariesForeign.Load() != 1 {
					t.Errorf("booked %+v and pinned %+v", a.canaries, s.pins)
				}
				return
			}
			origin := netconsole.Origin{Cluster: "prod-1", Boot: bootA, Source: tt.from}
			if tt.key != nil && !ack.Verify(key.Public().(ed25519.PublicKey), origin) {
				t.Error("the signature is not believed")
			}
			if len(a.canaries) != 1 || a.canaries[0].Known != ack.Known || (len(s.pins) == 1) != ack.Known {
				t.Errorf("booked %+v and pinned %+v", a.canaries, s.pins)
			}
		})
	}
}

// Whoever shares the node's address sends canaries from made-up ports all the time.
func TestTrueCanariesAreAnsweredAmongForgedOnes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pinned bool
		perSec int
	}{
		{"64 a second, the secret is not known yet", false, 64},
		{"64 a second", true, 64},
		{"5000 a second", true, 5000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(sink)
			sh, p := clusterShard(s, 0)
			if !tt.pinned {
				delete(p, bootA)
			}
			acked, port := 0, uint16(0)
			for second := range 100 {
				at := epoch.Add(time.Duration(second) * time.Second)
				for range tt.perSec {
					port++
					sh.Receive(at, netip.AddrPortFrom(nodeA.Addr(), 10000+port%50000), canaryDatagram(int(port), canaryA(true), another))
				}
				if second%10 == 0 && sh.Receive(at, nodeA, canaryDatagram(1000+second, canaryA(true), userdata)) != nil {
					acked++
				}
			}
			if acked != 10 {
				t.Errorf("%d of 10 true canaries answered", acked)
			}
		})
	}
}

func TestHelloIsDropped(t *testing.T) {
	sh, _ := testShard(new(sink))
	if ack := sh.Receive(epoch, nodeA, []byte(netconsole.Hello)); ack != nil || sh.table.size() != 0 {
		t.Errorf("answered %q, %d sources", ack, sh.table.size())
	}
	if n := sh.metrics.Malformed.Load(); n != 0 {
		t.Errorf("%d datagrams are malformed", n)
	}
}

// One address that makes up deaths is handed over no more of them than a kernel has, and others' deaths in between.
func TestOneAddressIsHandedOverInTurn(t *testing.T) {
	s := &sink{full: true}
	sh, _ := testShard(s)
	for i := range 20_000 {
		from := netip.AddrPortFrom(nth(66).Addr(), uint16(i))
		sh.Receive(epoch.Add(time.Duration(i)*50*time.Microsecond), from, says(i, panicLine, fmt.Sprintf("\n boot=%d\n", i)))
	}
	at := epoch.Add(time.Second)
	for n := range 3 {
		sh.Receive(at, nth(n), says(400, panicLine, "\n"))
	}
	s.full = false
	for range 50 {
		at = at.Add(offerAgain)
		sh.Tick(at)
	}
	forged := 0
	for _, inc := range s.incidents {
		if inc.Source.Addr() == nth(66).Addr() {
			forged++
		}
	}
	if most := offersBurst + 5*offersPerSecond; forged > most {
		t.Errorf("%d made-up deaths of one address handed over in five seconds, want %d at most", forged, most)
	}
	for n := range 3 {
		at := slices.IndexFunc(s.incidents, func(inc detect.Incident) bool { return inc.Source == nth(n) })
		if at < 0 || at > 3 {
			t.Errorf("the death of node %d is handed over as number %d, want it among the first four", n, at)
		}
	}
}

// leaks looks for secrets in records, where they stand behind their key: as such anybody can send the same letters.
type leaks struct{ found bool }

func (l *leaks) Record(_ time.Time, _ netip.AddrPort, r *netconsole.Record) {
	const leak = netconsole.KeySecret + "=" + secretA
	l.found = l.found || bytes.Contains(r.Text, []byte(leak))
	for _, f := range r.Fields {
		l.found = l.found || f.Key != netconsole.KeySecret && strings.Contains(f.Key+"="+f.Value, leak)
	}
}

// The stranger whose fragments prove a node is not the one that makes room for it.
func TestFragmentsInAFullTable(t *testing.T) {
	body := panicLine + strings.Repeat(" x", 400) + userdata
	s := new(sink)
	sh, _ := clusterShard(s, 0)
	sh.table.limits.sources = 1
	for i := range 3 {
		seq := 400 + i
		sh.Receive(epoch, nodeA, fmt.Appendf(nil, "6.12.117,0,%d,9000,-,ncfrag=0/%d;%s", seq, len(body), body[:500]))
		sh.Receive(epoch, nodeA, fmt.Appendf(nil, "6.12.117,0,%d,9000,-,ncfrag=500/%d;%s", seq, len(body), body[500:]))
		sh.Receive(epoch, nth(i), says(1, "noise", "\n"))
	}
	advance(sh, epoch, epoch.Add(time.Minute))
	checkKept(t, sh)
	if len(s.incidents) == 0 {
		t.Error("the panic is not heard")
	}
}
