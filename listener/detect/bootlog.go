package detect

import (
	"bytes"
	"net/netip"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// anotherBoot is how far the uptime has to go back to show that another boot began. Consoles print records of several CPUs
// a little out of order.
const anotherBoot = 2 * time.Second

// userspace is the Prefix of a line that a program wrote: facility user.
const userspace = 1 << 3

// A BootLog is what a kernel log says of one boot: a serial console's, for instance, or what pstore kept. Anybody who can
// write to the log could have written it.
type BootLog struct {
	// Boot is the boot id in the last canary, empty if there is none.
	Boot string
	// Death is the incident that the log of this boot ends in. It is zero if there is none, or if the kernel lived on after
	// it. It carries no time and no identity.
	Death Incident
	// Survived is the last oops that the kernel lived on after, likewise; zero if there is none, or if Death is set.
	Survived Incident
	// Uptime is that of the last line with a time stamp, zero if there is none.
	Uptime time.Duration
}

// ReadBootLogs reads a kernel log and returns what it says of each boot, oldest first. A boot begins with the kernel's
// banner, or where the uptime goes back. If any line has a time stamp, lines without one are not the kernel's: programs
// write to consoles, too. With fatal an oops is a death: whoever kept the log knows that the kernel died.
func ReadBootLogs(cfg *Config, text string, fatal bool) []BootLog {
	var (
		log     LogReader
		records []netconsole.Record
		stamped bool
	)
	collect := func(r *netconsole.Record) {
		records = append(records, *r)
		stamped = stamped || r.Uptime >= 0
	}
	for line := range strings.Lines(text) {
		log.Line(strings.TrimRight(line, "\r\n"), collect)
	}
	log.Flush(collect)

	var all []BootLog
	var here *bootLogReader
	for i := range records {
		r := &records[i]
		if stamped && r.Uptime < 0 {
			r.Prefix = userspace
		}
		if here == nil || here.endedBy(r) {
			if here != nil {
				all = append(all, here.end())
			}
			here = &bootLogReader{cfg: cfg, now: time.Unix(0, 0), fatal: fatal, panicOnOops: fatal, kdump: fatal}
			here.listen()
		}
		here.push(r)
	}
	if here != nil {
		all = append(all, here.end())
	}
	return all
}

// bootLogReader reads the log of one boot. Its clock is the log's own.
type bootLogReader struct {
	cfg    *Config
	source *Source
	now    time.Time // the uptime, on top of 1970
	began  bool      // it has a record
	fatal  bool      // an oops is a death, whatever the kernel's settings
	log    BootLog

	panicOnOops, kdump bool // as SetFatal takes them
}

// listen begins anew, as if nothing was read before.
func (b *bootLogReader) listen() {
	b.source = NewSource(b.cfg, netip.AddrPort{})
	b.source.SetFatal(b.panicOnOops, b.kdump)
}

// endedBy reports whether r belongs to another boot.
func (b *bootLogReader) endedBy(r *netconsole.Record) bool {
	banner := bytes.HasPrefix(r.Text, []byte(bootBanner)) && r.Facility() <= 0
	return b.began && (banner || r.Uptime >= 0 && time.Unix(0, 0).Add(r.Uptime+anotherBoot).Before(b.now))
}

func (b *bootLogReader) push(r *netconsole.Record) {
	b.began = true
	if at := time.Unix(0, 0).Add(r.Uptime); r.Uptime >= 0 && at.After(b.now) {
		b.now = at
	}
	c, canary := r.Canary()
	if canary {
		b.log.Boot = c.Boot
		b.panicOnOops, b.kdump = b.fatal || c.Facts.PanicOnOops, b.fatal || c.Facts.Kdump
		b.source.SetFatal(b.panicOnOops, b.kdump)
	}
	if b.log.Death.Verdict == Dying && (canary || b.now.Sub(b.log.Death.Time) > sameDeath) {
		b.log.Survived, b.log.Death = b.log.Death, Incident{} // somebody runs on this kernel
		b.listen()
	}
	b.source.Push(b.now, r, b.incident)
}

func (b *bootLogReader) incident(inc Incident) {
	switch inc.Verdict {
	case Dying:
		b.log.Death = inc
	case Oops:
		b.log.Survived = inc
	}
}

// end is what the log said of the boot.
func (b *bootLogReader) end() BootLog {
	b.source.Flush(b.now.Add(time.Hour), b.incident)
	if b.log.Death.Verdict == Dying {
		b.log.Survived = Incident{}
	}
	for _, inc := range []*Incident{&b.log.Death, &b.log.Survived} {
		inc.Time, inc.Identity = time.Time{}, netconsole.Identity{}
	}
	b.log.Uptime = b.now.Sub(time.Unix(0, 0))
	return b.log
}
