package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// debianKeyring signs every suite of Debian's archive; package debian-archive-keyring.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// mirror is where this machine gets Debian from: base addresses of the archive and of its security updates, which may be
// empty. The lab asks the same place for other suites, so that a proxy or a company mirror serves it too.
type mirror struct {
	main, security string
}

// findMirror reads the machine's own apt configuration.
func findMirror(ctx context.Context) (mirror, error) {
	m, err := readMirror(ctx)
	if err == nil && m.main != "" {
		return m, nil
	}
	// Origin and label are known only after the first update.
	if _, err := run(ctx, "apt-get", "update"); err != nil {
		return mirror{}, err
	}
	m, err = readMirror(ctx)
	if err == nil && m.main == "" {
		err = errors.New("find a Debian mirror in this machine's apt sources: none says Origin: Debian")
	}
	return m, err
}

func readMirror(ctx context.Context) (mirror, error) {
	out, err := run(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return mirror{}, err
	}
	return parseMirror(out), nil
}

// parseMirror reads lines of origin|label|component|address, the format asked for above.
func parseMirror(targets string) mirror {
	var m mirror
	for line := range strings.Lines(targets) {
		f := strings.SplitN(strings.TrimSpace(line), "|", 4)
		if len(f) != 4 || f[0] != "Debian" || f[2] != "main" {
			continue
		}
		switch {
		case f[1] == "Debian" && m.main == "":
			m.main = f[3]
		case f[1] == "Debian-Security" && m.security == "":
			m.security = f[3]
		}
	}
	return m
}

// sources is the sources.list for suite, and for its security updates where it has some.
func (m mirror) sources(suite string) string {
	list := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", debianKeyring, m.main, suite)
	if m.security != "" && !strings.Contains(suite, "-") { // backports and the like have none of their own
		list += fmt.Sprintf("deb [signed-by=%s] %s %s-security main\n", debianKeyring, m.security, suite)
	}
	return list
}

// archive is a private apt: it reads a suite of Debian that need not be the machine's own, and keeps its state in a
// folder of its own.
type archive struct {
	options []string
}

// openArchive makes a private apt for suite, on a machine of architecture arch, in the folder dir and reads the package lists.
// Packages of amd64, on which everything is built, can be had as name:amd64.
func openArchive(ctx context.Context, dir, suite, arch string) (*archive, error) {
	m, err := findMirror(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make a private apt: %w", err)
		}
	}
	list, status := filepath.Join(dir, "sources.list"), filepath.Join(dir, "status")
	if err := os.WriteFile(list, []byte(m.sources(suite)), 0o644); err != nil {
		return nil, fmt.Errorf("make a private apt: %w", err)
	}
	if err := os.WriteFile(status, nil, 0o644); err != nil { // nothing is installed
		return nil, fmt.Errorf("make a private apt: %w", err)
	}
	a := &archive{options: []string{
		"-o", "APT::Architecture=" + arch,
		"-o", "APT::Architectures::=" + arch,
		"-o", "APT::Architectures::=amd64",
		"-o", "Dir::Etc::SourceList=" + list,
		"-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::Etc::Preferences=/dev/null",
		"-o", "Dir::Etc::PreferencesParts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::State::Status=" + status,
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "Acquire::Retries=3",
		"-o", "APT::Sandbox::User=root", // _apt cannot write below root's cache directory
	}}
	_, err = run(ctx, "apt-get", a.args("update")...)
	return a, err
}

// args puts a command and its arguments after what makes apt private.
func (a *archive) args(command ...string) []string {
	return slices.Concat(a.options, command)
}

// closure returns root and the packages it depends on, over any number of steps, as far as their names match matching.
// Each is name=version, ready for download.
func (a *archive) closure(ctx context.Context, root string, matching *regexp.Regexp) ([]string, error) {
	var found []string
	seen := map[string]bool{root: true}
	for queue := []string{root}; len(queue) > 0; queue = queue[1:] {
		out, err := run(ctx, "apt-cache", a.args("show", "--no-all-versions", queue[0])...)
		if err != nil {
			return nil, err
		}
		pkg := parsePackage(out)
		found = append(found, queue[0]+"="+pkg.version)
		for _, name := range pkg.depends {
			if strings.HasPrefix(name, "linux-kbuild-") {
				name += ":amd64" // programs that run where modules are built
			}
			if !seen[name] && matching.MatchString(name) {
				seen[name] = true
				queue = append(queue, name)
			}
		}
	}
	return found, nil
}

// debPackage is the part of a package's control stanza that closure needs.
type debPackage struct {
	version string
	depends []string // names only, the first of each set of alternatives
}

// parsePackage reads the first stanza of apt-cache show.
func parsePackage(stanza string) debPackage {
	var p debPackage
	for line := range strings.Lines(stanza) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ") // a continued line begins with a space
		switch key {
		case "": // the next stanza is another version
			return p
		case "Version":
			p.version = value
		case "Depends":
			for dep := range strings.SplitSeq(value, ",") {
				name, _, _ := strings.Cut(strings.TrimSpace(dep), " ")
				name, _, _ = strings.Cut(name, ":")
				p.depends = append(p.depends, name)
			}
		}
	}
	return p
}

// download fetches packages, each name=version, into dir and returns the paths of the .deb files.
func (a *archive) download(ctx context.Context, dir string, pkgs ...string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder for packages: %w", err)
	}
	if _, err := runIn(ctx, dir, "apt-get", append(a.args("download"), pkgs...)...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*.deb"))
}

// unpack extracts the files of a .deb below root, whose /lib may be a link to usr/lib: dpkg-deb -x would put a folder in
// the link's place.
func unpack(ctx context.Context, deb, root string) error {
	read := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	write := exec.CommandContext(ctx, "tar", "--extract", "--keep-directory-symlink", "--directory", root)
	files, err := read.StdoutPipe()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	write.Stdin = files
	if err := read.Start(); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	out, writeErr := write.CombinedOutput()
	if writeErr != nil {
		io.Copy(io.Discard, files) // let dpkg-deb come to its end
		writeErr = fmt.Errorf("%w: %s", writeErr, lastLines(string(out), 5))
	}
	if err := errors.Join(writeErr, read.Wait()); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	return nil
}
