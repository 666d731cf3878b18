package lastboot

import (
	"bytes"
	"cmp"
	"compress/flate"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

const (
	pstoreDir  = "sys/fs/pstore"
	archiveDir = "var/lib/systemd/pstore" // systemd-pstore moves entries there
)

// part is one entry of pstore: a piece of a dump.
type part struct {
	file
	kind          string
	count, number int
	time          time.Time
	text          []byte
	known         bool
}

// heading begins an entry: "Panic#1 Part2" (pstore_dump, fs/pstore/platform.c). pstore_blk counts in front of it
// (psz_kmsg_read, fs/pstore/zone.c).
var heading = lazyregexp.New(`^(?:[A-Z][a-z]+: Total \d{1,10} times\n)?([A-Z][a-z]+)#(\d{1,6}) Part(\d{1,6})[ \t]*\n`)

// console is the kind of ramoops' other entry: whatever the kernel printed, until it stopped.
const console = "Console"

// efiName has the time in it, in front of five digits: part and count (generic_id, drivers/firmware/efi/efi-pstore.c).
var efiName = lazyregexp.New(`^dmesg-efi(?:_pstore)?-(\d{9,12})\d{5}(?:\.enc\.z)?$`)

// readPstore reads the entries of pstore, also those that systemd-pstore has moved.
func (s *store) readPstore(root machine.Root, known map[string]bool, left *int) {
	isEntry := func(base string) bool { return strings.HasPrefix(base, "dmesg-") || isConsole(base) }
	var parts []part
	for _, dir := range []string{pstoreDir, archiveDir} {
		for _, f := range list(root, dir, isEntry) {
			path := f.mark()
			if dir == archiveDir && known[path] {
				s.files = append(s.files, f)
				continue // it need not be read
			}
			data, err := readListed(root, f, int64(min(maxEntry, *left)))
			if err != nil {
				continue
			}
			p := newPart(f, data)
			*left = max(0, *left-max(len(data), len(p.text)))
			p.known = known[p.mark()]
			if dir == archiveDir {
				p.sum = ""
			}
			s.files = append(s.files, p.file)
			switch {
			case p.text != nil:
				parts = append(parts, p)
			case !p.known && len(data) > 0:
				s.unread++
			}
		}
	}
	s.dumps = append(s.dumps, join(parts)...)
}

func isConsole(base string) bool { return strings.HasPrefix(base, "console-ramoops") }

func newPart(f file, data []byte) part {
	sum := sha256.Sum256(data)
	f.sum = hex.EncodeToString(sum[:8])
	p := part{file: f, time: f.info.ModTime()}
	if m := efiName.FindStringSubmatch(filepath.Base(f.name)); m != nil {
		seconds, _ := strconv.ParseInt(m[1], 10, 64)
		p.time = time.Unix(seconds, 0).UTC()
	}
	if isConsole(filepath.Base(f.name)) {
		p.kind, p.text, p.time = console, data, time.Time{} // the file's time is when it was found
		return p
	}
	if strings.HasSuffix(f.name, ".enc.z") {
		data = inflate(data)
	}
	m := heading.FindSubmatch(data)
	if m == nil {
		return p // of another kind, or compressed in a way that only the kernel that wrote it knows
	}
	p.kind = string(m[1])
	p.count, _ = strconv.Atoi(string(m[2]))
	p.number, _ = strconv.Atoi(string(m[3]))
	p.text = data[len(m[0]):]
	return p
}

// inflate decompresses what the kernel could not: raw deflate, or with zlib's header. The other algorithms of kernels before 6.6
// yield nothing.
func inflate(data []byte) []byte {
	var r io.ReadCloser = flate.NewReader(bytes.NewReader(data))
	out, _ := io.ReadAll(io.LimitReader(r, maxEntry)) // what comes before an error is good
	if heading.Match(out) {
		return out
	}
	r, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	out, _ = io.ReadAll(io.LimitReader(r, maxEntry))
	return out
}

// join makes dumps of parts. The kernel numbers the parts of a dump from the newest lines on, in the order in which it writes them, and
// its dumps from 1. Kernels that die one soon after the other begin with the same numbers.
func join(parts []part) []dump {
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.count, b.count), a.time.Compare(b.time), cmp.Compare(a.number, b.number))
	})
	var dumps []dump
	for len(parts) > 0 {
		first, n := parts[0], 1
		for n < len(parts) && parts[n].kind == first.kind && parts[n].count == first.count && parts[n].continues(parts[n-1]) {
			n++
		}
		dumps = append(dumps, newDump(parts[:n]))
		parts = parts[n:]
	}
	return dumps
}

