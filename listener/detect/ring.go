package detect

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// A line is one line of log as `dmesg` prints it: "[    3.591339] text".
type line struct {
	text   string
	at     int  // where the message begins in text
	kernel bool // the kernel itself printed it, as the beginning of a message
}

// lineSize is what a line takes beside its text, in bytes.
const lineSize = 32

// size is how many bytes it takes.
func (l *line) size() int { return len(l.text) + lineSize }

// message is the line without its time stamp.
func (l *line) message() string { return l.text[l.at:] }

// caller is the task or CPU that printed the line, as in its stamp; empty unless the kernel says it.
func (l *line) caller() string {
	stamp := l.text[:l.at]
	i := strings.LastIndexByte(stamp, '[')
	if i < 0 || !strings.ContainsAny(stamp[i:], "TC") {
		return ""
	}
	return strings.TrimLeft(stamp[i+1:len(stamp)-len("] ")], " ")
}

// A ring keeps the newest lines of a source, bounded in lines and bytes. The zero value is empty; memory is taken as
// lines come, and adding one to a full ring allocates nothing.
type ring struct {
	buf   []byte // entries, wrapping around; see header
	start int    // of the oldest entry
	used  int    // bytes
	lines int
}

const (
	// header of an entry: two bytes of length, one of flags and the length of the time stamp.
	header = 3
	// flagKernel is line.kernel, in the byte that has the length of the time stamp in its other bits.
	flagKernel = 0x80
	// maxLine bounds a line in bytes. The kernel's longest record has 1024 (PRINTKRB_RECORD_MAX).
	maxLine = 4 << 10
	// maxCaller bounds a caller in bytes: "T" and a process id.
	maxCaller = 16
	// firstRing is the first size of a ring in bytes.
	firstRing = 256
)

// add appends a line, which went through clean, and evicts the oldest ones as needed.
func (g *ring) add(maxLines, maxBytes int, stamp, text []byte, kernel bool) {
	size := header + len(stamp) + len(text)
	if size > maxBytes {
		return
	}
	for g.lines >= maxLines || g.used+size > maxBytes {
		g.drop()
	}
	if g.used+size > len(g.buf) {
		g.grow(min(max(firstRing, g.used+size, len(g.buf)*3/2), maxBytes))
	}

	flags := byte(len(stamp))
	if kernel {
		flags |= flagKernel
	}
	n := len(stamp) + len(text)
	g.write([]byte{byte(n), byte(n >> 8), flags})
	g.write(stamp)
	g.write(text)
	g.lines++
}

// drop forgets the oldest line.
func (g *ring) drop() {
	n := header + g.length(g.start)
	g.start = (g.start + n) % len(g.buf)
	g.used -= n
	g.lines--
}

// length is that of the entry at i, without its header.
func (g *ring) length(i int) int {
	return int(g.buf[i]) | int(g.buf[(i+1)%len(g.buf)])<<8
}

// grow moves the entries to a buffer of the given size.
func (g *ring) grow(size int) {
	buf := make([]byte, size)
	n := copy(buf, g.buf[g.start:min(g.start+g.used, len(g.buf))])
	copy(buf[n:], g.buf[:g.used-n])
	g.buf, g.start = buf, 0
}

// shrink forgets all but the newest lines that fit into so many bytes.
func (g *ring) shrink(size int) {
	if len(g.buf) <= size {
		return
	}
	for g.used > size {
		g.drop()
	}
	g.grow(size)
}

// write appends raw bytes, for which there is room.
func (g *ring) write(b []byte) {
	end := (g.start + g.used) % len(g.buf)
	n := copy(g.buf[end:], b)
	copy(g.buf, b[n:])
	g.used += len(b)
}

// all copies the lines out, oldest first.
func (g *ring) all() []line {
	lines := make([]line, 0, g.lines)
	for at, left := g.start, g.lines; left > 0; left-- {
		n := g.length(at)
		flags := g.buf[(at+2)%len(g.buf)]
		from := (at + header) % len(g.buf)
		var text string
		if from+n <= len(g.buf) {
			text = string(g.buf[from : from+n])
		} else {
			text = string(g.buf[from:]) + string(g.buf[:from+n-len(g.buf)])
		}
		lines = append(lines, line{text: text, at: int(flags &^ flagKernel), kernel: flags&flagKernel != 0})
		at = (from + n) % len(g.buf)
	}
	return lines
}

// appendStamp writes what print_time and print_caller (kernel/printk/printk.c) do: "[%5lu.%06lu]" and "[%6s]", each only if
// it is known, and a space behind them.
func appendStamp(b []byte, uptime time.Duration, caller string) []byte {
	if uptime >= 0 {
		us := uptime.Microseconds()
		b = append(b, '[')
		b = appendPadded(b, us/1e6, 5, ' ')
		b = append(b, '.')
		b = appendPadded(b, us%1e6, 6, '0')
		b = append(b, ']')
	}
	if caller != "" && len(caller) <= maxCaller {
		b = append(b, '[')
		for i := len(caller); i < 6; i++ {
			b = append(b, ' ')
		}
		b = append(b, caller...)
		b = append(b, ']')
	}
	if len(b) > 0 {
		b = append(b, ' ')
	}
	return b
}

// appendPadded writes n right-aligned in at least width bytes.
func appendPadded(b []byte, n int64, width int, pad byte) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], n, 10)
	for i := len(d); i < width; i++ {
		b = append(b, pad)
	}
	return append(b, d...)
}

// clean makes a line of a message printable and no longer than maxLine.
func clean(b []byte) []byte {
	b = printable(b)
	if len(b) <= maxLine {
		return b
	}
	n := maxLine
	for !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}

// plain reports whether none of eight bytes is below ' ' or above '~'.
func plain(eight uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	return ((eight-' '*ones)|(eight+ones)|eight)&highs == 0
}

// printable makes a line of a message fit to be shown: kernel messages quote foreign strings, escape sequences included.
func printable(b []byte) []byte {
	i := 0
	for i+8 <= len(b) && plain(binary.LittleEndian.Uint64(b[i:])) {
		i += 8
	}
	for i < len(b) && (b[i] >= ' ' && b[i] < 0x7f || b[i] == '\t') {
		i++
	}
	if i == len(b) {
		return b
	}
	return []byte(netconsole.Printable(string(b)))
}
