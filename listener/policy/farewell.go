package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Farewell is a node's announcement that one of its boots ends in good order. The end of a boot with a farewell is never
// Unexplained. The zero value means that there is none.
type Farewell struct {
	Boot string
	Text string    // "rebooted by alice (sudo reboot)"
	At   time.Time // when the listener heard it, in whole seconds
	On   string    // the later boot on which the node says so; empty if it is Boot itself
}

const (
	farewellAt  = " at "
	farewellEnd = ", says the node"
	farewellOn  = " on boot "
	farewellDue = ", due "

	softRebooted = "soft-rebooted"
)

// FarewellOf is the farewell that a node has sent.
func FarewellOf(y netconsole.Bye, at time.Time) Farewell {
	text := ended(y)
	if y.By != "" || y.Unit != "" {
		text += " by " + asker(y)
	}
	if !y.Due.IsZero() {
		text += farewellDue + y.Due.Format(time.RFC3339)
	}
	return Farewell{Boot: y.Boot, Text: text, At: at.UTC().Truncate(time.Second)}
}

// ended says what becomes of a node, as a participle. A cause that is not known is quoted.
func ended(y netconsole.Bye) string {
	event := ""
	if y.Event != "" {
		event = " (" + y.Event + ")"
	}
	switch y.Cause {
	case netconsole.ByeReboot:
		return "rebooted"
	case netconsole.ByeSoftReboot:
		return softRebooted
	case netconsole.ByePoweroff:
		return "powered off"
	case netconsole.ByeHalt:
		return "halted"
	case netconsole.ByeKexec:
		return "rebooted with kexec"
	case netconsole.ByeShutdown:
		return "shut down"
	case netconsole.ByeSpot:
		return "interrupted as a spot instance" + event
	case netconsole.ByeASG:
		return "terminated by its Auto Scaling group" + event
	case netconsole.ByeMaintenance:
		return "shut down for a scheduled event of EC2" + event
	}
	return "shut down (" + y.Cause + ")"
}

// asker is who asked for the end of a boot.
func asker(y netconsole.Bye) string {
	who, command := y.By, y.Command
	if who == "" {
		who = y.Unit
	}
	if command == "systemctl" {
		command += " " + y.Cause
	}
	if y.Sudo && command != "" {
		command = "sudo " + command
	}
	how := []string{command}
	if y.By != "" && strings.HasSuffix(y.Unit, ".service") { // cron logs in for its jobs
		how = append(how, y.Unit)
	}
	if text := strings.TrimPrefix(strings.Join(how, ", "), ", "); text != "" {
		return who + " (" + text + ")"
	}
	return who
}

// String is what people read on a pod.
func (f Farewell) String() string {
	text := f.Text + farewellAt + f.At.Format(time.RFC3339) + farewellEnd
	if f.On != "" {
		text += farewellOn + f.On
	}
	return text
}

// Annotation is the value of the annotation on the Node.
func (f Farewell) Annotation() string { return f.Boot + ": " + f.String() }

// ParseFarewell reads an annotation of a Node. It returns zero for one that Annotation did not write.
func ParseFarewell(annotation string) Farewell {
	boot, rest, _ := strings.Cut(annotation, ": ")
	on := ""
	if i := strings.LastIndex(rest, farewellEnd+farewellOn); i >= 0 {
		rest, on = rest[:i+len(farewellEnd)], rest[i+len(farewellEnd+farewellOn):]
	}
	rest, ok := strings.CutSuffix(rest, farewellEnd)
	i := strings.LastIndex(rest, farewellAt)
	if !ok || i < 0 || boot == "" {
		return Farewell{}
	}
	at, err := time.Parse(time.RFC3339, rest[i+len(farewellAt):])
	if err != nil {
		return Farewell{}
	}
	return Farewell{Boot: boot, Text: rest[:i], At: at.UTC(), On: on}
}

// Repeats reports whether f says what was heard before.
func (f Farewell) Repeats(before Farewell) bool {
	return f.Boot == before.Boot && f.Text == before.Text
}

// FarewellBy says why that farewell cannot be n's. It returns nil if it is: n must run the boot, and must itself have pinned
// the secret that came with it.
func FarewellBy(n Node, y netconsole.Bye) error {
	switch {
	case n.BootID != y.Boot:
		return fmt.Errorf("node %s runs boot %s and not %s", n.Name, n.BootID, y.Boot)
	case y.Secret == "" || n.Pin != Pin{Boot: y.Boot, Sum: y.Secret.Sum()}:
		return fmt.Errorf("node %s has not pinned the secret of boot %s; check that lastgasp-configurator-watch.service is running there", n.Name, y.Boot)
	}
	return nil
}
