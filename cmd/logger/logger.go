// Package logger makes the logger of both programs, fit for whoever reads standard error: the journal, a container runtime, or a
// person.
package logger

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// New returns a logger to w. If w is the journal, each line begins with its priority, as in sd-daemon(3), so that
// `journalctl -p warning` works. The journal and a pod's container runtime add the time themselves; anywhere else it is in the
// line.
func New(w io.Writer, getenv func(string) string) *slog.Logger {
	journal := isJournal(w, getenv("JOURNAL_STREAM"))
	return newLogger(w, journal, journal || getenv("KUBERNETES_SERVICE_HOST") != "")
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
	if !priorities {
		return slog.New(slog.NewTextHandler(w, options))
	}
	out := &shared{w: w}
	var h byLevel
	for i, priority := range [len(h)]string{"<7>", "<6>", "<4>", "<3>"} { // syslog's debug, info, warning, error
		h[i] = slog.NewTextHandler(prefixed{out, priority}, options)
	}
	return slog.New(h)
}

// byLevel has a handler for each priority: debug, info, warning, error.
type byLevel [4]slog.Handler

func (h byLevel) of(l slog.Level) slog.Handler {
	switch {
	case l >= slog.LevelError:
		return h[3]
	case l >= slog.LevelWarn:
		return h[2]
	case l >= slog.LevelInfo:
		return h[1]
	}
	return h[0]
}

func (h byLevel) Enabled(ctx context.Context, l slog.Level) bool { return h.of(l).Enabled(ctx, l) }

func (h byLevel) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

func (h byLevel) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range h {
		h[i] = h[i].WithAttrs(attrs)
	}
	return h
}

func (h byLevel) WithGroup(name string) slog.Handler {
	for i := range h {
		h[i] = h[i].WithGroup(name)
	}
	return h
}

// shared is a writer that several handlers share.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

// prefixed writes a prefix before each record: a TextHandler makes one write of each.
type prefixed struct {
	out    *shared
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	if _, err := p.out.w.Write(append([]byte(p.prefix), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}
