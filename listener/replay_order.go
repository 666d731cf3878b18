package listener

import (
	"cmp"
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
	last    map[string]logTime // of each host's last line: clocks differ
}

// A logTime is what a line says of its time.
type logTime struct {
	stamped bool // it says the uptime
	uptime  time.Duration
	dated   bool
	date    time.Duration
}

// push takes the next record of the log, and emits those whose turn it is.
func (o *logOrder) push(r *netconsole.Record, emit func(*netconsole.Record)) {
	if o.known && !o.backwards() {
		emit(r)
		return
	}
	o.held, o.bytes = append(o.held, *r), o.bytes+len(r.Text)
	for _, f := range r.Fields {
		o.bytes += len(f.Value)
	}
	if step := o.step(r); step > 0 {
		o.forward++
	} else if step < 0 {
		o.back++
	}
	o.known = o.known || o.forward+o.back >= enoughSteps
	if o.known && !o.backwards() || len(o.held) == maxHeld || o.bytes > maxHeldBytes {
		o.flush(emit)
	}
}

// backwards reports whether the newest line is first. Two boots, or two files, may make a clock go back now and then.
func (o *logOrder) backwards() bool { return o.back > 2 && o.back > 2*o.forward }

// flush emits what is held.
func (o *logOrder) flush(emit func(*netconsole.Record)) {
	held := o.held
	o.held, o.bytes, o.last = nil, 0, nil
	if o.backwards() {
		slices.Reverse(held)
	}
	for i := range held {
		emit(&held[i])
	}
}

// step reports whether a record is younger (1) or older (-1) than the last one of its host, 0 if nothing says so: by the dates, and
// within the same second by the uptimes.
func (o *logOrder) step(r *netconsole.Record) int {
	this := logTime{stamped: r.Uptime >= 0, uptime: r.Uptime}
	this.date, this.dated = parseDate(field(r, detect.KeyTime))
	host := field(r, detect.KeyHost)
	last := o.last[host]
	if o.last == nil {
		o.last = make(map[string]logTime)
	}
	o.last[host] = this
	switch {
	case last.dated && this.dated && last.date != this.date:
		return cmp.Compare(this.date, last.date)
	case last.stamped && this.stamped:
		return cmp.Compare(this.uptime, last.uptime)
	}
	return 0
}
