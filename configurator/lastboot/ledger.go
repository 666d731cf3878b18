package lastboot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/atomicfile"
)

// LedgerFile is the ledger, below the root.
const LedgerFile = "var/lib/lastgasp/boot"

// guardFile says that the unit that marks the ledger runs.
const guardFile = machine.RunDir + "/boot-end"

// maxLedger bounds what is read of the ledger, in bytes. It holds maxFiles marks of each place, and text whose every byte is
// escaped.
const maxLedger = 4 << 20

// Ledger is what is written down about a boot while it lasts, and what was found out about the one before. Its keys are an
// interface: `last-boot -o json` prints them.
type Ledger struct {
	Boot     string `json:"boot"`
	Instance string `json:"instance"` // as in machine.Identity
	Machine  string `json:"machine,omitempty"`
	Kernel   string `json:"kernel"` // `uname -r`
	// Hardware is the firmware's id of the machine, empty if it has none: machine id and ledger are copied with an image.
	Hardware string    `json:"hardware,omitempty"`
	Began    time.Time `json:"began,omitzero"` // when the kernel started, zero if unknown
	Since    time.Time `json:"since"`          // when the boot was entered
	// Ending is when a system shutdown began to end the boot, zero if none has.
	Ending time.Time `json:"ending,omitzero"`
	// Guarded means that a shutdown would have been noted: the unit that does it runs.
	Guarded bool `json:"guarded"`
	// Known names the dumps that were there already when the boot was entered.
	Known []string `json:"known,omitempty"`
	// Previous is how the boot before ended. Nil means that nobody knows: no boot of this machine was entered before, or it left no
	// word and nobody would have marked its shutdown.
	Previous *Ending `json:"previous,omitempty"`
	// Earlier is how boots before that one ended, oldest first, as long as no listener has acknowledged it: the boots that followed
	// died too young to send it.
	Earlier []Ending `json:"earlier,omitempty"`
}

// maxEarlier bounds Earlier, and earlierText the text of each, in bytes. In a crash loop the cluster has last seen the oldest boot.
const maxEarlier, earlierText = 2, 16 << 10

// young is the age up to which a boot may have had no chance to send anything. An older one is known to the cluster, which records
// only how the last boot that it knew ended.
const young = 15 * time.Minute

// Unacknowledged returns the endings that no listener has acknowledged yet, oldest first.
func (l Ledger) Unacknowledged() []Ending {
	all := slices.Clone(l.Earlier)
	if l.Previous != nil && l.Previous.Acknowledged.IsZero() {
		all = append(all, *l.Previous)
	}
	return all
}

// errCrashKernel means that a crash kernel runs, which saves a dump and ends: its boot is not entered.
var errCrashKernel = errors.New("this is a crash kernel")

// Open returns the ledger of the running boot. The first call of a boot examines how the previous one ended, and enters the new
// one. The error says why the ledger could not be written, or what was wrong with the former one; the Ledger is good in any
// case but errCrashKernel.
func Open(root machine.Root, id machine.Identity, now time.Time) (Ledger, error) {
	if crashKernel(root) {
		return Ledger{}, errCrashKernel
	}
	former, err := read(root)
	_, guardErr := os.Stat(root.Path(guardFile))
	if former != nil && former.Boot == id.Boot {
		if former.Ending.IsZero() && former.Guarded == (guardErr == nil) {
			return *former, err
		}
		former.Ending, former.Guarded = time.Time{}, guardErr == nil // the kernel outlives a soft reboot
		return *former, former.write(root)
	}
	l := begin(root, id, now)
	l.Since, l.Guarded = now, guardErr == nil
	l.Known = l.lookBack(root, former).marks()
	return l, errors.Join(err, l.write(root))
}

// crashKernel reports whether the running kernel is there to save another one's memory.
func crashKernel(root machine.Root) bool {
	_, err := os.Stat(root.Path("proc/vmcore"))
	return err == nil
}

// Look is Open, but writes nothing.
func Look(root machine.Root, id machine.Identity) (Ledger, error) {
	if crashKernel(root) {
		return Ledger{}, errCrashKernel
	}
	former, err := read(root)
	if former != nil && former.Boot == id.Boot {
		return *former, err
	}
	l := begin(root, id, time.Now())
	l.lookBack(root, former)
	return l, err
}

