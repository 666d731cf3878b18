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
	Src         string           `json:"src"`
	Instance    string           `json:"instance"`
	Boot        string           `json:"boot"`
	Code        string           `json:"code"`
	Title       string           `json:"title"`
	Fingerprint string           `json:"fingerprint"`
	Fatal       bool             `json:"fatal"`
	Authority   detect.Authority `json:"authority"`
	Release     string           `json:"release"`
	Lines       int              `json:"lines"`
}

// maxLine bounds a line of a capture or log: a 64 KiB datagram in base64, with room.
const maxLine = 256 << 10

// LineError says which line of a capture or log is wrong, counted from 1.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// ReplayDatagrams judges a capture of datagrams and writes one JSON object per incident, in the order in which they
// were complete. Memory does not grow with the capture, and the same capture always gives the same. What is wrong with
// the capture is a *LineError.
func ReplayDatagrams(r io.Reader, w io.Writer, judge *detect.Config) error {
	p := newReplay(w, judge)
	return p.eachLine(r, func(line []byte) error {
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
			return fmt.Errorf("t is %g, want seconds", d.T)
		}
		p.advance(p.epoch.Add(time.Duration(math.Round(d.T * 1e9))))
		p.shard.Receive(p.now, d.Src, d.Payload)
		return nil
	})
}

// ReplayLog judges plain kernel log text, as dmesg or a serial console prints it. Such text has no sender and no
// facility, so its authority is never above text.
func ReplayLog(r io.Reader, w io.Writer, judge *detect.Config) error {
	p := newReplay(w, judge)
	p.now = p.epoch
	return p.eachLine(r, func(line []byte) error {
		rec, ok := detect.ParseLogLine(string(line))
		if !ok {
			return nil
		}
		// The log's own clock is the only one there is. It starts again at a reboot, time does not.
		if rec.Uptime >= 0 {
			p.advance(p.epoch.Add(rec.Uptime))
		}
		p.shard.Record(p.now, netip.AddrPort{}, &rec)
		return nil
	})
}

// replay is a shard that lives in the time of a capture, and a Sink that prints what it is offered, once per incident:
// when it is complete.
type replay struct {
	shard *receive.Shard
	epoch time.Time // t=0
	now   time.Time
	out   *json.Encoder
	err   error // of writing
}

func newReplay(w io.Writer, judge *detect.Config) *replay {
	p := &replay{epoch: time.Unix(0, 0).UTC(), out: json.NewEncoder(w)}
	p.out.SetEscapeHTML(false)
	p.shard = receive.NewShard(&receive.Config{Judge: judge, Sink: p, Metrics: new(receive.Metrics), Replay: true})
	return p
}

// advance lets every deadline pass until to. Time never goes back, whatever the capture says.
func (p *replay) advance(to time.Time) {
	for next := p.shard.Next(); !next.IsZero() && !next.After(to); next = p.shard.Next() {
		p.shard.Tick(next)
	}
	if p.now.IsZero() || to.After(p.now) {
		p.now = to
	}
}

// eachLine calls f for every line that is not blank, and lets the last incidents complete.
func (p *replay) eachLine(r io.Reader, f func(line []byte) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), maxLine)
	n := 0
	for sc.Scan() {
		n++
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		if err := f(sc.Bytes()); err != nil {
			return &LineError{n, err}
		}
		if p.err != nil {
			return p.err
		}
	}
	switch err := sc.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return &LineError{n + 1, fmt.Errorf("longer than %d bytes", maxLine)}
	case err != nil:
		return err
	}
	for next := p.shard.Next(); !next.IsZero(); next = p.shard.Next() {
		p.shard.Tick(next)
	}
	return p.err
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
	src := ""
	if inc.Source.IsValid() {
		src = inc.Source.String()
	}
	p.err = p.out.Encode(Replayed{
		T: inc.Time.Sub(p.epoch).Seconds(), Src: src, Instance: inc.Identity.Instance, Boot: inc.Identity.Boot,
		Code: inc.Cause, Title: inc.Title, Fingerprint: inc.Fingerprint, Fatal: inc.Verdict == detect.Dying,
		Authority: inc.Authority, Release: inc.Release, Lines: len(inc.Trace),
	})
	return true
}
