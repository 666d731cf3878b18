package netconsole

import (
	"strconv"
	"strings"
	"time"
)

// byeStart begins a farewell.
const byeStart = "lastgasp: bye v1 cause="

// Causes of a farewell, as they stand on the wire. A listener also takes words that it does not know.
const (
	ByeReboot      = "reboot"
	ByeSoftReboot  = "soft-reboot" // of everything but the kernel: the boot goes on
	ByePoweroff    = "poweroff"
	ByeHalt        = "halt"
	ByeKexec       = "kexec"
	ByeShutdown    = "shutdown"    // systemd does not say which of the above
	ByeSpot        = "spot"        // EC2 takes a spot instance back
	ByeASG         = "asg"         // an Auto Scaling group terminates the instance
	ByeMaintenance = "maintenance" // a scheduled event of EC2
)

// Bye is a farewell: the datagram with which lastgasp-configurator says that this boot ends in good order, why, and who asked
// for it. It comes from an ordinary socket, never from the kernel, and is acknowledged like a canary.
type Bye struct {
	Nonce    string // 32 lower-case hex digits, new for every farewell; a repetition has the same
	Cause    string
	Instance string // as in a canary
	Boot     string
	Cluster  string
	Secret   Secret // of the boot; empty if the node does not trust the listener with it
	// By is the login user who asked, empty if it was a daemon, the firmware or EC2. Sudo does not change it.
	By string
	// Command is the name of the process that asked. Sudo says that it ran below sudo.
	Command string
	Sudo    bool
	// Unit is the systemd unit of the process that asked, if no login user did, or one whom cron or at has logged in.
	Unit string
	// Event is EC2's name of the notice: of a scheduled event, its id.
	Event string
	// Due is when EC2 will end the instance, in whole seconds; zero if it is ending now.
	Due time.Time
}

// Line is the farewell as it is sent, one datagram with no newline. Values become words as those of a canary do. The line is
// padded, so that no acknowledgement is longer.
func (y Bye) Line() string {
	var w words
	w.WriteString(byeStart + oneWord(y.Cause, maxToken))
	w.add("by", y.By)
	w.add("command", y.Command)
	if y.Sudo {
		w.add("sudo", bit(true))
	}
	w.add("unit", y.Unit)
	w.add("event", y.Event)
	if !y.Due.IsZero() {
		w.add("due", strconv.FormatInt(y.Due.Unix(), 10))
	}
	w.add(KeyBoot, y.Boot)
	w.add(KeySecret, string(y.Secret))
	w.add(KeyInstance, y.Instance)
	w.add(keyCluster, y.Cluster)
	w.add("nonce", y.Nonce)
	return w.padded()
}

// IsBye reports whether a datagram begins like a farewell, and so is no record.
func IsBye(datagram []byte) bool {
	return len(datagram) >= len(byeStart) && string(datagram[:len(byeStart)]) == byeStart
}

// ParseBye reads a datagram. It accepts only what Line writes, except that what follows the cause may be in any order, or
// unknown. It accepts nothing shorter than the longest acknowledgement, so that answering never amplifies.
func ParseBye(datagram string) (Bye, bool) {
	rest, ok := strings.CutPrefix(datagram, byeStart)
	if !ok || len(datagram) < maxAck || len(datagram) > maxLine {
		return Bye{}, false
	}
	var y Bye
	cause, rest, _ := strings.Cut(rest, " ")
	if cause == "" || len(cause) > maxToken || !printable(cause) {
		return Bye{}, false
	}
	y.Cause = strings.Clone(cause)
	ok = readWords(rest, func(key, value string) bool { return y.set(key, strings.Clone(value)) })
	if !ok || y.Boot == "" || y.Instance == "" || !isNonce(y.Nonce) {
		return Bye{}, false
	}
	return y, true
}

// set takes over one word of a farewell. It reports false if the value does not fit the key.
func (y *Bye) set(key, value string) (ok bool) {
	ok = true
	switch key {
	case "cause":
		ok = false // a second one
	case "by":
		y.By = value
	case "command":
		y.Command = value
	case "sudo":
		y.Sudo, ok = true, value == bit(true)
	case "unit":
		y.Unit = value
	case "event":
		y.Event = value
	case "due":
		var seconds int
		seconds, ok = integer(value)
		y.Due = time.Unix(int64(seconds), 0).UTC()
		ok = ok && seconds > 0 && y.Due.Year() < 10000
	case KeyBoot:
		y.Boot = value
	case KeySecret:
		y.Secret = Secret(value)
	case KeyInstance:
		y.Instance = value
	case keyCluster:
		y.Cluster = value
	case "nonce":
		y.Nonce = value
	}
	return ok
}
