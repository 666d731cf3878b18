package cloud

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// Packages of Debian's own cloud images that take part in booting. cloud-init uses its release's favourite DHCP client.
var (
	systemPackages = []string{
		"cloud-init", "dbus", "initramfs-tools", "iproute2", "kmod", "linux-image-cloud-amd64", "netplan.io",
		"systemd", "systemd-sysv", "udev", "zstd",
	}
	dhcpClient = map[string]string{"bookworm": "isc-dhcp-client", "trixie": "dhcpcd-base"}
)

// systemFiles are what the lab adds to Debian.
//
//go:embed system
var systemFiles embed.FS

// system is the part of an image that is the same for every commit: Debian, and an initramfs with no more in it than
// finds the disk.
func system(ctx context.Context, s lab.Scope, suite string, packages ...string) (string, error) {
	root, err := Root(ctx, s, suite, slices.Concat([]string{dhcpClient[suite]}, systemPackages, packages)...)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	if err := eachFile(func(name string, data []byte) error {
		fmt.Fprintf(hash, "%s %d\n%s", name, len(data), data)
		return nil
	}); err != nil {
		return "", err
	}
	key := filepath.Join("systems", filepath.Base(root)+"-"+hex.EncodeToString(hash.Sum(nil)[:4]))
	dir, err := lab.Cached(ctx, key, func(dir string) error {
		system := filepath.Join(dir, "root")
		if err := run(ctx, "cp", "-a", root, system); err != nil {
			return err
		}
		if err := addFiles(system); err != nil {
			return err
		}
		return run(ctx, "chroot", system, "sh", "-c", `set -e
			update-initramfs -u
			systemctl -q enable systemd-networkd.service lastgasp-lab.service kubelet.service
			systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer
			: >/etc/machine-id`)
	})
	return filepath.Join(dir, "root"), err
}

// addFiles writes systemFiles over the system at root.
func addFiles(root string) error {
	return eachFile(func(name string, data []byte) error {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o644)
	})
}

// eachFile calls do with the path and content of each of systemFiles.
func eachFile(do func(name string, data []byte) error) error {
	return fs.WalkDir(systemFiles, "system", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := systemFiles.ReadFile(name)
		if err != nil {
			return err
		}
		return do(strings.TrimPrefix(name, "system"), data)
	})
}
