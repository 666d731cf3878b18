package configurator

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// Verdict is a node's coverage in one word.
type Verdict string

// Verdicts, the best first.
const (
	// Covered: the last pass succeeded, and every wanted target was acknowledged within the last three canary intervals.
	Covered Verdict = "covered"
	// Stranger: as Covered, but the listeners' cluster has no Node for this machine, so nothing would be done about its death.
	Stranger Verdict = "stranger"
	// Unproven: something is armed, but it is not all proved.
	Unproven Verdict = "unproven"
	// AfterTheFact: this kernel has no netconsole, but the listeners have proved that they would hear how it died at the next boot.
	AfterTheFact Verdict = "after-the-fact"
	// Mute: a panic of this node would not be heard.
	Mute Verdict = "mute"
)

// verdicts lists them all.
var verdicts = [...]Verdict{Covered, Stranger, Unproven, AfterTheFact, Mute}

// sentence says what a verdict means.
func (v Verdict) sentence() string {
	switch v {
	case Covered:
		return "covered: a panic of this node is heard"
	case Stranger:
		return "stranger: a panic of this node is heard, but the listeners' cluster has no Node for it, so nobody would act"
	case Unproven:
		return "unproven: not every wanted listener has proved that a panic of this node would be heard"
	case AfterTheFact:
		return "heard only after the fact: a panic of this node would NOT be heard, its next boot says how it died"
	default:
		return "MUTE: a panic of this node would NOT be heard"
	}
}

// Status is one screen about this node.
type Status struct {
	Verdict  Verdict           `json:"verdict"`
	Facts    machine.Facts     `json:"facts"`
	Targets  []TargetView      `json:"targets"`
	Findings []machine.Finding `json:"findings"`
	Settings []machine.Setting `json:"changedSettings,omitempty"`
	LastPass *machine.State    `json:"lastPass,omitempty"`
	// Enrolment says whether this boot is pinned on our own Node. Nil means that it was never tried.
	Enrolment *enroll.State `json:"enrolment,omitempty"`
	// PreviousBoot says how the boot before ended, without its text. Nil means that it is unknown, or that only root may know.
	PreviousBoot *lastboot.Ending `json:"previousBoot,omitempty"`
}

// Status reads everything that is known about this node and judges it. It changes nothing and needs no privilege. configErr
// is what is wrong with the configuration, if anything: what is armed can be judged without one.
func (c *Configurator) Status(configErr error) (Status, error) {
	present, err := c.Netconsole.List()
	if err != nil {
		return Status{}, err
	}
	support, sure, err := c.Netconsole.Seen()
	if err != nil {
		return Status{}, err
	}
	settings, settingsErr := c.Root.Settings()
	last, stateErr := c.Root.State()
	links := make(map[string]string)
	for _, device := range devicesOf(present) {
		if why := c.Root.LinkProblem(device); why != "" {
			links[device] = why
		}
	}
	s := newStatus(c.Uptime(), c.Root.Facts(c.Version), present, links, settings, last)
	s.Findings = append(s.Findings, c.Root.MTUFindings(devicesOf(present))...)
	if sure && !support.Netconsole {
		s.Findings = []machine.Finding{c.Root.NoNetconsole()}
		s.afterTheFact(c.Uptime(), last)
	}
	if c.Config.Panic != (machine.Panic{}) {
		s.Findings = append(s.Findings, machine.PanicFindings(c.Config.Panic, s.Facts, c.Root.Kubelet())...)
	}
	s.Findings = append(s.Findings, lastboot.Findings(c.Root)...)
	if last != nil {
		if l, err := lastboot.Look(c.Root, last.Identity); err == nil && l.Previous != nil {
			s.PreviousBoot = l.Previous
			s.PreviousBoot.Text, s.PreviousBoot.Entries = "", nil
		}
	}
	enrolled, enrolErr := enrolment(c.Root)
	s.Enrolment = enrolled
	for _, f := range []struct {
		what, cost string
		err        error
	}{
		{"the configuration is bad", "what is armed stays as it is, and nothing new is armed", configErr},
		{"what the last pass saw cannot be read", "nothing shows what was proved before", stateErr},
		{"the list of changed kernel settings cannot be read", "nothing shows what disarm restores", settingsErr},
		{"the state of enrolment cannot be read", "nothing shows whether this boot is pinned", enrolErr},
	} {
		if f.err != nil {
			s.Findings = append(s.Findings, machine.Finding{What: f.what, Cost: f.cost, Mend: f.err.Error()})
		}
	}
	return s, nil
}

