package listener

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
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

// ReplayDatagrams judges a capture of datagrams and writes one JSON object per incident, in the order of the incidents'
// last records. Memory does not grow with the capture.
func ReplayDatagrams(r io.Reader, w io.Writer, judge *detect.Config) error {
	out := newReplay(w)
	sh := newShard(judge, out, &Coverage{}, NewMetrics(nopRegisterer{}))
	var now time.Time
	err := eachLine(r, func(n int, line []byte) error {
		var d Datagram
		if err := json.Unmarshal(line, &d); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		now = out.epoch.Add(time.Duration(d.T * float64(time.Second)))
		for next := sh.tick(now); !next.IsZero() && !next.After(now); {
			next = sh.tick(now)
		}
		sh.receive(now, d.Src, d.Payload)
		return out.err
	})
	if err != nil {
		return err
	}
	drain(sh, now)
	return out.err
}

// ReplayLog judges plain kernel log text, as dmesg or a serial console prints it. Such text has no sender and no
// facility, so its authority is never above text.
func ReplayLog(r io.Reader, w io.Writer, judge *detect.Config) error {
	out := newReplay(w)
	sh := newShard(judge, out, &Coverage{}, NewMetrics(nopRegisterer{}))
	src := sh.source(out.epoch, netip.AddrPort{})
	now := out.epoch
	err := eachLine(r, func(_ int, line []byte) error {
		rec, ok := detect.ParseLogLine(string(line))
		if !ok {
			return nil
		}
		// The log's own clock is the only one there is. It starts again at a reboot, time does not.
		if at := out.epoch.Add(rec.Uptime); rec.Uptime >= 0 && at.After(now) {
			now = at
		}
		sh.tick(now)
		sh.record(now, src, &rec)
		sh.schedule(now, src)
		return out.err
	})
	if err != nil {
		return err
	}
	drain(sh, now)
	return out.err
}

// drain lets every deadline pass, so that the last incidents complete.
func drain(sh *shard, now time.Time) {
	for next := sh.tick(now); !next.IsZero(); next = sh.tick(next) {
	}
}

func eachLine(r io.Reader, f func(n int, line []byte) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), maxLine)
	n := 0
	for sc.Scan() {
		n++
		if len(strings.TrimSpace(string(sc.Bytes()))) == 0 {
			continue
		}
		if err := f(n, sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

// replay is a Sink that prints what it is offered, once per incident: when it is complete.
type replay struct {
	enc   *json.Encoder
	epoch time.Time
	err   error
}

func newReplay(w io.Writer) *replay {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &replay{enc: enc, epoch: time.Unix(0, 0).UTC()}
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
	p.err = p.enc.Encode(Replayed{
		T: inc.Time.Sub(p.epoch).Seconds(), Src: src, Instance: inc.Identity.Instance, Boot: inc.Identity.Boot,
		Code: inc.Code, Title: inc.Title, Fingerprint: inc.Fingerprint, Fatal: inc.Verdict == detect.Dying,
		Authority: inc.Authority, Release: inc.Release, Lines: len(inc.Trace),
	})
	return true
}
