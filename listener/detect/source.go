package detect

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// maxBoots bounds how many boots a Source tells apart: the address's kernel, its previous boot, and whoever forges
// datagrams from it.
const maxBoots = 4

// A Source holds what is known of one sender of records. It owns neither socket nor clock: time is an argument, and
// Deadline returns when Flush has to be called. It is not safe for concurrent use.
//
// Records that claim different boots, or carry different secrets, are kept apart, so that nobody who shares an address can
// speak for another boot, end its incident or hide it. With the default Config a Source starts with a few hundred bytes
// and never reaches a MiB.
type Source struct {
	cfg         *Config
	table       *table
	addr        netip.AddrPort
	boots       []*boot // most recent last
	provisional *boot   // the death announced by a Partial record, until that is whole; nil if none

	panicOnOops, kdump bool
	share              int // bytes that the lines of a boot may take outside an incident; 0: as the Config says
}

// NewSource returns the Source of one sender. Call cfg.Compile before; without it the user's rules are not asked.
func NewSource(cfg *Config, addr netip.AddrPort) *Source {
	s := &Source{cfg: cfg, table: cfg.table, addr: addr}
	if s.table == nil {
		s.table = builtinTable()
	}
	return s
}

// SetFatal sets what the sender's kernel does after an oops, as its canary says: panicOnOops is kernel.panic_on_oops, kdump
// is whether a crash kernel is loaded. An oops is then a death notice even though no panic line may ever follow: with kdump
// oops_end (arch/x86/kernel/dumpstack.c) starts the crash kernel before panic is called, and from 7.0 on kernels with
// kernel.panic≠0 send nothing in a panic at all.
func (s *Source) SetFatal(panicOnOops, kdump bool) {
	s.panicOnOops, s.kdump = panicOnOops, kdump
}

// SetShare bounds what the Source's newest lines may grow to, in bytes, where memory is scarce and many have to share it. What
// is larger already stays, and an incident may take what the Config says. Zero is no bound.
func (s *Source) SetShare(bytes int) { s.share = bytes }

// Push takes one record and emits what it proves.
//
// A record that kills is emitted at once, as an Incident that is not Complete; when the source has fallen silent it is
// emitted once more, with the whole trace and its final names. In between it is emitted again if a record proves more
// about who died, or was Partial and is whole now. An oops is emitted the same way, but not for a Partial record, and as
// dying if it escalates. A sick finding is emitted when it is over, Complete, at most once in ten minutes each and at most
// 16 in that time.
func (s *Source) Push(now time.Time, r *netconsole.Record, emit func(Incident)) {
	s.Flush(now, emit)
	if r.Partial && r.Identity().Secret == "" {
		s.pushPartial(now, r, emit)
		return
	}
	if owner := s.owner(r); owner != nil && !owner.repeated(r) {
		owner.store(now, r, false, emit)
	}
	b := s.bootOf(r, emit)
	b.push(now, r, emit)
	if p := s.provisional; p != nil && p.extended == r.Extended && p.draft.seq == r.Seq && p.draft.uptime == r.Uptime &&
		b.draft != nil && b.draft.verdict == Dying {
		s.provisional = nil // emitted by its own boot
	}
}

// Flush completes the incidents that are due.
func (s *Source) Flush(now time.Time, emit func(Incident)) {
	for _, b := range s.boots {
		if b.draft != nil && !b.draft.due.After(now) {
			b.complete(emit)
		}
	}
	if s.provisional != nil && !s.provisional.draft.due.After(now) {
		s.provisional.complete(emit)
		s.provisional = nil
	}
}

// Withdraw takes back what the beginning of a record proved, because the whole record was given to another Source. It
// reports whether it had proved anything.
func (s *Source) Withdraw(r *netconsole.Record) bool {
	p := s.provisional
	if p == nil || !r.Extended || !p.extended || p.draft.seq != r.Seq || p.draft.uptime != r.Uptime {
		return false
	}
	s.provisional = nil
	return true
}

// Deadline is when Flush should be called at the latest, zero if there is nothing to wait for.
func (s *Source) Deadline() time.Time {
	var t time.Time
	for _, b := range s.boots {
		if b.draft != nil && (t.IsZero() || b.draft.due.Before(t)) {
			t = b.draft.due
		}
	}
	if s.provisional != nil && (t.IsZero() || s.provisional.draft.due.Before(t)) {
		t = s.provisional.draft.due
	}
	return t
}

