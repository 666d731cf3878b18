package receive

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// TestRoundTripOverLoopback sends a canary and a panic through a real socket.
func TestRoundTripOverLoopback(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan detect.Incident, 1)
	l := &Receiver{
		Addresses: []string{"127.0.0.1:0"}, Log: slog.New(slog.DiscardHandler),
		Config: Config{Judge: &detect.Config{Silence: 50 * time.Millisecond}, Sink: channelSink{sink: new(sink), c: heard}, Metrics: new(Metrics)},
	}
	if err := l.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	if at := l.LastRead(); at.Unix() != 0 {
		t.Errorf("the socket was looked at %s, before it is served", at)
	}
	done := make(chan error, 1)
	begun := time.Now()
	go func() { done <- l.Serve(ctx) }()
	conn, err := net.Dial("udp", l.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	canary := netconsole.Canary{Nonce: strings.Repeat("0f", 16), Instance: "i-0abc", Boot: "7f3c2f6e-0000-4000-8000-000000000001"}
	fmt.Fprintf(conn, "12,7,4200,-;%s%s", canary.Line(), userdata)
	buf := make([]byte, 1500)
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("wait for the ack: %v", err)
	}
	if ack, ok := netconsole.ParseAck(string(buf[:n])); !ok || ack.Nonce != canary.Nonce || ack.Seq != 7 {
		t.Errorf("ack %q, want nonce %s and seq 7", buf[:n], canary.Nonce)
	}
	if at := l.LastRead(); at.Before(begun.Round(0)) {
		t.Errorf("the socket was last looked at %s, although it has answered", at)
	}
	conn.Write(kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
	if inc := <-heard; inc.Source.String() != conn.LocalAddr().String() {
		t.Errorf("incident from %s, want %s", inc.Source, conn.LocalAddr())
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

type channelSink struct {
	*sink
	c chan detect.Incident
}

func (s channelSink) Offer(inc detect.Incident) bool {
	select {
	case s.c <- inc:
		return true
	default:
		return false
	}
}

func TestOverflowCount(t *testing.T) {
	if n, ok := overflow(nil); ok {
		t.Errorf("found %d in nothing", n)
	}
	if _, ok := overflow(make([]byte, 24)); ok {
		t.Error("found a count in zeros")
	}
}

// addr is the address of the first socket.
func (r *Receiver) addr() net.Addr { return r.sockets[0].conn.LocalAddr() }
