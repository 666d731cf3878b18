package netconsole

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

const (
	canaryStart = "lastgasp: canary v1 nonce="

	nonceLen = 32  // hex digits
	maxLine  = 960 // bytes of a canary; printk keeps about 992 on 6.1, 1024 since 6.3

	maxInterval = 24 * time.Hour // between canaries
)

// Hello is the datagram that lastgasp-configurator sends to a listener before it waits for an acknowledgement there, so
// that a stateful firewall of its own node lets the acknowledgement in: netpoll bypasses conntrack. A listener drops it.
const Hello = "lastgasp: hello v1"

// Canary is the line that lastgasp-configurator writes to /dev/kmsg to prove that the listener hears this kernel.
type Canary struct {
	Nonce    string // 32 lower-case hex digits, new for every canary
	Instance string // as in the target's userdata; kernels before 6.9 have none
	Boot     string // as in the target's userdata
	Cluster  string // whose listener is to acknowledge it; empty if the configuration names none
	Facts    Facts
	// Interval is the time to the next one, in whole seconds, a day at most; zero if the canary does not say.
	Interval time.Duration
}

// Facts are what decides whether a node can be heard dying.
type Facts struct {
	Kernel       string `json:"kernel"`       // `uname -r`
	Panic        int    `json:"panic"`        // kernel.panic: seconds from panic to reboot, 0 never, negative at once
	PanicOnOops  bool   `json:"panicOnOops"`  // kernel.panic_on_oops
	Kdump        bool   `json:"kdump"`        // /sys/kernel/kexec_crash_loaded: a crash kernel waits
	Unmuted      bool   `json:"unmuted"`      // lastgasp's kernel module makes netconsole speak before the kernel reboots
	ConsoleLevel int    `json:"consoleLevel"` // first number of kernel.printk: records below this level are sent
	Version      string `json:"version"`      // of the configurator
	// NoNetconsole means that the kernel has none. The configurator then sends the canary itself.
	NoNetconsole bool `json:"noNetconsole,omitempty"`
}

// Deferred reports whether netconsole of this kernel is flushed only at the very end of a panic, after the branches that start
// a crash kernel or reboot (nbcon_atomic_flush_unsafe in vpanic, kernel/panic.c). That is so since 7.0 (7eab73b18630), unless
// lastgasp's kernel module is loaded.
func (f Facts) Deferred() bool {
	major, _, _ := strings.Cut(f.Kernel, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= 7 && !f.Unmuted
}

// Mute says in one sentence why a panic of this node would not be heard. It is empty if it would be.
func (f Facts) Mute() string {
	switch {
	case f.NoNetconsole:
		return "kernel " + f.Kernel + " has no netconsole: how it died is heard only after the fact"
	case !f.Deferred():
		return ""
	case f.Panic != 0:
		return "kernel " + f.Kernel + " reboots before it sends anything, because kernel.panic is " + strconv.Itoa(f.Panic)
	case f.Kdump:
		return "kernel " + f.Kernel + " starts its crash kernel before it sends anything"
	}
	return ""
}

// Line is the canary as it is written, without the newline that has to end it. Values are single words of printable
// ASCII, at most 64 bytes, the cluster's name 100: whatever else is in them becomes an underscore or is cut off. Empty ones
// are left out. The line is padded, so that no acknowledgement is longer.
func (c Canary) Line() string {
	var w words
	w.WriteString(canaryStart + c.Nonce)
	w.add(KeyInstance, c.Instance)
	w.add(KeyBoot, c.Boot)
	w.add(keyCluster, c.Cluster)
	w.add("kernel", c.Facts.Kernel)
	w.add("panic", strconv.Itoa(c.Facts.Panic))
	w.add("panic_on_oops", bit(c.Facts.PanicOnOops))
	w.add("kdump", bit(c.Facts.Kdump))
	if c.Facts.Unmuted {
		w.add("unmuted", bit(true))
	}
	w.add("console", strconv.Itoa(c.Facts.ConsoleLevel))
	w.add("version", c.Facts.Version)
	if c.Facts.NoNetconsole {
		w.add("netconsole", "0")
	}
	if seconds := int(min(c.Interval, maxInterval).Seconds()); seconds > 0 {
		w.add("interval", strconv.Itoa(seconds))
	}
	return w.padded()
}

// ValidCluster reports whether canaries can carry the name of a cluster: one to 100 letters, digits, dots, hyphens and
// underscores, the first a letter or digit.
func ValidCluster(name string) bool {
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return false
		}
	}
	return name != "" && len(name) <= maxCluster
}

// Canary is the canary in the record, if there is one and all of it.
func (r *Record) Canary() (Canary, bool) {
	if r.Partial || r.Missing > 0 || !bytes.HasPrefix(r.Text, []byte(canaryStart)) {
		return Canary{}, false
	}
	c, ok := ParseCanary(string(r.Text))
	if !ok || r.FromConfigurator() && !c.Facts.NoNetconsole {
		return Canary{}, false // it would prove a netconsole that had no part in it
	}
	return c, true
}

// ParseCanary reads the text of a record. It accepts only what Line writes, except that facts may be missing, in any order,
// or unknown. It accepts nothing shorter than the longest acknowledgement, so that answering never amplifies.
func ParseCanary(text string) (Canary, bool) {
	rest, ok := strings.CutPrefix(text, canaryStart)
	if !ok || len(text) < maxAck || len(text) > maxLine {
		return Canary{}, false
	}
	var c Canary
	c.Nonce, rest, _ = strings.Cut(rest, " ")
	if !isNonce(c.Nonce) || !readWords(rest, c.set) || c.Instance == "" || c.Boot == "" {
		return Canary{}, false
	}
	return c, true
}

// set takes over one word of a canary. It reports false if the value does not fit the key.
func (c *Canary) set(key, value string) (ok bool) {
	ok = true
	switch key {
	case "nonce":
		ok = false // a second one
	case KeyInstance:
		c.Instance = value
	case KeyBoot:
		c.Boot = value
	case keyCluster:
		c.Cluster = value
	case "kernel":
		c.Facts.Kernel = value
	case "panic":
		c.Facts.Panic, ok = integer(value)
	case "panic_on_oops":
		c.Facts.PanicOnOops, ok = value == "1", value == "0" || value == "1"
	case "kdump":
		c.Facts.Kdump, ok = value == "1", value == "0" || value == "1"
	case "unmuted":
		c.Facts.Unmuted, ok = value == "1", value == "0" || value == "1"
	case "console":
		c.Facts.ConsoleLevel, ok = integer(value)
	case "version":
		c.Facts.Version = value
	case "netconsole":
		c.Facts.NoNetconsole, ok = value == "0", value == "0"
	case "interval":
		var seconds int
		seconds, ok = integer(value)
		c.Interval = time.Duration(seconds) * time.Second
		ok = ok && seconds > 0 && seconds <= int(maxInterval.Seconds())
	}
	return ok
}

// isNonce reports whether s is 32 lower-case hex digits.
func isNonce(s string) bool { return len(s) == nonceLen && isHex(s) }

// integer reads a decimal as strconv.Itoa writes it.
func integer(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && strconv.Itoa(n) == s
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
