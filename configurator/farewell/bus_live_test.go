//go:build live

package farewell

import (
	"bufio"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// newBus starts a bus of this test's own, and makes it the system bus of this process.
func newBus(t *testing.T) {
	t.Helper()
	daemon := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address")
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Skipf("cannot: there is no dbus-daemon here (Debian package dbus-daemon): %v", err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(address))
}

// TestLiveMonitorOutlivesItsStart: the bound of the calls that set the monitor up does not bound the monitor.
func TestLiveMonitorOutlivesItsStart(t *testing.T) {
	newBus(t)
	b, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	starting, cancel := context.WithCancel(t.Context())
	if err := b.listen(starting); err != nil {
		t.Fatal(err)
	}
	cancel()

	for _, member := range []string{"StartUnit", "StartUnitWithFlags"} {
		call := b.conn.Object("org.freedesktop.DBus", systemdPath).Go(systemdIface+"."+member, dbus.FlagNoReplyExpected, nil, "reboot.target",
			"replace-irreversibly") // the bus does not know the method, and would say so before or after the error is read
		if call.Err != nil {
			t.Fatal(call.Err)
		}
		for heard := false; !heard; {
			select {
			case msg, ok := <-b.calls:
				if !ok {
					t.Fatal("the monitor's connection is closed")
				}
				heard = msg.Headers[dbus.FieldMember].Value() == member
			case <-time.After(time.Minute):
				t.Fatalf("%s was not heard", member)
			}
		}
	}
}
