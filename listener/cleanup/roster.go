package cleanup

import (
	"slices"
	"time"
)

// roster tells from records who lives. Signs of life are compared with each other only, never with our clock: it counts
// how long no newer one was seen.
type roster struct {
	lives   map[string]life
	orphans map[string]time.Time // fence → since when its record is missing
}

type life struct {
	sign time.Time // the newest Record.OwnerSeen of an owner
	at   time.Time // when it was seen first
}

// due lists the unfinished records that want a new owner: those of replicas that fell silent, and those that bear our
// name, which is what a restart leaves behind.
func (r *roster) due(now time.Time, me string, records []Record) (due []Record) {
	lives := map[string]life{}
	for _, rec := range records {
		l, ok := lives[owner(rec)]
		if !ok {
			l = r.lives[owner(rec)]
		}
		if l.at.IsZero() || rec.OwnerSeen.After(l.sign) {
			l = life{rec.OwnerSeen, now}
		}
		lives[owner(rec)] = l
	}
	r.lives = lives
	for _, rec := range records {
		if rec.unfinished() && (rec.Owner == me || now.Sub(lives[owner(rec)].at) >= patience) {
			due = append(due, rec)
		}
	}
	return due
}

// owner is under whose name rec's signs of life are filed. A record whose status was never written is nobody's.
func owner(rec Record) string {
	if rec.Owner == "" {
		return "nobody, of " + rec.Name
	}
	return rec.Owner
}

// unfinished reports whether somebody should be at work.
func (r Record) unfinished() bool { return r.Phase == Claimed || r.Phase == "" }

// fenceAnswer is what to do about a fence.
type fenceAnswer int

const (
	keep  fenceAnswer = iota
	lift              // it has done its work
	adopt             // it names a record that is not there
)

// fence judges the fence on n. The Node may be read from a cache: whoever acts on the answer reads it again.
func (r *roster) fence(now time.Time, n Node, records []Record) fenceAnswer {
	if n.Mark.Record == "" {
		return keep // our taint without our mark: somebody else's business
	}
	i := slices.IndexFunc(records, func(rec Record) bool { return rec.Name == n.Mark.Record })
	if i < 0 {
		if r.orphans == nil {
			r.orphans = map[string]time.Time{}
		}
		since, ok := r.orphans[n.Mark.Record]
		if !ok {
			r.orphans[n.Mark.Record] = now
			return keep
		}
		if now.Sub(since) < orphanAfter {
			return keep
		}
		return adopt
	}
	delete(r.orphans, n.Mark.Record)
	switch rec := records[i]; {
	case rec.Phase == Refused:
		return lift
	case !rec.unfinished() && n.Ready && n.BootID != n.Mark.Boot:
		return lift
	}
	return keep
}

// expired lists the finished records that are too old or too many, but none that a fence still names.
func expired(now time.Time, p Policy, records []Record, marked []Node) (old []Record) {
	finished := slices.DeleteFunc(slices.Clone(records), func(r Record) bool {
		return (r.Phase != Cleaned && r.Phase != Refused) ||
			slices.ContainsFunc(marked, func(n Node) bool { return n.Mark.Record == r.Name })
	})
	slices.SortFunc(finished, func(a, b Record) int { return b.Created.Compare(a.Created) })
	for i, r := range finished {
		if (i >= p.KeepRecords || now.Sub(r.Created) > p.KeepRecordsFor) && len(old) < deletedAtOnce {
			old = append(old, r)
		}
	}
	return old
}
