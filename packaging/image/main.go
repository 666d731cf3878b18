// Command image makes a program's OCI archive from its binaries, without Docker, and an SPDX document for each binary of ours.
// Equal inputs give equal bytes. packaging/build runs it:
//
//	image archive --program P --version V --commit C --created T --licences FILE --out FILE amd64=BINARY arm64=BINARY
//	image sbom --version V --created T BINARY >FILE
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("write archive or sbom")
	}
	var r release
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.StringVar(&r.version, "version", "", "version of the program")
	flags.StringVar(&r.commit, "commit", "", "commit it is built from")
	flags.Func("created", "time of that commit, Unix seconds", func(s string) error {
		seconds, err := strconv.ParseInt(s, 10, 64)
		r.created = time.Unix(seconds, 0).UTC()
		return err
	})
	name := flags.String("program", "", "program whose image it is")
	licences := flags.String("licences", "", "file with the licences of what is linked in")
	out := flags.String("out", "", "archive to write")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if r.version == "" || r.created.IsZero() {
		return errors.New("--version and --created are needed")
	}
	switch args[0] {
	case "archive":
		var known bool
		if r.program, known = programs()[*name]; !known {
			return fmt.Errorf("--program %q has no image; write lastgasp-listener or lastgasp-configurator", *name)
		}
		var err error
		if r.licences, err = os.ReadFile(*licences); err != nil {
			return fmt.Errorf("read licences: %w", err)
		}
		var all []platform
		for _, arg := range flags.Args() {
			arch, file, ok := strings.Cut(arg, "=")
			if !ok {
				return fmt.Errorf("%q is not ARCHITECTURE=BINARY", arg)
			}
			binary, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("read binary: %w", err)
			}
			all = append(all, platform{arch, binary})
		}
		if len(all) == 0 {
			return errors.New("no binary is named")
		}
		return r.writeArchive(*out, all)
	case "sbom":
		if flags.NArg() != 1 {
			return errors.New("sbom wants one BINARY")
		}
		return r.writeSBOM(os.Stdout, flags.Arg(0))
	}
	return fmt.Errorf("unknown command %q; write archive or sbom", args[0])
}