// newStatus is the pure part of Status; now is uptime, and links says why devices cannot send, by name.
func newStatus(now time.Duration, f machine.Facts, present []configfs.State, links map[string]string, settings []machine.Setting, last *machine.State) Status {
	s := Status{Verdict: Unproven, Facts: f, Settings: settings, LastPass: last, Targets: []TargetView{}}
	for _, st := range present {
		t := View(st.Spec)
		known, _ := last.Target(st.Name)
		t.Enabled, t.Acked, t.LastAck, t.RTT, t.Why = st.Enabled, known.Acked, known.LastAck, known.RTT, known.Why
		t.Changed = known.Name != "" && !proves(known, st)
		if known.LastAckUptime > 0 {
			t.AckAge = now - known.LastAckUptime
		}
		s.Targets = append(s.Targets, t)
	}
	s.Findings = slices.Concat(linkFindings(s.Targets, links), provenFindings(now, s.Targets, last), machine.Findings(f, present))
	if len(present) == 0 && last != nil && last.Failed != "" {
		s.Findings[len(s.Findings)-1].Mend = "mend what made the last pass fail: " + last.Failed
	}
	if last != nil && last.Failed == "" {
		s.Verdict = proved(now, present, *last)
	}
	if len(links) > 0 && (s.Verdict == Covered || s.Verdict == Stranger) {
		s.Verdict = Unproven // the pass that notices it has not ended
	}
	if slices.ContainsFunc(s.Findings, func(f machine.Finding) bool { return f.Mute }) {
		s.Verdict = Mute
	}
	return s
}

// proved judges the acknowledgements of the targets that the last pass left. That pass succeeded.
func proved(now time.Duration, present []configfs.State, last machine.State) Verdict {
	verdict := Covered
	for _, t := range last.Targets {
		i := slices.IndexFunc(present, func(st configfs.State) bool { return st.Name == t.Name && st.Enabled })
		switch {
		case i < 0 || !t.Acked || stale(now, last, t) || !proves(t, present[i]):
			return Unproven
		case !t.Known:
			verdict = Stranger
		}
	}
	if len(last.Targets) == 0 {
		return Unproven
	}
	return verdict
}

// proves reports whether what was proved about t holds for st: it is the same way to the same listener, from the same address of
// the same card. Root may have written to the target since, or given the card another address, from which a VPC takes nothing.
func proves(t machine.TargetState, st configfs.State) bool {
	return t.Listener == st.Remote() && (t.MAC == "" || t.MAC == st.RemoteMAC.String()) &&
		(!t.Local.IsValid() || t.Local == st.Local()) &&
		(t.LocalMAC == "" || !st.Enabled || t.LocalMAC == st.LocalMAC.String())
}

// stale reports whether t's last acknowledgement is too old at uptime now: the watch has had two chances for another since.
func stale(now time.Duration, last machine.State, t machine.TargetState) bool {
	return now-t.LastAckUptime > 3*last.Interval
}

// linkFindings returns a finding for each device that cannot send.
func linkFindings(targets []TargetView, links map[string]string) []machine.Finding {
	found := []machine.Finding{}
	sends := slices.ContainsFunc(targets, func(v TargetView) bool { return v.Enabled && links[v.Device] == "" })
	for _, device := range slices.Sorted(maps.Keys(links)) {
		found = append(found, machine.Finding{Mute: !sends, What: device + " " + links[device], Cost: "nothing that netconsole sends leaves this node through it",
			Mend: "bring it up again, or run lastgasp-configurator watch, which follows the route to another device"})
	}
	return found
}

