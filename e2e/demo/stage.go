package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// stage is the demo's lab.Scope: it shows progress with a clock and takes everything down in the end, also after ^C.
type stage struct {
	out    io.Writer
	start  time.Time
	failed bool

	mu       sync.Mutex
	cleanups []func()
}

func newStage(out io.Writer) *stage { return &stage{out: out, start: time.Now()} }

func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *stage) Logf(format string, args ...any) {
	took := time.Since(s.start).Truncate(time.Second)
	fmt.Fprintf(s.out, "%6s  %s\n", took, fmt.Sprintf(format, args...))
}

func (s *stage) Failed() bool { return s.failed }

// takeDown runs the cleanups, last registered first.
func (s *stage) takeDown() {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		f := s.cleanups[n-1]
		s.cleanups = s.cleanups[:n-1]
		s.mu.Unlock()
		f()
	}
}
