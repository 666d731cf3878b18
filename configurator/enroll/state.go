package enroll

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
)

// State is the state of enrolment. It is saved under /run for `status`, and its keys are an interface.
type State struct {
	Since      time.Time `json:"since"` // last change
	Enrolled   bool      `json:"enrolled"`
	Claimed    bool      `json:"claimed"`              // by a listener, from a canary
	Node       string    `json:"node,omitempty"`       // that the credentials belong to
	Kubeconfig string    `json:"kubeconfig,omitempty"` // file with the credentials
	Pin        string    `json:"pin,omitempty"`        // that the Node should carry
	// Why says in one line why the node is not enrolled or, if it is, why its Node cannot be watched any more.
	Why string `json:"why,omitempty"`
}

// ReadState reads what Run last wrote. Nil means that it wrote nothing since boot.
func ReadState(file string) (*State, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read state of enrolment: %w", err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read state of enrolment: %s: %w", file, err)
	}
	return &s, nil
}

func (s State) write(file string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = atomicfile.Write(file, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write state of enrolment: %w", err)
	}
	return nil
}

// String returns the state for people, in one line.
func (s State) String() string {
	switch {
	case s.Enrolled && s.Why == "":
		return fmt.Sprintf("as %s, with %s", s.Node, s.Kubeconfig)
	case s.Enrolled:
		return fmt.Sprintf("as %s, but the Node cannot be watched: %s", s.Node, s.Why)
	case s.Claimed:
		return "NO, only claimed by a listener, so a death waits for a witness: " + s.Why
	}
	return "NO, so a death waits for a witness: " + s.Why
}
