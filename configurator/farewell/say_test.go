package farewell

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// listener takes farewells and answers them as reply says, nil for not at all.
type listener struct {
	addr netip.AddrPort
	mu   sync.Mutex
	got  []netconsole.Bye
}

func newListener(t *testing.T, reply func(y netconsole.Bye, from netip.AddrPort, nth int) []byte) *listener {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{addr: netip.MustParseAddrPort(conn.LocalAddr().String())}
	var done sync.WaitGroup
	t.Cleanup(func() { conn.Close(); done.Wait() })
	done.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			y, ok := netconsole.ParseBye(string(buf[:n]))
			if !ok {
				t.Errorf("heard %q", buf[:n])
				continue
			}
			l.mu.Lock()
			l.got = append(l.got, y)
			nth := len(l.got)
			l.mu.Unlock()
			if answer := reply(y, from, nth); answer != nil {
				conn.WriteToUDPAddrPort(answer, from)
			}
		}
	})
	return l
}

func (l *listener) heard() []netconsole.Bye { l.mu.Lock(); defer l.mu.Unlock(); return l.got }

func acks(y netconsole.Bye, _ netip.AddrPort, _ int) []byte {
	return []byte(netconsole.Ack{Nonce: y.Nonce, Known: true}.Line())
}

// self is a node that sends its farewell to these listeners.
func self(listeners ...*listener) Self {
	s := Self{Identity: machine.Identity{Instance: "i-0abc", Boot: "b"}, Secret: "secret"}
	for _, l := range listeners {
		s.Routes = append(s.Routes, Route{Remote: l.addr, Trusted: true})
	}
	return s
}

func TestSay(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	sign := func(y netconsole.Bye, from netip.AddrPort) []byte {
		return []byte(netconsole.Ack{Nonce: y.Nonce, Known: true}.Sign(key, netconsole.Origin{Cluster: y.Cluster, Boot: y.Boot, Source: from}).Line())
	}
	for _, tt := range []struct {
		name  string
		reply func(netconsole.Bye, netip.AddrPort, int) []byte
		key   ed25519.PublicKey
		for_  time.Duration
		want  int
		least int // datagrams
	}{
		{"acknowledged", acks, nil, time.Minute, 1, 1},
		{"lost twice", func(y netconsole.Bye, from netip.AddrPort, nth int) []byte {
			if nth < 3 {
				return nil
			}
			return acks(y, from, nth)
		}, nil, time.Minute, 1, 3},
		{"another's acknowledgement first", func(y netconsole.Bye, from netip.AddrPort, nth int) []byte {
			if nth == 1 {
				y.Nonce = "00000000000000000000000000000000"
			}
			return acks(y, from, nth)
		}, nil, time.Minute, 1, 2},
		{"signed", func(y netconsole.Bye, from netip.AddrPort, _ int) []byte { return sign(y, from) }, key.Public().(ed25519.PublicKey), time.Minute, 1, 1},
		{"not signed although there is a key", acks, key.Public().(ed25519.PublicKey), 10 * again, 0, 1},
		{"silence", func(netconsole.Bye, netip.AddrPort, int) []byte { return nil }, nil, 10 * again, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newListener(t, tt.reply)
			ctx, cancel := context.WithTimeout(t.Context(), tt.for_)
			defer cancel()
			if got := say(ctx, netconsole.Bye{Cause: "reboot", Cluster: "prod-1"}, self(l), tt.key); got != tt.want {
				t.Errorf("%d acknowledged, want %d", got, tt.want)
			}
			for deadline := time.Now().Add(time.Minute); len(l.heard()) < tt.least && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if got := l.heard(); len(got) < tt.least || got[0].Secret != "secret" || got[0].Boot != "b" || got[0].Instance != "i-0abc" ||
				got[len(got)-1].Nonce != got[0].Nonce {
				t.Errorf("heard %+v", got)
			}
		})
	}
}

func TestSayToOneOfTwo(t *testing.T) {
	deaf, l := newListener(t, func(netconsole.Bye, netip.AddrPort, int) []byte { return nil }), newListener(t, acks)
	s := self(deaf, l)
	s.Routes[0].Trusted = false
	got := 0
	for range 20 { // on a busy machine the acknowledgement may be later than that
		ctx, cancel := context.WithTimeout(t.Context(), 10*again)
		got = say(ctx, netconsole.Bye{Cause: "reboot"}, s, nil)
		cancel()
		if got > 0 {
			break
		}
	}
	if got != 1 {
		t.Errorf("%d acknowledged, want 1", got)
	}
	for _, y := range deaf.heard() {
		if y.Secret != "" {
			t.Errorf("a listener that has not proved itself was sent the secret")
		}
	}
}

