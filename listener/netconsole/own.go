package netconsole

import "strconv"

const (
	// ownCaller is the caller of records that the configurator itself sends. A kernel's callers are T<pid> and C<cpu>.
	ownCaller = "lastgasp"
	// ownPrefix is facility 1 (user), level 4 (warning): nobody takes the record for a kernel's.
	ownPrefix = 1<<3 | 4
)

// AppendRecord appends a datagram in the extended format that the configurator itself sends, with the userdata that its
// targets carry: it is verified like any other. seq is the sequence number; no kernel's record has this caller.
func AppendRecord(dst []byte, seq uint64, text string, id Identity) []byte {
	dst = strconv.AppendUint(dst, ownPrefix, 10)
	dst = strconv.AppendUint(append(dst, ','), seq, 10)
	dst = append(dst, ",0,-,caller="+ownCaller+";"...)
	for i := range len(text) {
		dst = appendEscaped(dst, text[i])
	}
	dst = append(dst, '\n')
	field := func(key, value string) {
		if value != "" {
			dst = append(dst, " "+key+"="+oneWord(value, maxToken)+"\n"...)
		}
	}
	field(KeyInstance, id.Instance)
	field(KeyBoot, id.Boot)
	field(KeySecret, string(id.Secret))
	return dst
}

// FromConfigurator reports whether the configurator itself sent the record, and not a kernel.
func (r *Record) FromConfigurator() bool {
	return r.Extended && r.Prefix == ownPrefix && r.Caller == ownCaller && r.Release == ""
}

// appendEscaped appends a byte of text as the kernel's msg_add_ext_text (kernel/printk/printk.c) does.
func appendEscaped(dst []byte, c byte) []byte {
	if escapedLen(c) == 1 {
		return append(dst, c)
	}
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'x', hex[c>>4], hex[c&0xf])
}

func escapedLen(c byte) int {
	if c < ' ' || c >= 0x7f || c == '\\' {
		return len(`\x00`)
	}
	return 1
}
