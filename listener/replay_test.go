package listener

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
)

const golden = "testdata/replay.golden"

func captures(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("detect/testdata/captures/*.jsonl")
	if err != nil || len(names) < 50 {
		t.Fatalf("found %d captures, %v", len(names), err)
	}
	return names
}

func replayOf(t testing.TB, r io.Reader) string {
	t.Helper()
	var out bytes.Buffer
	if _, err := Replay(r, &out, &detect.Config{}, Datagrams); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplayOfTheCaptures compares what replay prints for the captures named in replay.golden with what stands there,
// and writes it anew, for all captures, if UPDATE_GOLDEN is set. What differs each time a capture is taken is left out.
func TestReplayOfTheCaptures(t *testing.T) {
	want, err := os.ReadFile(golden)
	names := strings.Split(string(want), "# ")[1:]
	for i := range names {
		names[i], _, _ = strings.Cut(names[i], "\n")
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		names = nil
		for _, path := range captures(t) {
			names = append(names, filepath.Base(path))
		}
	} else if err != nil || len(names) < 50 {
		t.Fatalf("%s names %d captures, %v", golden, len(names), err)
	}
	var got strings.Builder
	for _, name := range names {
		fmt.Fprintf(&got, "# %s\n", name)
		for line := range strings.Lines(replayOf(t, bytes.NewReader(read(t, "detect/testdata/captures/"+name)))) {
			var r Replayed
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			if r.T <= 0 || r.Lines == 0 || strings.HasSuffix(name, ".ext.jsonl") != (r.Authority == detect.Kernel) {
				t.Errorf("%s: %+v", name, r)
			}
			fmt.Fprintf(&got, "%s %s fatal=%t authority=%s instance=%t boot=%t %s\n",
				r.Fingerprint, r.Code, r.Fatal, r.Authority, r.Instance != "", r.Boot != "", r.Title)
		}
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		want = []byte(got.String())
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("replay of the captures (-want +got); UPDATE_GOLDEN=1 takes it over:\n%s", diff)
	}
}

// What a capture says does not depend on how its bytes are read, how often, or what ran before.
func TestReplayIsDeterministic(t *testing.T) {
	for _, name := range captures(t) {
		b := read(t, name)
		want := replayOf(t, bytes.NewReader(b))
		for how, r := range map[string]io.Reader{
			"once more":                bytes.NewReader(b),
			"byte by byte":             iotest.OneByteReader(bytes.NewReader(b)),
			"in halves":                iotest.HalfReader(bytes.NewReader(b)),
			"the end with its data":    iotest.DataErrReader(bytes.NewReader(b)),
			"without the last newline": bytes.NewReader(bytes.TrimSpace(b)),
		} {
			if diff := cmp.Diff(want, replayOf(t, r)); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", name, how, diff)
			}
		}
	}
}

// TestReplayOfFragments sends the userdata of every record in a datagram of its own, before or after its text, as
// netconsole does when both do not fit into one, and then cuts records anywhere: the same incidents come out.
func TestReplayOfFragments(t *testing.T) {
	for _, name := range captures(t) {
		if !strings.HasSuffix(name, ".ext.jsonl") {
			continue
		}
		b := read(t, name)
		want := replayOf(t, bytes.NewReader(b))
		for seed := range uint64(6) {
			random := rand.New(rand.NewPCG(seed, 0))
			var cut bytes.Buffer
			enc := json.NewEncoder(&cut)
			for line := range bytes.Lines(b) {
				var d Datagram
				if err := json.Unmarshal(line, &d); err != nil {
					t.Fatal(err)
				}
				for _, piece := range fragment(random, d.Payload, seed > 2) {
					enc.Encode(Datagram{T: d.T, Src: d.Src, Payload: piece})
				}
			}
			if diff := cmp.Diff(want, replayOf(t, &cut)); diff != "" {
				t.Errorf("%s told with seed %d (-want +got):\n%s", name, seed, diff)
			}
		}
	}
}

