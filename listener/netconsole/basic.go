package netconsole

import (
	"bytes"
	"time"
)

// linePrefix is the length of what info_print_prefix (kernel/printk/printk.c) writes before each line of the basic
// format, 0 if there is none: `<pri>` with console_msg_format=syslog, the uptime in brackets with printk.time, the
// caller in brackets with CONFIG_PRINTK_CALLER, and a space behind the brackets. Uptime is -1 without printk.time.
func linePrefix(b []byte) (n int, uptime time.Duration) {
	uptime = -1
	if pri, ok := between(b, '<', '>'); ok && digits(pri) && len(pri) <= 4 {
		n = len(pri) + 2
	}

	bracketed := false
	if in, ok := between(b[n:], '[', ']'); ok {
		if t, ok := parseUptime(in); ok {
			n, uptime, bracketed = n+len(in)+2, t, true
		}
	}
	if in, ok := between(b[n:], '[', ']'); ok && isCaller(in) {
		n, bracketed = n+len(in)+2, true
	}
	if !bracketed {
		return n, -1
	}
	if n == len(b) || b[n] != ' ' {
		return 0, -1
	}
	return n + 1, uptime
}

// between is the text between the bracket at the start of b and its closing one, which is within 24 bytes in every prefix.
func between(b []byte, open, shut byte) (in []byte, ok bool) {
	if len(b) == 0 || b[0] != open {
		return nil, false
	}
	i := bytes.IndexByte(b[:min(len(b), 24)], shut)
	if i < 0 {
		return nil, false
	}
	return b[1:i], true
}

// parseUptime reads print_time's "%5lu.%06lu" seconds.
func parseUptime(b []byte) (time.Duration, bool) {
	sec, frac, ok := bytes.Cut(bytes.TrimLeft(b, " "), []byte{'.'})
	if !ok || len(frac) != 6 || !digits(sec) || !digits(frac) || len(sec) > 9 {
		return 0, false
	}
	s, _ := number(sec)
	us, _ := number(frac)
	return time.Duration(s)*time.Second + time.Duration(us)*time.Microsecond, true
}

// isCaller recognizes print_caller's "%6s" of "T<pid>" or "C<cpu>".
func isCaller(b []byte) bool {
	b = bytes.TrimLeft(b, " ")
	return len(b) > 1 && (b[0] == 'T' || b[0] == 'C') && digits(b[1:])
}

// cutDropped takes off the notice "** %lu printk messages dropped **" that a console which could not keep up puts
// before its next record (console_prepend_dropped, kernel/printk/printk.c; a datagram of its own before 6.3, and up to
// about 4.17 followed by a space instead of a newline).
func cutDropped(b []byte) (notice, rest []byte) {
	const stars, tail = "** ", " printk messages dropped **"
	p, ok := cutPrefix(b, stars)
	if !ok {
		return nil, b
	}
	n := 0
	for n < len(p) && '0' <= p[n] && p[n] <= '9' {
		n++
	}
	rest, ok = cutPrefix(p[n:], tail)
	if !ok || n == 0 || len(rest) == 0 || rest[0] != '\n' && rest[0] != ' ' {
		return nil, b
	}
	return b[:len(b)-len(rest)], rest[1:]
}

// cutBasic takes the first record off a basic payload. record_print_text repeats the prefix on every line of a record,
// so that a record goes on until a line has another time. Text has neither the prefixes nor the last newline.
func (d *decoder) cutBasic(b []byte) (text []byte, uptime time.Duration, rest []byte) {
	n, uptime := linePrefix(b)
	prefix := b[:n]

	end := len(b)
	lines := 1
	for at := 0; ; lines++ {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 || at+i+1 == len(b) {
			break
		}
		at += i + 1
		if bytes.HasPrefix(b[at:], prefix) && n > 0 {
			continue
		}
		if _, t := linePrefix(b[at:]); t >= 0 {
			end = at
			break
		}
	}
	rest = b[end:]
	b = bytes.TrimSuffix(b[n:end], []byte{'\n'})
	if lines == 1 || n == 0 {
		return b, uptime, rest
	}

	d.text = d.text[:0]
	for {
		line, more, found := bytes.Cut(b, []byte{'\n'})
		d.text = append(d.text, line...)
		if !found {
			return d.text, uptime, rest
		}
		d.text = append(d.text, '\n')
		b = bytes.TrimPrefix(more, prefix)
	}
}

// pushBasic emits the records of a datagram in the basic format. The last one may go on in the next datagram.
func (s *Stream) pushBasic(now time.Time, f *Frame, emit func(*Record)) {
	notice, body := cutDropped(f.Body)
	if notice != nil {
		s.emitBasic(notice, -1, emit)
	}
	for len(body) > 0 {
		s.decoder.wake(s.Spare)
		text, uptime, rest := s.decoder.cutBasic(body)
		if f.Cut && len(rest) == 0 {
			// Without a prefix the next record would look like more of this one, so only records with a prefix wait.
			n, _ := linePrefix(body)
			if n > 0 {
				s.cut, s.cutDue = bytes.Clone(body), now.Add(WireTimeout)
			}
			s.record.Partial = n > 0
			s.record.Missing = 1
			text = s.decoder.cut(text)
		}
		s.emitBasic(text, uptime, emit)
		body = rest
	}
}

// continues reports whether the datagram can be the next piece of a basic record: write_msg (drivers/net/netconsole.c)
// cuts blindly and marks nothing, but a new record would begin with a prefix. A piece may look like an extended record
// if somebody wrote such text to /dev/kmsg.
func (s *Stream) continues(payload []byte) bool {
	if len(payload) == 0 || len(payload) > chunk || bytes.IndexByte(payload, 0) >= 0 {
		return false
	}
	n, _ := linePrefix(payload)
	notice, _ := cutDropped(payload)
	_, replay := cutPrefix(payload, replayNotice)
	return n == 0 && notice == nil && !replay
}

// extend appends a piece to the cut record, and emits it unless there is more to come.
func (s *Stream) extend(piece []byte, emit func(*Record)) {
	s.cut = append(s.cut, piece...)
	more := len(piece) == chunk && piece[chunk-1] != '\n'
	if more && len(s.cut) < maxCut {
		return
	}
	s.finishCut(more, emit)
}

// finishCut emits the cut record for good.
func (s *Stream) finishCut(missing bool, emit func(*Record)) {
	body := s.cut
	s.cut = nil
	for len(body) > 0 {
		s.decoder.wake(s.Spare)
		text, uptime, rest := s.decoder.cutBasic(body)
		if missing && len(rest) == 0 {
			s.record.Missing = 1
			text = s.decoder.cut(text)
		}
		s.emitBasic(text, uptime, emit)
		body = rest
	}
}

// emitBasic completes s.record and hands it out.
func (s *Stream) emitBasic(text []byte, uptime time.Duration, emit func(*Record)) {
	s.record.Prefix, s.record.Uptime, s.record.Text = -1, uptime, text
	s.lend(emit)
}