// lookBack finds out how the boot of the former ledger ended. If that boot died young, it takes over the endings that it left
// unacknowledged.
func (l *Ledger) lookBack(root machine.Root, former *Ledger) (found store) {
	l.Previous, found = examine(root, former, *l)
	if former == nil || !former.sameMachine(*l) || set(former.Began) && set(l.Began) && l.Began.Sub(former.Began) > young {
		return found
	}
	l.Earlier = former.Unacknowledged()
	l.Earlier = l.Earlier[:min(len(l.Earlier), maxEarlier)]
	for i := range l.Earlier {
		l.Earlier[i].Text = lastLines([]byte(l.Earlier[i].Text), earlierText)
	}
	return found
}

// begin is the ledger of a boot that is not entered yet.
func begin(root machine.Root, id machine.Identity, now time.Time) Ledger {
	l := Ledger{
		Boot: id.Boot, Instance: id.Instance, Machine: root.Text("etc/machine-id"), Kernel: root.Text("proc/sys/kernel/osrelease"),
		Hardware: root.Text("sys/class/dmi/id/product_uuid"),
	}
	first, _, _ := strings.Cut(root.Text("proc/uptime"), " ")
	if uptime, err := time.ParseDuration(first + "s"); err == nil && uptime > 0 {
		l.Began = now.Add(-uptime)
	}
	return l
}

// MarkEnding notes that a system shutdown ends the running boot. A boot that was never entered has nothing to mark.
func MarkEnding(root machine.Root, now time.Time) error {
	l, err := read(root)
	if l == nil || err != nil || l.Boot != root.BootID() {
		return err
	}
	l.Ending = now
	return l.write(root)
}

// Acknowledge notes in the ledger of the running boot that a listener has taken in how a former one ended: it is not sent
// again. Where that ledger could not be written there is nothing to note it in.
func Acknowledge(root machine.Root, boot, former string, now time.Time) error {
	l, err := read(root)
	if err != nil || l == nil || l.Boot != boot {
		return err
	}
	l.Earlier = slices.DeleteFunc(l.Earlier, func(e Ending) bool { return e.Boot == former })
	if l.Previous != nil && l.Previous.Boot == former {
		l.Previous.Acknowledged = now
	}
	return l.write(root)
}

// sameMachine reports whether the ledger of a former boot is of the machine that the current one is of.
func (l Ledger) sameMachine(current Ledger) bool {
	sameHardware := l.Hardware == current.Hardware || l.Hardware == "" || current.Hardware == ""
	switch {
	case l.Instance == current.Instance:
		return isInstance(l) || l.Machine == current.Machine && sameHardware
	case isInstance(l) != isInstance(current): // EC2's metadata did not answer on one of the two boots
		return l.Hardware != "" && l.Hardware == current.Hardware && l.Machine != "" && l.Machine == current.Machine
	}
	return false
}

func isInstance(l Ledger) bool { return strings.HasPrefix(l.Instance, "i-") }

// read reads the ledger; nil if there is none.
func read(root machine.Root) (*Ledger, error) {
	f, err := os.Open(root.Path(LedgerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the ledger of boots: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLedger))
	if err != nil {
		return nil, fmt.Errorf("read the ledger of boots: %w", err)
	}
	var l Ledger
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("read the ledger of boots: %s: %w; starting a new one", root.Path(LedgerFile), err)
	}
	return &l, nil
}

// write replaces the ledger in one step, and waits until the disk has it: the machine may die the next moment. It holds lines of
// the kernel log, so only root may read it.
func (l Ledger) write(root machine.Root) error {
	data, err := json.Marshal(l)
	if err == nil {
		err = atomicfile.Write(root.Path(LedgerFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the ledger of boots: %w", err)
	}
	return nil
}

// readHead reads the first limit bytes of a file. A file of sysfs has no end to read from: it claims to be a page
// long, whatever is in it (fs/sysfs/file.c).
func readHead(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// tail reads the last limit bytes of an open file.
func tail(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is not a regular file", f.Name())
	}
	if info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
