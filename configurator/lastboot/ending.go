package lastboot

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Where an Ending is known from.
const (
	Pstore   = "pstore"
	Kdump    = "kdump"
	Watchdog = "watchdog" // its bootstatus
	Firmware = "firmware" // ACPI's boot error record, or what the new kernel logged about the reset
	Shutdown = "ledger"   // its mark
	Nothing  = "none"
)

// Ending is how a boot ended.
type Ending struct {
	Boot   string    `json:"boot"`
	Kernel string    `json:"kernel,omitempty"`
	Since  time.Time `json:"since"` // when it was entered
	// Cause is a stable word: netconsole.CauseOrderly, netconsole.CauseUnexplained, or what killed it.
	Cause string `json:"cause"`
	// Title is the cause in a few words, as a kernel engineer would say it; empty if there are none.
	Title    string    `json:"title,omitempty"`
	Line     string    `json:"line,omitempty"` // of Text, that the cause was read from
	Evidence string    `json:"evidence"`
	Time     time.Time `json:"time,omitzero"` // when it ended, zero if unknown
	// Text is the last lines of its kernel, or those that prove another cause; at most netconsole.MaxObituary.
	Text string `json:"text,omitempty"`
	// Entries are the files of pstore that Text was read from, below the root.
	Entries []string `json:"entries,omitempty"`
	// Acknowledged is when a listener took this in, zero if none has yet.
	Acknowledged time.Time `json:"acknowledged,omitzero"`
}

// Orderly reports whether a system shutdown ended the boot.
func (e Ending) Orderly() bool { return e.Cause == netconsole.CauseOrderly }

// Obituary is the ending as it is sent to listeners of the cluster.
func (e Ending) Obituary(cluster string) netconsole.Obituary {
	return netconsole.Obituary{
		Boot: e.Boot, Cause: e.Cause, Evidence: e.Evidence, Kernel: e.Kernel, Cluster: cluster, Time: e.Time, Text: []byte(e.Text),
	}
}

// examine finds out how the boot of the former ledger ended. Nil means that there is none, or that it is another machine's.
func examine(root machine.Root, former *Ledger, current Ledger) (*Ending, store) {
	found := readStore(root, former)
	if former == nil || !former.sameMachine(current) {
		return nil, found
	}
	e := conclude(*former, current, found.dumps, traces(root))
	if e.Evidence == Nothing && !former.Guarded {
		return nil, found
	}
	if e.Evidence == Nothing && e.Title == "" && found.unread > 0 {
		e.Title = fmt.Sprintf("pstore has entries that cannot be read here (%d): perhaps the old kernel had another pstore.compress", found.unread)
	}
	return &e, found
}

// conclude judges the evidence: the last words of the kernel count most, then a mark of the shutdown, then traces of the hardware.
// An oops that the kernel survived is added to them, but ended nothing.
func conclude(former, current Ledger, dumps []dump, traces []trace) Ending {
	e := Ending{
		Boot: former.Boot, Kernel: former.Kernel, Since: former.Since,
		Cause: netconsole.CauseUnexplained, Evidence: Nothing, Time: former.Ending,
	}
	d := choose(former, current, dumps)
	var lived string // the lines of an oops that it survived
	if d != nil && former.Ending.IsZero() && d.survived() {
		lived, e.Entries = lastLines(d.text, netconsole.MaxObituary), d.entries
	}
	switch {
	case d != nil && (d.fatal || former.Ending.IsZero() && !d.survived()):
		e.Evidence, e.Text, e.Entries = d.source, lastLines(d.text, netconsole.MaxObituary), d.entries
		e.Cause, e.Title, e.Line = judge(e.Text, d.fatal)
		if e.Time = d.time; e.Time.Before(former.Since) || !set(e.Time) {
			e.Time = time.Time{} // that clock was not set, or it would have ended before it began
		}
	case !former.Ending.IsZero():
		e.Cause, e.Evidence = netconsole.CauseOrderly, Shutdown
	case len(traces) > 0:
		e.Cause, e.Title, e.Evidence = traces[0].cause, traces[0].line, traces[0].evidence
		var text strings.Builder
		for _, t := range traces {
			text.WriteString(t.line + "\n")
		}
		e.Text = lastLines([]byte(text.String()), netconsole.MaxObituary)
		e.Text += lastLines([]byte(lived), netconsole.MaxObituary-len(e.Text))
	case lived != "":
		e.Text = lived
		if title := d.log.Survived.Title; title != "" {
			e.Title = "its kernel had oopsed before: " + title
		}
	}
	return e
}

// canaryBoot is the boot in a canary that was logged.
var canaryBoot = lazyregexp.New(`lastgasp: canary v1 nonce=[0-9a-f]{32} [^\n]*?\bboot=(\S+)`)

