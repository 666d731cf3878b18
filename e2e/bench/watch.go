package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watch notes when files first appear in a folder (inotify(7)).
type watch struct {
	events *os.File

	mu   sync.Mutex
	seen map[string]time.Time // by name
}

// watchFolder watches until s ends.
func watchFolder(s *scope, dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{events: os.NewFile(uintptr(fd), "inotify"), seen: make(map[string]time.Time)}
	s.Cleanup(func() { w.events.Close() })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	go w.read()
	return w, nil
}

// read ends when the file is closed.
func (w *watch) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.events.Read(buf)
		if err != nil {
			return
		}
		w.note(time.Now(), buf[:n])
	}
}

// note takes a number of struct inotify_event.
func (w *watch) note(now time.Time, events []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&events[0]))
		name, rest := events[unix.SizeofInotifyEvent:][:e.Len], events[unix.SizeofInotifyEvent:][e.Len:]
		key := string(bytes.TrimRight(name, "\x00"))
		if _, known := w.seen[key]; !known {
			w.seen[key] = now
		}
		events = rest
	}
}

// files are the names seen so far and when.
func (w *watch) files() map[string]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.seen)
}
