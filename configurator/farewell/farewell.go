package farewell

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// holdFor is how long a shutdown is held up at most, whatever the network does.
	holdFor = 800 * time.Millisecond
	// listenFor is how long everything that belongs to a shutdown that begins may take to arrive.
	listenFor = 50 * time.Millisecond
	// callFor bounds a call on the bus.
	callFor = 5 * time.Second
	// noticesEvery is how often EC2's notices are asked for. A spot interruption is announced two minutes ahead.
	noticesEvery, noticesFor = 15 * time.Second, 5 * time.Second
)

// Farewell sends a farewell at the end of this boot.
type Farewell struct {
	Root    machine.Root
	Cluster string
	Key     ed25519.PublicKey // nil: acknowledgements need no signature
	Self    func() (Self, error)
	// Notices asks what EC2 has announced; nil where there is no EC2.
	Notices func(context.Context) (ec2.Notices, error)
	// Ready is called once a shutdown would be noticed.
	Ready func()
	Log   *slog.Logger

	bus       *bus
	inhibitor *os.File
	logind    string // its name on the bus
	words     words
	met       met            // who connected to the bus recently
	said      netconsole.Bye // last; its nonce and secret are empty
}

// Run waits for the end of the boot and sends a farewell, until ctx ends. An error means that a shutdown would no longer be noticed.
func (f *Farewell) Run(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	b, err := connect(context.WithoutCancel(ctx)) // it is still needed when ctx has ended
	if err != nil {
		return err
	}
	defer b.close()
	f.bus = b
	if err := b.listen(starting); err != nil {
		f.Log.Warn("calls to logind cannot be monitored, so farewells do not say who asked; run it as root", "err", err)
	}
	defer f.release()
	if f.inhibitor, err = b.inhibit(starting); err != nil {
		return err
	}
	f.logind = b.ownerOf(starting, login1)
	f.Ready()

	notices := make(chan ec2.Notices)
	if f.Notices != nil {
		go f.askEC2(ctx, notices)
	}
	for {
		select {
		case <-ctx.Done():
			f.stopped()
			return nil
		case msg, ok := <-b.calls:
			if !ok {
				return f.busClosed()
			}
			f.overhear(msg)
		case s, ok := <-b.signals:
			if !ok {
				return f.busClosed()
			}
			if err := f.signal(ctx, s); err != nil {
				return err
			}
		case n := <-notices:
			f.noticed(n, time.Now())
		}
	}
}

// askEC2 asks for notices until ctx ends, and passes on every answer. A failure is logged once; it takes back nothing that was
// announced before.
func (f *Farewell) askEC2(ctx context.Context, to chan<- ec2.Notices) {
	failed := false
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, noticesFor)
		n, err := f.Notices(asking)
		cancel()
		if err != nil && !failed && ctx.Err() == nil {
			f.Log.Warn("EC2's notices are not all known; check that the metadata service can be reached", "err", err)
		}
		failed = err != nil
		if err == nil || n.SpotAction != "" || n.ASGTerminates {
			select {
			case to <- n:
			case <-ctx.Done():
			}
		}
		pause(ctx, noticesEvery)
	}
}

// noticed takes in what EC2 has announced. What will end the instance soon is said at once: there may be no time for it later.
func (f *Farewell) noticed(n ec2.Notices, now time.Time) {
	f.words.notices = n
	if y := announced(n, now); y.Cause == netconsole.ByeSpot || y.Cause == netconsole.ByeASG {
		if !f.sayBye(y) {
			f.said = netconsole.Bye{} // again, at the next notice
		}
	}
}

// overhear looks at what somebody else said on the bus.
func (f *Farewell) overhear(msg *dbus.Message) {
	header := func(field dbus.HeaderField) string {
		v, ok := msg.Headers[field]
		if !ok {
			return ""
		}
		s, _ := v.Value().(string)
		return s
	}
	if msg.Type == dbus.TypeError {
		if serial, ok := msg.Headers[dbus.FieldReplySerial].Value().(uint32); ok {
			f.words.refuse(header(dbus.FieldDestination), serial)
		}
		return
	}
	sender, member := header(dbus.FieldSender), header(dbus.FieldMember)
	r := requestOf(header(dbus.FieldInterface), member, msg.Body)
	switch {
	case sender == f.logind: // it passes on to systemd what somebody has asked it
	case member == "CancelScheduledShutdown":
		f.words.cancel()
	case member == "Hello":
		// Who waits for the answer to the real call may be gone before it can be looked at.
		f.met.add(sender, f.look(sender))
	case r.cause != "":
		a := f.look(sender)
		if a == (asker{}) {
			a = f.met.find(sender)
		}
		f.words.add(call{request: r, asker: a, sender: sender, serial: msg.Serial(), heard: time.Now()})
		f.Log.Info("somebody asks to end this boot", "cause", r.cause, "at", r.at, "user", a.user, "command", a.command, "sudo", a.sudo, "unit", a.unit)
	}
}

