package detect

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Verdict is how bad a record is.
type Verdict int

const (
	// Sick kernels still run; the finding is reported and nothing is done.
	Sick Verdict = iota
	// Oops kernels killed a task and may run on; they are dying if panic_on_oops or kdump says so.
	Oops
	// Dying kernels will not run userspace again.
	Dying
)

// Authority is how far a record can be believed, weakest first.
type Authority int

const (
	// Text: basic format or userspace facility; anybody could have written it.
	Text Authority = iota
	// Cloud: the cloud's console text of this boot says so. Not emitted by this package.
	Cloud
	// Kernel: extended format, facility 0, from the source's own address.
	Kernel
	// Boot: and its boot id is the Node's. Not emitted by this package, like those below.
	Boot
	// Claimed: and its secret matches what a canary claimed for that boot.
	Claimed
	// Pinned: and its secret matches what the node itself pinned.
	Pinned
)

// Incident is one claim that a kernel is dying, wounded or sick. It knows nothing of Kubernetes.
type Incident struct {
	// Source is the address the records came from.
	Source netip.AddrPort
	// Identity is what the deciding record claimed; its boot and instance may be empty (kernels before 6.9).
	Identity netconsole.Identity
	// Time is when the deciding record arrived.
	Time time.Time

	// Verified means that the cluster knew the secret in Identity for that boot when the record arrived. Whoever queues
	// incidents serves these first; whether to act on one is decided anew, by Authority.
	Verified bool

	Verdict   Verdict
	Authority Authority // Text or Kernel, what the record proves by itself
	// Cause is a stable word, node-problem-detector's where it has one: KernelPanic, KernelOops, SoftLockup, …
	Cause string
	// Title names the crash as a kernel engineer would: "general protection fault in foo".
	Title string
	// Fingerprint is equal for equal bugs: a hash of kind and reliable frames, 12 hex digits.
	Fingerprint string
	// Culprit is the task that the text names.
	Culprit Culprit
	// Remedy is advice for a known bug, usually empty.
	Remedy string
	// Release is `uname -r`, empty if the records do not say.
	Release string
	// Trace is the log text around the crash, oldest line first, secrets left out. Before Complete it is what has
	// arrived so far.
	Trace []string
	// Complete is set on the last emission of an incident: the source has fallen silent, rebooted or ended its panic.
	Complete bool
}

// String is the verdict as one word: sick, oops or dying.
func (v Verdict) String() string {
	switch v {
	case Sick:
		return "sick"
	case Oops:
		return "oops"
	case Dying:
		return "dying"
	}
	return "Verdict(" + strconv.Itoa(int(v)) + ")"
}

// MarshalText writes the word String gives.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (v *Verdict) UnmarshalText(text []byte) error {
	for _, known := range [...]Verdict{Sick, Oops, Dying} {
		if string(text) == known.String() {
			*v = known
			return nil
		}
	}
	return fmt.Errorf("verdict %q is none of sick, oops, dying", text)
}

// authorities are the words for each Authority.
func authorities() [6]string {
	return [...]string{Text: "text", Cloud: "cloud", Kernel: "kernel", Boot: "boot", Claimed: "claimed", Pinned: "pinned"}
}

// String is the authority as one word.
func (a Authority) String() string {
	if words := authorities(); a >= Text && a <= Pinned {
		return words[a]
	}
	return "Authority(" + strconv.Itoa(int(a)) + ")"
}

// MarshalText writes the word String gives.
func (a Authority) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (a *Authority) UnmarshalText(text []byte) error {
	words := authorities()
	i := slices.Index(words[:], string(text))
	if i < 0 {
		return fmt.Errorf("authority %q is none of %s", text, strings.Join(words[:], ", "))
	}
	*a = Authority(i)
	return nil
}

// TraceSize is how many bytes the trace takes in memory.
func (inc Incident) TraceSize() (n int) {
	for _, line := range inc.Trace {
		n += len(line) + 16 // of a string header
	}
	return n
}