// provenFindings returns the findings about acknowledgements.
func provenFindings(now time.Duration, targets []TargetView, last *machine.State) []machine.Finding {
	var found []machine.Finding
	weak := func(what, cost, mend string) {
		found = append(found, machine.Finding{What: what, Cost: cost, Mend: mend})
	}
	for _, v := range targets {
		t, _ := last.Target(v.Name)
		listener := v.remote()
		switch {
		case !v.Enabled:
		case v.Changed:
			weak(v.Name+" is not what the last pass left", "nothing proves that "+listener+" hears this node through "+v.RemoteMAC,
				"run lastgasp-configurator apply, and find out who writes to it")
		case !t.Acked:
			weak("listener "+listener+" does not acknowledge canaries", "it may not hear this node",
				"run lastgasp-configurator verify for the likely reasons")
		case stale(now, *last, t):
			weak(fmt.Sprintf("listener %s last acknowledged %s ago", listener, inWords(v.AckAge)),
				"a changed gateway or listener goes unnoticed", "enable lastgasp-configurator-watch.service")
		case !t.Known:
			found = append(found, strangerFinding(listener))
		}
	}
	if last == nil {
		return found
	}
	for _, t := range last.Targets { // none is, after the fact
		if t.OnLink {
			weak(fmt.Sprintf("listener %s is in this node's own subnet", t.Listener),
				"the target holds the listener's own hardware address, which changes when it is replaced",
				"put listeners in a subnet of their own, or run lastgasp-configurator watch")
		}
	}
	return found
}

// strangerFinding is about a listener whose cluster has no Node for this machine.
func strangerFinding(listener string) machine.Finding {
	return machine.Finding{
		What: "listener " + listener + " knows no Node with this node's address", Cost: "it hears this node and does nothing about its death",
		Mend: "wait until the kubelet has registered, or compare cluster here with the listener's",
	}
}

// WriteText prints s for people, on one screen; now is uptime.
func (s Status) WriteText(w io.Writer, now time.Duration) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "kernel\t%s, kernel.panic=%d panic_on_oops=%d kdump=%t console level %d\n", s.Facts.Kernel, s.Facts.Panic,
		map[bool]int{true: 1}[s.Facts.PanicOnOops], s.Facts.Kdump, s.Facts.ConsoleLevel)
	if l := s.LastPass; l != nil {
		fmt.Fprintf(t, "instance\t%s\n", cmp.Or(l.Identity.Instance, "unknown"))
		fmt.Fprintf(t, "boot\t%s\n", cmp.Or(l.Identity.Boot, "unknown"))
		fmt.Fprintf(t, "endpoints\t%s, %s ago\n", cmp.Or(l.Where, "none"), inWords(now-l.Uptime))
		for _, p := range l.Passed {
			fmt.Fprintf(t, "passed over\t%s\n", p)
		}
		if l.AfterTheFact {
			for _, tgt := range l.Targets {
				fmt.Fprintf(t, "listener\t%s, %s\n", tgt.Listener, map[bool]string{true: "acknowledged", false: "NOT acknowledged"}[tgt.Acked])
			}
		}
		if l.Failed != "" {
			fmt.Fprintf(t, "last pass\tfailed: %s\n", l.Failed)
		}
	}
	if s.Enrolment != nil {
		fmt.Fprintf(t, "enrolled\t%s\n", s.Enrolment)
	}
	if p := s.PreviousBoot; p != nil {
		known := map[bool]string{true: "no listener has acknowledged that yet", false: "a listener has acknowledged that"}[p.Acknowledged.IsZero()]
		fmt.Fprintf(t, "previous boot\t%s (%s); %s\n", p.Summary(), p.Evidence, known)
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
		if v.AckAge > 0 {
			ack = inWords(v.AckAge) + " ago"
		}
		if v.RTT > 0 {
			ack += fmt.Sprintf(" in %s", v.RTT.Round(100*time.Microsecond))
		}
		var keys []string
		for _, d := range v.Userdata {
			key, _, _ := strings.Cut(d, "=")
			keys = append(keys, key)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, map[bool]string{true: "yes", false: "NO"}[v.Enabled], v.Device,
			v.local(), v.remote(), v.RemoteMAC, cmp.Or(strings.Join(keys, ","), "none"), ack)
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
	_, err := fmt.Fprintln(w, s.Verdict.sentence())
	return err
}

// inWords returns d in seconds below two minutes, else in hours and minutes.
func inWords(d time.Duration) string {
	if d < 2*time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
