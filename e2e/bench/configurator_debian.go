package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

// debianPrograms are what netconsole-setup runs on its way to a target that can be reached.
var debianPrograms = []string{"arping", "bash", "cat", "cut", "grep", "head", "ip", "mkdir", "mount", "sed"}

const debianLibraries = "/usr/lib/x86_64-linux-gnu"

// debianSetupFiles returns netconsole-setup and only what it needs from a root of Debian: a guest's files are in memory.
func debianSetupFiles(ctx context.Context, s lab.Scope) (map[string]lab.GuestFile, error) {
	root, err := cloud.Root(ctx, s, "bookworm", "netconsole")
	if err != nil {
		return nil, err
	}
	const setup = "/usr/sbin/netconsole-setup"
	files := map[string]lab.GuestFile{setup: {Host: filepath.Join(root, setup), Mode: 0o755}}
	for _, name := range debianPrograms {
		program := path.Join("/usr/bin", name)
		if err := addProgram(files, root, program); err != nil {
			return nil, fmt.Errorf("collect %s: %w", program, err)
		}
	}
	return files, nil
}

// addProgram adds an ELF file of root, its interpreter, and the libraries it needs.
func addProgram(files map[string]lab.GuestFile, root, name string) error {
	if _, ok := files[name]; ok {
		return nil
	}
	host := filepath.Join(root, name)
	if _, err := os.Stat(host); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not in the root", name)
	}
	program, err := elf.Open(host)
	if err != nil {
		return err
	}
	defer program.Close()
	files[name] = lab.GuestFile{Host: host, Mode: 0o755}
	const interpreter = "/lib64/ld-linux-x86-64.so.2" // of the x86-64 psABI
	files[interpreter] = lab.GuestFile{Host: filepath.Join(root, debianLibraries, path.Base(interpreter)), Mode: 0o755}
	libraries, err := program.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, l := range libraries {
		if err := addProgram(files, root, path.Join(debianLibraries, l)); err != nil {
			return err
		}
	}
	return nil
}
