package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// modprobe loads modules by name, each after those it depends on, as the kernel's own helper would. Modules that are loaded or
// built in already are skipped. Options (-q, --quiet and the like) are ignored.
func modprobe(names []string) error {
	dir, err := moduleDir()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == "--" || strings.HasPrefix(name, "-") {
			continue
		}
		if err := loadWithDependencies(dir, name); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

func moduleDir() (string, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", fmt.Errorf("ask for the kernel's release: %w", err)
	}
	return filepath.Join("/lib/modules", unix.ByteSliceToString(uts.Release[:])), nil
}

func loadWithDependencies(dir, name string) error {
	paths, err := lookUp(filepath.Join(dir, "modules.dep"), name)
	if err != nil {
		return err
	}
	if paths == nil {
		builtin, err := lookUp(filepath.Join(dir, "modules.builtin"), name)
		if err != nil || builtin != nil {
			return err
		}
		return errors.New("module not found")
	}
	for i := len(paths) - 1; i >= 0; i-- { // modules.dep(5) names what is needed first last
		if err := insmod(filepath.Join(dir, paths[i]), ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// lookUp finds the line of a module in modules.dep or modules.builtin: the module's path and those of its dependencies.
func lookUp(index, name string) ([]string, error) {
	f, err := os.Open(index)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		paths := strings.Fields(strings.Replace(lines.Text(), ":", " ", 1))
		if len(paths) > 0 && moduleName(paths[0]) == moduleName(name) {
			return paths, nil
		}
	}
	return nil, lines.Err()
}

// moduleName turns a file name into a module's name: the kernel makes no difference between - and _.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

func insmod(path, parameters string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), parameters, 0); err != nil {
		return fmt.Errorf("insert %s: %w", path, err)
	}
	return nil
}

// rmmod unloads modules by name.
func rmmod(names []string) error {
	for _, name := range names {
		if err := unix.DeleteModule(moduleName(name), unix.O_NONBLOCK); err != nil {
			return fmt.Errorf("unload %s: %w", name, err)
		}
	}
	return nil
}
