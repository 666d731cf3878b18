package configurator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

// Kernel settings that may be changed when the configuration asks for it. For those of transmit queues see queueSettings.
const (
	panicFile          = "proc/sys/kernel/panic"
	kdumpNotifiersFile = "sys/module/kernel/parameters/crash_kexec_post_notifiers"
)

// Setting is a kernel setting that we changed.
type Setting struct {
	File string `json:"file"` // below the root
	Was  string `json:"was"`  // what disarm puts back
	Set  string `json:"set"`
	Link int    `json:"ifindex,omitempty"` // of the device it belongs to, which may be renamed; 0: none
}

// String is "/proc/sys/kernel/panic=0 (was 10)", without the latter if that is not known yet.
func (s Setting) String() string {
	if s.Was == "" {
		return fmt.Sprintf("/%s=%s", s.File, s.Set)
	}
	return fmt.Sprintf("/%s=%s (was %s)", s.File, s.Set, s.Was)
}

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

// WantedSettings are the kernel settings the configuration asks for on this kernel, and those that go with devices that
// targets send through.
func (c *Configurator) WantedSettings(devices []string) []Setting {
	want := c.Root.queueSettings(devices)
	if c.Config.Panic != (PanicConfig{}) { // or there is no need to read so many files every second
		want = append(want, wantedSettings(c.Config.Panic, c.Root.Facts(c.Version))...)
	}
	return want
}

// settle makes the kernel settings those of the configuration and of the targets there are.
func (c *Configurator) settle() error {
	present, _ := c.Netconsole.List() // what is wrong with it is for the draft to say
	changed, err := c.Root.settle(c.WantedSettings(devicesOf(present)))
	for _, s := range summary(changed) {
		c.Log.Info("changed kernel setting", "setting", s)
	}
	return err
}

// devicesOf are those that targets send through. One that somebody has disabled is about to be replaced, and what goes
// with its device need not change twice.
func devicesOf(present []configfs.State) []string {
	var devices []string
	for _, st := range present {
		devices = append(devices, st.Device)
	}
	return devices
}

// queueNumber is the part of a file in which the many transmit queues of a device differ.
var queueNumber = regexp.MustCompile(`/tx-\d+/`)

// summary is a line for each setting, but one for all queues of a device that were treated alike.
func summary(list []Setting) []string {
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
	r.follow(kept)
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
