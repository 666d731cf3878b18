package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// build compiles one of our programs, named by its folder in cmd, from this checkout and with the flags of a package.
func build(ctx context.Context, s *scope, program string) (path string, err error) {
	dir, err := tempDir(s)
	if err != nil {
		return "", err
	}
	s.Logf("building %s", program)
	path = filepath.Join(dir, program)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/lastgasp/lastgasp/cmd/"+program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", program, err, out)
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
