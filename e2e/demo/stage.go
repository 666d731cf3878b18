package main

import (
	"fmt"
	"io"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// stage is the demo's lab.Scope: it prints progress with the time and takes everything down at the end, also after ^C.
type stage struct {
	lab.Cleanups
	out    io.Writer
	start  time.Time
	failed bool
}

func newStage(out io.Writer) *stage { return &stage{out: out, start: time.Now()} }

func (s *stage) Logf(format string, args ...any) {
	took := time.Since(s.start).Truncate(time.Second)
	fmt.Fprintf(s.out, "%6s  %s\n", took, fmt.Sprintf(format, args...))
}

func (s *stage) Failed() bool { return s.failed }
