package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"
)

// State is what the last pass saw and did. It is kept under /run for `status`, and its keys are an interface.
type State struct {
	Time     time.Time `json:"time"`
	Version  string    `json:"version"`
	Identity Identity  `json:"identity"`
	// Where says which source named the listeners; Passed why sources of higher rank did not.
	Where   string        `json:"endpointSource"`
	Passed  []string      `json:"passedOver,omitempty"`
	Targets []TargetState `json:"targets"`
	// Failed is what went wrong in the pass, empty if all is well.
	Failed string `json:"failed,omitempty"`
}

// TargetState is one armed target as the last pass left it.
type TargetState struct {
	Name     string         `json:"name"`
	Listener netip.AddrPort `json:"listener"`
	OnLink   bool           `json:"onLink"` // the frozen hardware address is the listener's own
	// LastAck is when a canary was last acknowledged, zero if never.
	LastAck time.Time     `json:"lastAck,omitzero"`
	RTT     time.Duration `json:"rttNanoseconds,omitempty"`
	Why     string        `json:"why,omitempty"` // the latest canary was not acknowledged
}

// State reads what the last pass wrote, nil if there was none since boot.
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
	return &s, nil
}

// SaveState writes s for `status`.
func (r Root) SaveState(s State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write state of this pass: %w", err)
	}
	if err := r.replace(RunDir+"/"+stateFile, data, 0o644); err != nil {
		return fmt.Errorf("write state of this pass: %w", err)
	}
	return nil
}

// Target is what s, which may be nil, knows of the target of this name.
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

// LastAck is when the target of this name was last acknowledged according to s, which may be nil.
func (s *State) LastAck(name string) time.Time {
	t, _ := s.Target(name)
	return t.LastAck
}
