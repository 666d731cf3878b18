package cleanup

import (
	"cmp"
	"maps"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// roster tells from Leases which replicas are alive. Renewal times are only compared with each other, never with our clock,
// which counts for how long no newer one was seen.
type roster struct {
	seen    map[string]renewal   // by replica
	orphans map[string]time.Time // Node → since when the death of its fence is missing
	sweeps  map[string]sweeps    // by death
}

type renewal struct {
	renewed time.Time // what the Lease said last; zero if there is none
	at      time.Time // when that was seen first
}

// sweeps says when the pods of a node that stays dead are listed again: first soon after the fail-over, then ever less often.
type sweeps struct {
	next time.Time
	n    int
}

// due reports whether it is time now, and counts that as done.
func (s *sweeps) due(now time.Time) bool {
	if now.Before(s.next) {
		return false
	}
	s.next = now.Add(min(firstSweep<<min(s.n, 10), longestSweep))
	s.n++
	return true
}

// due lists the deaths at work that need a new owner: those of replicas that fell silent, and those under our name, which a
// restart leaves behind.
func (r *roster) due(now time.Time, me string, deaths []policy.Death, replicas []Replica) (due []policy.Death) {
	seen := map[string]renewal{}
	see := func(name string, renewed time.Time) {
		last, ok := r.seen[name]
		if !ok || !last.renewed.Equal(renewed) {
			last = renewal{renewed, now}
		}
		seen[name] = last
	}
	for _, replica := range replicas {
		see(replica.Name, replica.Renewed)
	}
	for _, d := range deaths {
		if _, ok := seen[ownerOf(d)]; d.Phase.AtWork() && !ok {
			see(ownerOf(d), time.Time{})
		}
	}
	r.seen = seen
	for _, d := range deaths {
		if d.Phase.AtWork() && (d.Owner == me || r.silent(now, ownerOf(d))) {
			due = append(due, d)
		}
	}
	return due
}

// living says which of the other replicas renew their Leases.
func (r *roster) living(now time.Time, me string, replicas []Replica) map[string]bool {
	living := make(map[string]bool, len(replicas))
	for _, replica := range replicas {
		living[replica.Name] = replica.Name != me && !r.silent(now, replica.Name)
	}
	return living
}

// silent reports whether a replica that was seen, or that owns a death at work, has not renewed its Lease for too long.
func (r *roster) silent(now time.Time, name string) bool {
	last, ok := r.seen[name]
	return ok && now.Sub(last.at) >= takeoverAfter
}

// ownerOf is the name under which d's owner is watched. A death whose status was never written has no owner, and gets a name
// of its own.
func ownerOf(d policy.Death) string { return cmp.Or(d.Owner, "nobody, of "+d.Name) }

// fenceAnswer is what to do about a fence.
type fenceAnswer int

const (
	keepFence  fenceAnswer = iota
	liftFence              // it has done its work
	adoptFence             // it names a death that is not there
	sweepNode              // its death is cleaned up, and its node stays dead
)

// fence judges the fence on n; d is the death of n that it names, zero if there is none. The Node may be read from a cache:
// whoever acts on the answer reads it again.
func (r *roster) fence(now time.Time, n policy.Node, d policy.Death) fenceAnswer {
	if n.Mark.Death == "" {
		return keepFence // our taint without our mark: somebody else put it there
	}
	if d.Name == "" {
		if r.orphans == nil {
			r.orphans = map[string]time.Time{}
		}
		since, ok := r.orphans[n.Name]
		if !ok {
			r.orphans[n.Name] = now
		}
		if !ok || now.Sub(since) < orphanAfter {
			return keepFence
		}
		return adoptFence
	}
	delete(r.orphans, n.Name)
	switch {
	case d.Phase == policy.Refused, d.Phase == policy.Recorded:
		return liftFence
	case d.Phase.AtWork():
		return keepFence
	case n.BootID != n.Mark.Boot:
		return liftFence
	case d.Phase != policy.Held && n.Silent && now.Sub(d.Time) < sweepFor:
		return sweepNode
	}
	return keepFence
}

// sweepDue reports whether the pods on the node of d are to be listed again, by us if d is ours or its owner is silent.
func (r *roster) sweepDue(now time.Time, d policy.Death, me string) bool {
	if _, watched := r.seen[ownerOf(d)]; d.Owner != me && watched && !r.silent(now, ownerOf(d)) {
		return false
	}
	s := r.sweeps[d.Name]
	if !s.due(now) {
		return false
	}
	maps.DeleteFunc(r.sweeps, func(_ string, s sweeps) bool { return now.Sub(s.next) > longestSweep })
	if r.sweeps == nil {
		r.sweeps = map[string]sweeps{}
	}
	r.sweeps[d.Name] = s
	return true
}
