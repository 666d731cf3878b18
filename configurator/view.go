package configurator

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// TargetView is a target for output: addresses as text, no secrets.
type TargetView struct {
	Name       string   `json:"name"`
	Enabled    bool     `json:"enabled"`
	Device     string   `json:"device"`
	LocalIP    string   `json:"localIP"`
	LocalPort  uint16   `json:"localPort"`
	RemoteIP   string   `json:"remoteIP"`
	RemotePort uint16   `json:"remotePort"`
	RemoteMAC  string   `json:"remoteMAC"`
	Extended   bool     `json:"extended"`
	Release    bool     `json:"release"`
	Userdata   []string `json:"userdata,omitempty"` // key=value, secrets as a placeholder

	// Acknowledgements.
	Acked bool `json:"acked"` // the latest
	// Changed means that the target is no longer what was proved: somebody else has written to it.
	Changed bool          `json:"changed,omitempty"`
	LastAck time.Time     `json:"lastAck,omitzero"`
	AckAge  time.Duration `json:"lastAckAgeNanoseconds,omitempty"`
	RTT     time.Duration `json:"rttNanoseconds,omitempty"`
	Why     string        `json:"why,omitempty"`
}

// View returns s without its secrets.
func View(s configfs.Spec) TargetView {
	v := TargetView{
		Name: s.Name, Device: s.Device,
		LocalIP: s.LocalIP.String(), LocalPort: s.LocalPort,
		RemoteIP: s.RemoteIP.String(), RemotePort: s.RemotePort, RemoteMAC: s.RemoteMAC.String(),
		Extended: s.Extended, Release: s.Release,
	}
	for _, d := range s.Userdata {
		v.Userdata = append(v.Userdata, d.String())
	}
	return v
}

func (v TargetView) local() string {
	return net.JoinHostPort(v.LocalIP, strconv.Itoa(int(v.LocalPort)))
}
func (v TargetView) remote() string {
	return net.JoinHostPort(v.RemoteIP, strconv.Itoa(int(v.RemotePort)))
}

// DraftView is what --dry-run prints.
type DraftView struct {
	Identity machine.Identity  `json:"identity"`
	Loaded   bool              `json:"netconsoleLoaded"` // if not, it is unknown whether the kernel has release and userdata
	Where    string            `json:"endpointSource"`
	Passed   []string          `json:"passedOver,omitempty"`
	Keep     []TargetView      `json:"keep"`
	Arm      []TargetView      `json:"arm"`
	Drop     []TargetView      `json:"drop"`
	Settings []machine.Setting `json:"settings,omitempty"`
}

// Devices returns the devices of the draft's targets, once it has been carried out.
func (d Draft) Devices() []string {
	devices := devicesOf(d.Plan.Keep)
	for _, s := range d.Plan.Arm {
		devices = append(devices, s.Device)
	}
	return devices
}

// View returns d without its secrets; want are the kernel settings that go with it.
func (d Draft) View(want []machine.Setting) DraftView {
	v := DraftView{
		Identity: d.Identity, Loaded: d.Support.Netconsole, Where: d.Found.Where, Passed: d.Found.Passed, Settings: want,
		Keep: []TargetView{}, Arm: []TargetView{}, Drop: []TargetView{}, // empty lists, not null, for programs
	}
	for _, st := range d.Plan.Keep {
		kept := View(st.Spec)
		kept.Enabled = true
		v.Keep = append(v.Keep, kept)
	}
	for _, s := range d.Plan.Arm {
		v.Arm = append(v.Arm, View(s))
	}
	for _, name := range d.Plan.Clear {
		v.Drop = append(v.Drop, TargetView{Name: name})
	}
	for _, st := range d.Plan.Drop {
		dropped := View(st.Spec)
		dropped.Enabled = true
		v.Drop = append(v.Drop, dropped)
	}
	return v
}

// WriteText prints v for people.
func (v DraftView) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "instance\t%s\n", v.Identity.Instance)
	fmt.Fprintf(t, "boot\t%s\n", v.Identity.Boot)
	fmt.Fprintf(t, "endpoints\t%s\n", v.Where)
	for _, p := range v.Passed {
		fmt.Fprintf(t, "passed over\t%s\n", p)
	}
	for _, group := range []struct {
		verb string
		list []TargetView
	}{{"keep", v.Keep}, {"arm", v.Arm}, {"remove", v.Drop}} {
		for _, s := range group.list {
			fmt.Fprintf(t, "%s\t%s\n", group.verb, s)
		}
	}
	if !v.Loaded {
		fmt.Fprintf(t, "netconsole\tnot loaded yet, so it is unknown whether this kernel has release and userdata\n")
	}
	for _, s := range machine.Summary(v.Settings) {
		fmt.Fprintf(t, "set\t%s\n", s)
	}
	return t.Flush()
}

// String returns the whole tuple in one line.
func (v TargetView) String() string {
	if v.Device == "" {
		return v.Name + " (disabled)"
	}
	s := fmt.Sprintf("%s: %s on %s to %s via %s, extended=%t release=%t",
		v.Name, v.local(), v.Device, v.remote(), v.RemoteMAC, v.Extended, v.Release)
	if len(v.Userdata) > 0 {
		s += ", userdata " + strings.Join(v.Userdata, " ")
	}
	return s
}

// WriteState prints the targets that a pass has left.
func WriteState(w io.Writer, s machine.State) error {
	for _, t := range s.Targets {
		outcome := "NOT acknowledged"
		if t.Acked {
			outcome = acknowledged(t.RTT, t.Known)
		}
		line := fmt.Sprintf("%s to %s: armed, %s\n", t.Name, t.Listener, outcome)
		if s.AfterTheFact {
			line = fmt.Sprintf("%s: nothing is armed, this kernel has no netconsole; heard only after the fact; %s\n", t.Listener, outcome)
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}

// acknowledged says in how long a listener did so, and what it said about this node.
func acknowledged(rtt time.Duration, known bool) string {
	s := fmt.Sprintf("acknowledged in %s", rtt.Round(100*time.Microsecond))
	if !known {
		s += "; its cluster has no Node for this machine yet, so nobody would act"
	}
	return s
}

// WriteProofs prints the outcome of canaries.
func WriteProofs(w io.Writer, proofs []canary.Proof) error {
	var b strings.Builder
	for _, p := range proofs {
		if p.Acked {
			fmt.Fprintf(&b, "%s to %s: %s\n", p.Target, p.Listener, acknowledged(p.RTT, p.Known))
			continue
		}
		fmt.Fprintf(&b, "%s to %s: %s; likely reasons, the likeliest first:\n", p.Target, p.Listener, p.Why)
		for i, reason := range p.Reasons {
			fmt.Fprintf(&b, "  %d. %s\n", i+1, reason)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
