package netconsole

import (
	"bytes"
	"hash/maphash"
	"time"
)

// WireTimeout is how long a record waits for its missing pieces. The kernel sends the pieces of a record back to back.
const WireTimeout = time.Second

const (
	// maxOpen bounds the records under assembly. CPUs take turns at the console, so more than two are rare. Forged fragments
	// must not push out a record whose second half is on its way.
	maxOpen = 64
	maxHeld = 256 << 10 // bytes of body held by all of them
	maxCut  = 16 << 10  // bytes of a basic record; the kernel's are 2048 at most (PRINTK_MESSAGE_MAX)
)

// Stream turns the datagrams of one source into records. It owns neither socket nor clock: time is an argument, and
// Deadline says when Flush wants to be called. The zero value is ready to use; a Stream is not safe for concurrent use.
//
// Records come out in the order in which they became whole. A record whose beginning is there but not all of it comes
// out at once, marked Partial, so that an alarm need not wait for userdata; it comes out again, and finally, when it is
// whole or has waited for longer than WireTimeout.
//
// A Stream holds at most 256 KiB of unfinished records, gives up the oldest to keep to that, and lets go of everything
// but a few hundred bytes when it has none.
type Stream struct {
	// Spare is optional. It saves allocations and, with many Streams, memory.
	Spare *Spare

	record  Record // handed to emit
	decoder decoder
	release string // of the last record, so that it is allocated once
	caller  string

	seed maphash.Seed // of pieces
	open []*assembly  // oldest first
	held int          // bytes in open
	done *[4]finished // the fragmented records finished last, whose late fragments are ignored; nil if there were none
	next int          // in done

	cut      []byte // a basic record that reached the end of its datagram, nil if none
	cutDue   time.Time
	extended bool // the target is: it has sent a whole extended record
}

// Push takes one datagram and emits the records it completes, usually one. The record, and Fields in it, are valid only
// until emit returns; the strings may be kept. An error means that the datagram was malformed and
// dropped; it is one of the sentinels of this package.
func (s *Stream) Push(now time.Time, payload []byte, emit func(*Record)) error {
	f, err := ParseFrame(payload)
	return s.PushFrame(now, payload, &f, err, emit)
}

// PushFrame is Push of a datagram of which ParseFrame has returned f and err.
func (s *Stream) PushFrame(now time.Time, payload []byte, f *Frame, err error, emit func(*Record)) error {
	s.Flush(now, emit)
	if s.cut != nil {
		switch {
		case bytes.HasSuffix(payload, s.cut):
			return nil // the same datagram twice
		case !(s.extended && f.Extended) && s.continues(payload):
			s.extend(payload, emit)
			return nil
		}
		s.finishCut(true, emit)
	}

	switch {
	case err != nil:
		return err
	case !f.Extended:
		s.pushBasic(now, f, emit)
	case f.Fragment:
		return s.pushFragment(now, f, emit)
	default:
		s.extended = true
		s.pushWhole(f, emit)
	}
	return nil
}

// Flush gives up on records that have waited longer than WireTimeout: they are emitted as they are.
func (s *Stream) Flush(now time.Time, emit func(*Record)) {
	for len(s.open) > 0 && !s.open[0].due.After(now) {
		s.finish(0, emit)
	}
	if s.cut != nil && !s.cutDue.After(now) {
		s.finishCut(true, emit)
	}
}

// GiveUp emits incomplete records as they are. Their late fragments are then ignored.
func (s *Stream) GiveUp(emit func(*Record)) {
	for len(s.open) > 0 {
		s.finish(0, emit)
	}
	if s.cut != nil {
		s.finishCut(true, emit)
	}
}

// Size is how many bytes of records the Stream holds.
func (s *Stream) Size() int {
	n := cap(s.cut) + cap(s.decoder.text)
	for _, a := range s.open {
		n += cap(a.data)
	}
	return n
}

// Deadline is when Flush should be called at the latest, zero if there is nothing to wait for.
func (s *Stream) Deadline() time.Time {
	switch {
	case len(s.open) > 0: // they are older than a cut basic record: no fragment is taken while one waits
		return s.open[0].due
	case s.cut != nil:
		return s.cutDue
	}
	return time.Time{}
}

// lend hands out the record built in s.record, without what may be a secret in its text.
func (s *Stream) lend(emit func(*Record)) {
	if s.record.Extended {
		s.record.Text = redact(s.record.Text)
	} else {
		s.record.Text = redactUnknown(s.record.Text)
	}
	emit(&s.record)
	s.record = Record{} // so that nothing of it stays alive
	s.decoder.rest(s.Spare)
}

