package netconsole

import (
	"bytes"
	"errors"
	"math"
	"time"
)

const (
	// MaxPayload is the longest datagram accepted, in bytes. netconsole itself never sends more than 1000.
	MaxPayload = 64 << 10
	// MaxTotal is the longest fragmented record accepted, in bytes. The kernel's can approach 68 KiB: 2 KiB of text,
	// 256 userdata items and four of its own, 256 bytes each.
	MaxTotal = 128 << 10
)

// Reasons to drop a datagram. None of them says anything about the datagrams before or after it.
var (
	ErrEmpty    = errors.New("empty datagram")
	ErrTooLong  = errors.New("datagram or record longer than any kernel sends")
	ErrBinary   = errors.New("datagram is not text")
	ErrHeader   = errors.New("malformed extended header")
	ErrFragment = errors.New("malformed fragment")
)

// chunk is MAX_PRINT_CHUNK of drivers/net/netconsole.c: the longest payload in either format.
const chunk = 1000

// maxHeader bounds an extended header, in bytes. The kernel's own need 150: a release of 64, numbers, a caller, ncfrag.
const maxHeader = 256

// maxPrefix is the largest facility<<3|level that fits struct printk_info (kernel/printk/printk_ringbuffer.h).
const maxPrefix = 255<<3 | 7

// replayNotice can precede the header of either format (console_prepend_replay, kernel/printk/nbcon.c).
const replayNotice = "** replaying previous printk message **\n"

// Frame is one datagram taken apart, nothing decoded. Its slices point into the payload.
type Frame struct {
	// Extended is the format. In the basic format only Cut and Body mean anything, Prefix and Uptime are -1.
	Extended bool
	// Header is the extended header without the part that differs between the fragments of a record.
	Header []byte
	// Release is `uname -r` of the sender, nil if the header has none.
	Release []byte
	// Prefix is facility<<3 | level, 0 to 2047.
	Prefix int
	// Seq is printk's sequence number.
	Seq uint64
	// Uptime is the record's time since boot, in whole microseconds.
	Uptime time.Duration
	// Cont marks a fragment of a line that printk had not ended.
	Cont bool
	// Caller is "T<pid>" or "C<cpu>", nil unless the kernel has CONFIG_PRINTK_CALLER.
	Caller []byte
	// Fragment means that Body is the bytes from Offset of a record of Total bytes, otherwise it is all of it.
	Fragment      bool
	Offset, Total int
	// Cut means that the record does not end here, although nothing else says so: it lacks the final newline. The rest
	// of an extended record is lost, that of a basic one may follow in the next datagram.
	Cut bool
	// Body is what follows the header; in the basic format the whole payload.
	Body []byte
}

// ParseFrame takes a datagram apart. It allocates nothing and keeps nothing. The error is one of the sentinels above;
// ErrHeader and ErrFragment mean that the payload began like an extended record but is not one.
func ParseFrame(payload []byte) (Frame, error) {
	if len(payload) > MaxPayload {
		return Frame{}, ErrTooLong
	}
	p, _ := cutPrefix(payload, replayNotice)
	if len(p) == 0 {
		return Frame{}, ErrEmpty
	}

	f, body, err := parseHeader(p)
	switch {
	case err != nil:
		return Frame{}, err
	case !f.Extended:
		f.Body, f.Cut = p, len(payload) == chunk && payload[chunk-1] != '\n'
	case f.Fragment:
		if len(body) == 0 || len(body) > f.Total-f.Offset {
			return Frame{}, ErrFragment
		}
		f.Body = body
	default:
		f.Body, f.Cut = trimLost(body, len(payload))
	}
	// printk's text ends at a NUL, so that nothing it prints contains one.
	if bytes.IndexByte(f.Body, 0) >= 0 {
		return Frame{}, ErrBinary
	}
	return f, nil
}

// trimLost finds out whether the body of an unfragmented record lacks its end. Every such record ends in a newline,
// except that up to 6.12 a datagram that would be 1000 bytes loses just this newline to scnprintf's NUL: it is 999
// bytes long, or ends in the NUL (send_msg_no_fragmentation, drivers/net/netconsole.c).
func trimLost(body []byte, datagram int) (rest []byte, cut bool) {
	n := len(body)
	switch {
	case datagram == chunk && n > 0 && body[n-1] == 0:
		return body[:n-1], false
	case datagram == chunk-1:
		return body, false
	}
	return body, n == 0 || body[n-1] != '\n'
}

