package lastboot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

const (
	maxFiles  = 2048      // that are listed in each place
	maxLooks  = 1 << 17   // and how many are looked at for them
	maxEntry  = 512 << 10 // bytes that are read of a file
	maxBytes  = 8 << 20   // and of all files that are new, as they are once decompressed
	splitTime = time.Minute
	longName  = 128 // bytes; a longer one is known by its digest, so that the ledger stays small
)

// dump is what one kernel wrote down in one go.
type dump struct {
	source  string    // Pstore or Kdump
	kind    string    // why: Panic, Oops, …, or console; kdump does not say
	boot    string    // in its last canary, empty if it has none
	time    time.Time // when it was written, zero if unknown
	text    []byte
	entries []string // files, below the root
	known   bool     // it was there before the boot began
	fatal   bool     // the kernel died when it wrote the dump
	log     detect.BootLog
}

// read judges the text. A dump that pstore calls a panic is one, whatever its lines say. One of an oops is a death only if its lines
// end in one: else the kernel lived on, and what ended it later left nothing there. A crash kernel's log of a kernel that did not
// die is one that somebody has saved by hand. ramoops keeps a console of every boot.
func (d *dump) read() {
	if all := canaryBoot.FindAllSubmatch(d.text, -1); len(all) > 0 {
		d.boot = string(all[len(all)-1][1])
	}
	logs := detect.ReadBootLogs(new(detect.Config), lastLines(d.text, netconsole.MaxObituary), d.source == Kdump)
	if len(logs) > 0 {
		d.log = logs[len(logs)-1]
	}
	d.fatal = d.kind == "Panic" || d.log.Death.Verdict == detect.Dying
}

// survived reports whether the kernel lived on after it wrote the dump.
func (d dump) survived() bool {
	return !d.fatal && (d.kind == "Oops" || d.kind == console || d.source == Kdump)
}

const (
	// clockSkew is by how much the clocks of a kernel, of the firmware and of a crash kernel may differ.
	clockSkew = time.Minute
	// bootTakes is what a reset takes at least.
	bootTakes = 30 * time.Second
	// savingTakes is what a crash kernel may take at most until it has saved the log.
	savingTakes = 6 * time.Hour
)

// set reports whether a clock that said t was ever set: without one, kernels begin in 1970.
func set(t time.Time) bool { return t.Year() >= 2001 }

// of reports whether the dump can be of the end of the former ledger's boot, which the current one followed. A canary in it names
// the boot. Without one kernel, time and uptime must fit: images are copied, and people keep dumps of other machines.
func (d dump) of(former, current Ledger) bool {
	switch {
	case d.boot != "" && d.boot != former.Boot:
		return false
	case set(d.time) && d.time.Before(former.Ending.Truncate(time.Second)): // the shutdown ended it, later; stores keep seconds
		return false
	case d.boot != "":
		return true
	case d.log.Death.Release != "" && former.Kernel != "" && d.log.Death.Release != former.Kernel:
		return false
	case d.source != Kdump || !set(d.time) || !set(former.Since): // only a kernel writes to pstore
		return true
	case d.time.Before(former.Since.Add(-clockSkew)):
		return false
	case set(current.Began) && d.time.After(current.Began.Add(clockSkew-bootTakes)):
		return false
	case set(former.Began) && d.log.Uptime > 0:
		end := former.Began.Add(d.log.Uptime)
		return !end.Before(former.Since.Add(-clockSkew)) && !d.time.Before(end.Add(-clockSkew)) && d.time.Sub(end) < savingTakes
	}
	return true
}

// orderly reports whether a shutdown wrote the dump (printk.always_kmsg_dump).
func (d dump) orderly() bool {
	switch d.kind {
	case "Shutdown", "Reboot", "Restart", "Halt", "Poweroff", "Unknown":
		return true
	}
	return false
}

// store is everything that kernels have left behind.
type store struct {
	dumps  []dump
	files  []file
	unread int // new entries of pstore that cannot be read
}

// file is one file of a dump.
type file struct {
	name string // below the root
	info fs.FileInfo
	sum  string // of its content, empty if it need not be read
}

// marks names the files, so that the next boot knows them again.
func (s store) marks() []string {
	var list []string
	for _, f := range s.files {
		list = append(list, f.mark())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// mark identifies a file. An entry of pstore is identified by its content, wherever it is moved: ramoops uses names again.
func (f file) mark() string {
	if f.sum != "" {
		return filepath.Base(f.name) + "#" + f.sum
	}
	name := f.name
	if len(name) > longName {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	return name + "#" + f.info.ModTime().UTC().Format(time.RFC3339)
}

// readStore reads all places. former says what is known already; nil: everything is.
func readStore(root machine.Root, former *Ledger) store {
	known := make(map[string]bool)
	if former != nil {
		for _, mark := range former.Known {
			known[mark] = true
		}
	}
	left := maxBytes
	var s store
	s.readPstore(root, known, &left)
	s.readKdump(root, known, &left)
	for i := range s.dumps {
		d := &s.dumps[i]
		if d.known = d.known || former == nil; !d.known {
			d.read()
		}
	}
	return s
}

// list lists regular files below a directory whose name wanted accepts, three levels deep, without following links. Files and
// directories of other users are left out and do not count: some distributions let everybody write to crashDir.
func list(root machine.Root, dir string, wanted func(base string) bool) []file {
	l := lister{root: root, wanted: wanted, looks: maxLooks}
	l.list(dir, 3)
	slices.SortFunc(l.files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return l.files
}

// lister lists the files of one place.
type lister struct {
	root   machine.Root
	wanted func(base string) bool
	files  []file
	looks  int // that are left
}

// list lists a directory, and those in it down to depth. What cannot be read is not there.
func (l *lister) list(dir string, depth int) {
	f, err := os.OpenFile(l.root.Path(dir), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	for {
		some, err := f.ReadDir(256)
		for _, e := range some {
			if l.looks--; l.looks < 0 || len(l.files) >= maxFiles {
				return
			}
			isDir := e.IsDir()
			if isDir && depth <= 1 || !isDir && (!e.Type().IsRegular() || !l.wanted(e.Name())) {
				continue
			}
			info, err := e.Info()
			switch {
			case err != nil || !ours(info):
			case isDir:
				l.list(filepath.Join(dir, e.Name()), depth-1)
			default:
				l.files = append(l.files, file{name: filepath.Join(dir, e.Name()), info: info})
			}
		}
		if err != nil || len(some) == 0 {
			return
		}
	}
}

// ours reports whether a file is root's or, as in tests, this process's own.
func ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

// readListed reads the last limit bytes of a file that was listed. It refuses what has taken its place since: the text goes to the
// listeners in clear, and a link could name any file.
func readListed(root machine.Root, listed file, limit int64) ([]byte, error) {
	f, err := os.OpenFile(root.Path(listed.name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !os.SameFile(info, listed.info) || !ours(info) {
		return nil, errors.Join(fmt.Errorf("read %s: another file has taken its place", f.Name()), err)
	}
	return tail(f, limit)
}
