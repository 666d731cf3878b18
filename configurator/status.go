package configurator

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// Verdict is a node's coverage in one word.
type Verdict string

// Verdicts.
const (
	Covered  Verdict = "covered"  // armed, and a listener acknowledged it within the last three canary intervals
	Unproven Verdict = "unproven" // armed, but no listener acknowledged it, or none lately
	Mute     Verdict = "mute"     // a panic of this node would not be heard
)

// Status is one screen about this node.
type Status struct {
	Verdict  Verdict           `json:"verdict"`
	Facts    machine.Facts     `json:"facts"`
	Targets  []TargetStatus    `json:"targets"`
	Findings []machine.Finding `json:"findings"`
	Settings []machine.Setting `json:"changedSettings,omitempty"`
	LastPass *machine.State    `json:"lastPass,omitempty"`
	// Enrolment is how the pin of the own Node stands, nil if nobody has tried.
	Enrolment *enroll.State `json:"enrolment,omitempty"`
}

// TargetStatus is one target in the kernel with what is known of it.
type TargetStatus struct {
	TargetView
	Enabled bool          `json:"enabled"`
	LastAck time.Time     `json:"lastAck,omitzero"`
	RTT     time.Duration `json:"rttNanoseconds,omitempty"`
	Why     string        `json:"why,omitempty"`
}

// Status reads everything there is to know at now and judges it. It touches nothing.
func (c *Configurator) Status(now time.Time) (Status, error) {
	present, err := c.Netconsole.List()
	if err != nil {
		return Status{}, err
	}
	settings, err := c.Root.Settings()
	if err != nil {
		return Status{}, err
	}
	last, err := c.Root.State()
	if err != nil {
		return Status{}, err
	}
	s := newStatus(now, c.Config, c.Root.Facts(c.Version), present, settings, last)
	s.Enrolment, err = enrolment(c.Root)
	return s, err
}

// newStatus is the pure part of Status.
func newStatus(now time.Time, cfg Config, f machine.Facts, present []configfs.State, settings []machine.Setting, last *machine.State) Status {
	s := Status{Verdict: Covered, Facts: f, Settings: settings, LastPass: last, Targets: []TargetStatus{}}
	proved := false
	for _, st := range present {
		known, _ := last.Target(st.Name)
		t := TargetStatus{TargetView: View(st.Spec), Enabled: st.Enabled, LastAck: known.LastAck, RTT: known.RTT, Why: known.Why}
		proved = proved || t.Enabled && t.Why == "" && !stale(now, cfg, t.LastAck)
		s.Targets = append(s.Targets, t)
	}
	s.Findings = slices.Concat([]machine.Finding{}, machine.Findings(f, present), provenFindings(now, cfg, s.Targets, last))
	if !proved {
		s.Verdict = Unproven
	}
	for _, found := range s.Findings {
		if found.Mute {
			s.Verdict = Mute
		}
	}
	return s
}

// stale reports whether an acknowledgement proves nothing at now any more: the watch would have had two chances since.
// None at all, the zero time, is stale.
func stale(now time.Time, cfg Config, ack time.Time) bool {
	return now.Sub(ack) > 3*cfg.Canary.Interval
}

// provenFindings judges what canaries said.
func provenFindings(now time.Time, cfg Config, targets []TargetStatus, last *machine.State) []machine.Finding {
	var found []machine.Finding
	for _, t := range targets {
		listener := fmt.Sprintf("%s:%d", t.RemoteIP, t.RemotePort)
		switch {
		case !t.Enabled:
		case t.Why != "" || t.LastAck.IsZero():
			found = append(found, machine.Finding{What: "listener " + listener + " does not acknowledge canaries",
				Cost: "it may not hear this node", Mend: "run lastgasp-configurator verify for the likely reasons"})
		case stale(now, cfg, t.LastAck):
			found = append(found, machine.Finding{What: fmt.Sprintf("listener %s was last heard of %s ago", listener, ago(now, t.LastAck)),
				Cost: "a changed gateway or listener goes unnoticed", Mend: "enable lastgasp-configurator-watch.service"})
		}
	}
	if last == nil {
		return found
	}
	for _, t := range last.Targets {
		if t.OnLink {
			found = append(found, machine.Finding{What: fmt.Sprintf("listener %s is in this node's own subnet", t.Listener),
				Cost: "the target holds the listener's own hardware address, which changes when it is replaced",
				Mend: "put listeners in a subnet of their own, or run lastgasp-configurator watch"})
		}
	}
	return found
}

// WriteText prints s for people, on one screen.
func (s Status) WriteText(w io.Writer, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "kernel\t%s, kernel.panic=%d panic_on_oops=%d kdump=%t console level %d\n", s.Facts.Kernel, s.Facts.Panic,
		map[bool]int{true: 1}[s.Facts.PanicOnOops], s.Facts.Kdump, s.Facts.ConsoleLevel)
	if l := s.LastPass; l != nil {
		fmt.Fprintf(t, "instance\t%s\n", l.Identity.Instance)
		fmt.Fprintf(t, "boot\t%s\n", l.Identity.Boot)
		fmt.Fprintf(t, "endpoints\t%s, %s ago\n", orNone(l.Where), ago(now, l.Time))
		for _, p := range l.Passed {
			fmt.Fprintf(t, "passed over\t%s\n", p)
		}
		if l.Failed != "" {
			fmt.Fprintf(t, "last pass\t%s\n", l.Failed)
		}
	}
	if s.Enrolment != nil {
		fmt.Fprintf(t, "enrolled\t%s\n", s.Enrolment)
	}
	for _, set := range machine.Summary(s.Settings) {
		fmt.Fprintf(t, "changed\t%s\n", set)
	}
	fmt.Fprintln(t)
	if len(s.Targets) > 0 {
		fmt.Fprintln(t, "TARGET\tON\tDEVICE\tFROM\tTO\tVIA\tUSERDATA\tLAST ACK")
	}
	for _, v := range s.Targets {
		ack := "never"
		if !v.LastAck.IsZero() {
			ack = ago(now, v.LastAck) + " ago"
		}
		if v.RTT > 0 {
			ack += fmt.Sprintf(" in %s", v.RTT.Round(100*time.Microsecond))
		}
		var keys []string
		for _, d := range v.Userdata {
			key, _, _ := strings.Cut(d, "=")
			keys = append(keys, key)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s:%d\t%s:%d\t%s\t%s\t%s\n", v.Name, map[bool]string{true: "yes", false: "NO"}[v.Enabled], v.Device,
			v.LocalIP, v.LocalPort, v.RemoteIP, v.RemotePort, v.RemoteMAC, orNone(strings.Join(keys, ",")), ack)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range s.Findings {
		kind := "weak"
		if f.Mute {
			kind = "MUTE"
		}
		fmt.Fprintf(w, "%s: %s\n", kind, f)
	}
	_, err := fmt.Fprintln(w, map[Verdict]string{
		Covered:  "covered: a panic of this node is heard",
		Unproven: "unproven: nothing shows that a panic of this node would be heard",
		Mute:     "MUTE: a panic of this node would NOT be heard",
	}[s.Verdict])
	return err
}

// ago is the time since then in a unit that fits.
func ago(now, then time.Time) string {
	d := now.Sub(then)
	if d < 2*time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
