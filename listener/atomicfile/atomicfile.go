// Package atomicfile replaces files in one step, for both programs.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// unfinished ends the name of a file that is being written.
const unfinished = ".new"

// Clean removes from dir what a crash has left of files whose names end in one of suffixes, while nothing is written there. The next
// Write of a file does so, too: Clean is for directories in which most names are written once.
func Clean(dir string, suffixes ...string) error {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		name, cut := strings.CutSuffix(f.Name(), unfinished)
		if cut && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
}

// Write replaces the file, with exactly this mode, and makes its directory if there is none. Whoever reads it, also after a
// crash, finds the old content or the new one.
func Write(name string, data []byte, mode os.FileMode) error {
	dir, next := filepath.Dir(name), name+unfinished
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	os.Remove(next) // a crash may have left it, with another mode
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(next, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
