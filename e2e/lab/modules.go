package lab

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// module is a kernel module, read and decompressed.
type module struct {
	name    string   // with underscores, as the kernel calls it
	path    string   // below the module directory, without a compression suffix
	depends []string // names of modules it needs directly
	ko      []byte
}

// modulesOf reads the named modules and all that they need, each after its dependencies. Built-in modules are left out. An
// unpacked package has no modules.dep (depmod runs at installation), so the dependencies are read from the modules themselves.
func modulesOf(k *Kernel, names ...string) ([]module, error) {
	files, err := moduleFiles(k.ModuleDir)
	if err != nil {
		return nil, err
	}
	builtin, err := builtinModules(k.ModuleDir)
	if err != nil {
		return nil, err
	}
	var ordered []module
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = moduleName(name)
		if done[name] || builtin[name] {
			return nil
		}
		done[name] = true
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel %s has no module %s", k.Release, name)
		}
		m, err := readModule(k.ModuleDir, path)
		if err != nil {
			return err
		}
		for _, needed := range m.depends {
			if err := add(needed); err != nil {
				return err
			}
		}
		ordered = append(ordered, m)
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}

// modulesDep renders modules.dep(5), where a line names last what has to be loaded first. In list each module comes after its
// dependencies.
func modulesDep(modules []module) string {
	var b strings.Builder
	needs := map[string]map[string]bool{} // directly or not
	for i, m := range modules {
		needs[m.name] = map[string]bool{}
		for _, d := range m.depends {
			needs[m.name][d] = true
			maps.Copy(needs[m.name], needs[d])
		}
		fmt.Fprintf(&b, "%s:", m.path)
		for _, earlier := range slices.Backward(modules[:i]) {
			if needs[m.name][earlier.name] {
				fmt.Fprintf(&b, " %s", earlier.path)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// moduleFiles maps the names of all modules below dir to their paths, relative to dir.
func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if strings.HasSuffix(rel, ".ko") || strings.HasSuffix(rel, ".ko.xz") {
			files[moduleName(rel)] = rel
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	return files, nil
}

// builtinModules reads modules.builtin, the names that modprobe takes for loaded.
func builtinModules(dir string) (map[string]bool, error) {
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("list what is built in: %w", err)
	}
	builtin := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return builtin, nil
}

// moduleName turns a file name into the name of a module: the kernel makes no difference between - and _.
func moduleName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".xz")
	return strings.ReplaceAll(strings.TrimSuffix(name, ".ko"), "-", "_")
}

// readModule reads a module, which Debian has compressed since 6.12.
func readModule(dir, path string) (module, error) {
	ko, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		return module{}, fmt.Errorf("read a module: %w", err)
	}
	if strings.HasSuffix(path, ".xz") {
		xz := exec.Command("xz", "--decompress", "--stdout")
		xz.Stdin = bytes.NewReader(ko)
		if ko, err = xz.Output(); err != nil {
			return module{}, fmt.Errorf("decompress %s: %w", path, err)
		}
	}
	depends, err := moduleDepends(ko)
	if err != nil {
		return module{}, fmt.Errorf("read what %s depends on: %w", path, err)
	}
	return module{
		name:    moduleName(path),
		path:    strings.TrimSuffix(path, ".xz"),
		depends: depends,
		ko:      ko,
	}, nil
}

// moduleDepends reads the section .modinfo, where MODULE_INFO() of include/linux/module.h leaves key=value strings.
func moduleDepends(ko []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo in it")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseDepends(info), nil
}

// parseDepends finds depends=a,b among NUL-terminated strings.
func parseDepends(modinfo []byte) []string {
	for field := range bytes.SplitSeq(modinfo, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			names := strings.Split(string(list), ",")
			for i := range names {
				names[i] = moduleName(names[i])
			}
			return names
		}
	}
	return nil
}
