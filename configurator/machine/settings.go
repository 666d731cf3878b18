package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

// Kernel settings that are changed only if the configuration asks for it. QueueSettings has those of transmit queues.
const (
	panicFile          = "proc/sys/kernel/panic"
	kdumpNotifiersFile = "sys/module/kernel/parameters/crash_kexec_post_notifiers"
)

// Panic says which of the kernel's panic settings to change. See PanicSettings.
type Panic struct {
	Hold           bool // kernel.panic=0 where a kernel would otherwise reboot before it has sent anything
	Timeout        *int // kernel.panic in seconds; nil leaves it alone
	KdumpNotifiers bool // crash_kexec_post_notifiers
}

// Setting is a kernel setting that we changed.
type Setting struct {
	File string `json:"file"` // below the root
	Was  string `json:"was"`  // what disarm restores
	Set  string `json:"set"`
	Link int    `json:"ifindex,omitempty"` // of the device it belongs to, which may be renamed; 0: none
}

// String returns "/proc/sys/kernel/panic=0 (was 10)", or only the first part while the former value is not known.
func (s Setting) String() string {
	if s.Was == "" {
		return fmt.Sprintf("/%s=%s", s.File, s.Set)
	}
	return fmt.Sprintf("/%s=%s (was %s)", s.File, s.Set, s.Was)
}

// PanicSettings returns the settings that p asks for, given the kernel's facts and the kubelet. It is pure.
//
// kernel.panic belongs to the kubelet, which sets it at its start; and before 7.0 a panic is heard with every value from 1.
// So it is held at 0 only on kernels that are mute otherwise, and on the others set only if a timeout is configured. A
// kubelet with protectKernelDefaults would not start again with any value but its own, and one that is not configured yet
// may turn out to have that setting.
func PanicSettings(p Panic, f Facts, k Kubelet) []Setting {
	var want []Setting
	if seconds, asked := p.seconds(f); asked && (k == NoKubelet || k == KubeletSets || k == KubeletProtects && seconds == kubeletPanic) {
		want = append(want, Setting{File: panicFile, Set: strconv.Itoa(seconds)})
	}
	if p.KdumpNotifiers && f.Kdump {
		want = append(want, Setting{File: kdumpNotifiersFile, Set: "Y"})
	}
	return want
}

// seconds returns the value of kernel.panic that p asks for on a kernel with facts f.
func (p Panic) seconds(f Facts) (seconds int, asked bool) {
	switch {
	case f.Deferred() && p.Hold:
		return 0, true
	case !f.Deferred() && p.Timeout != nil:
		return *p.Timeout, true
	}
	return 0, false
}

// PanicFindings returns a finding for each setting of p that the kubelet does not allow. It is pure.
func PanicFindings(p Panic, f Facts, k Kubelet) []Finding {
	seconds, asked := p.seconds(f)
	if !asked || seconds == kubeletPanic {
		return nil
	}
	key := "panic.timeout"
	if f.Deferred() {
		key = "panic.hold"
	}
	switch k {
	case KubeletProtects:
		return []Finding{{What: key + " is refused",
			Cost: fmt.Sprintf("the kubelet has protectKernelDefaults and would not start with kernel.panic=%d", seconds),
			Mend: "remove " + key + " here, or protectKernelDefaults there"}}
	case KubeletExpected:
		return []Finding{{What: key + " waits for the kubelet to be configured",
			Cost: "a kubelet with protectKernelDefaults would not start with it",
			Mend: "run lastgasp-configurator watch, which sets it once the kubelet is configured"}}
	}
	return nil
}

// queueNumber is the part of a file name in which a device's transmit queues differ.
var queueNumber = lazyregexp.New(`/tx-\d+/`)

// Summary returns a line for each setting, and a single line for all queues of a device that were changed alike.
func Summary(list []Setting) []string {
	var lines []string
	count := make(map[string]int)
	for _, s := range list {
		s.File = queueNumber.ReplaceAllString(s.File, "/tx-*/")
		if count[s.String()]++; count[s.String()] == 1 {
			lines = append(lines, s.String())
		}
	}
	for i, line := range lines {
		if n := count[line]; n > 1 {
			lines[i] = fmt.Sprintf("%s on %d queues", line, n)
		}
	}
	return lines
}

// Settings returns the settings we changed since boot.
func (r Root) Settings() ([]Setting, error) {
	data, err := os.ReadFile(r.Path(RunDir, settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read changed settings: %w", err)
	}
	var list []Setting
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, nil // cut short by a full disk: the former values are lost, and an error here would not bring them back
	}
	return list, nil
}

// ApplySettings sets what differs from want and restores what is no longer wanted. It returns what it changed, for the log. It
// saves former values first, so that a crash cannot lose them.
func (r Root) ApplySettings(want []Setting) (changed []Setting, err error) {
	kept, err := r.Settings()
	if err != nil {
		return nil, err
	}
	r.applyRenames(kept)
	for _, old := range kept {
		if slices.ContainsFunc(want, func(s Setting) bool { return s.File == old.File }) {
			continue
		}
		back, err := r.restore(old)
		if err != nil {
			return changed, err
		}
		if back {
			changed = append(changed, Setting{File: old.File, Was: old.Set, Set: old.Was})
		}
		kept = slices.DeleteFunc(slices.Clone(kept), func(s Setting) bool { return s.File == old.File })
		if err := r.saveSettings(kept); err != nil {
			return changed, err
		}
	}
	var errs []error // one that cannot be changed is no reason to leave the others
	for _, s := range want {
		s.Was = r.Text(s.File)
		if s.Was == s.Set {
			continue
		}
		// If somebody has set it since (the kubelet does), disarm has to restore their value.
		former := kept
		kept = append(slices.DeleteFunc(slices.Clone(kept), func(k Setting) bool { return k.File == s.File }), s)
		if err := r.saveSettings(kept); err != nil {
			return changed, err
		}
		switch err := os.WriteFile(r.Path(s.File), []byte(s.Set), 0); {
		case err == nil:
			changed = append(changed, s)
			continue
		case errors.Is(err, fs.ErrNotExist) && s.Link != 0: // its device has gone since
		case s.Link != 0:
			errs = append(errs, fmt.Errorf("change kernel setting: %w; set queues: false to do without", err))
		default:
			errs = append(errs, fmt.Errorf("change kernel setting: %w", err))
		}
		kept = former // nothing has changed
		errs = append(errs, r.saveSettings(kept))
	}
	return changed, errors.Join(errs...)
}

// restore restores one setting's former value, unless somebody else has changed it meanwhile.
func (r Root) restore(s Setting) (bool, error) {
	if r.Text(s.File) != s.Set {
		return false, nil
	}
	if err := os.WriteFile(r.Path(s.File), []byte(s.Was), 0); err != nil {
		return false, fmt.Errorf("restore kernel setting: %w", err)
	}
	return true, nil
}

func (r Root) saveSettings(list []Setting) error {
	data, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("write down changed settings: %w", err)
	}
	if err := atomicfile.Write(r.Path(RunDir+"/"+settingsFile), data, 0o644); err != nil {
		return fmt.Errorf("write down changed settings: %w", err)
	}
	return nil
}

// Differ reports whether any setting of want has another value at present.
func (r Root) Differ(want []Setting) bool {
	return slices.ContainsFunc(want, func(s Setting) bool { return r.Text(s.File) != s.Set })
}
