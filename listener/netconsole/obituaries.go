package netconsole

import "time"

const (
	maxObituaries   = 64              // that one Obituaries assembles at a time
	obituaryTimeout = 5 * time.Minute // after the last part that was new
	obituaryRepeat  = 10 * time.Second
)

// Obituaries assembles obituaries from their parts, in whatever order, however often and with whatever pauses they come. The
// zero value is ready. It holds 64 at most, one of each boot and secret at a time, and forgets the stalest first, so give it only
// parts whose Identity is proved. It is not safe for concurrent use.
type Obituaries struct {
	open map[obituaryKey]*openObituary
}

// obituaryKey tells obituaries apart. The nonce is a digest of the identity, too, but somebody else may have read it.
type obituaryKey struct {
	nonce string
	id    Identity
}

// openObituary is an obituary until it is forgotten.
type openObituary struct {
	first   ObituaryPart // words and sizes as the first part that came had them
	chunks  [][]byte     // by part; nil if missing, and all of them once it is done
	missing int
	held    int // bytes of chunks
	changed time.Time
	emitted time.Time // zero: never
	done    bool
}

// Add takes one part, sent under the identity. With the last part that was missing it returns the whole obituary, and again
// when parts are repeated 10 s later and nobody has called Done. ack says whether to acknowledge the part: not the one that
// makes it whole, until Done was called; so the sender repeats it, and what a listener took in is lost to no crash.
func (o *Obituaries) Add(now time.Time, id Identity, p ObituaryPart) (whole *Obituary, ack bool) {
	o.expire(now)
	key := obituaryKey{p.Nonce, id}
	e := o.open[key]
	if e == nil {
		e = o.begin(now, key, p)
	}
	if e.done {
		return nil, true
	}
	if !sameObituary(e.first, p) {
		return nil, false
	}
	if e.chunks[p.Part-1] == nil {
		if e.held+len(p.Text) > e.first.Size {
			return nil, false
		}
		e.chunks[p.Part-1] = append([]byte{}, p.Text...) // never nil
		e.missing--
		e.held += len(p.Text)
		e.changed = now
		if e.missing > 0 {
			return nil, true
		}
	} else if e.missing > 0 {
		return nil, true
	}
	if !e.emitted.IsZero() && now.Sub(e.emitted) < obituaryRepeat {
		return nil, false
	}
	text := make([]byte, 0, e.held)
	for _, chunk := range e.chunks {
		text = append(text, chunk...)
	}
	all := e.first.Obituary
	all.Text = text
	if all.nonce(id) != p.Nonce {
		delete(o.open, key) // not what the nonce is the digest of
		return nil, false
	}
	e.emitted = now
	return &all, false
}

// Done says that the obituary with the nonce is recorded, or is not wanted: from now on its parts are acknowledged, and
// nothing comes of them.
func (o *Obituaries) Done(nonce string, id Identity) {
	if e := o.open[obituaryKey{nonce, id}]; e != nil {
		e.done, e.chunks = true, nil
	}
}

// Recorded reports whether Done was called: only then an acknowledgement says that the node is known. A sender whose parts are all
// acknowledged, none of them so, begins again: the listener lost those that it held.
func (o *Obituaries) Recorded(nonce string, id Identity) bool {
	e := o.open[obituaryKey{nonce, id}]
	return e != nil && e.done
}

// begin makes room for another obituary. It replaces the one before it of the same boot and secret: a node
// sends one after the other.
func (o *Obituaries) begin(now time.Time, key obituaryKey, p ObituaryPart) *openObituary {
	if o.open == nil {
		o.open = make(map[obituaryKey]*openObituary)
	}
	for k := range o.open {
		if k.id.Boot == key.id.Boot && k.id.Secret == key.id.Secret {
			delete(o.open, k)
		}
	}
	if len(o.open) >= maxObituaries {
		var stalest obituaryKey
		for k, e := range o.open {
			if s := o.open[stalest]; s == nil || e.changed.Before(s.changed) {
				stalest = k
			}
		}
		delete(o.open, stalest)
	}
	p.Text = nil
	e := &openObituary{first: p, chunks: make([][]byte, p.Parts), missing: p.Parts, changed: now}
	o.open[key] = e
	return e
}

// expire forgets what has not become whole, and what was done long ago.
func (o *Obituaries) expire(now time.Time) {
	for k, e := range o.open {
		if now.Sub(e.changed) >= obituaryTimeout {
			delete(o.open, k)
		}
	}
}

// sameObituary reports whether two parts are of one obituary.
func sameObituary(a, b ObituaryPart) bool {
	return a.Parts == b.Parts && a.Size == b.Size && a.Boot == b.Boot && a.Cause == b.Cause && a.Evidence == b.Evidence &&
		a.Kernel == b.Kernel && a.Cluster == b.Cluster && a.Time.Equal(b.Time)
}