// head starts a record with what an extended header says.
func (s *Stream) head(f *Frame) Record {
	if s.release != string(f.Release) {
		s.release = oneWord(string(f.Release), maxToken)
	}
	if s.caller != string(f.Caller) {
		s.caller = oneWord(string(f.Caller), maxToken)
	}
	return Record{
		Extended: true,
		Release:  s.release,
		Prefix:   f.Prefix,
		Seq:      f.Seq,
		Uptime:   f.Uptime,
		Cont:     f.Cont,
		Caller:   s.caller,
	}
}

func (s *Stream) pushWhole(f *Frame, emit func(*Record)) {
	s.record = s.head(f)
	total := len(f.Body)
	if f.Cut {
		total++ // at least
		s.record.Missing = 1
	}
	runs := [1]run{{0, f.Body}}
	s.decoder.wake(s.Spare)
	s.decoder.decode(&s.record, runs[:], total)
	s.lend(emit)
}

// pushFragment adds a fragment to every record under assembly that it fits, the same header and no other bytes where
// they overlap. One that contradicts all of them, or a finished record, begins another record. Which of the two is the
// kernel's cannot be known, so both are emitted and neither proves anything.
func (s *Stream) pushFragment(now time.Time, f *Frame, emit func(*Record)) error {
	if len(s.open) == 0 && s.done == nil {
		s.seed = maphash.MakeSeed()
	}
	this := newPiece(s.seed, f)
	contested, late := s.finished(now, f, this)
	if late {
		return nil
	}
	fits := 0
	for _, a := range s.open {
		switch {
		case !a.matches(f):
		case a.agrees(f):
			fits++
		default:
			contested = true
		}
	}
	if contested {
		for _, a := range s.open {
			a.contested = a.contested || a.matches(f)
		}
	}
	if fits == 0 {
		a := s.begin(now, f, emit)
		a.contested = contested
	}
	for s.held+max(1, fits)*len(f.Body) > maxHeld && len(s.open) > 1 {
		// No single record can hold that much, so there is another one to give up.
		oldest := 0
		if s.open[0].matches(f) {
			oldest = 1
		}
		s.finish(oldest, emit)
	}

	ok := true
	for i := 0; i < len(s.open); i++ {
		a := s.open[i]
		if !a.matches(f) || !a.agrees(f) {
			continue
		}
		before := len(a.data)
		ok = a.add(f) && ok
		a.pieces.add(this)
		s.held += len(a.data) - before
		switch {
		case a.missing() == 0:
			s.finish(i, emit)
			i--
		case a.hasStart() && !a.emitted:
			a.emitted = true
			s.build(a)
			s.record.Partial = true
			s.lend(emit)
		}
	}
	if !ok {
		return ErrFragment
	}
	return nil
}

// begin opens a record.
func (s *Stream) begin(now time.Time, f *Frame, emit func(*Record)) *assembly {
	if len(s.open) == maxOpen {
		s.finish(0, emit)
	}
	a := newAssembly(s.Spare, f, s.head(f), now.Add(WireTimeout))
	s.open = append(s.open, a)
	return a
}

// finish emits an open record for good, whole or not.
func (s *Stream) finish(i int, emit func(*Record)) {
	a := s.open[i]
	s.held -= len(a.data)
	copy(s.open[i:], s.open[i+1:])
	s.open[len(s.open)-1] = nil
	s.open = s.open[:len(s.open)-1]

	if s.done == nil {
		s.done = new([4]finished)
	}
	s.done[s.next].of(a)
	s.next = (s.next + 1) % len(s.done)

	s.build(a)
	s.lend(emit)
	s.Spare.give(a)
}

// finished reports whether the fragment is of a record that was emitted for good a moment ago, and whether it contradicts
// what that was made of.
func (s *Stream) finished(now time.Time, f *Frame, this piece) (contradicts, late bool) {
	if s.done == nil {
		return false, false
	}
	for i := range s.done {
		d := &s.done[i]
		if d.total != f.Total || !bytes.Equal(d.header, f.Header) || !now.Before(d.until) {
			continue
		}
		if !d.pieces.contradict(this) {
			return false, true
		}
		contradicts = true
	}
	return contradicts, false
}

// build fills s.record with what has arrived of an open record.
func (s *Stream) build(a *assembly) {
	s.record = a.record
	s.record.Missing = a.missing()
	s.record.Assembled, s.record.Contested = true, a.contested
	var few [4]run
	s.decoder.wake(s.Spare)
	s.decoder.decode(&s.record, a.runs(few[:0]), a.total)
}
