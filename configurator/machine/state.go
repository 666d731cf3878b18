package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
)

// State is what the last pass saw and did. It is saved under /run for `status`, and its keys are an interface.
type State struct {
	Time time.Time `json:"time"` // for people
	// Uptime is the same moment, for comparisons: that clock cannot be set.
	Uptime   time.Duration `json:"uptimeNanoseconds"`
	Version  string        `json:"version"`
	Identity Identity      `json:"identity"`
	// Interval is how often every target is proved.
	Interval time.Duration `json:"canaryIntervalNanoseconds"`
	// Zone is this node's availability zone, if listeners were chosen by it.
	Zone string `json:"zone,omitempty"`
	// Where says which source named the listeners; Passed says why sources of higher rank were passed over.
	Where   string        `json:"endpointSource"`
	Passed  []string      `json:"passedOver,omitempty"`
	Targets []TargetState `json:"targets"`
	// AfterTheFact means that this kernel has no netconsole: nothing is armed, and Targets are the listeners to which the
	// next boot will report how this one ended.
	AfterTheFact bool `json:"afterTheFact,omitempty"`
	// Silent are listeners that did not acknowledge recently, and since when (uptime). Others of the list are preferred.
	Silent map[string]time.Duration `json:"silentSince,omitempty"`
	// Failed is what went wrong in the pass, empty if all is well.
	Failed string `json:"failed,omitempty"`
}

// TargetState is one armed target as the last pass left it.
type TargetState struct {
	Name     string         `json:"name"`
	Listener netip.AddrPort `json:"listener"`
	Local    netip.AddrPort `json:"local,omitzero"`     // where its acknowledgements are awaited
	MAC      string         `json:"mac,omitempty"`      // Ethernet address that it sends to
	LocalMAC string         `json:"localMAC,omitempty"` // and from
	OnLink   bool           `json:"onLink"`             // that is the listener's own
	Acked    bool           `json:"acked"`              // the latest canary was acknowledged
	Known    bool           `json:"known"`              // and the listener's cluster has a Node for this machine
	// LastAck is when a canary was last acknowledged, zero if never. LastAckUptime is the same, for comparisons.
	LastAck       time.Time     `json:"lastAck,omitzero"`
	LastAckUptime time.Duration `json:"lastAckUptimeNanoseconds,omitempty"`
	RTT           time.Duration `json:"rttNanoseconds,omitempty"`
	Why           string        `json:"why,omitempty"` // why the latest canary was not acknowledged
}

// State reads what the last pass wrote, nil if there was none since boot. A file that cannot be parsed is an error; the next
// pass replaces it.
func (r Root) State() (*State, error) {
	data, err := os.ReadFile(r.Path(RunDir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read state of the last pass: %w", err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read state of the last pass: %s: %w", r.Path(RunDir, stateFile), err)
	}
	if s.Identity.Boot != "" && s.Identity.Boot != r.BootID() {
		return nil, nil // a /run that survived a reboot, as in a container
	}
	return &s, nil
}

// SaveState writes s for `status`. If that fails, as on a full disk, it removes the older state, which would be wrong.
func (r Root) SaveState(s State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write state of this pass: %w", err)
	}
	if err := atomicfile.Write(r.Path(RunDir+"/"+stateFile), data, 0o644); err != nil {
		_ = os.Remove(r.Path(RunDir, stateFile))
		return fmt.Errorf("write state of this pass: %w", err)
	}
	return nil
}

// Target returns what s, which may be nil, knows about the target of this name.
func (s *State) Target(name string) (TargetState, bool) {
	if s == nil {
		return TargetState{}, false
	}
	for _, t := range s.Targets {
		if t.Name == name {
			return t, true
		}
	}
	return TargetState{}, false
}

// LastAck returns the uptime at which the target of this name was last acknowledged according to s, which may be nil.
func (s *State) LastAck(name string) time.Duration {
	t, _ := s.Target(name)
	return t.LastAckUptime
}
