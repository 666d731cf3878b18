package canary

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// kmsg is /dev/kmsg as a pipe whose other end plays kernel and listener: it answers each canary from conns as answer
// says, and hands the lines on.
func kmsg(t *testing.T, root machine.Root, answer func(line string, c netconsole.Canary)) (lines chan string) {
	t.Helper()
	if err := os.Mkdir(root.Path("dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(root.Path("dev/kmsg"), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(root.Path("dev/kmsg"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	lines = make(chan string, attempts)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := bufio.NewReader(pipe); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
			_, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ">")
			if c, ok := netconsole.ParseCanary(text); ok {
				answer(line, c)
			}
		}
	}()
	t.Cleanup(func() {
		pipe.Close()
		<-done
	})
	return lines
}

// loopback binds a free port of an address of the loopback interface.
func loopback(t *testing.T, addr string) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, netip.MustParseAddrPort(conn.LocalAddr().String())
}

// freePortOf is an address nobody is bound to. It is none that the kernel would give to somebody else meanwhile
// (net.ipv4.ip_local_port_range).
func freePortOf(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	for range 1000 {
		local := netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(10000+rand.IntN(20000)))
		if conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local)); err == nil {
			conn.Close()
			return local
		}
	}
	t.Fatal("no port is free")
	return netip.AddrPort{}
}

var someone = machine.Identity{Instance: "i-0123456789abcdef0", Boot: "5a2e4e5c-8a3e-4a3d-9d5b-0f5a5c1e7f11"}

var someTime = time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)

var goodFacts = machine.Facts{Facts: netconsole.Facts{Kernel: "6.12.117", Panic: 10, ConsoleLevel: 7, Version: "v0"}, Devkmsg: "ratelimit"}

func TestProveTellsListenersApartThatShareASourcePort(t *testing.T) {
	root := machine.Root(t.TempDir())
	local := freePortOf(t, "127.0.0.1")
	a, addrA := loopback(t, "127.0.0.2")
	_, addrB := loopback(t, "127.0.0.3")
	stranger, _ := loopback(t, "127.0.0.4")
	to := net.UDPAddrFromAddrPort(local)
	lines := kmsg(t, root, func(_ string, c netconsole.Canary) {
		stranger.WriteToUDP([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 1, Known: true}.Line()), to) // not from the listener
		a.WriteToUDP([]byte("noise"), to)
		a.WriteToUDP([]byte(netconsole.Ack{Nonce: strings.Repeat("0", 32), Seq: 2}.Line()), to) // not our canary
		a.WriteToUDP([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 42, Known: true}.Line()), to)
	})
	p := Prover{Root: root, Timeout: time.Second, Interval: 6 * time.Hour, Cluster: "prod-1"}
	got, err := p.Prove(t.Context(), someone, goodFacts, []Route{
		{Target: "a", Local: local, Remote: addrA},
		{Target: "b", Local: local, Remote: addrB},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !got[0].Acked || !got[0].Known || got[0].Seq != 42 || got[0].RTT <= 0 || got[0].Target != "a" {
		t.Errorf("a: %+v", got[0])
	}
	if got[1].Acked || got[1].Why == "" || len(got[1].Reasons) == 0 {
		t.Errorf("b never answered: %+v", got[1])
	}
	nonces := make(map[string]bool)
	for range attempts {
		line := <-lines
		text, ok := strings.CutPrefix(line, "<6>")
		c, parsed := netconsole.ParseCanary(strings.TrimSuffix(text, "\n"))
		if !ok || !parsed || c.Instance != someone.Instance || c.Boot != someone.Boot || c.Interval != p.Interval || c.Cluster != p.Cluster {
			t.Errorf("canary %q", line)
		}
		if diff := cmp.Diff(goodFacts.Facts, c.Facts); diff != "" {
			t.Errorf("facts of the canary (-want +got):\n%s", diff)
		}
		nonces[c.Nonce] = true
	}
	if len(nonces) != attempts {
		t.Errorf("%d canaries had %d nonces", attempts, len(nonces))
	}
}

func TestProveEndsWithTheFirstCanaryThatAllAcknowledge(t *testing.T) {
	root := machine.Root(t.TempDir())
	local := freePortOf(t, "127.0.0.1")
	a, addrA := loopback(t, "127.0.0.2")
	lines := kmsg(t, root, func(_ string, c netconsole.Canary) {
		a.WriteToUDP([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 7, Known: true}.Line()), net.UDPAddrFromAddrPort(local))
	})
	got, err := Prover{Root: root, Timeout: time.Minute}.Prove(t.Context(), someone, goodFacts, []Route{{Target: "a", Local: local, Remote: addrA}})
	if err != nil || !got[0].Acked {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(lines) != 1 {
		t.Errorf("%d canaries were written", len(lines))
	}
}

func TestProveCannot(t *testing.T) {
	taken, local := loopback(t, "127.0.0.1")
	defer taken.Close()
	hidden, off := goodFacts, goodFacts
	hidden.ConsoleLevel = 1
	off.Devkmsg = "off"
	for _, tt := range []struct {
		name  string
		facts machine.Facts
		want  string // begins with
	}{
		{"a console level that hides canaries", hidden, "write canary: console level 1 hides it; "},
		{"a kernel that throws canaries away", off, "write canary: kernel.printk_devkmsg=off discards it; "},
		{"a source port in use", goodFacts, fmt.Sprintf("wait for acknowledgements: another program uses UDP port %d of 127.0.0.1; set localPort to one that is free", local.Port())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Prover{Root: machine.Root(t.TempDir()), Timeout: time.Minute}.Prove(t.Context(), someone, tt.facts,
				[]Route{{Target: "a", Local: local, Remote: netip.MustParseAddrPort("127.0.0.2:6666")}})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %q…", err, tt.want)
			}
		})
	}
}

