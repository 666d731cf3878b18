package farewell

import (
	"cmp"
	"time"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// askedFor is how long a call that asks for the end of the boot is taken for its reason. logind acts on it at once.
	askedFor = 30 * time.Second
	// scheduledSlack is how far from the time of a scheduled shutdown it may begin.
	scheduledSlack = time.Minute
	// beforeEvent is how long before a scheduled event of EC2 a shutdown is taken for its work.
	beforeEvent = 5 * time.Minute
)

// words is what has been learnt about the end of this boot. It owns no clock. Its zero value knows nothing.
type words struct {
	asked, scheduled call
	kind             string // that logind or systemd gave
	notices          ec2.Notices
}

// call is a call that asks for the end of the boot.
type call struct {
	request
	asker
	sender string // on the bus
	serial uint32
	heard  time.Time
}

// add takes in a call. A scheduled shutdown is remembered until another one replaces it.
func (w *words) add(c call) {
	if c.at.IsZero() {
		w.asked = c
	} else {
		w.scheduled = c
	}
}

// refuse takes back what logind has refused.
func (w *words) refuse(sender string, serial uint32) {
	for _, c := range []*call{&w.asked, &w.scheduled} {
		if c.cause != "" && c.sender == sender && c.serial == serial {
			*c = call{}
		}
	}
}

// cancel takes back a scheduled shutdown.
func (w *words) cancel() { w.scheduled = call{} }

// bye is the farewell for a boot that ends at now: who asked, if somebody did, else what EC2 had announced, else how it ends.
func (w *words) bye(now time.Time) netconsole.Bye {
	c := w.asked
	if c.cause == "" || now.Sub(c.heard) > askedFor {
		c = call{}
		if w.scheduled.cause != "" && now.Sub(w.scheduled.at).Abs() <= scheduledSlack {
			c = w.scheduled
		}
	}
	if c.cause != "" && agrees(c.cause, w.kind) {
		return netconsole.Bye{Cause: cmp.Or(w.kind, c.cause), By: c.user, Command: c.command, Sudo: c.sudo, Unit: c.unit}
	}
	if y := announced(w.notices, now); y.Cause != "" {
		y.Due = time.Time{}
		return y
	}
	return netconsole.Bye{Cause: cmp.Or(w.kind, netconsole.ByeShutdown)}
}

// agrees reports whether a boot that ends in that kind can end for what was asked. systemd may make a kexec or a soft reboot of
// a reboot. A request that is followed by something else was not the reason: perhaps somebody pressed the power button.
func agrees(asked, kind string) bool {
	return kind == "" || asked == kind || asked == netconsole.ByeReboot && (kind == netconsole.ByeKexec || kind == netconsole.ByeSoftReboot)
}

// announced is the farewell for what EC2 will do to the instance, zero if nothing is known or it is not yet to be. A
// scheduled event is only the reason of a shutdown that comes with it: it may be days ahead.
func announced(n ec2.Notices, now time.Time) netconsole.Bye {
	switch {
	case n.SpotAction != "":
		return netconsole.Bye{Cause: netconsole.ByeSpot, Event: n.SpotAction, Due: n.SpotTime}
	case n.ASGTerminates:
		return netconsole.Bye{Cause: netconsole.ByeASG}
	}
	for _, e := range n.Events {
		if !now.Before(e.NotBefore.Add(-beforeEvent)) {
			return netconsole.Bye{Cause: netconsole.ByeMaintenance, Event: e.ID}
		}
	}
	return netconsole.Bye{}
}

// met remembers who connected to the bus last, by their names there, which are not used again.
type met struct {
	last [64]struct {
		name string
		asker
	}
	next int
}

func (m *met) add(name string, a asker) {
	m.last[m.next].name, m.last[m.next].asker = name, a
	m.next = (m.next + 1) % len(m.last)
}

func (m *met) find(name string) asker {
	for _, l := range m.last {
		if l.name == name {
			return l.asker
		}
	}
	return asker{}
}
