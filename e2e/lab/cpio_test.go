package lab

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCpio(t *testing.T) {
	var out bytes.Buffer
	c := &cpio{w: &out}
	c.file("a/b", 0o755, []byte("hello"))
	c.symlink("a/c", "/a/b")
	c.charDevice("dev/console", 0o600, 5, 1)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}

	// Offsets of the fields are those of the format's table; one line is one header, name or body with its padding.
	want := strings.Join([]string{
		"070701" + "00000001" + "000041ED" + strings.Repeat("0", 16) + "00000001" + "00000000" + "00000000" + strings.Repeat("0", 32) + "00000002" + "00000000",
		"a\x00",
		"070701" + "00000002" + "000081ED" + strings.Repeat("0", 16) + "00000001" + "00000000" + "00000005" + strings.Repeat("0", 32) + "00000004" + "00000000",
		"a/b\x00\x00\x00" + "hello\x00\x00\x00",
		"070701" + "00000003" + "0000A1FF" + strings.Repeat("0", 16) + "00000001" + "00000000" + "00000004" + strings.Repeat("0", 32) + "00000004" + "00000000",
		"a/c\x00\x00\x00" + "/a/b",
		"070701" + "00000004" + "000041ED" + strings.Repeat("0", 16) + "00000001" + "00000000" + "00000000" + strings.Repeat("0", 32) + "00000004" + "00000000",
		"dev\x00\x00\x00",
		"070701" + "00000005" + "00002180" + strings.Repeat("0", 16) + "00000001" + "00000000" + "00000000" + strings.Repeat("0", 16) + "00000005" + "00000001" + "0000000C" + "00000000",
		"dev/console\x00\x00\x00",
		"070701" + "00000006" + "00000000" + strings.Repeat("0", 16) + "00000001" + "00000000" + "00000000" + strings.Repeat("0", 32) + "0000000B" + "00000000",
		"TRAILER!!!\x00\x00\x00\x00",
	}, "")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestCpioReportsTheFirstError(t *testing.T) {
	full := errors.New("disk full")
	c := &cpio{w: brokenWriter{full}}
	c.file("a", 0o644, nil)
	if err := c.close(); !errors.Is(err, full) {
		t.Errorf("close returned %v, want %v", err, full)
	}
}
