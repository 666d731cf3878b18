package listener

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	// maxUnshipped bounds, in bytes, the lines that wait to be written.
	maxUnshipped = 8 << 20
	// shipLinger is how long Run may take to write the last lines.
	shipLinger = time.Second
)

// Shipper writes every kernel record as one JSON line, for a log shipper to pick up. A slow reader loses records, which are
// counted; nothing waits for it.
type Shipper struct {
	w       io.Writer
	metrics *Metrics
	log     *slog.Logger

	mu    sync.Mutex // held to append or to swap, never to write
	lines []byte
	more  chan struct{}
}

// NewShipper returns a Shipper that writes to w once Run runs.
func NewShipper(w io.Writer, m *Metrics, log *slog.Logger) *Shipper {
	return &Shipper{w: w, metrics: m, log: log, more: make(chan struct{}, 1)}
}

// shipped is a record as it is written. Its secret is left out.
type shipped struct {
	Time     time.Time         `json:"time"` // of arrival
	Source   netip.AddrPort    `json:"source"`
	Instance string            `json:"instance,omitempty"`
	Boot     string            `json:"boot,omitempty"`
	Release  string            `json:"release,omitempty"`
	Facility *int              `json:"facility,omitempty"` // basic records have neither
	Level    *int              `json:"level,omitempty"`
	Seq      *uint64           `json:"seq,omitempty"`
	Uptime   *float64          `json:"uptime,omitempty"` // seconds
	Caller   string            `json:"caller,omitempty"`
	Cont     bool              `json:"cont,omitempty"`
	Text     string            `json:"text"`
	Fields   map[string]string `json:"fields,omitempty"`
	Missing  int               `json:"missing,omitempty"` // bytes, at least
}

// Record implements receive.Records. It never waits.
func (p *Shipper) Record(now time.Time, from netip.AddrPort, r *netconsole.Record) {
	if r.Partial {
		return // it is emitted again
	}
	line, err := json.Marshal(newShipped(now, from, r))
	if err != nil {
		p.metrics.shipDropped.Inc()
		return
	}
	p.mu.Lock()
	fits := len(p.lines)+len(line) < maxUnshipped
	if fits {
		p.lines = append(append(p.lines, line...), '\n')
	}
	p.mu.Unlock()
	if !fits {
		p.metrics.shipDropped.Inc()
		return
	}
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func newShipped(now time.Time, from netip.AddrPort, r *netconsole.Record) shipped {
	id := r.Identity()
	s := shipped{
		Time: now.UTC(), Source: from, Instance: id.Instance, Boot: id.Boot, Release: r.Release, Caller: r.Caller,
		Cont: r.Cont, Text: printableLines(string(r.Text)), Missing: r.Missing,
	}
	if r.Extended {
		facility, level, seq := r.Facility(), r.Level(), r.Seq
		s.Facility, s.Level, s.Seq = &facility, &level, &seq
	}
	if r.Uptime >= 0 {
		seconds := r.Uptime.Seconds()
		s.Uptime = &seconds
	}
	for _, f := range r.Fields {
		switch f.Key {
		case "", netconsole.KeySecret, netconsole.KeyInstance, netconsole.KeyBoot:
			continue
		}
		if s.Fields == nil {
			s.Fields = make(map[string]string)
		}
		if _, twice := s.Fields[netconsole.Printable(f.Key)]; !twice {
			s.Fields[netconsole.Printable(f.Key)] = printableLines(f.Value)
		}
	}
	return s
}

// printableLines is netconsole.Printable for each line of a text. JSON escapes the newlines.
func printableLines(text string) string {
	if !strings.Contains(text, "\n") {
		return netconsole.Printable(text)
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = netconsole.Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// Run writes until ctx ends, and then what is left, unless that takes longer than a second.
func (p *Shipper) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.writeAll(ctx)
	}()
	<-ctx.Done()
	select {
	case <-done:
	case <-time.After(shipLinger): // nobody reads
	}
	return nil
}

func (p *Shipper) writeAll(ctx context.Context) {
	var spare []byte
	failing := false
	for last := false; !last; {
		select {
		case <-p.more:
		case <-ctx.Done():
			last = true
		}
		p.mu.Lock()
		lines := p.lines
		p.lines = spare[:0]
		p.mu.Unlock()
		if len(lines) == 0 {
			continue
		}
		n, err := p.w.Write(lines)
		if (err != nil) != failing {
			if failing = err != nil; failing {
				p.log.Error("records not shipped", "err", err)
			} else {
				p.log.Info("records shipped again")
			}
		}
		p.metrics.shipped.Add(float64(bytes.Count(lines[:n], []byte{'\n'})))
		p.metrics.shipDropped.Add(float64(bytes.Count(lines[n:], []byte{'\n'})))
		spare = lines
	}
}