func TestReasonsBeginWithTheLikeliest(t *testing.T) {
	routes := []Route{
		{Target: "a", Local: netip.MustParseAddrPort("10.0.1.5:6665"), Remote: netip.MustParseAddrPort("10.0.2.10:6666")},
		{Target: "b", Local: netip.MustParseAddrPort("10.0.1.5:6665"), Remote: netip.MustParseAddrPort("10.0.3.10:6666")},
	}
	nonce := strings.Repeat("a", 32)
	ack := arrival{local: routes[0].Local, from: routes[0].Remote, payload: netconsole.Ack{Nonce: nonce}.Line()}
	dropped := arrival{local: routes[1].Local, from: routes[1].Remote, payload: netconsole.Ack{Nonce: nonce}.Line(), wire: true}
	refused := arrival{local: routes[1].Local, from: routes[1].Remote, icmp: "nothing listens"}
	for _, tt := range []struct {
		name     string
		arrivals []arrival
		want     string // the first reason against b begins with
	}{
		{"nothing came back at all", nil, "a security group, "},
		{"the other listener answers", []arrival{ack}, "no lastgasp-listener runs at 10.0.3.10:6666, or it belongs to a cluster; then set cluster here"},
		{"an ICMP error came back", []arrival{ack, refused}, "nothing listens"},
		{"the acknowledgement was seen on the wire only", []arrival{dropped}, "it reaches this node and the node's own firewall drops it; accept UDP from port 6666 to port 6665"},
		{"what was seen on the wire answers another canary", []arrival{{local: dropped.local, from: dropped.from, payload: "noise", wire: true}}, "a security group, "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tally := newTally(routes, nil, netconsole.Origin{})
			tally.sent[nonce] = someTime
			for _, a := range tt.arrivals {
				tally.add(a, someTime.Add(time.Millisecond))
			}
			proofs := tally.proofs(time.Second)
			if got := proofs[1].Reasons[0]; !strings.HasPrefix(got, tt.want) {
				t.Errorf("reasons %q", proofs[1].Reasons)
			}
		})
	}
}

// A stateful firewall of the node lets the acknowledgement in only if the node has sent something from that socket before:
// what netconsole sends does not count.
func TestProveSaysHelloBeforeItWaits(t *testing.T) {
	root := machine.Root(t.TempDir())
	local := freePortOf(t, "127.0.0.1")
	a, addrA := loopback(t, "127.0.0.2")
	hello := make(chan string, 1)
	kmsg(t, root, func(_ string, c netconsole.Canary) {
		buf := make([]byte, 100)
		n, from, err := a.ReadFromUDPAddrPort(buf)
		if err != nil || from != local {
			hello <- fmt.Sprintf("%v from %s", err, from)
		} else {
			hello <- string(buf[:n])
		}
		a.WriteToUDP([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 7, Known: true}.Line()), net.UDPAddrFromAddrPort(local))
	})
	got, err := Prover{Root: root, Timeout: time.Minute}.Prove(t.Context(), someone, goodFacts, []Route{{Target: "a", Local: local, Remote: addrA}})
	if err != nil || !got[0].Acked {
		t.Fatalf("%+v, %v", got, err)
	}
	if said := <-hello; said != netconsole.Hello {
		t.Errorf("before the canary arrived %q, want %q", said, netconsole.Hello)
	}
}

