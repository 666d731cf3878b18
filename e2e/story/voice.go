package story

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/load"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Voice is a socket that sends to the listener: as a kernel's netconsole, or as somebody who shares its address.
type Voice struct {
	conn *net.UDPConn
	to   netip.AddrPort
}

// Voice opens one at an address of a namespace. It closes when the fleet's scope ends.
func (f *Fleet) Voice(ns *lab.NS, from netip.Addr) (*Voice, error) {
	conn, err := lab.Listen(ns, netip.AddrPortFrom(from, 0))
	if err != nil {
		return nil, err
	}
	f.scope.Cleanup(func() { conn.Close() })
	return &Voice{conn: conn, to: f.Endpoint()}, nil
}

// Say sends datagrams.
func (v *Voice) Say(datagrams ...[]byte) error {
	for _, d := range datagrams {
		if _, err := v.conn.WriteToUDPAddrPort(d, v.to); err != nil {
			return fmt.Errorf("send to the listener: %w", err)
		}
	}
	return nil
}

// Prove sends a canary until the listener has acknowledged it.
func (v *Voice) Prove(ctx context.Context, canary []byte) error {
	ack := make([]byte, 1500)
	return await(ctx, "the listener's acknowledgement", func(context.Context) error {
		if err := v.Say(canary); err != nil {
			return err
		}
		if err := v.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		n, _, err := v.conn.ReadFromUDPAddrPort(ack)
		if err != nil {
			return err
		}
		if _, ok := netconsole.ParseAck(string(ack[:n])); !ok {
			return errors.New("the answer is not an acknowledgement")
		}
		return nil
	})
}

// Facilities and levels of the records sent here.
const (
	kernelEmerg = 0
	kernelInfo  = 6
	userWarning = 12 // written through /dev/kmsg
)

// Panic returns a kernel's last record in netconsole's extended format, with the userdata of id; empty keys are left out.
func Panic(id netconsole.Identity) [][]byte {
	return [][]byte{
		extended(kernelInfo, 600, "sysrq: Trigger a crash", id),
		extended(kernelEmerg, 601, "Kernel panic - not syncing: sysrq triggered crash", id),
		extended(kernelEmerg, 602, "CPU: 1 UID: 0 PID: 4711 Comm: bash Not tainted "+load.Release+" #1", id),
		extended(kernelEmerg, 603, "---[ end Kernel panic - not syncing: sysrq triggered crash ]---", id),
	}
}

// BasicPanic is the same in the basic format, which anybody can write.
func BasicPanic() [][]byte {
	return [][]byte{[]byte("Kernel panic - not syncing: sysrq triggered crash\n")}
}

// Canary returns a canary of the configurator of id's boot. seq is the record's number.
func Canary(id netconsole.Identity, seq int) []byte {
	line := netconsole.Canary{
		Nonce: hex.EncodeToString(random(16)), Instance: id.Instance, Boot: id.Boot,
		Facts: netconsole.Facts{Kernel: load.Release, Panic: 10, PanicOnOops: true, ConsoleLevel: 7, Version: "lab"},
	}.Line()
	return extended(userWarning, seq, line, id)
}

func extended(prefix, seq int, text string, id netconsole.Identity) []byte {
	var userdata strings.Builder
	for _, field := range []netconsole.Field{
		{Key: netconsole.KeyInstance, Value: id.Instance},
		{Key: netconsole.KeyBoot, Value: id.Boot},
		{Key: netconsole.KeySecret, Value: string(id.Secret)},
	} {
		if field.Value != "" {
			fmt.Fprintf(&userdata, " %s=%s\n", field.Key, field.Value)
		}
	}
	return load.Record(nil, prefix, seq, text, userdata.String())
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
