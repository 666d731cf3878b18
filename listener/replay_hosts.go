package listener

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// maxLogHosts bounds how many hosts of a log are told apart. The lines of any further one are taken for the last one's.
const maxLogHosts = 1 << 16

// logHosts are the machines whose kernels speak in a log, as that of a central syslog daemon. The zero value is ready.
type logHosts struct {
	all    []*logHost
	byName map[string]*logHost
	last   *logHost
}

// A logHost is one of them. An address stands for its name.
type logHost struct {
	name   string
	addr   netip.AddrPort // invalid if the log names none
	now    time.Time      // by the time of the replay
	uptime logClock
	dated  bool
	date   time.Duration // of the last line, if dated
}

// of is the host of a record. A line that names none is of the same host as the line before. A new one begins now.
func (l *logHosts) of(r *netconsole.Record, now time.Time) *logHost {
	name := field(r, detect.KeyHost)
	if l.last != nil && (name == "" || name == l.last.name || len(l.all) == maxLogHosts && l.byName[name] == nil) {
		return l.last
	}
	if known := l.byName[name]; known != nil {
		l.last = known
		return known
	}
	n := len(l.all)
	l.last = &logHost{name: name, now: now}
	if name != "" {
		l.last.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{0, 0, byte(n >> 8), byte(n)}), 1)
	}
	if n == 0 { // the time of the replay is the uptime of the first
		l.last.uptime = logClock{known: true, epoch: time.Unix(0, 0).UTC()}
		l.byName = make(map[string]*logHost)
	}
	l.all, l.byName[name] = append(l.all, l.last), l.last
	return l.last
}

// name is the name of the host that an address stands for, empty if it is none.
func (l *logHosts) name(addr netip.AddrPort) string {
	if !addr.Addr().Is4() || len(l.all) == 0 {
		return ""
	}
	of := addr.Addr().As4()
	return l.all[int(of[2])<<8|int(of[3])].name
}

// field is the value of a field of a record, empty if it has none.
func field(r *netconsole.Record, key string) string {
	for _, f := range r.Fields {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// read moves the host's time on to when a record was written, if that says so. It never goes back.
func (h *logHost) read(r *netconsole.Record) {
	if r.Uptime >= 0 {
		if at := h.uptime.at(h.now, r.Uptime); at.After(h.now) {
			h.now = at
		}
		return
	}
	last, dated := h.date, h.dated
	h.date, h.dated = parseDate(field(r, detect.KeyTime))
	if gap := (h.date - last).Abs(); dated && h.dated && gap >= longGap {
		h.now = h.now.Add(gap)
	}
}

// longGap is how far apart the dates of two lines have to be to count. Most have whole seconds, and are of when a daemon got the line:
// they do not measure the pauses within a report.
const longGap = time.Minute

// A logClock is the uptime in a log. It starts over at a reboot; the time of the replay does not.
type logClock struct {
	known bool
	last  time.Duration
	epoch time.Time // when it was zero
}

// setBack is how far a clock has to go back to have been set. Lines of several CPUs are a little out of order.
const setBack = 2 * time.Second

func (c *logClock) at(now time.Time, reads time.Duration) time.Time {
	if !c.known || reads < c.last-setBack {
		c.epoch = now.Add(-reads)
	}
	c.known, c.last = true, reads
	return c.epoch.Add(reads)
}

// date finds a date and a time of day that are written in numbers, or with an English month.
var date = lazyregexp.New(`^\D*(?:(\d{4})[-/.](\d\d)[-/.](\d\d)|.*?(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\pL* +(\d{1,2})).*?(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?`)

// epochTime is seconds, or less, since 1970.
var epochTime = lazyregexp.New(`^(\d{10})[.,]?(\d{0,9})(?:\D|$)`)

// parseDate is the time since some year, in no particular zone. ok is false if it cannot be read.
func parseDate(text string) (since time.Duration, ok bool) {
	if m := epochTime.FindStringSubmatch(text); m != nil {
		seconds, _ := strconv.Atoi(m[1])
		fraction, _ := strconv.Atoi((m[2] + "000000000")[:9])
		return time.Duration(seconds)*time.Second + time.Duration(fraction), true
	}
	m := date.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n := func(i int) int {
		n, _ := strconv.Atoi(m[i])
		return n
	}
	month := n(2)
	if m[4] != "" {
		month = 1 + strings.Index("JanFebMarAprMayJunJulAugSepOctNovDec", m[4])/3
	}
	fraction, _ := strconv.Atoi((m[9] + "000000000")[:9])
	at := time.Date(max(1970, n(1)), time.Month(month), n(3)+n(5), n(6), n(7), n(8), fraction, time.UTC)
	return at.Sub(time.Unix(0, 0)), true
}