// look finds out who has a name on the bus, zero if it is gone.
func (f *Farewell) look(sender string) asker {
	ctx, cancel := context.WithTimeout(context.Background(), callFor)
	defer cancel()
	pid, err := f.bus.processOf(ctx, sender)
	if err != nil {
		return asker{}
	}
	return askerOf(f.Root, pid)
}

// signal reacts to logind.
func (f *Farewell) signal(ctx context.Context, s *dbus.Signal) error {
	switch {
	case s.Name == "org.freedesktop.DBus.NameOwnerChanged":
		if owner, _ := argument[string](s.Body, 2); owner != "" { // a new logind knows nothing of our inhibitor
			f.logind = owner
			return f.inhibitAgain(ctx)
		}
	case s.Name == login1Iface+".PrepareForShutdownWithMetadata":
		f.words.kind = kindOf(s.Body)
	case s.Name == login1Iface+".PrepareForShutdown":
		begins, _ := argument[bool](s.Body, 0)
		if !begins {
			f.givenUp()
			return f.inhibitAgain(ctx)
		}
		f.listenOn()
		f.sayBye(f.words.bye(time.Now()))
		f.release()
	}
	return nil
}

// givenUp forgets a shutdown that does not come: the next one is announced again, even if it is the same.
func (f *Farewell) givenUp() { f.words.kind, f.said = "", netconsole.Bye{} }

// kindOf is the type that PrepareForShutdownWithMetadata names, if a shutdown begins.
func kindOf(body []any) string {
	begins, _ := argument[bool](body, 0)
	metadata, _ := argument[map[string]dbus.Variant](body, 1)
	kind, _ := metadata["type"].Value().(string)
	if !begins {
		return ""
	}
	return causeOfType(kind)
}

// listenOn gives what belongs to a shutdown that begins a moment to arrive: the call that asked for it, which is older than
// logind's signal but comes on another connection, and logind's other signal.
func (f *Farewell) listenOn() {
	enough := time.NewTimer(listenFor)
	defer enough.Stop()
	for {
		select {
		case msg, ok := <-f.bus.calls:
			if !ok {
				return
			}
			f.overhear(msg)
		case s, ok := <-f.bus.signals:
			if !ok {
				return
			}
			if s.Name == login1Iface+".PrepareForShutdownWithMetadata" {
				f.words.kind = kindOf(s.Body)
			}
		case <-enough.C:
			return
		}
	}
}

// busClosed sends a farewell if the bus has ended because everything ends.
func (f *Farewell) busClosed() error {
	if kind := forcedEnding(f.Root); kind != "" {
		f.words.kind = kind
		f.sayBye(f.words.bye(time.Now()))
	}
	return errors.New("the system bus has closed the connection")
}

// stopped sends a farewell if this process is stopped because systemd ends the boot, and how it does was not said before: the
// request may have bypassed logind.
func (f *Farewell) stopped() {
	ctx, cancel := context.WithTimeout(context.Background(), callFor)
	defer cancel()
	kind, err := forcedEnding(f.Root), error(nil)
	if kind == "" {
		kind, err = f.bus.ending(ctx)
	}
	if err != nil {
		f.Log.Warn("cannot find out whether this boot ends, so no farewell is sent", "err", err)
	}
	if kind == "" {
		return
	}
	f.listenOn()
	f.words.kind = kind
	f.sayBye(f.words.bye(time.Now()))
}

// sayBye sends a farewell, unless it has sent the same before. It reports whether a listener has heard it.
func (f *Farewell) sayBye(y netconsole.Bye) bool {
	if y == f.said {
		return true
	}
	f.said = y
	log := f.Log.With("cause", y.Cause, "by", y.By, "command", y.Command, "unit", y.Unit)
	self, err := f.Self()
	if err != nil {
		log.Warn("farewell not sent", "err", err)
		return false
	}
	y.Cluster = f.Cluster
	ctx, cancel := context.WithTimeout(context.Background(), holdFor)
	defer cancel()
	acked := say(ctx, y, self, f.Key)
	if acked == 0 {
		log.Warn("farewell sent, and no listener has acknowledged it; check lastgasp-configurator status", "listeners", len(self.Routes))
	} else {
		log.Info("farewell sent", "listeners", len(self.Routes), "acknowledged", acked)
	}
	return acked > 0
}

// release lets a shutdown go on.
func (f *Farewell) release() {
	if f.inhibitor != nil {
		f.inhibitor.Close()
		f.inhibitor = nil
	}
}

func (f *Farewell) inhibitAgain(ctx context.Context) error {
	f.release()
	taking, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	inhibitor, err := f.bus.inhibit(taking)
	if err != nil {
		return fmt.Errorf("after logind was restarted: %w", err)
	}
	f.inhibitor = inhibitor
	return nil
}
