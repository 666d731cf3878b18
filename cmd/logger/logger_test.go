package logger

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		name              string
		priorities, timed bool
		want              string
	}{
		{"for the journal", true, true, "<6>level=INFO msg=i a=1\n<4>level=WARN msg=w a=1\n<3>level=ERROR msg=e a=1 g.b=2\n"},
		{"for a container runtime", false, true, "level=INFO msg=i a=1\nlevel=WARN msg=w a=1\nlevel=ERROR msg=e a=1 g.b=2\n"},
		{"for a person", false, false, "time=T level=INFO msg=i a=1\ntime=T level=WARN msg=w a=1\ntime=T level=ERROR msg=e a=1 g.b=2\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			log := newLogger(&out, tt.priorities, tt.timed).With("a", 1)
			log.Info("i")
			log.Warn("w")
			log.WithGroup("g").Error("e", "b", 2)
			got := regexp.MustCompile(`time=\S+`).ReplaceAllString(out.String(), "time=T")
			if got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestIsJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for _, tt := range []struct {
		name   string
		stream string
		want   bool
	}{
		{"systemd's stream", stream, true},
		{"redirected since", "8:1", false},
		{"no systemd", "", false},
	} {
		if got := isJournal(w, tt.stream); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if isJournal(new(bytes.Buffer), stream) {
		t.Error("what is no file is the journal")
	}
}
