package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWatchNotesTheFirstTimeOnly(t *testing.T) {
	// Two events as inotify(7) hands them out: the name is filled up with zeros.
	event := func(name string) []byte {
		padded := make([]byte, 16)
		copy(padded, name)
		return append([]byte{1, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, byte(len(padded)), 0, 0, 0}, padded...)
	}
	w := &watch{seen: map[string]time.Time{}}
	first, later := time.Unix(1, 0), time.Unix(2, 0)
	w.note(first, append(event("a.json"), event("b.json")...))
	w.note(later, append(event("b.json"), event("c.json")...))
	want := map[string]time.Time{"a.json": first, "b.json": first, "c.json": later}
	if diff := cmp.Diff(want, w.files()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
