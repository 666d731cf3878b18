// Command corpus judges every kernel log in a folder and prints how many deaths and findings were recognised, how many
// alarms were false and how many names are right, by kind and by kernel.
//
//	go run ./e2e/corpus [-v] [DIR]
//
// DIR is listener/detect/testdata if left out. What is expected of a file is read from whatever the folder has:
// expect.json (this project's fixtures), EXPECTED.tsv (beside the files or one folder up), or the headers in the file
// itself (TITLE:, ALT:, CORRUPTED:; github.com/google/syzkaller pkg/report/testdata/linux/report). A folder with none of
// these is only listed: each file is heard or silent. -v prints every file that is not as expected.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/detect"
)

func main() {
	verbose := flag.Bool("v", false, "print every file that is not as expected")
	flag.Parse()
	dir := "listener/detect/testdata"
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	if err := run(dir, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

func run(dir string, verbose bool) error {
	book, err := readExpectations(dir)
	if err != nil {
		return err
	}
	var all table
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		log, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		want, log, ok := book.find(path, log)
		if ext := filepath.Ext(path); !ok && book.json != nil && (ext == ".log" || ext == ".jsonl") {
			return fmt.Errorf("expect.json has nothing about %s; list it", path)
		}
		if !ok {
			return nil
		}
		found, err := judge(log)
		if err != nil {
			return fmt.Errorf("judge %s: %w", path, err)
		}
		r := compare(want, found)
		if r.kernel == "" {
			r.kernel = release(log)
		}
		all.add(r)
		if verbose && (!r.asExpected() || len(want.incidents) == 0 && want.unknown) {
			fmt.Printf("%s\n\twant %s\n\tgot  %s\n", path, want, titles(found))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if all.files == 0 {
		return errors.New("no logs in " + dir)
	}
	return all.print(os.Stdout)
}

// judge returns what `lastgasp-listener replay` finds in a log or capture.
func judge(log []byte) ([]listener.Replayed, error) {
	var out bytes.Buffer
	if _, err := listener.Replay(bytes.NewReader(log), &out, &detect.Config{}, listener.Auto); err != nil {
		return nil, err
	}
	var found []listener.Replayed
	for dec := json.NewDecoder(&out); dec.More(); {
		var r listener.Replayed
		if err := dec.Decode(&r); err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, nil
}
