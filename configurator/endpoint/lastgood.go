package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
)

// LastGood is a file with the last list that was proved to work, for a boot at which neither SSM nor DNS answers. The file is
// bound to the machine: if it was baked into an image it is ignored elsewhere.
type LastGood struct {
	File     string
	Instance string   // identity of this machine
	MACs     []string // of the interfaces that it has now
}

// lastGoodFile is the content of the file. Instance and MAC must both be this machine's.
type lastGoodFile struct {
	Instance  string     `json:"instance"`
	MAC       string     `json:"mac"` // of the interface that was armed
	Where     string     `json:"where"`
	Since     time.Time  `json:"since"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Find implements Source. A missing file and one of another machine are both ErrAbsent.
func (l LastGood) Find(context.Context) ([]Endpoint, string, error) {
	kept, err := l.load()
	if err != nil {
		return nil, "", fmt.Errorf("last known good: %w", err)
	}
	return kept.Endpoints, kept.where(), nil
}

// load reads the file, and checks that it is this machine's and that its endpoints can be used.
func (l LastGood) load() (lastGoodFile, error) {
	kept, err := l.read()
	if err != nil {
		return kept, err
	}
	if kept.Instance != l.Instance || !slices.Contains(l.MACs, kept.MAC) {
		return kept, fmt.Errorf("%s is of another machine (%s): %w", l.File, kept.Instance, ErrAbsent)
	}
	if len(kept.Endpoints) == 0 {
		return kept, fmt.Errorf("%s is empty: %w", l.File, ErrAbsent)
	}
	for _, e := range kept.Endpoints {
		if _, err := Parse(e.String()); err != nil {
			return kept, fmt.Errorf("%s: %w", l.File, err)
		}
	}
	return kept, nil
}

func (f lastGoodFile) where() string {
	return fmt.Sprintf("last known good since %s, from %s", f.Since.UTC().Format(time.RFC3339), f.Where)
}

func (l LastGood) read() (lastGoodFile, error) {
	var kept lastGoodFile
	data, err := os.ReadFile(l.File)
	if errors.Is(err, fs.ErrNotExist) {
		return kept, fmt.Errorf("nothing was saved yet: %w", ErrAbsent)
	} else if err != nil {
		return kept, err
	}
	if err := json.Unmarshal(data, &kept); err != nil {
		return kept, fmt.Errorf("%s: %w", l.File, err)
	}
	return kept, nil
}

// Save writes found as the last known good list; mac is the hardware address of the interface it was proved through. It
// replaces the file in one step, and only if something is new: nodes prove their listeners every few minutes.
func (l LastGood) Save(found Found, mac string, now time.Time) error {
	fresh := lastGoodFile{Instance: l.Instance, MAC: mac, Where: found.Where, Since: now, Endpoints: found.Endpoints}
	if kept, err := l.read(); found.Stale || err == nil && fresh.same(kept) {
		return nil
	}
	if err := l.write(fresh); err != nil {
		return fmt.Errorf("save last known good listeners: %w", err)
	}
	return nil
}

func (f lastGoodFile) same(kept lastGoodFile) bool {
	return f.Instance == kept.Instance && f.MAC == kept.MAC && f.Where == kept.Where && slices.Equal(f.Endpoints, kept.Endpoints)
}

func (l LastGood) write(f lastGoodFile) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(l.File, data, 0o644) // a panic right now must not leave an empty file
}
