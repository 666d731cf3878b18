//go:build e2e && ends

package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestCheckpatch judges lastgasp's kernel module by the kernel's own checkpatch.pl: not one error, warning or check.
func TestCheckpatch(t *testing.T) {
	script, err := fetchCheckpatch(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../packaging/kernel/*.c")
	if err != nil || len(files) == 0 {
		t.Fatalf("no source of the module: %v", err)
	}
	judge := func(files ...string) error {
		_, err := run(t.Context(), script, append([]string{"--strict", "--no-tree", "--file"}, files...)...)
		return err
	}
	if err := judge(files...); err != nil {
		t.Error(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.c")
	if err := os.WriteFile(wrong, []byte("int a=1;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if judge(wrong) == nil {
		t.Error("checkpatch.pl accepts anything")
	}
}

// fetchCheckpatch returns the path of the newest kernel's checkpatch.pl, beside the lists that it reads: three files of Debian's
// source of the kernel, 160 MiB that are not kept.
func fetchCheckpatch(ctx context.Context, s Scope) (string, error) {
	if err := InstallPackages(ctx, s, "perl", "xz-utils", "debian-archive-keyring"); err != nil {
		return "", err
	}
	dir, err := CachedDownload(ctx, s, "checkpatch", func(dir string) error {
		suite, err := kernelSuite("7")
		if err != nil {
			return err
		}
		s.Logf("fetching checkpatch.pl from Debian %s", suite)
		apt := filepath.Join(dir, "apt")
		defer os.RemoveAll(apt)
		if err := unpackPackages(ctx, apt, apt, suite, "linux-source", regexp.MustCompile(`^linux-source-`)); err != nil {
			return err
		}
		sources := glob(apt, "usr/src/linux-source-*.tar.xz")
		if len(sources) == 0 {
			return errors.New("the package of the kernel's source has no source")
		}
		for _, source := range sources {
			if _, err := run(ctx, "tar", "--extract", "--file="+source, "--directory="+dir, "--strip-components=2", "--wildcards",
				"*/scripts/checkpatch.pl", "*/scripts/const_structs.checkpatch", "*/scripts/spelling.txt"); err != nil {
				return err
			}
		}
		return nil
	})
	return filepath.Join(dir, "checkpatch.pl"), err
}
