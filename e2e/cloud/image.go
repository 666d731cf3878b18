package cloud

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// ImageSpec says what an image is made of.
type ImageSpec struct {
	// Suite of Debian: "bookworm" or "trixie".
	Suite string
	// Packages of Debian to add.
	Packages []string
	// Debs are paths of packages to install as the builder of an AMI does: in the image, before it is ever booted.
	Debs []string
	// Environment is added to /etc/default/lastgasp-configurator.
	Environment string
	// Kubelet is the path of the hollow kubelet. A user-data that writes /etc/kubernetes/kubelet.env starts it.
	Kubelet string
	// Files are written over the rest, by their paths in the image.
	Files map[string]string
}

// imageSize is that of the root file system, most of it a hole: bytes.
const imageSize = 2 << 30

// BuildImage makes the disk of a machine that was never booted: Debian as in an AMI, with cloud-init, netplan and networkd, and
// Debian's cloud kernel. It is removed when s ends, because it takes only seconds and every commit has another one. Its base
// comes from the lab's cache.
func BuildImage(ctx context.Context, s lab.Scope, spec ImageSpec) (*lab.Disk, error) {
	dir, err := os.MkdirTemp("", "lastgasp-image-")
	if err != nil {
		return nil, fmt.Errorf("make an image of Debian %s: %w", spec.Suite, err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	base, err := system(ctx, s, spec.Suite, spec.Packages...)
	if err != nil {
		return nil, fmt.Errorf("make an image of Debian %s: %w", spec.Suite, err)
	}
	disk, err := buildImage(ctx, dir, base, spec)
	if err != nil {
		return nil, fmt.Errorf("make an image of Debian %s: %w", spec.Suite, err)
	}
	return disk, nil
}

// buildImage leaves in dir what boots the system at base with what spec adds.
func buildImage(ctx context.Context, dir, base string, spec ImageSpec) (*lab.Disk, error) {
	root := filepath.Join(dir, "root")
	defer os.RemoveAll(root)
	if err := run(ctx, "cp", "-a", "--reflink=auto", base, root); err != nil {
		return nil, err
	}
	if err := install(ctx, root, spec); err != nil {
		return nil, err
	}
	disk := &lab.Disk{Image: filepath.Join(dir, "disk")}
	for pattern, to := range map[string]*string{"vmlinuz-*": &disk.Kernel, "initrd.img-*": &disk.Initramfs} {
		found, _ := filepath.Glob(filepath.Join(root, "boot", pattern)) // the only error is a bad pattern
		if len(found) != 1 {
			return nil, fmt.Errorf("find what boots: there are %d %s", len(found), pattern)
		}
		*to = filepath.Join(dir, filepath.Base(found[0]))
		if err := run(ctx, "cp", found[0], *to); err != nil { // kdump needs them in the image, too
			return nil, err
		}
	}
	return disk, run(ctx, "mke2fs", "-q", "-t", "ext4", "-d", root, disk.Image, fmt.Sprint(imageSize>>10))
}

// install puts what is under test into the system at root, and the lab's agent.
func install(ctx context.Context, root string, spec ImageSpec) error {
	agent, err := lab.BuildGuest(ctx, "amd64")
	if err != nil {
		return err
	}
	folder := filepath.Join(root, "usr/lib/lastgasp-lab")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "agent"), agent, 0o755); err != nil {
		return err
	}
	if spec.Kubelet != "" {
		if err := run(ctx, "install", spec.Kubelet, filepath.Join(root, "usr/bin/kubelet")); err != nil {
			return err
		}
	}
	for _, deb := range spec.Debs {
		inside := filepath.Join("/var/tmp", filepath.Base(deb))
		if err := run(ctx, "cp", deb, filepath.Join(root, inside)); err != nil {
			return err
		}
		if err := run(ctx, "chroot", root, "dpkg", "-i", inside); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(root, inside)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(root, "etc/default/lastgasp-configurator"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(spec.Environment); err != nil {
		return err
	}
	for path, text := range spec.Files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program whose output matters only if it fails.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out[max(0, len(out)-4<<10):])
	}
	return nil
}
