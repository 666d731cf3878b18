package listener

import (
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// enoughSteps is how many times the clock of a log has to move before its direction is known.
	enoughSteps = 8
	// maxHeld and maxHeldBytes bound what is held of a log whose newest line is first. A longer one is judged in pieces.
	maxHeld      = 1 << 16
	maxHeldBytes = 16 << 20
)

// A logOrder puts the records of a log in order: stores (Splunk, Kibana, Loki, CloudWatch Insights) export the newest one first. It
// holds the first ones until it knows the direction, and all of a log that is backwards.
type logOrder struct {
	held    []netconsole.Record
	bytes   int
	known   bool // in which direction the log is
	forward int  // steps of its clock
	back    int
	host    string // of the last record
	last    time.Duration
}

// push takes the next record of the log, and emits those whose turn it is.
func (o *logOrder) push(r *netconsole.Record, emit func(*netconsole.Record)) {
	if o.known && !o.backwards() {
		emit(r)
		return
	}
	o.held, o.bytes = append(o.held, *r), o.bytes+len(r.Text)
	if at, ok := clockOf(r); ok {
		if host := field(r, detect.KeyHost); host == o.host {
			switch {
			case at > o.last:
				o.forward++
			case at < o.last:
				o.back++
			}
		} else {
			o.host = host
		}
		o.last = at
	}
	o.known = o.known || o.forward+o.back >= enoughSteps
	if o.known && !o.backwards() || len(o.held) == maxHeld || o.bytes > maxHeldBytes {
		o.flush(emit)
	}
}

// backwards reports whether the newest line is first. Two hosts, or two boots, may make a clock go back now and then.
func (o *logOrder) backwards() bool { return o.back > 2 && o.back > 2*o.forward }

// flush emits what is held.
func (o *logOrder) flush(emit func(*netconsole.Record)) {
	held := o.held
	o.held, o.bytes = nil, 0
	if o.backwards() {
		slices.Reverse(held)
	}
	for i := range held {
		emit(&held[i])
	}
}

// clockOf is what the clock of a record's line says.
func clockOf(r *netconsole.Record) (time.Duration, bool) {
	if r.Uptime >= 0 {
		return r.Uptime, true
	}
	return parseDate(field(r, detect.KeyTime))
}
