package detect

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// maxLives bounds how many kernels a Source tells apart. One address has one kernel, its previous boot, and whoever
// forges datagrams from it.
const maxLives = 4

// A Source is what is known of one sender of records. It owns neither socket nor clock: time is an argument, and
// Deadline says when Flush wants to be called. It is not safe for concurrent use.
//
// Records that claim different boots, or prove it with different secrets, are kept apart, so that nobody who shares an
// address can speak in another's name, end its incident or hide it. With the default Config a Source takes a few hundred
// bytes to begin with, and never as much as a MiB.
type Source struct {
	cfg   *Config
	table *table
	addr  netip.AddrPort
	lives []*life // the one heard last is last
	begun *life   // the death told of by the beginning of a record, until the record is whole; nil if none

	panicOnOops, kdump bool
}

// NewSource starts watching a sender. Call cfg.Compile before; without it the user's rules are not asked.
func NewSource(cfg *Config, addr netip.AddrPort) *Source {
	s := &Source{cfg: cfg, table: cfg.table, addr: addr, panicOnOops: cfg.PanicOnOops}
	if s.table == nil {
		s.table = builtinTable()
	}
	return s
}

// SetFatal says what the sender's kernel does after an oops, as its canary tells: panicOnOops is kernel.panic_on_oops,
// kdump whether a crash kernel is loaded. An oops is then a death notice even though no panic line may ever come: with
// kdump oops_end (arch/x86/kernel/dumpstack.c) starts the crash kernel before panic is called, and from 7.0 on kernels
// with kernel.panic≠0 send nothing in a panic at all.
func (s *Source) SetFatal(panicOnOops, kdump bool) {
	s.panicOnOops, s.kdump = panicOnOops, kdump
}

// Push takes one record and emits what it proves.
//
// A record that kills is emitted at once, as an Incident that is not Complete; when the source has fallen silent it is
// emitted once more, with the whole trace and its final names. In between it is emitted again if a record proves more
// about who died, or was Partial and is whole now. An oops is emitted the same way, but not for a Partial record, and as
// dying if it escalates. Sick reports are emitted when they are over, Complete, no more than once in ten minutes each,
// and no more than 16 of them in that time.
func (s *Source) Push(now time.Time, r *netconsole.Record, emit func(Incident)) {
	s.Flush(now, emit)
	if r.Partial && r.Identity().Secret == "" {
		s.alarm(now, r, emit)
		return
	}
	if owner := s.owner(r); owner != nil && !owner.repeated(r) {
		owner.keep(now, r, false, emit)
	}
	l := s.life(r, emit)
	l.push(now, r, emit)
	if b := s.begun; b != nil && b.extended == r.Extended && b.report.seq == r.Seq && b.report.uptime == r.Uptime &&
		l.report != nil && l.report.verdict == Dying {
		s.begun = nil // and is told as what it is
	}
}

// Flush completes the incidents that are due.
func (s *Source) Flush(now time.Time, emit func(Incident)) {
	for _, l := range s.lives {
		if l.report != nil && !l.report.due.After(now) {
			l.complete(emit)
		}
	}
	if s.begun != nil && !s.begun.report.due.After(now) {
		s.begun.complete(emit)
		s.begun = nil
	}
}

// Withdraw takes back what the beginning of a record proved, because the whole record was given to another Source. It
// reports whether there was anything.
func (s *Source) Withdraw(r *netconsole.Record) bool {
	b := s.begun
	if b == nil || !r.Extended || !b.extended || b.report.seq != r.Seq || b.report.uptime != r.Uptime {
		return false
	}
	s.begun = nil
	return true
}

// Deadline is when Flush should be called at the latest, zero if there is nothing to wait for.
func (s *Source) Deadline() time.Time {
	var t time.Time
	for _, l := range s.lives {
		if l.report != nil && (t.IsZero() || l.report.due.Before(t)) {
			t = l.report.due
		}
	}
	if s.begun != nil && (t.IsZero() || s.begun.report.due.Before(t)) {
		t = s.begun.report.due
	}
	return t
}

