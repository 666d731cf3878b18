// Command bench measures lastgasp beside references of the same run and prints one table. It is `make bench`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// section is a group of rows that share their set-up.
type section struct {
	name    string
	measure func(ctx context.Context, report func(Row)) error
	asked   bool // it is measured only if it is named
}

func sections() []section {
	return []section{
		{name: "receive", measure: receive},
		{name: "cleanup", measure: cleanup},
		{name: "configurator", measure: configurator},
		{name: "compare", measure: compare},
		{name: "storm", measure: storm, asked: true},
	}
}

func main() { os.Exit(run()) }

func run() int {
	out := flag.String("o", "bench.json", "file for the rows as JSON")
	reference := flag.String("reference", "", "be a reference receiver; the bench starts itself so, with an address and a folder")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: go run ./e2e/bench [-o bench.json] [section…]\nsections, all but storm by default: %s\n",
			strings.Join(names(), ", "))
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	if *reference != "" {
		err = beReference(*reference, flag.Arg(0), flag.Arg(1))
	} else {
		err = bench(ctx, flag.Args(), *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func names() []string {
	var all []string
	for _, s := range sections() {
		all = append(all, s.name)
	}
	return all
}

// bench measures the named sections, or those that need not be named, and writes the results to the file out, also when it is
// interrupted. If one section cannot be measured, the others are.
func bench(ctx context.Context, asked []string, out string) error {
	for _, name := range asked {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("unknown section %q; write some of %s", name, strings.Join(names(), ", "))
		}
	}
	m, err := thisMachine()
	if err != nil {
		return err
	}
	r := newReport(os.Stdout, m)
	var failed error
	for _, s := range sections() {
		if !slices.Contains(asked, s.name) && (len(asked) > 0 || s.asked) {
			continue
		}
		r.begin(s.name)
		if err := s.measure(ctx, r.add); err != nil {
			failed = errors.Join(failed, fmt.Errorf("measure %s: %w", s.name, err))
		}
		if ctx.Err() != nil {
			failed = errors.New("interrupted")
			break
		}
	}
	return errors.Join(failed, r.save(out, failed == nil))
}