// parseHeader reads an extended header up to and with its semicolon. What does not begin like one is the basic format
// and no error: Extended is false.
func parseHeader(p []byte) (f Frame, body []byte, err error) {
	f, rest, err := parseOrigin(p)
	if err != nil || !f.Extended {
		return f, nil, err
	}
	f.Header = p[:len(p)-len(rest)]
	for rest[0] == ',' {
		if f.Fragment {
			return Frame{}, nil, ErrFragment // ncfrag is the last thing netconsole writes before the semicolon
		}
		n := bytes.IndexAny(rest[1:], ",;") + 1
		if n == 0 || len(p)-len(rest)+n > maxHeader {
			return Frame{}, nil, ErrHeader
		}
		key, value, ok := bytes.Cut(rest[1:n], []byte{'='})
		if !ok || len(key) == 0 {
			return Frame{}, nil, ErrHeader
		}
		rest = rest[n:]
		switch string(key) {
		case "ncfrag":
			f.Fragment = true
			if f.Offset, f.Total, err = parseFragment(value); err != nil {
				return Frame{}, nil, err
			}
			continue
		case "caller":
			f.Caller = value
		}
		f.Header = p[:len(p)-len(rest)]
	}
	return f, rest[1:], nil
}

// parseOrigin reads what every extended header begins with (info_print_ext_header, kernel/printk/printk.c, and a
// release that netconsole may put before it) up to the flag: it is this that makes a datagram extended.
func parseOrigin(p []byte) (f Frame, rest []byte, err error) {
	basic := Frame{Prefix: -1, Uptime: -1}

	prefix, rest, _, ok := cutNumber(p)
	if !ok {
		f.Release, p = cutRelease(p)
		prefix, rest, _, ok = cutNumber(p)
	}
	if !ok || len(p)-len(rest) > len("2047,") {
		return basic, nil, nil
	}
	seq, rest, seqOK, ok := cutNumber(rest)
	if !ok {
		return basic, nil, nil
	}
	usec, rest, usecOK, ok := cutNumber(rest)
	if !ok {
		return basic, nil, nil
	}
	if len(rest) < 2 || rest[0] != '-' && rest[0] != 'c' && rest[0] != '+' || rest[1] != ',' && rest[1] != ';' {
		return basic, nil, nil
	}

	if prefix > maxPrefix || !seqOK || !usecOK || usec > math.MaxInt64/1000 {
		return Frame{}, nil, ErrHeader
	}
	f.Extended = true
	f.Prefix, f.Seq, f.Uptime = int(prefix), seq, time.Duration(usec)*time.Microsecond
	f.Cont = rest[0] != '-' // "c"; before 4.9 also "+" for all but the first fragment
	return f, rest[1:], nil
}

// parseFragment reads the value of ncfrag, "<offset>/<total>" in bytes (send_fragmented_body, drivers/net/netconsole.c).
func parseFragment(b []byte) (offset, total int, err error) {
	off, all, ok := bytes.Cut(b, []byte{'/'})
	if !ok || !digits(off) || !digits(all) {
		return 0, 0, ErrFragment
	}
	o, okO := number(off)
	t, okT := number(all)
	if !okT || t > MaxTotal {
		return 0, 0, ErrTooLong
	}
	if !okO || o >= t {
		return 0, 0, ErrFragment
	}
	return int(o), int(t), nil
}

// cutRelease takes off a release and its comma: one word, in the kernel of at most 64 bytes (__NEW_UTS_LEN). Without one
// nothing is left.
func cutRelease(b []byte) (release, rest []byte) {
	for i, c := range b[:min(len(b), 65)] {
		switch c {
		case ',':
			if i == 0 {
				return nil, nil
			}
			return b[:i], b[i+1:]
		case ' ', '\t', '\n', '\f', '\r', ';':
			return nil, nil
		}
	}
	return nil, nil
}

// cutNumber takes off a decimal number and its comma. It may have any length; fits is false if it is not that of 64 bits.
func cutNumber(b []byte) (n uint64, rest []byte, fits, ok bool) {
	fits = true
	for i, c := range b {
		d := uint64(c - '0')
		switch {
		case c == ',':
			return n, b[i+1:], fits, i > 0
		case d > 9:
			return 0, nil, false, false
		case i >= len("18446744073709551615") || n > (math.MaxUint64-d)/10:
			fits = false
		default:
			n = n*10 + d
		}
	}
	return 0, nil, false, false
}

// digits reports whether b is a decimal number of any length.
func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// number is the value of digits, false if they are more than 64 bits.
func number(b []byte) (n uint64, ok bool) {
	if len(b) > len("18446744073709551615") {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// cutPrefix is bytes.CutPrefix for a constant.
func cutPrefix(b []byte, prefix string) (rest []byte, found bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return b, false
	}
	return b[len(prefix):], true
}
