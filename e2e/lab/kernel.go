package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Kernel is one of Debian's own cloud kernels, unpacked in the cache and never installed.
type Kernel struct {
	// Name is what the lab calls it: "6.1", "6.12" or "7", and "6.12-arm64" and the like.
	Name string
	// Series is the Name without the architecture.
	Series string
	// Arch is its architecture, in Debian's and Go's words: amd64 or arm64.
	Arch string
	// Release is what uname -r says.
	Release string
	// Image is the path of the compressed kernel.
	Image string
	// ModuleDir is the path of what becomes /lib/modules/Release.
	ModuleDir string

	// headerDebs are the packages that modules for this very kernel are built with.
	headerDebs []string
}

// kernelArch splits the name of a kernel.
func kernelArch(name string) (series, arch string) {
	if series, ok := strings.CutSuffix(name, "-arm64"); ok {
		return series, "arm64"
	}
	return name, "amd64"
}

// kernelSuite returns the suite of Debian that a series comes from.
func kernelSuite(series string) (string, error) {
	switch series {
	case "6.1":
		return "bookworm", nil
	case "6.12":
		return "trixie", nil
	case "7": // the first series whose netconsole is an nbcon console, silent in a panic that reboots
		return "trixie-backports", nil
	}
	return "", fmt.Errorf("find kernel %q: the lab knows 6.1, 6.12 and 7", series)
}

// From 7 on the image package is split into base, binary and modules. Headers belong to an exact version of the kernel, which
// stays in the archive only for a while, so both are fetched together.
var (
	imagePackages  = regexp.MustCompile(`^linux-(image|base|binary|modules)-.*cloud-a(md|rm)64$`)
	headerPackages = regexp.MustCompile(`^linux-(headers|kbuild|compiler)-`)
)

// FetchKernel returns the kernel called name ("6.1", "6.12", "7", "6.12-arm64" …): from the cache, else the newest version
// that the Debian mirror of this machine has.
func FetchKernel(ctx context.Context, s Scope, name string) (*Kernel, error) {
	series, arch := kernelArch(name)
	suite, err := kernelSuite(series)
	if err != nil {
		return nil, err
	}
	dir, err := CachedDownload(ctx, s, filepath.Join("kernels", name), func(dir string) error {
		s.Logf("fetching kernel %s from Debian %s", name, suite)
		return fetchKernel(ctx, dir, suite, arch)
	})
	if err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", name, err)
	}
	k, err := kernelIn(dir)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(k.Release, series+".") {
		return nil, fmt.Errorf("fetch kernel %s: Debian %s has %s", name, suite, k.Release)
	}
	k.Name, k.Series, k.Arch = name, series, arch
	return k, nil
}

// fetchKernel fills dir with root/, the unpacked kernel, and headers/, the packages to build modules with.
func fetchKernel(ctx context.Context, dir, suite, arch string) error {
	apt := filepath.Join(dir, "apt")
	defer os.RemoveAll(apt)
	a, err := openArchive(ctx, apt, suite, arch)
	if err != nil {
		return err
	}
	images, err := a.closure(ctx, "linux-image-cloud-"+arch, imagePackages)
	if err != nil {
		return err
	}
	headers, err := a.closure(ctx, "linux-headers-cloud-"+arch, headerPackages)
	if err != nil {
		return err
	}
	if _, err := a.download(ctx, filepath.Join(dir, "headers"), headers...); err != nil {
		return err
	}
	debs, err := a.download(ctx, filepath.Join(apt, "debs"), images...)
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("make a folder for the kernel: %w", err)
	}
	for _, deb := range debs {
		if err := unpack(ctx, deb, root); err != nil {
			return err
		}
	}
	return nil
}

// kernelIn finds the kernel that fetchKernel has put into dir.
func kernelIn(dir string) (*Kernel, error) {
	root := filepath.Join(dir, "root")
	// Debian moved modules below /usr with 6.12 and the image next to them with 7.
	modules := glob(root, "lib/modules/*", "usr/lib/modules/*")
	images := glob(root, "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
	if len(modules) != 1 || len(images) != 1 {
		return nil, fmt.Errorf("find the kernel in %s: %d images, %d module folders; delete it to fetch it again", dir, len(images), len(modules))
	}
	return &Kernel{
		Release:    filepath.Base(modules[0]),
		Image:      images[0],
		ModuleDir:  modules[0],
		headerDebs: glob(dir, "headers/*.deb"),
	}, nil
}

// glob returns what matches any of the patterns below root.
func glob(root string, patterns ...string) []string {
	var paths []string
	for _, p := range patterns {
		matches, _ := filepath.Glob(filepath.Join(root, p)) // the only error is a bad pattern
		paths = append(paths, matches...)
	}
	return paths
}
