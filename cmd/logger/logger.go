// Package logger makes the logger of both programs, to suit what reads standard error: the journal, a container runtime, or a
// person.
package logger

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// New returns a logger to w. If w is the journal, each line begins with its priority, as in sd-daemon(3), so that
// `journalctl -p warning` works. The journal and a pod's container runtime add the time themselves; anywhere else it is in the
// line.
func New(w io.Writer, getenv func(string) string) *slog.Logger {
	toJournal := isJournal(w, getenv("JOURNAL_STREAM"))
	return newLogger(w, toJournal, toJournal || getenv("KUBERNETES_SERVICE_HOST") != "")
}

// isJournal reports whether w is the stream that systemd connected to the journal: JOURNAL_STREAM is its device and inode
// (systemd.exec(5)). Standard error may have been redirected since.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func newLogger(w io.Writer, priorities, timed bool) *slog.Logger {
	options := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if timed && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	if priorities {
		w = journal{w}
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// journal writes the priority of a record in front of it. A TextHandler makes one write of each, which begins with its level.
type journal struct{ io.Writer }

func (j journal) Write(record []byte) (int, error) {
	priority := "<7>" // syslog's debug
	for _, level := range [...]struct{ name, priority string }{{"INFO", "<6>"}, {"WARN", "<4>"}, {"ERROR", "<3>"}} {
		if bytes.HasPrefix(record, []byte("level="+level.name)) {
			priority = level.priority
		}
	}
	if _, err := j.Writer.Write(append([]byte(priority), record...)); err != nil {
		return 0, err
	}
	return len(record), nil
}
