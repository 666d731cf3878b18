package farewell

import (
	"context"
	"fmt"
	"os"

	"github.com/godbus/dbus/v5"
)

// bus is what this package needs of the system bus: two connections, because one that monitors can do nothing else.
type bus struct {
	conn    *dbus.Conn
	monitor *dbus.Conn
	signals chan *dbus.Signal
	calls   chan *dbus.Message // of others, to logind and systemd
}

// callsWaiting bounds the calls that wait to be read; more are dropped.
const callsWaiting = 256

// connect connects to the system bus and subscribes to the signals of logind.
func connect(ctx context.Context) (*bus, error) {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	b := &bus{conn: conn, signals: make(chan *dbus.Signal, 16), calls: make(chan *dbus.Message, callsWaiting)}
	conn.Signal(b.signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(login1), dbus.WithMatchInterface(login1Iface), dbus.WithMatchMember("PrepareForShutdown")},
		{dbus.WithMatchSender(login1), dbus.WithMatchInterface(login1Iface), dbus.WithMatchMember("PrepareForShutdownWithMetadata")},
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, login1)},
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			b.close()
			return nil, fmt.Errorf("subscribe to logind: %w", err)
		}
	}
	return b, nil
}

// listen makes the second connection a monitor of what others ask logind and systemd. Only root may (D-Bus specification,
// "org.freedesktop.DBus.Monitoring.BecomeMonitor"). ctx bounds the call, not the connection: that lives until close.
func (b *bus) listen(ctx context.Context) error {
	monitor, err := dbus.ConnectSystemBus(dbus.WithContext(context.WithoutCancel(ctx)))
	if err != nil {
		return fmt.Errorf("connect to the system bus: %w", err)
	}
	rules := []string{
		"type='method_call',interface='" + login1Iface + "'",
		"type='error',sender='" + login1 + "'",
		"type='method_call',destination='org.freedesktop.DBus',member='Hello'", // everybody's first call
	}
	for target := range endingTargets {
		for _, member := range startUnit {
			rules = append(rules, "type='method_call',interface='"+systemdIface+"',member='"+member+"',arg0='"+target+"'")
		}
	}
	call := monitor.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.Monitoring.BecomeMonitor", 0, rules, uint32(0))
	if call.Err != nil {
		monitor.Close()
		return fmt.Errorf("listen to calls to logind: %w", call.Err)
	}
	monitor.Eavesdrop(b.calls)
	b.monitor = monitor
	return nil
}

func (b *bus) close() {
	b.conn.Close()
	if b.monitor != nil {
		b.monitor.Close()
	}
}

// inhibit takes a delay inhibitor: logind waits for the file to be closed, for InhibitDelayMaxSec at most, before it lets a
// shutdown begin (https://systemd.io/INHIBITOR_LOCKS).
func (b *bus) inhibit(ctx context.Context) (*os.File, error) {
	var fd dbus.UnixFD
	err := b.conn.Object(login1, login1Path).CallWithContext(ctx, login1Iface+".Inhibit", 0,
		"shutdown", "lastgasp", "Say who asked for the end of this boot", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("take a delay inhibitor: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor"), nil
}

// ownerOf is the unique name of a well-known name's owner on the bus, empty if it has none.
func (b *bus) ownerOf(ctx context.Context, name string) string {
	var owner string
	_ = b.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, name).Store(&owner) // an error: nobody
	return owner
}

func (b *bus) processOf(ctx context.Context, sender string) (pid uint32, err error) {
	err = b.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, sender).Store(&pid)
	return pid, err
}

// job is a job of systemd.
type job struct {
	ID         uint32
	Unit       string
	Type       string
	State      string
	Path       dbus.ObjectPath
	UnitObject dbus.ObjectPath
}

// ending is how systemd is about to end the boot, empty if it is not.
func (b *bus) ending(ctx context.Context) (kind string, err error) {
	var jobs []job
	err = b.conn.Object(systemd1, systemdPath).CallWithContext(ctx, systemdIface+".ListJobs", 0).Store(&jobs)
	if err != nil {
		return "", fmt.Errorf("ask systemd for its jobs: %w", err)
	}
	return endingOf(jobs), nil
}

// endingOf is the cause that the jobs amount to.
func endingOf(jobs []job) string {
	for _, j := range jobs {
		if kind := endingTargets[j.Unit]; kind != "" && j.Type == "start" {
			return kind
		}
	}
	return ""
}