func TestAcknowledgementsAreBelievedByTheirSignature(t *testing.T) {
	route := Route{Target: "a", Local: netip.MustParseAddrPort("10.0.1.5:6665"), Remote: netip.MustParseAddrPort("10.0.2.10:6666")}
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public := private.Public().(ed25519.PublicKey)
	foreign := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	nonce := strings.Repeat("a", 32)
	here := netconsole.Origin{Cluster: "prod-1", Boot: someone.Boot, Source: route.Local}
	relayed, elsewhere, earlier := here, here, here
	relayed.Source = netip.MustParseAddrPort("10.0.9.9:6665")
	elsewhere.Cluster, earlier.Boot = "prod-2", "another"
	ack := netconsole.Ack{Nonce: nonce, Seq: 7, Known: true}
	for _, tt := range []struct {
		name   string
		key    ed25519.PublicKey
		ack    netconsole.Ack
		acked  bool
		known  bool
		reason string
	}{
		{"signed for this node", public, ack.Sign(private, here), true, true, ""},
		{"signed, but the cluster has no such Node yet", public, netconsole.Ack{Nonce: nonce}.Sign(private, here), true, false, ""},
		{"not signed", public, ack, false, false, "10.0.2.10:6666 answers, but not with a signature of endpoint.key for 10.0.1.5:6665"},
		{"signed by another key", public, ack.Sign(foreign, here), false, false, "10.0.2.10:6666 answers, but not"},
		{"relayed to the true listener from another address", public, ack.Sign(private, relayed), false, false, "10.0.2.10:6666 answers, but not"},
		{"of another cluster", public, ack.Sign(private, elsewhere), false, false, "10.0.2.10:6666 answers, but not"},
		{"of another boot", public, ack.Sign(private, earlier), false, false, "10.0.2.10:6666 answers, but not"},
		{"without a key nothing has to be signed", nil, ack, true, true, ""},
		{"without a key a signature does no harm", nil, ack.Sign(foreign, relayed), true, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tally := newTally([]Route{route}, tt.key, netconsole.Origin{Cluster: here.Cluster, Boot: here.Boot})
			tally.sent[nonce] = someTime
			tally.add(arrival{local: route.Local, from: route.Remote, payload: tt.ack.Line()}, someTime.Add(time.Millisecond))
			p := tally.proofs(time.Second)[0]
			if p.Acked != tt.acked || p.Known != tt.known {
				t.Errorf("acked %t, known %t; want %t, %t", p.Acked, p.Known, tt.acked, tt.known)
			}
			if tt.reason != "" && !strings.HasPrefix(p.Reasons[0], tt.reason) {
				t.Errorf("reasons %q, want %q first", p.Reasons, tt.reason)
			}
		})
	}
}

func TestParseUDP(t *testing.T) {
	v4 := "45000020 00004000 40110000 0a00020a 0a000105 1a0a1a09 000c0000 61636b21"
	v6 := "60000000 000c1140 fd000000000000000000000000000010 fd000000000000000000000000000005 1a0a1a09 000c0000 61636b21"
	for _, tt := range []struct {
		name, packet, want string
	}{
		{"IPv4", v4, "10.0.2.10:6666 10.0.1.5:6665 ack!"},
		{"IPv4 with options", "46" + v4[2:46] + "01010101" + v4[46:], "10.0.2.10:6666 10.0.1.5:6665 ack!"},
		{"IPv4 with padding behind it", v4 + "00000000", "10.0.2.10:6666 10.0.1.5:6665 ack!"},
		{"IPv6", v6, "[fd00::10]:6666 [fd00::5]:6665 ack!"},
		{"TCP", strings.Replace(v4, "4011", "4006", 1), ""},
		{"a length beyond the packet", strings.Replace(v4, "000c0000", "00ff0000", 1), ""},
		{"a length too small", strings.Replace(v4, "000c0000", "00070000", 1), ""},
		{"cut short", v4[:49], ""},
		{"IPv6 cut short", v6[:90], ""},
		{"a header length beyond the packet", "4f" + v4[2:], ""},
		{"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			packet, err := hex.DecodeString(strings.ReplaceAll(tt.packet, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if from, to, payload, ok := parseUDP(packet); ok {
				got = fmt.Sprintf("%s %s %s", from, to, payload)
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
