package netconsole

import "strings"

const (
	maxToken   = 64  // bytes of a value; `uname -r` has at most as many
	maxCluster = 100 // bytes of a cluster's name; Amazon EKS allows as many

	keyCluster = "cluster"
	keyPadding = "pad"
)

// words is a line under construction. Canary, farewell and obituary consist of words like key=value.
type words struct{ strings.Builder }

// add appends a word, unless its value is empty.
func (w *words) add(key, value string) {
	if value != "" {
		w.WriteString(" " + key + "=" + oneWord(value, maxValue(key)))
	}
}

// padded is the line, as long as the longest acknowledgement at least, so that answering it never amplifies.
func (w *words) padded() string {
	if short := maxAck - w.Len(); short > 0 {
		w.add(keyPadding, strings.Repeat("_", max(1, short-len(" "+keyPadding+"="))))
	}
	return w.String()
}

// readWords calls set for each of the words of a line. It reports false if one is not a word, too long or there twice, or if set refuses it.
func readWords(line string, set func(key, value string) bool) bool {
	seen := make(map[string]bool)
	for word := range strings.SplitSeq(line, " ") {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" || value == "" || len(value) > maxValue(key) || !printable(word) || seen[key] || !set(key, value) {
			return false
		}
		seen[key] = true
	}
	return true
}

// maxValue bounds the value of a key, in bytes.
func maxValue(key string) int {
	switch key {
	case keyCluster:
		return maxCluster
	case keyPadding:
		return maxAck
	}
	return maxToken
}

func isHex(s string) bool {
	for i := range len(s) {
		if hexdigit(s[i]) < 0 {
			return false
		}
	}
	return true
}

// printable reports whether s is a word of ASCII.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// oneWord makes a word of at most limit bytes of any string. It shares no memory with s.
func oneWord(s string, limit int) string {
	b := []byte(s[:min(len(s), limit)])
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '_'
		}
	}
	return string(b)
}