// choose returns the dump that says most about the end of the boot; nil if there is none. A canary in it says which boot it is of.
// Without one it is the first after the boot was entered: later ones are of boots that died before they were entered.
func choose(former, current Ledger, dumps []dump) *dump {
	var best *dump
	rank := func(d *dump) (r int) {
		if d.boot == former.Boot {
			r++
		}
		if d.kind != console { // a dump says the same, and when
			r += 2
		}
		if d.fatal {
			r += 4
		}
		return r
	}
	for i := range dumps {
		d := &dumps[i]
		if d.known || d.orderly() || !d.of(former, current) {
			continue
		}
		if best == nil || rank(d) > rank(best) || rank(d) == rank(best) && d.time.Before(best.time) {
			best = d
		}
	}
	return best
}

// judge names the cause of death in the kernel's last lines, as a listener would. fatal says that they are the last words of a
// kernel that died of them.
func judge(text string, fatal bool) (cause, title, line string) {
	var cfg detect.Config
	source := detect.NewSource(&cfg, netip.AddrPort{})
	source.SetFatal(fatal, fatal)
	var incidents []detect.Incident
	var lines []string // that decided each
	current, deciding := "", ""
	keep := func(inc detect.Incident) {
		switch {
		case inc.Verdict == detect.Sick:
		case !inc.Complete && deciding == "":
			deciding = current
		case inc.Complete:
			incidents, lines = append(incidents, inc), append(lines, deciding)
			deciding = ""
		}
	}
	epoch := time.Unix(0, 0)
	now := epoch
	var reader detect.LogReader
	push := func(r *netconsole.Record) {
		if at := epoch.Add(r.Uptime); r.Uptime > 0 && at.After(now) {
			now = at
		}
		current = string(r.Text)
		source.Push(now, r, keep)
	}
	for line := range strings.Lines(text) {
		reader.Line(strings.TrimRight(line, "\r\n"), push)
	}
	reader.Flush(push)
	source.Flush(now.Add(time.Hour), keep)
	if len(incidents) == 0 {
		if fatal {
			return "KernelPanic", "", ""
		}
		return netconsole.CauseUnexplained, "", ""
	}
	worst := 0
	for i, inc := range incidents {
		if inc.Verdict > incidents[worst].Verdict {
			worst = i
		}
	}
	return incidents[worst].Cause, incidents[worst].Title, lines[worst]
}

// maxLines is how many lines of the old kernel WriteText prints.
const maxLines = 20

// WriteText prints the ending for people, with the old kernel's lines from the one that proves the cause.
func (e Ending) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "boot\t%s, kernel %s, entered %s\n", e.Boot, cmp.Or(e.Kernel, "unknown"), e.Since.UTC().Format(time.RFC3339))
	switch {
	case e.Time.IsZero():
		fmt.Fprintln(t, "ended\tat an unknown time")
	default:
		fmt.Fprintf(t, "ended\t%s\n", e.Time.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(t, "cause\t%s\n", e.Summary())
	fmt.Fprintf(t, "evidence\t%s\n", e.Evidence)
	if e.Acknowledged.IsZero() {
		fmt.Fprintln(t, "listener\thas not acknowledged it")
	} else {
		fmt.Fprintf(t, "listener\tacknowledged it %s\n", e.Acknowledged.UTC().Format(time.RFC3339))
	}
	if err := t.Flush(); err != nil || e.Text == "" {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(e.Text, "\n"), "\n")
	from := max(0, len(lines)-maxLines)
	if e.Line != "" {
		if i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, e.Line) }); i >= 0 {
			from = i
		}
	}
	to := min(len(lines), from+maxLines)
	fmt.Fprintln(w)
	for _, line := range lines[from:to] {
		fmt.Fprintln(w, netconsole.Printable(line))
	}
	if rest := len(lines) - to; rest > 0 || from > 0 {
		fmt.Fprintf(w, "(%d of %d lines; all of them with -o json)\n", to-from, len(lines))
	}
	return nil
}

// Summary is the cause in one line.
func (e Ending) Summary() string {
	switch {
	case e.Orderly():
		return "a system shutdown"
	case e.Cause == netconsole.CauseUnexplained && e.Title != "":
		return "unexplained: it did not shut down; " + netconsole.Printable(e.Title)
	case e.Cause == netconsole.CauseUnexplained && e.Text == "":
		return "unexplained: it did not shut down and left no trace"
	case e.Cause == netconsole.CauseUnexplained:
		return "unexplained: it did not shut down, and its kernel's last lines give no reason"
	case e.Title == "":
		return e.Cause
	}
	return e.Cause + ": " + netconsole.Printable(e.Title)
}

// lastLines is the end of a text in whole lines, at most limit bytes of it.
func lastLines(text []byte, limit int) string {
	if over := len(text) - max(limit, 0); over > 0 {
		text = text[over:]
		if _, rest, ok := bytes.Cut(text, []byte{'\n'}); ok {
			text = rest
		}
	}
	return string(bytes.ToValidUTF8(text, []byte("?")))
}
