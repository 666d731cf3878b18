package main

import (
	"fmt"
	"os"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// scope is the lab.Scope of a section: progress goes to stderr, beside the table, and Run takes everything down.
type scope struct{ lab.Cleanups }

func (s *scope) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (s *scope) Failed() bool { return false }
