package lastboot

import (
	"path/filepath"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/machine"
)

// crashDir is where crash kernels leave dumps: Debian's kdump-tools as <stamp>/dmesg.<stamp>, RHEL's kexec-tools as
// <host>-<stamp>/vmcore-dmesg.txt.
const crashDir = "var/crash"

// incomplete is RHEL's, where saving it failed half-way.
const incomplete = "vmcore-dmesg-incomplete.txt"

// readKdump reads the logs beside the dumps of crash kernels.
func (s *store) readKdump(root machine.Root, known map[string]bool, left *int) {
	isLog := func(base string) bool {
		return base == "vmcore-dmesg.txt" || base == incomplete || strings.HasPrefix(base, "dmesg.")
	}
	for _, f := range list(root, crashDir, isLog) {
		s.files = append(s.files, f)
		if known[f.mark()] || filepath.Dir(f.name) == crashDir {
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
