package netconsole

import (
	"bytes"
	"crypto/subtle"
)

// Credentials are the boot and the secret that a datagram carries, as Identity would have them of its record, read before
// anything else is done with it. They point into the datagram. The basic format, fragments, and records that lost their end
// have none.
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
	return boot, secret, isToken(boot) && isToken(secret)
}

// isToken reports whether a boot or a secret is one that a configurator may have written: a UUID, or base64 for URLs without
// padding (RFC 4648 §5). Others are changed before they are printed, so what is pinned and what is printed could differ.
func isToken(value []byte) bool {
	for _, c := range value {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_') {
			return false
		}
	}
	return len(value) > 0 && len(value) <= maxToken
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

func isField(line []byte) bool {
	return len(line) > 1 && line[0] == ' ' && bytes.IndexByte(line[1:], '=') > 0
}

// Seal is what follows the text in a datagram that carries credentials. Datagrams of one boot usually have the same, and it
// need not be read again.
type Seal struct {
	before, secret, behind []byte
}

// Seal copies what follows the text; false if it has no credentials.
func (f *Frame) Seal() (s Seal, ok bool) {
	const key = " " + KeySecret + "="
	if _, _, ok := f.Credentials(); !ok {
		return s, false
	}
	_, tail, _ := bytes.Cut(f.Body, []byte{'\n'})
	tail = bytes.Clone(tail)
	at := 0
	if !bytes.HasPrefix(tail, []byte(key)) {
		at = bytes.Index(tail, []byte("\n"+key)) + 1
	}
	at += len(key)
	end := at + bytes.IndexByte(tail[at:], '\n')
	return Seal{tail[:at], tail[at:end], tail[end:]}, true
}

// On reports whether the datagram carries this seal. It compares the secret in constant time. No datagram carries the zero
// Seal.
func (s *Seal) On(f *Frame) bool {
	n := len(s.before) + len(s.secret) + len(s.behind)
	if n == 0 || !f.Extended || f.Fragment || f.Cut || len(f.Body) <= n {
		return false
	}
	text, tail := f.Body[:len(f.Body)-n], f.Body[len(f.Body)-n:]
	return bytes.IndexByte(text, '\n') == len(text)-1 &&
		bytes.Equal(tail[:len(s.before)], s.before) && bytes.Equal(tail[n-len(s.behind):], s.behind) &&
		subtle.ConstantTimeCompare(tail[len(s.before):n-len(s.behind)], s.secret) == 1
}
