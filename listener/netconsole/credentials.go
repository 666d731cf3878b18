package netconsole

import "bytes"

// Credentials are the boot and the secret that a datagram carries, as Identity would tell them of its record, read before
// anything else is done with it. They point into the datagram. There are none in the basic format, in fragments, and in a
// record that lost its end.
func (f *Frame) Credentials() (boot, secret []byte, ok bool) {
	if !f.Extended || f.Fragment || f.Cut {
		return nil, nil, false
	}
	_, tail, _ := bytes.Cut(f.Body, []byte{'\n'})
	var last *[]byte // the value that the line before belongs to
	for len(tail) > 0 {
		line, rest, _ := bytes.Cut(tail, []byte{'\n'})
		tail = rest
		switch value, is := credential(line); {
		case is == KeyBoot && boot == nil:
			boot, last = value, &boot
		case is == KeySecret && secret == nil:
			secret, last = value, &secret
		case last != nil && !isField(line):
			return nil, nil, false // a value of several lines, which no boot and no secret has
		default:
			last = nil
		}
	}
	return boot, secret, len(boot) > 0 && len(secret) > 0 && len(boot) <= maxToken && len(secret) <= maxToken
}

// credential is the value of a boot= or gasp= line, and which of the two it is.
func credential(line []byte) (value []byte, key string) {
	for _, key := range [...]string{KeyBoot, KeySecret} {
		if n := len(key) + 2; len(line) >= n && line[0] == ' ' && line[n-1] == '=' && string(line[1:n-1]) == key {
			return line[n:], key
		}
	}
	return nil, ""
}

// isField tells a ` key=value` line.
func isField(line []byte) bool {
	return len(line) > 1 && line[0] == ' ' && bytes.IndexByte(line[1:], '=') > 0
}