// continues reports whether p may be of the same dump as the part that was written before it.
func (p part) continues(before part) bool {
	later := p.time.Sub(before.time)
	return later < time.Second || later < splitTime && p.number > before.number // no kernel boots and dies in a second
}

// newDump makes a dump of its parts. An entry may be there twice, moved and not.
func newDump(parts []part) dump {
	d := dump{source: Pstore, kind: parts[0].kind, time: parts[0].time}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.number, a.number) })
	for i, p := range parts {
		d.known = d.known || p.known
		d.entries = append(d.entries, p.name)
		if i > 0 && p.number == parts[i-1].number && bytes.Equal(p.text, parts[i-1].text) {
			continue
		}
		d.text = append(d.text, p.text...)
		if n := len(d.text); n > 0 && d.text[n-1] != '\n' {
			d.text = append(d.text, '\n')
		}
	}
	return d
}

// Clear removes the entries of pstore that the ending was read from, so that the next panic finds room. Entries that
// systemd-pstore has moved stay, and so does ramoops' console: removing it empties that of the boot that runs (ramoops_pstore_erase,
// fs/pstore/ram.c).
func (e Ending) Clear(root machine.Root) error {
	var errs []error
	for _, name := range e.Entries {
		if filepath.Dir(name) != pstoreDir || isConsole(filepath.Base(name)) {
			continue
		}
		if err := os.Remove(root.Path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the entry of pstore: %w", err))
		}
	}
	return errors.Join(errs...)
}

// MovesPstore reports whether systemd-pstore is enabled: it moves the entries at each boot.
func MovesPstore(root machine.Root) bool {
	for _, dir := range []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		for _, target := range []string{"sysinit.target.wants", "remote-fs.target.wants", "multi-user.target.wants"} {
			if _, err := os.Lstat(root.Path(dir, target, "systemd-pstore.service")); err == nil {
				mask, _ := os.Readlink(root.Path("etc/systemd/system/systemd-pstore.service"))
				return mask != "/dev/null"
			}
		}
	}
	return false
}

// fullAt is how little room a firmware may have left for a dump: sixteen parts of about 1.7 KiB, as the kernel writes by default.
const fullAt = 32 << 10

// Findings returns what keeps the next panic's words from being kept. It needs root to see the store, and finds nothing otherwise.
func Findings(root machine.Root) []machine.Finding {
	var found []machine.Finding
	l, err := read(root)
	if err != nil || l == nil {
		return nil
	}
	old, size := 0, int64(0)
	// ramoops overwrites its oldest entry; the others refuse a new one.
	fills := func(base string) bool {
		return strings.HasPrefix(base, "dmesg-") && !strings.HasPrefix(base, "dmesg-ramoops-")
	}
	for _, f := range list(root, pstoreDir, fills) {
		data, err := readListed(root, f, maxEntry)
		if p := newPart(f, data); err == nil && slices.Contains(l.Known, p.mark()) {
			old++
			size += f.info.Size()
		}
	}
	removedSoon := slices.ContainsFunc(l.Unacknowledged(), func(e Ending) bool { return len(e.Entries) > 0 })
	if old > 0 && !removedSoon {
		found = append(found, machine.Finding{
			What: fmt.Sprintf("pstore still holds %d entries of earlier boots (%d KiB)", old, (size+1023)>>10),
			Cost: "the next panic's may not fit",
			Mend: "save what is needed and remove them from /sys/fs/pstore, or enable systemd-pstore.service",
		})
	}
	var room unix.Statfs_t
	if err := unix.Statfs(root.Path("sys/firmware/efi/efivars"), &room); err == nil && room.Type == unix.EFIVARFS_MAGIC &&
		room.Blocks > 0 && int64(room.Bavail)*room.Bsize < fullAt {
		found = append(found, machine.Finding{
			What: fmt.Sprintf("the firmware's variable store has %d KiB left", int64(room.Bavail)*room.Bsize>>10),
			Cost: "a panic may not be kept for the next boot",
			Mend: "remove old entries from /sys/fs/pstore",
		})
	}
	return found
}