// What EC2 announces is said at once, and once; what follows from it is said as what it is.
func TestNoticed(t *testing.T) {
	now := time.Date(2026, 11, 26, 18, 50, 0, 0, time.UTC)
	l := newListener(t, acks)
	f := &Farewell{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Cluster: "prod-1", Self: func() (Self, error) { return self(l), nil }}
	spot := ec2.Notices{SpotAction: "terminate", SpotTime: now.Add(2 * time.Minute)}
	maintenance := ec2.Notices{Events: []ec2.ScheduledEvent{{ID: "instance-event-1", NotBefore: now}}}
	for _, n := range []ec2.Notices{{}, maintenance, spot, spot} {
		f.noticed(n, now)
	}
	f.words.kind = netconsole.ByePoweroff // EC2 presses the power button
	f.sayBye(f.words.bye(now.Add(2 * time.Minute)))
	want := []netconsole.Bye{
		{Cause: "spot", Event: "terminate", Due: now.Add(2 * time.Minute), Instance: "i-0abc", Boot: "b", Secret: "secret", Cluster: "prod-1"},
		{Cause: "spot", Event: "terminate", Instance: "i-0abc", Boot: "b", Secret: "secret", Cluster: "prod-1"},
	}
	if diff := cmp.Diff(want, l.heard(), cmpopts.IgnoreFields(netconsole.Bye{}, "Nonce")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A shutdown that is given up may come again, and be asked for in the same way.
func TestTheNextShutdownIsAnnouncedAnew(t *testing.T) {
	l := newListener(t, acks)
	f := &Farewell{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Self: func() (Self, error) { return self(l), nil }}
	reboot := netconsole.Bye{Cause: netconsole.ByeReboot, By: "alice"}
	f.sayBye(reboot)
	f.sayBye(reboot)
	if got := len(l.heard()); got != 1 {
		t.Errorf("one shutdown was announced %d times", got)
	}
	f.givenUp()
	f.sayBye(reboot)
	if got := len(l.heard()); got != 2 {
		t.Errorf("two shutdowns were announced %d times", got)
	}
}

func TestReadSelf(t *testing.T) {
	root := machine.Root(t.TempDir())
	put(t, root.Path("proc/sys/kernel/random/boot_id"), "b\n")
	if _, err := ReadSelf(root, false); err != errNobody {
		t.Errorf("without a pass: %v, want %v", err, errNobody)
	}
	put(t, root.Path("run/lastgasp/gasp"), "b secret\n")
	state := machine.State{Identity: machine.Identity{Instance: "i-0abc", Boot: "b"}, Targets: []machine.TargetState{
		{Name: "lastgasp-0", Listener: netip.MustParseAddrPort("10.0.2.10:6666"), Local: netip.MustParseAddrPort("10.0.0.5:6665"), Acked: true, Known: true},
		{Name: "lastgasp-1", Listener: netip.MustParseAddrPort("10.0.3.10:6666")},
		{Name: "lastgasp-2", Listener: netip.MustParseAddrPort("10.0.4.10:6666"), Acked: true},
	}}
	if err := root.SaveState(state); err != nil {
		t.Fatal(err)
	}
	for _, keyed := range []bool{false, true} {
		got, err := ReadSelf(root, keyed)
		if err != nil {
			t.Fatal(err)
		}
		want := Self{Identity: state.Identity, Secret: "secret", Routes: []Route{
			{Local: netip.MustParseAddrPort("10.0.0.5:6665"), Remote: netip.MustParseAddrPort("10.0.2.10:6666"), Trusted: true},
			{Remote: netip.MustParseAddrPort("10.0.3.10:6666"), Trusted: !keyed},
			{Remote: netip.MustParseAddrPort("10.0.4.10:6666"), Trusted: !keyed}, // it knows no Node of this one
		}}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("keyed %v (-want +got):\n%s", keyed, diff)
		}
	}
}

// A forced shutdown stops no unit: all processes end at once, the bus among them, and nobody can be asked any more.
func TestForcedShutdownIsSaid(t *testing.T) {
	for _, tt := range []struct {
		name, cmdline string
		want          []string // causes
	}{
		{"forced", "/usr/lib/systemd/systemd-shutdown\x00reboot\x00", []string{netconsole.ByeReboot}},
		{"the bus has crashed", "/usr/lib/systemd/systemd\x00", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newListener(t, acks)
			root := machine.Root(t.TempDir())
			put(t, root.Path("proc/1/cmdline"), tt.cmdline)
			f := Farewell{Root: root, Self: func() (Self, error) { return self(l), nil }, Log: slog.New(slog.DiscardHandler)}
			if err := f.busClosed(); err == nil {
				t.Error("no error: systemd would not start it again")
			}
			var got []string
			for _, y := range l.heard() {
				got = append(got, y.Cause)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("causes (-want +got):\n%s", diff)
			}
		})
	}
}
