package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// Root returns a folder with a minimal system of a suite of Debian ("bookworm", "trixie") and the named packages, without
// recommended ones. Apt has verified its origin. It is in the lab's cache and shared: do not write into it.
func Root(ctx context.Context, s lab.Scope, suite string, packages ...string) (string, error) {
	packages = slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n")))
	key := filepath.Join("roots", suite+"-"+hex.EncodeToString(sum[:4]))
	dir, err := lab.CachedDownload(ctx, s, key, func(dir string) error {
		s.Logf("making a root of Debian %s with %s", suite, strings.Join(packages, " "))
		return bootstrap(ctx, s, suite, dir, packages)
	})
	if err != nil {
		return "", fmt.Errorf("make a root of Debian %s: %w", suite, err)
	}
	return dir, nil
}

// bootstrap fills dir from the mirror that this machine's own apt uses.
func bootstrap(ctx context.Context, s lab.Scope, suite, dir string, packages []string) error {
	if err := lab.InstallPackages(ctx, s, "mmdebstrap", "debian-archive-keyring"); err != nil {
		return err
	}
	sources, err := lab.DebianSources(ctx, suite)
	if err != nil {
		return err
	}
	args := []string{"--quiet", "--mode=root", "--variant=minbase", "--format=directory"}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, suite, dir, "-")...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.Stdin = strings.NewReader(sources)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", err, out[max(0, len(out)-4<<10):])
	}
	return nil
}