// Size is how many bytes of log the Source keeps.
func (s *Source) Size() int {
	n := 0
	for _, b := range s.boots {
		n += b.size()
	}
	if s.provisional != nil {
		n += s.provisional.size()
	}
	return n
}

// Trim makes the Source forget all but the newest lines of boots without an open incident.
func (s *Source) Trim() {
	for _, b := range s.boots {
		if b.draft == nil {
			b.ring.shrink(firstRing)
		}
	}
}

// Cramp is Trim for when memory is short. It also closes the traces of open incidents.
func (s *Source) Cramp() {
	s.Trim()
	for _, b := range s.boots {
		if b.draft != nil {
			b.ring = ring{} // the draft has its lines
			b.draft.full = true
		}
	}
	if s.provisional != nil {
		s.provisional.draft.full = true
	}
}

// bootOf finds the boot that the record belongs to.
func (s *Source) bootOf(r *netconsole.Record, emit func(Incident)) *boot {
	id := r.Identity()
	for i := len(s.boots) - 1; i >= 0; i-- {
		if b := s.boots[i]; b.extended == r.Extended && b.id.Boot == id.Boot && b.id.Secret == id.Secret {
			return s.touch(i)
		}
	}
	if len(s.boots) == maxBoots {
		if s.boots[0].draft != nil {
			s.boots[0].complete(emit)
		}
		s.boots = slices.Delete(s.boots, 0, 1)
	}
	b := &boot{source: s, extended: r.Extended, id: id}
	s.boots = append(s.boots, b)
	return b
}

// owner is the boot whose log gets a damaged record that has lost its identity: the most recent one that has an identity,
// nil if there is none. The record becomes a line of that log but is judged as one without an identity. Otherwise the sender
// of a damaged record could name another's crash.
func (s *Source) owner(r *netconsole.Record) *boot {
	if id := r.Identity(); r.Missing == 0 || id.Boot != "" || id.Secret != "" {
		return nil
	}
	for _, b := range slices.Backward(s.boots) {
		if b.extended == r.Extended && (b.id.Boot != "" || b.id.Secret != "") {
			return b
		}
	}
	return nil
}

// pushPartial emits a death that the beginning of a record announces. Only the whole record proves whose death it is.
// Therefore a copy of the boot that it may belong to judges the beginning: the incident claims no more than the beginning
// does, and the boot itself does not change. The whole record arrives within netconsole.WireTimeout and is judged as if
// nothing had preceded it.
func (s *Source) pushPartial(now time.Time, r *netconsole.Record, emit func(Incident)) {
	if s.provisional != nil && !stronger(r.Identity(), s.provisional.draft.id) {
		return
	}
	if rule, _ := s.table.find(r.Text); rule == nil || rule.Verdict < Oops {
		return // no death, so no copy is needed
	}
	b := s.provisionalBoot(r)
	emitted := false
	b.push(now, r, func(inc Incident) {
		if !inc.Complete { // what is complete is for the boot itself to emit
			emitted = true
			emit(inc)
		}
	})
	if emitted {
		b.ring = ring{} // the boot itself goes on writing to it
		b.draft.due = now.Add(2 * netconsole.WireTimeout)
		s.provisional = b
	}
}

// provisionalBoot copies the most recent boot that the beginning of a record does not contradict, or makes a new one.
func (s *Source) provisionalBoot(r *netconsole.Record) *boot {
	id := r.Identity()
	for _, b := range slices.Backward(s.boots) {
		if b.extended != r.Extended || id.Boot != "" && id.Boot != b.id.Boot {
			continue
		}
		c := *b
		c.reported = slices.Clone(b.reported)
		if b.draft != nil {
			d := *b.draft
			c.draft = &d
		}
		return &c
	}
	return &boot{source: s, extended: r.Extended, id: id}
}

// touch makes the boot at i the most recent one.
func (s *Source) touch(i int) *boot {
	b := s.boots[i]
	if i < len(s.boots)-1 {
		s.boots = append(slices.Delete(s.boots, i, i+1), b)
	}
	return b
}

// isCanary reports whether the record is a canary of the sender's configurator: proof of the channel, not a log line.
func isCanary(r *netconsole.Record) bool {
	return !r.FromKernel() && bytes.HasPrefix(r.Text, []byte("lastgasp: canary "))
}
