package configurator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
)

// Kernel settings that may be changed, all of them only when the configuration asks for it.
const (
	panicFile          = "proc/sys/kernel/panic"
	kdumpNotifiersFile = "sys/module/kernel/parameters/crash_kexec_post_notifiers"
)

// Setting is a kernel setting that we changed.
type Setting struct {
	File string `json:"file"` // below the root
	Was  string `json:"was"`  // what disarm puts back
	Set  string `json:"set"`
}

// String is "/proc/sys/kernel/panic=0 (was 10)".
func (s Setting) String() string { return fmt.Sprintf("/%s=%s (was %s)", s.File, s.Set, s.Was) }

// wantedSettings says what the configuration asks for on such a kernel. It is pure.
//
// kernel.panic is not ours: the kubelet sets it at its start, and below 7.0 every value from 1 lets a panic out. So it
// is held at 0 only on kernels that are mute otherwise, and set only if a timeout was asked for on the others.
func wantedSettings(p PanicConfig, f Facts) []Setting {
	var want []Setting
	switch {
	case f.nbcon() && p.Hold:
		want = append(want, Setting{File: panicFile, Set: "0"})
	case !f.nbcon() && p.Timeout != nil:
		want = append(want, Setting{File: panicFile, Set: strconv.Itoa(*p.Timeout)})
	}
	if p.KdumpNotifier && f.Kdump {
		want = append(want, Setting{File: kdumpNotifiersFile, Set: "Y"})
	}
	return want
}

// WantedSettings are the kernel settings the configuration asks for on this kernel.
func (c *Configurator) WantedSettings() []Setting {
	return wantedSettings(c.Config.Panic, c.Root.Facts(c.Version))
}

// settle makes the kernel settings those of the configuration.
func (c *Configurator) settle() error {
	changed, err := c.Root.settle(c.WantedSettings())
	for _, s := range changed {
		c.Log.Info("changed kernel setting", "setting", s)
	}
	return err
}

// Settings lists what we changed since boot.
func (r Root) Settings() ([]Setting, error) {
	data, err := os.ReadFile(r.Path(runDir, settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read changed settings: %w", err)
	}
	var list []Setting
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read changed settings: %s: %w", r.Path(runDir, settingsFile), err)
	}
	return list, nil
}

// settle makes the settings those of want: sets what differs, and puts back what is no longer wanted. It returns what it
// changed just now, for the log. What stood there before is written down first, so that a crash cannot lose it.
func (r Root) settle(want []Setting) (changed []Setting, err error) {
	kept, err := r.Settings()
	if err != nil {
		return nil, err
	}
	for _, old := range kept {
		if slices.ContainsFunc(want, func(s Setting) bool { return s.File == old.File }) {
			continue
		}
		back, err := r.putBack(old)
		if err != nil {
			return changed, err
		}
		if back {
			changed = append(changed, Setting{File: old.File, Was: old.Set, Set: old.Was})
		}
		kept = slices.DeleteFunc(slices.Clone(kept), func(s Setting) bool { return s.File == old.File })
		if err := r.keepSettings(kept); err != nil {
			return changed, err
		}
	}
	for _, s := range want {
		s.Was = r.text(s.File)
		if s.Was == s.Set {
			continue
		}
		// If somebody set it anew since (the kubelet does), theirs is what disarm has to restore.
		kept = append(slices.DeleteFunc(slices.Clone(kept), func(k Setting) bool { return k.File == s.File }), s)
		if err := r.keepSettings(kept); err != nil {
			return changed, err
		}
		if err := os.WriteFile(r.Path(s.File), []byte(s.Set), 0); err != nil {
			return changed, fmt.Errorf("change kernel setting: %w", err)
		}
		changed = append(changed, s)
	}
	return changed, nil
}

// putBack restores one setting unless somebody else changed it meanwhile.
func (r Root) putBack(s Setting) (bool, error) {
	if r.text(s.File) != s.Set {
		return false, nil
	}
	if err := os.WriteFile(r.Path(s.File), []byte(s.Was), 0); err != nil {
		return false, fmt.Errorf("restore kernel setting: %w", err)
	}
	return true, nil
}

func (r Root) keepSettings(list []Setting) error {
	data, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("write down changed settings: %w", err)
	}
	if err := r.replace(runDir+"/"+settingsFile, data, 0o644); err != nil {
		return fmt.Errorf("write down changed settings: %w", err)
	}
	return nil
}
