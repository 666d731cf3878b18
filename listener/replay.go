package listener

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// Datagram is one line of a capture.
type Datagram struct {
	T       float64        `json:"t"` // seconds since whatever the capture calls zero
	Src     netip.AddrPort `json:"src"`
	Payload []byte         `json:"payload_b64"`
}

// Replayed is one line of a replay's output.
type Replayed struct {
	T           float64          `json:"t"`
	Src         string           `json:"src"` // the host that a log names
	Instance    string           `json:"instance"`
	Boot        string           `json:"boot"`
	Verdict     detect.Verdict   `json:"verdict"`
	Code        string           `json:"code"` // the cause
	Title       string           `json:"title"`
	Fingerprint string           `json:"fingerprint"`
	Fatal       bool             `json:"fatal"`
	Authority   detect.Authority `json:"authority"`
	Release     string           `json:"release"`
	Lines       int              `json:"lines"`
}

// maxLine bounds a line of a capture or log: a 64 KiB datagram in base64, with room. The rest of a longer line of a log is
// ignored, unless it is JSON.
const maxLine = 256 << 10

// LineError says which line of a capture or log is wrong, counted from 1.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// Format is what a replay reads.
type Format string

const (
	// Auto decides by the first line: a capture has "payload_b64" in it.
	Auto Format = "auto"
	// Datagrams is a capture: one Datagram as JSON per line.
	Datagrams Format = "datagrams"
	// Log is a kernel log in any form that detect.LogReader knows.
	Log Format = "log"
)

// A Reading says how much of its input a replay recognised.
type Reading struct {
	Incidents int
	Kernel    int // lines that are marked as a kernel's, or datagrams
	// Line and Text are the first line that is not, 0 and "" if all are.
	Line int
	Text string
}

// Replay judges what it reads from in and writes one JSON object per incident, in the order in which they complete. Its
// memory is bounded, and the same input always gives the same output. A fault of the input is a *LineError. If the
// input cannot be read to its end, what comes before is judged.
//
// A log has no sender, and its facility proves nothing, so that its authority is never above text. The lines of each host that it names
// are judged on their own. If its newest line is first, it is turned round.
func Replay(in io.Reader, w io.Writer, judge *detect.Config, format Format) (Reading, error) {
	p := newReplay(w, judge)
	plain, err := decode(in)
	if err != nil {
		return p.reading, err
	}
	if format == Auto {
		format = guess(plain)
	}
	if format == Datagrams {
		err = p.eachLine(plain, p.datagram, nil)
	} else {
		err = p.replayLog(plain)
	}
	if wrong := new(LineError); errors.As(err, &wrong) {
		return p.reading, err
	}
	p.finish()
	if err == nil {
		err = p.err
	}
	return p.reading, err
}

// guess reads the beginning of the input without taking it.
func guess(in *bufio.Reader) Format {
	begin, _ := in.Peek(maxLine)
	for line := range bytes.Lines(begin) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if line[0] == '{' && bytes.Contains(line, []byte(`"payload_b64"`)) {
			return Datagrams
		}
		break
	}
	return Log
}

// datagram judges one line of a capture.
func (p *replay) datagram(line []byte, cut bool) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	if cut {
		return fmt.Errorf("the line is longer than %d bytes", maxLine)
	}
	var d Datagram
	if err := json.Unmarshal(line, &d); err != nil {
		return plainJSON(err)
	}
	const years = 100 * 365 * 24 * 3600.0
	switch {
	case !d.Src.IsValid():
		return errors.New(`"src" is missing; want "ip:port"`)
	case d.Payload == nil:
		return errors.New(`"payload_b64" is missing; want the datagram in base64`)
	case d.T < -years || d.T > years:
		return fmt.Errorf(`"t" is %g; want seconds`, d.T)
	}
	p.reading.Kernel++
	p.advance(p.epoch.Add(time.Duration(math.Round(d.T * 1e9))))
	p.shard.Receive(p.now, d.Src, d.Payload)
	return nil
}

