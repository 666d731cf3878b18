package configfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// moduleOptions are the options that modprobe(8) would load a module with: those of modprobe.d(5), where an administrator
// keeps boot targets (options netconsole netconsole=…), and those of the kernel's command line. A module that
// modprobe.d replaces by a command (install netconsole /bin/false, as hardening guides have it) is an error.
func moduleOptions(root fs.FS, name string) (string, error) {
	var options []string
	files, err := modprobeFiles(root)
	if err != nil {
		return "", err
	}
	for _, file := range files {
		b, err := fs.ReadFile(root, file)
		if err != nil {
			return "", fmt.Errorf("read /%s: %w", file, bare(err))
		}
		for line := range strings.Lines(strings.ReplaceAll(string(b), "\\\n", " ")) {
			words := strings.Fields(line)
			if len(words) < 3 || moduleName(words[1]) != name {
				continue
			}
			switch words[0] {
			case "options":
				options = append(options, words[2:]...)
			case "install":
				return "", fmt.Errorf("/%s forbids module %s: %s", file, name, strings.TrimSpace(line))
			}
		}
	}
	cmdline, err := fs.ReadFile(root, "proc/cmdline")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read /proc/cmdline: %w", bare(err))
	}
	for _, word := range strings.Fields(string(cmdline)) {
		module, option, ok := strings.Cut(word, ".")
		if ok && moduleName(module) == name && !strings.Contains(module, "=") {
			options = append(options, option)
		}
	}
	return strings.Join(options, " "), nil
}

// modprobeFiles are the files of modprobe.d in the order they count. A file hides those of the same name in later
// directories.
func modprobeFiles(root fs.FS) ([]string, error) {
	seen := map[string]string{} // by name
	for _, dir := range []string{"etc", "run", "usr/local/lib", "usr/lib", "lib"} {
		dir = path.Join(dir, "modprobe.d")
		entries, err := fs.ReadDir(root, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list /%s: %w", dir, bare(err))
		}
		for _, e := range entries {
			if _, hidden := seen[e.Name()]; !hidden && strings.HasSuffix(e.Name(), ".conf") && !e.IsDir() {
				seen[e.Name()] = path.Join(dir, e.Name())
			}
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = seen[name]
	}
	return names, nil
}
