package lab

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// libraries are the names of packages with shared libraries.
var libraries = regexp.MustCompile(`^(lib|zlib)`)

// libraryDir is where a guest has shared libraries. Debian's loader searches it by itself.
const libraryDir = "/usr/lib/x86_64-linux-gnu"

// FetchPrograms returns what a guest needs to run programs of a Debian package, or data of it: the files named, the shared libraries
// of those that are ELF programs, and the loader. The package is unpacked in the cache and never installed on this machine. amd64
// only.
func FetchPrograms(ctx context.Context, s Scope, suite, pkg string, names ...string) (map[string]GuestFile, error) {
	root, err := CachedDownload(ctx, s, filepath.Join("programs", suite+"-"+pkg), func(dir string) error {
		s.Logf("fetching %s from Debian %s", pkg, suite)
		return fetchPackage(ctx, dir, suite, pkg)
	})
	if err != nil {
		return nil, fmt.Errorf("fetch the programs of %s: %w", pkg, err)
	}
	files := make(map[string]GuestFile)
	for _, name := range names {
		if err := addProgram(files, root, name, filepath.Join(root, name)); err != nil {
			return nil, fmt.Errorf("fetch the programs of %s: %w", pkg, err)
		}
	}
	return files, nil
}

// fetchPackage unpacks pkg into dir, and those of the packages it depends on that are libraries.
func fetchPackage(ctx context.Context, dir, suite, pkg string) error {
	apt := filepath.Join(dir, "apt")
	defer os.RemoveAll(apt)
	return unpackPackages(ctx, apt, dir, suite, pkg, libraries)
}

// unpackPackages unpacks pkg into dir, and those of the packages it depends on that match wanted. apt is a folder for what is downloaded.
func unpackPackages(ctx context.Context, apt, dir, suite, pkg string, wanted *regexp.Regexp) error {
	a, err := openArchive(ctx, apt, suite, "amd64")
	if err != nil {
		return err
	}
	pkgs, err := a.closure(ctx, pkg, wanted)
	if err != nil {
		return err
	}
	debs, err := a.download(ctx, filepath.Join(apt, "debs"), pkgs...)
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := unpack(ctx, deb, dir); err != nil {
			return err
		}
	}
	return nil
}

// addProgram adds the host's file as name, and what it is linked with.
func addProgram(files map[string]GuestFile, root, name, host string) error {
	if _, ok := files[name]; ok {
		return nil
	}
	files[name] = GuestFile{Host: host}
	program, err := elf.Open(host)
	if err != nil {
		if _, missing := os.Stat(host); missing != nil {
			return missing
		}
		return nil // a script, or data
	}
	defer program.Close()
	linked, err := program.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read what %s is linked with: %w", name, err)
	}
	if section := program.Section(".interp"); section != nil {
		loader, err := section.Data()
		if err != nil {
			return fmt.Errorf("read the loader of %s: %w", name, err)
		}
		guest := strings.TrimRight(string(loader), "\x00")
		found, err := findLibrary(root, path.Base(guest))
		if err != nil {
			return err
		}
		files[guest] = GuestFile{Host: found}
	}
	for _, library := range linked {
		found, err := findLibrary(root, library)
		if err == nil {
			err = addProgram(files, root, path.Join(libraryDir, library), found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// findLibrary finds a shared library among unpacked packages.
func findLibrary(root, name string) (string, error) {
	for _, dir := range []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"} {
		if file := filepath.Join(root, dir, name); fileExists(file) {
			return file, nil
		}
	}
	return "", fmt.Errorf("find library %s: none of the unpacked packages has it", name)
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