// replayLog judges a log. Each host in it has a time of its own: no pause of one ends another's report.
func (p *replay) replayLog(in *bufio.Reader) error {
	p.now = p.epoch
	var log detect.LogReader
	judge := func(rec *netconsole.Record) {
		h := p.hosts.of(rec, p.now)
		h.read(rec)
		if h.now.After(p.now) {
			p.now = h.now
		}
		p.shard.Record(h.now, h.addr, rec)
	}
	var order logOrder
	push := func(rec *netconsole.Record) { order.push(rec, judge) }
	err := p.eachLine(in, func(line []byte, _ bool) error {
		log.Line(string(line), push)
		return nil
	}, func(rest []byte) { log.More(string(rest), push) })
	log.Flush(push)
	order.flush(judge)
	p.reading.Kernel = log.Kernel()
	p.reading.Line, p.reading.Text = log.Unrecognised()
	return err
}

// replay is a shard that runs in the time of a capture, and a Sink that prints each incident once, when it is complete.
type replay struct {
	shard *receive.Shard
	epoch time.Time // t=0
	now   time.Time
	out   *json.Encoder
	hosts logHosts
	err   error // of writing

	reading Reading
}

func newReplay(w io.Writer, judge *detect.Config) *replay {
	p := &replay{epoch: time.Unix(0, 0).UTC(), out: json.NewEncoder(w)}
	p.out.SetEscapeHTML(false)
	p.shard = receive.NewShard(&receive.Config{Judge: judge, Sink: p, Metrics: new(receive.Metrics), Replay: true})
	return p
}

// advance moves time on to to and lets the deadlines on the way pass. Time never goes back, whatever the capture says.
func (p *replay) advance(to time.Time) {
	for next := p.shard.Next(); !next.IsZero() && !next.After(to); next = p.shard.Next() {
		p.shard.Tick(next)
	}
	if p.now.IsZero() || to.After(p.now) {
		p.now = to
	}
}

// eachLine calls f for every line, without its newline. Of a line longer than maxLine f gets the beginning, and true, and more, if
// there is one, the rest in pieces.
func (p *replay) eachLine(in *bufio.Reader, f func(line []byte, cut bool) error, more func(rest []byte)) error {
	for n := 1; ; n++ {
		line, cut, err := in.ReadLine()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && n > 1 {
			return fmt.Errorf("line %d and what follows cannot be read: %w; what comes before was judged", n, err)
		}
		if err != nil {
			return err
		}
		if err := f(line, cut); err != nil {
			return &LineError{n, err}
		}
		for cut {
			if line, cut, err = in.ReadLine(); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("the rest of line %d cannot be read: %w; what comes before was judged", n, err)
			}
			if more != nil {
				more(line)
			}
		}
		if p.err != nil {
			return p.err
		}
	}
}

// finish lets every open incident complete.
func (p *replay) finish() {
	for next := p.shard.Next(); !next.IsZero(); next = p.shard.Next() {
		p.shard.Tick(next)
	}
}

// plainJSON says what is wrong with a line without speaking of Go.
func plainJSON(err error) error {
	if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
		return fmt.Errorf("%q is a %s", wrong.Field, wrong.Value)
	}
	return fmt.Errorf("not a JSON object: %w", err)
}

func (p *replay) Canary(netip.Addr, netconsole.Identity, time.Time) bool { return true }

func (p *replay) Offer(inc detect.Incident) bool {
	if !inc.Complete || p.err != nil {
		return true
	}
	p.reading.Incidents++
	src := p.hosts.name(inc.Source)
	if src == "" && inc.Source.IsValid() {
		src = inc.Source.String()
	}
	p.err = p.out.Encode(Replayed{
		T: inc.Time.Sub(p.epoch).Seconds(), Src: src, Instance: inc.Identity.Instance, Boot: inc.Identity.Boot,
		Verdict: inc.Verdict, Code: inc.Cause, Title: inc.Title, Fingerprint: inc.Fingerprint, Fatal: inc.Verdict == detect.Dying,
		Authority: inc.Authority, Release: inc.Release, Lines: len(inc.Trace),
	})
	return true
}
