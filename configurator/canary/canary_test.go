package canary

import (
	"bufio"
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

// freePortOf is an address nobody is bound to.
func freePortOf(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	conn, local := loopback(t, addr)
	conn.Close()
	return local
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
		stranger.WriteToUDP([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 1}.Line()), to) // not from the listener
		a.WriteToUDP([]byte("noise"), to)
		a.WriteToUDP([]byte(netconsole.Ack{Nonce: strings.Repeat("0", 32), Seq: 2}.Line()), to) // not our canary
		a.WriteToUDP([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 42}.Line()), to)
	})
	p := Prover{Root: root, Timeout: 200 * time.Millisecond, Interval: 6 * time.Hour}
	got, err := p.Prove(t.Context(), someone, goodFacts, []Route{
		{Target: "a", Local: local, Remote: addrA},
		{Target: "b", Local: local, Remote: addrB},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !got[0].Acked || got[0].Seq != 42 || got[0].RTT <= 0 || got[0].Target != "a" {
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
		if !ok || !parsed || c.Instance != someone.Instance || c.Boot != someone.Boot || c.Interval != p.Interval {
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
		a.WriteToUDP([]byte(netconsole.Ack{Nonce: c.Nonce, Seq: 7}.Line()), net.UDPAddrFromAddrPort(local))
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
		{"a kernel that throws canaries away", off, "write canary: kernel.printk_devkmsg=off throws it away; "},
		{"a source port in use", goodFacts, "wait for acknowledgements: listen udp " + local.String() + ": "},
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
	refused := arrival{local: routes[1].Local, from: routes[1].Remote, icmp: "nothing listens"}
	for _, tt := range []struct {
		name     string
		arrivals []arrival
		want     string // the first reason against b begins with
	}{
		{"nothing came back at all", nil, "a security group, "},
		{"the other listener answers", []arrival{ack}, "no lastgasp-listener runs at 10.0.3.10:6666"},
		{"an ICMP error came back", []arrival{ack, refused}, "nothing listens"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tally := newTally(routes)
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
