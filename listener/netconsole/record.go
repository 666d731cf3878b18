package netconsole

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Record is one kernel log record, whole again and decoded. A Stream lends it out: the Record, its Text and its Fields are
// overwritten by the next one, the strings in them are not.
type Record struct {
	// Extended is the format it came in. Only the extended format carries Release, Prefix, Seq, Cont, Caller and Fields.
	Extended bool
	// Partial means that the record began but has not all arrived: it is emitted now for the sake of an alarm, and
	// exactly once more, Partial no longer set, when it is whole or its time is up. A log leaves it out.
	Partial bool
	// Release is `uname -r` of the sender, empty unless the target has release=1.
	Release string
	// Prefix is facility<<3 | level, -1 in the basic format, where whatever looks like one can be written by anybody.
	Prefix int
	// Seq is printk's sequence number: 0 at boot, with gaps where the console level suppressed records.
	Seq uint64
	// Uptime is the time since boot by the sender's clock, in microseconds, -1 if the record says none.
	Uptime time.Duration
	// Cont marks a fragment of a line that printk had not ended (LOG_CONT).
	Cont bool
	// Caller is the task or CPU that printed it, "T<pid>" or "C<cpu>", empty unless the kernel has CONFIG_PRINTK_CALLER.
	Caller string
	// Text is the message: unescaped, without its trailing newline, not necessarily UTF-8. A panic's message may span
	// lines. Where its end is missing it ends in Gap. Usually it is a piece of the datagram, so that a record costs no
	// memory of its own.
	Text []byte
	// Assembled means that it came in fragments. Only the fragment with the secret in it proves its sender.
	Assembled bool
	// Contested means that fragments with the same header contradict each other: somebody forges them, and no Identity has
	// a secret.
	Contested bool
	// Fields are the ` key=value` lines behind the text in order of arrival: kernel dictionary, userdata, sysdata. A
	// field with no key, whose value is Gap, stands where some may be missing.
	Fields []Field
	// Missing is how many bytes of the record never arrived, at least: only a fragmented record says its length, for
	// any other it is 1. Text and Fields then hold nothing but what a whole record would hold too.
	Missing int
}

// Field is one ` key=value` line of an extended record. It prints without its value if that is the secret of a boot.
type Field struct{ Key, Value string }

// Gap stands where bytes are missing. Only Missing says that some are: any text may contain Gap.
const Gap = "[…]"

// Facility of the record: 0 is the kernel itself, -1 means unknown (basic format). Text written to /dev/kmsg can never
// carry facility 0 (Documentation/ABI/testing/dev-kmsg), which is what makes the extended format worth believing.
func (r *Record) Facility() int {
	if r.Prefix < 0 {
		return -1
	}
	return r.Prefix >> 3
}

// Level of the record, 0 (emergency) to 7 (debug), -1 if unknown.
func (r *Record) Level() int {
	if r.Prefix < 0 {
		return -1
	}
	return r.Prefix & 7
}

// FromKernel reports whether the kernel itself wrote the record.
func (r *Record) FromKernel() bool { return r.Extended && r.Prefix >= 0 && r.Prefix < 8 }

// Keys under which a lastgasp target carries its identity in userdata.
const (
	KeyInstance = "instance"
	KeyBoot     = "boot"
	KeySecret   = "gasp"
)

// Identity is what a record claims about its sender: the userdata that lastgasp-configurator armed the target with. Its
// values are words of printable ASCII, 64 bytes at most, and share no memory with the record.
type Identity struct {
	Instance string // EC2 instance id, or the machine id elsewhere
	Boot     string // /proc/sys/kernel/random/boot_id
	Secret   Secret // proves the sender knew the secret of that boot
}

// IsInstanceID reports whether s has the form of an EC2 instance id.
func IsInstanceID(s string) bool {
	digits, ok := strings.CutPrefix(s, "i-")
	return ok && 8 <= len(digits) && len(digits) <= 17 && isHex(digits)
}

// IsMachineID reports whether s has the form of a machine id (machine-id(5)), which no cloud uses for its instances.
func IsMachineID(s string) bool { return len(s) == 32 && isHex(s) }

// Identity reads the identity keys from the record's fields. When a key occurs twice the first one counts: userdata
// comes before what the kernel appends, and the name of a task, which it may append, can be made to look like more
// fields. For the same reason nothing behind a gap counts.
func (r *Record) Identity() Identity {
	var id Identity
	for _, f := range r.Fields {
		switch {
		case f.Key == "":
			return id
		case f.Key == KeyInstance && id.Instance == "":
			id.Instance = f.Value
		case f.Key == KeyBoot && id.Boot == "":
			id.Boot = f.Value
		case f.Key == KeySecret && id.Secret == "" && !r.Contested:
			id.Secret = Secret(f.Value)
		}
	}
	return id
}

// String is the field as it stood in the record, without a secret.
func (f Field) String() string {
	if f.Key == KeySecret {
		return f.Key + "=" + Secret(f.Value).String()
	}
	return f.Key + "=" + f.Value
}

// GoString hides the secret from %#v.
func (f Field) GoString() string { return fmt.Sprintf("netconsole.Field(%q)", f.String()) }

// MarshalText hides the secret from encoders.
func (f Field) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// LogValue hides the secret from slog.
func (f Field) LogValue() slog.Value { return slog.StringValue(f.String()) }

// Secret is the bearer secret of one boot. It prints as a placeholder wherever values are formatted or logged; only its
// Sum may be stored.
type Secret string

// Sum is the SHA-256 of the secret in hex, empty for an empty secret.
func (g Secret) Sum() string {
	if g == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(g))
	return hex.EncodeToString(sum[:])
}

// String hides the secret from fmt.
func (g Secret) String() string {
	if g == "" {
		return ""
	}
	return hidden
}

// GoString hides the secret from %#v.
func (g Secret) GoString() string { return g.String() }

// LogValue hides the secret from slog.
func (g Secret) LogValue() slog.Value { return slog.StringValue(g.String()) }

// MarshalText hides the secret from encoders.
func (g Secret) MarshalText() ([]byte, error) { return []byte(g.String()), nil }