// fragment cuts a whole extended record, behind its text or anywhere. What is a piece already stays as it is.
func fragment(random *rand.Rand, payload []byte, anywhere bool) [][]byte {
	header, body, ok := bytes.Cut(payload, []byte(";"))
	text, data, _ := bytes.Cut(body, []byte("\n"))
	if !ok || len(data) == 0 || bytes.Contains(header, []byte("ncfrag=")) || bytes.HasPrefix(header, []byte("** ")) {
		return [][]byte{payload}
	}
	at := len(text) + 1
	if anywhere {
		at = 1 + random.IntN(len(body)-1)
	}
	pieces := [][]byte{
		fmt.Appendf(nil, "%s,ncfrag=0/%d;%s", header, len(body), body[:at]),
		fmt.Appendf(nil, "%s,ncfrag=%d/%d;%s", header, at, len(body), body[at:]),
	}
	random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	return pieces
}

func TestReplayNamesTheLine(t *testing.T) {
	const line = `{"t": 1, "src": "10.77.1.5:6665", "payload_b64": "MCw0MDAsOTAwMCwtO0tlcm5lbCBwYW5pYyAtIG5vdCBzeW5jaW5nOiBib29tCg=="}`
	for _, tt := range []struct{ name, input, want string }{
		{"no JSON", line + "\n\nhello\n", `line 3: not a JSON object: invalid character 'h' looking for beginning of value`},
		{"cut off", line[:40], `line 1: not a JSON object: unexpected end of JSON input`},
		{"no source", `{"t": 1, "payload_b64": "MCw="}`, `line 1: "src" is missing; want "ip:port"`},
		{"a source that is none", `{"t": 1, "src": "here", "payload_b64": "MCw="}`, `line 1: not a JSON object: not an ip:port`},
		{"no payload", `{"t": 1, "src": "10.0.0.1:1"}`, `line 1: "payload_b64" is missing; want the datagram in base64`},
		{"a time that is none", `{"t": "now", "src": "10.0.0.1:1", "payload_b64": "MCw="}`, `line 1: "t" is a string`},
		{"a time beyond all reason", `{"t": 1e300, "src": "10.0.0.1:1", "payload_b64": "MCw="}`, `line 1: "t" is 1e+300; want seconds`},
		{"no end of line", strings.Repeat("x", maxLine+1), `line 1: the line is longer than 262144 bytes`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Replay(strings.NewReader(tt.input), io.Discard, &detect.Config{}, Datagrams)
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if wrong := new(LineError); !errors.As(err, &wrong) {
				t.Errorf("error is a %T, want a *LineError", err)
			}
		})
	}
}

func TestReplayOfALog(t *testing.T) {
	in := "[    1.000000] Linux version 6.12.117\nnonsense\n[    9.000000] Kernel panic - not syncing: Fatal exception\n" +
		"[    0.000000] Linux version 6.12.117\n[    9.000000] Kernel panic - not syncing: Attempted to kill init!\n"
	var out bytes.Buffer
	if _, err := Replay(strings.NewReader(in), &out, &detect.Config{}, Log); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		var r Replayed
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s: %s (%s)", r.Code, r.Title, r.Authority))
	}
	want := []string{"KernelPanic: Fatal exception (text)", "KernelPanic: Attempted to kill init (text)"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("incidents (-want +got):\n%s", diff)
	}
}

func TestReplayOfALogWithoutTimes(t *testing.T) {
	var out bytes.Buffer
	if _, err := Replay(strings.NewReader("Kernel panic - not syncing: Fatal exception\n"), &out, &detect.Config{}, Log); err != nil {
		t.Fatal(err)
	}
	var r Replayed
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.T != 0 || r.Title != "Fatal exception" {
		t.Errorf("printed %s, %v; want one incident at 0", out.String(), err)
	}
}