// Size is how many bytes of log the Source keeps.
func (s *Source) Size() int {
	n := 0
	for _, l := range s.lives {
		n += l.size()
	}
	if s.begun != nil {
		n += s.begun.size()
	}
	return n
}

// Trim has the Source forget all but the newest lines of kernels of which it has no incident to tell.
func (s *Source) Trim() {
	for _, l := range s.lives {
		if l.report == nil {
			l.ring.shrink(firstRing)
		}
	}
}

// Cramp is Trim where memory is short, and adds nothing more to the traces of incidents.
func (s *Source) Cramp() {
	s.Trim()
	for _, l := range s.lives {
		if l.report != nil {
			l.ring = ring{} // the report has its lines
			l.report.full = true
		}
	}
	if s.begun != nil {
		s.begun.report.full = true
	}
}

// life finds whose record it is.
func (s *Source) life(r *netconsole.Record, emit func(Incident)) *life {
	id := r.Identity()
	for i := len(s.lives) - 1; i >= 0; i-- {
		if l := s.lives[i]; l.extended == r.Extended && l.id.Boot == id.Boot && l.id.Secret == id.Secret {
			return s.heard(i)
		}
	}
	if len(s.lives) == maxLives {
		if s.lives[0].report != nil {
			s.lives[0].complete(emit)
		}
		s.lives = slices.Delete(s.lives, 0, 1)
	}
	l := &life{source: s, extended: r.Extended, id: id}
	s.lives = append(s.lives, l)
	return l
}

// owner is the kernel whose log a damaged record may be from that has lost what tells whose it is: the one heard last that
// has a name, nil if there is none. The record is a line of its log, and says nothing about it: it is judged as what it is,
// a record of nobody. Otherwise whoever sends a damaged one could name another's crash.
func (s *Source) owner(r *netconsole.Record) *life {
	if id := r.Identity(); r.Missing == 0 || id.Boot != "" || id.Secret != "" {
		return nil
	}
	for _, l := range slices.Backward(s.lives) {
		if l.extended == r.Extended && (l.id.Boot != "" || l.id.Secret != "") {
			return l
		}
	}
	return nil
}

// alarm tells of a death that the beginning of a record speaks of. Whose it is only the whole record proves, so that the
// beginning is judged by a copy of the life it seems to belong to, claims no more than it does itself, and leaves the
// life as it was. The whole record follows within netconsole.Patience and is judged as if nothing had come before.
func (s *Source) alarm(now time.Time, r *netconsole.Record, emit func(Incident)) {
	if s.begun != nil && !stronger(r.Identity(), s.begun.report.id) {
		return
	}
	if rule, _ := s.table.find(r.Text); rule == nil || rule.Verdict < Oops {
		return // no copy is made for what can be no death
	}
	l := s.seems(r)
	told := false
	l.push(now, r, func(inc Incident) {
		if !inc.Complete { // what is complete is the life's own to tell
			told = true
			emit(inc)
		}
	})
	if told {
		l.ring = ring{} // the life goes on writing to it
		l.report.due = now.Add(2 * netconsole.Patience)
		s.begun = l
	}
}

// seems copies the life heard last that the beginning of a record does not contradict, or makes a new one.
func (s *Source) seems(r *netconsole.Record) *life {
	id := r.Identity()
	for _, l := range slices.Backward(s.lives) {
		if l.extended != r.Extended || id.Boot != "" && id.Boot != l.id.Boot {
			continue
		}
		c := *l
		c.told = slices.Clone(l.told)
		if l.report != nil {
			rep := *l.report
			c.report = &rep
		}
		return &c
	}
	return &life{source: s, extended: r.Extended, id: id}
}

// heard makes the life at i the one heard last.
func (s *Source) heard(i int) *life {
	l := s.lives[i]
	if i < len(s.lives)-1 {
		s.lives = append(slices.Delete(s.lives, i, i+1), l)
	}
	return l
}

// isCanary reports whether the record is a canary of the sender's configurator: proof of the channel, not a log line.
func isCanary(r *netconsole.Record) bool {
	return !r.FromKernel() && bytes.HasPrefix(r.Text, []byte("lastgasp: canary "))
}
