package netconsole

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// capture reads the payloads of a file of datagrams.
func capture(t testing.TB, name string) [][]byte {
	t.Helper()
	var payloads [][]byte
	lines(t, name, func(line []byte) error {
		var d struct {
			Payload []byte `json:"payload_b64"`
		}
		err := json.Unmarshal(line, &d)
		payloads = append(payloads, d.Payload)
		return err
	})
	return payloads
}

func lines(t testing.TB, name string, do func(line []byte) error) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if err := do(s.Bytes()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// TestCaptures plays every capture there is and compares with the records beside it.
func TestCaptures(t *testing.T) {
	names, err := filepath.Glob("testdata/*.records.jsonl")
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".records.jsonl")
		t.Run(base, func(t *testing.T) {
			var want []Record
			lines(t, base+".records.jsonl", func(line []byte) error {
				var r struct {
					Extended bool
					Partial  bool
					Prefix   int
					Seq      uint64
					Uptime   int64 `json:"uptime_us"`
					Text     string
					Fields   [][2]string
					Missing  int
				}
				err := json.Unmarshal(line, &r)
				rec := Record{
					Extended: r.Extended, Partial: r.Partial, Prefix: r.Prefix, Seq: r.Seq,
					Uptime: time.Duration(r.Uptime) * time.Microsecond, Text: []byte(r.Text), Missing: r.Missing,
				}
				for _, f := range r.Fields {
					rec.Fields = append(rec.Fields, Field{f[0], f[1]})
				}
				want = append(want, rec)
				return err
			})

			var s Stream
			var got []Record
			for _, payload := range capture(t, base+".jsonl") {
				got = append(got, push(t, &s, start, string(payload))...)
			}
			if diff := cmp.Diff(want, got, unassembled); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if d := s.Deadline(); !d.IsZero() {
				t.Errorf("still waits until %v", d)
			}
		})
	}
}
