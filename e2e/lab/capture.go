package lab

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Datagram is one UDP payload as it arrived.
type Datagram struct {
	At      time.Duration // since the capture began
	Source  netip.AddrPort
	Payload []byte
}

// Capture collects what arrives at one UDP address. It replaces the listener in tests of the kernel alone.
type Capture struct {
	conn  net.PacketConn
	start time.Time

	mu        sync.Mutex
	datagrams []Datagram
	arrived   chan struct{} // closed and made anew with each datagram
}

// NewCapture binds addr in the namespace ns and collects until s ends.
func NewCapture(s Scope, ns *NS, addr netip.AddrPort) (*Capture, error) {
	conn, err := ListenToStorm(ns, addr)
	if err != nil {
		return nil, err
	}
	c := &Capture{conn: conn, start: time.Now(), arrived: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.receive()
	}()
	s.Cleanup(func() {
		c.conn.Close()
		<-done
	})
	return c, nil
}

// Listen binds addr in the namespace ns, with room for a whole panic, which comes within milliseconds: the default of 208 KiB holds only
// some 200 datagrams, each charged with its skb.
func Listen(ns *NS, addr netip.AddrPort) (*net.UDPConn, error) { return listen(ns, addr, 8<<20) }

// ListenToStorm is Listen with room for seconds of a log storm, while a busy machine lets nobody read.
func ListenToStorm(ns *NS, addr netip.AddrPort) (*net.UDPConn, error) {
	return listen(ns, addr, 64<<20)
}

func listen(ns *NS, addr netip.AddrPort, receiveBuffer int) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := ns.Do(func() error {
		config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
			var set error
			err := conn.Control(func(fd uintptr) {
				set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
			})
			return errors.Join(err, set)
		}}
		c, err := config.ListenPacket(context.Background(), "udp", addr.String())
		if err == nil {
			conn = c.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", addr, err)
	}
	return conn, nil
}

func (c *Capture) receive() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.conn.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		d := Datagram{At: time.Since(c.start), Payload: bytes.Clone(buf[:n])}
		if udp, ok := from.(*net.UDPAddr); ok {
			d.Source = udp.AddrPort()
		}
		c.mu.Lock()
		c.datagrams = append(c.datagrams, d)
		close(c.arrived)
		c.arrived = make(chan struct{})
		c.mu.Unlock()
	}
}

// Datagrams returns what has arrived so far.
func (c *Capture) Datagrams() []Datagram {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.datagrams)
}

// Await waits for a datagram that contains text, and returns the first one. Datagrams that arrived before the call count, too.
func (c *Capture) Await(ctx context.Context, text string) (Datagram, error) {
	for seen := 0; ; {
		c.mu.Lock()
		fresh, arrived := c.datagrams[seen:], c.arrived
		seen = len(c.datagrams)
		c.mu.Unlock()
		for _, d := range fresh {
			if bytes.Contains(d.Payload, []byte(text)) {
				return d, nil
			}
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return Datagram{}, fmt.Errorf("wait for %q at %s: %w after %s", text, c.conn.LocalAddr(), ctx.Err(), c.lastWords())
		}
	}
}

// lastWords describes the end of what has arrived.
func (c *Capture) lastWords() string {
	all := c.Datagrams()
	if len(all) == 0 {
		return "no datagram at all"
	}
	return fmt.Sprintf("%d datagrams, the last: %.200q", len(all), all[len(all)-1].Payload)
}

// WriteCapture writes datagrams in the format that `lastgasp-listener replay --format=datagrams` reads.
func WriteCapture(path string, datagrams []Datagram) error {
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	for _, d := range datagrams {
		err := lines.Encode(struct {
			T       float64 `json:"t"` // seconds
			Src     string  `json:"src"`
			Payload string  `json:"payload_b64"`
		}{
			T:       d.At.Round(time.Microsecond).Seconds(),
			Src:     d.Source.String(),
			Payload: base64.StdEncoding.EncodeToString(d.Payload),
		})
		if err != nil {
			return fmt.Errorf("encode a datagram: %w", err)
		}
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write a capture: %w", err)
	}
	return nil
}
