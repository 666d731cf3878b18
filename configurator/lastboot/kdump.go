package lastboot

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

// crashDir is where crash kernels leave dumps: Debian's kdump-tools as <stamp>/dmesg.<stamp>, RHEL's kexec-tools as
// <host>-<stamp>/vmcore-dmesg.txt, SUSE's kdump as <stamp>/dmesg.txt.
const crashDir = "var/crash"

// crashDirs are the settings that name another place on this machine: of RHEL, Debian and SUSE. What is saved elsewhere is not here.
var crashDirs = []struct {
	file string
	key  *lazyregexp.Regexp
}{
	{"etc/kdump.conf", lazyregexp.New(`(?m)^[ \t]*path[ \t]+(/\S+)`)},
	{"etc/default/kdump-tools", lazyregexp.New(`(?m)^[ \t]*KDUMP_COREDIR=["']?(/[^"'\s]+)`)},
	{"etc/sysconfig/kdump", lazyregexp.New(`(?m)^[ \t]*KDUMP_SAVEDIR=["']?(?:file://)?(/[^"'\s]+)`)},
}

// placesOfDumps are crashDir, and what the settings name beside it.
func placesOfDumps(root machine.Root) []string {
	places := []string{crashDir}
	for _, s := range crashDirs {
		data, err := readHead(root.Path(s.file), 64<<10)
		if err != nil {
			continue
		}
		for _, m := range s.key.FindAllSubmatch(data, -1) {
			place := strings.TrimPrefix(filepath.Clean(string(m[1])), "/")
			if place != "" && !slices.Contains(places, place) && len(places) <= len(crashDirs) {
				places = append(places, place)
			}
		}
	}
	return places
}

// incomplete is RHEL's, where saving it failed half-way.
const incomplete = "vmcore-dmesg-incomplete.txt"

func (s *store) readKdump(root machine.Root, known map[string]bool, left *int) {
	isLog := func(base string) bool {
		return base == "vmcore-dmesg.txt" || base == incomplete || strings.HasPrefix(base, "dmesg.")
	}
	for _, dir := range placesOfDumps(root) {
		for _, f := range list(root, dir, isLog) {
			s.files = append(s.files, f)
			if known[f.mark()] || filepath.Dir(f.name) == dir {
				continue
			}
			data, err := readListed(root, f, int64(min(maxEntry, *left)))
			if err != nil || len(data) == 0 {
				continue
			}
			*left -= len(data)
			d := dump{source: Kdump, time: f.info.ModTime().UTC(), text: data}
			if filepath.Base(f.name) == incomplete {
				d.kind = "Panic" // what says so may be what is missing
			}
			s.dumps = append(s.dumps, d)
		}
	}
}
