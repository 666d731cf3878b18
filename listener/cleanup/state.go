package cleanup

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
	"github.com/lastgasp/lastgasp/listener/detect"
)

const (
	stateFiles  = 1000 // incidents kept in the state directory at most, half of them of strangers
	stateSuffix = ".incident"
	// stateFor is how old an incident may be to be restored after a restart.
	stateFor = 24 * time.Hour
)

// stateEntry is an incident in the state directory. The secret itself is not stored: its sum proves as much to us.
type stateEntry struct {
	Incident detect.Incident
	Sum      string
	Lane     int
}

func (e *Engine) stateFile(k key) string {
	sum := sha256.Sum256([]byte(k.src.String() + "\n" + k.boot + "\n" + k.sum))
	return filepath.Join(e.State, hex.EncodeToString(sum[:16])+stateSuffix)
}

// saveState writes h into the state directory, once.
func (e *Engine) saveState(h *heard) {
	if h == nil || e.State == "" || e.policy.DryRun {
		return
	}
	e.mu.Lock()
	saved, inc := h.saved, h.inc
	h.saved = true
	e.mu.Unlock()
	if saved {
		return
	}
	if err := e.writeState(h, inc); err != nil {
		e.mu.Lock()
		h.saved = false // the next attempt writes it
		e.mu.Unlock()
		e.log.Error("incident not saved for a restart", "source", inc.Source.String(), "err", err)
	}
}

func (e *Engine) writeState(h *heard, inc detect.Incident) error {
	most := stateFiles
	if h.lane != verified {
		most /= 2
	}
	if err := os.MkdirAll(e.State, 0o700); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(e.State, "*"+stateSuffix))
	if err != nil || len(files) >= most {
		return cmp.Or(err, fmt.Errorf("%s already holds %d incidents", e.State, len(files)))
	}
	inc.Identity.Secret = "" // only its sum may be stored
	data, err := json.Marshal(stateEntry{inc, h.key.sum, h.lane})
	if err != nil {
		return fmt.Errorf("encode incident: %w", err)
	}
	if err := atomicfile.Write(e.stateFile(h.key), data, 0o600); err != nil {
		return fmt.Errorf("write state file: %w", err)
	}
	return nil
}

// forgetState removes h from the state directory: its death is in the cluster and dealt with.
func (e *Engine) forgetState(h *heard) {
	e.mu.Lock()
	saved := h.saved
	h.saved = false
	e.mu.Unlock()
	if !saved {
		return
	}
	if err := os.Remove(e.stateFile(h.key)); err != nil && !errors.Is(err, os.ErrNotExist) {
		e.log.Error("incident not removed from the state directory", "err", err)
	}
}

// saveInHand writes down what is in hand and what waits, before Run ends.
func (e *Engine) saveInHand() {
	e.mu.Lock()
	var all []*heard
	for _, h := range e.heard {
		if !h.over {
			all = append(all, h)
		}
	}
	e.mu.Unlock()
	for _, h := range slices.Concat(all, e.intake.all()) {
		if h.lane != unknowns {
			e.saveState(h)
		}
	}
}

// restore takes in what the last Run left behind. What we wrote ourselves counts as heard.
func (e *Engine) restore() {
	if e.State == "" || e.policy.DryRun {
		return
	}
	err := atomicfile.Clean(e.State, stateSuffix)
	files, readErr := os.ReadDir(e.State)
	if err = errors.Join(err, readErr); err != nil && !errors.Is(err, os.ErrNotExist) {
		e.log.Error("state directory not read", "err", err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), stateSuffix) {
			continue
		}
		path := filepath.Join(e.State, f.Name())
		data, err := os.ReadFile(path)
		var s stateEntry
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		k := key{s.Incident.Source.Addr(), s.Incident.Identity.Boot, s.Sum}
		if err != nil || s.Lane < 0 || s.Lane >= lanes || e.Now().Sub(s.Incident.Time) > stateFor || e.stateFile(k) != path {
			e.log.Warn("incident not restored", "file", path, "err", err)
			_ = os.Remove(path)
			continue
		}
		e.log.Info("incident restored", "source", s.Incident.Source.String(), "boot", k.boot, "title", s.Incident.Title)
		e.intake.put(&heard{key: k, lane: s.Lane, inc: s.Incident, saved: true})
	}
}
