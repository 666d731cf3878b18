package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// build compiles one of our programs, named by its folder in cmd, from this checkout for an architecture, with the flags of a
// package.
func build(ctx context.Context, s *scope, program, arch string) (path string, err error) {
	dir, err := tempDir(s)
	if err != nil {
		return "", err
	}
	root, err := lab.CheckoutRoot()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "cmd", program)
	tags, err := os.ReadFile(filepath.Join(source, "tags"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a program may have none
		return "", fmt.Errorf("read the tags of %s: %w", program, err)
	}
	s.Logf("building %s for %s", program, arch)
	path = filepath.Join(dir, program)
	cmd := exec.CommandContext(ctx, "go", "build", "-tags="+strings.TrimSpace(string(tags)), "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s for %s: %w\n%s", program, arch, err, out)
	}
	return path, nil
}

// tempDir makes a folder that is removed when s ends.
func tempDir(s *scope) (string, error) {
	dir, err := os.MkdirTemp("", "lastgasp-bench-")
	if err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir, nil
}
