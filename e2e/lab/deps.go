package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// InstallPackages installs those of the named Debian packages that this machine lacks. It needs root only if one is missing.
func InstallPackages(ctx context.Context, s Scope, pkgs ...string) error {
	missing := missingPackages(ctx, pkgs)
	if len(missing) == 0 {
		return nil
	}
	// Another run may be installing the same things.
	unlock, err := lockCache(ctx, "packages")
	if err != nil {
		return err
	}
	defer unlock()
	if missing = missingPackages(ctx, pkgs); len(missing) == 0 {
		return nil
	}
	s.Logf("installing Debian packages: %s", strings.Join(missing, " "))
	install := append([]string{
		"-o", "DPkg::Lock::Timeout=300", // seconds; unattended upgrades hold it now and then
		"-o", "Acquire::Retries=3",
		"install", "--yes", "--no-install-recommends",
	}, missing...)
	if _, err := run(ctx, "apt-get", install...); err == nil {
		return nil
	}
	// A fresh machine has no package lists, an old one has lists of versions that are gone.
	return Retry(ctx, s, "install packages", func() error {
		if _, err := run(ctx, "apt-get", "update"); err != nil {
			return err
		}
		_, err := run(ctx, "apt-get", install...)
		return err
	})
}

// Retry does what may fail because a mirror, a proxy or a lock has a bad moment: three times at most, with a pause in between.
func Retry(ctx context.Context, s Scope, what string, do func() error) error {
	const times, pause = 3, 15 * time.Second
	for n := 1; ; n++ {
		err := do()
		if err == nil || n == times || ctx.Err() != nil {
			return err
		}
		s.Logf("%s: tried again in %s: %v", what, pause, err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// missingPackages returns those of pkgs that are not installed.
func missingPackages(ctx context.Context, pkgs []string) []string {
	var missing []string
	for _, pkg := range pkgs {
		// dpkg-query ends with 1 for a package it has never heard of.
		out, err := exec.CommandContext(ctx, "dpkg-query", "--show", "--showformat=${db:Status-Status}", pkg).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, pkg)
		}
	}
	return missing
}

// run runs a non-interactive program and returns its output. The error has the last lines of its standard error.
func run(ctx context.Context, name string, args ...string) (string, error) {
	return runIn(ctx, "", name, args...)
}

// runIn is run in the working directory dir.
func runIn(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, lastLines(stderr.String()+stdout.String(), 15))
	}
	return stdout.String(), nil
}

// lastLines returns at most the last n lines of text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
