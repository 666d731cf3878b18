package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestObituaryBy(t *testing.T) {
	pin := Pin{Boot: "new", Sum: "sum"}
	pinned := Node{Name: "n", BootID: "new", Pin: pin}
	for _, tt := range []struct {
		name           string
		node           Node
		sum, old, last string
		want           detect.Authority // Text: refused
	}{
		{"a pinned boot", pinned, "sum", "old", "", detect.Pinned},
		{"a pinned boot, of the boot that was before", pinned, "sum", "old", "old", detect.Pinned},
		{"a pinned boot, of another boot than was before", pinned, "sum", "old", "older", detect.Text},
		{"a pinned boot that is itself the last that is known", pinned, "sum", "old", "new", detect.Pinned},
		{"a claimed boot", Node{BootID: "new", Claim: pin}, "sum", "old", "", detect.Claimed},
		{"a claim beside a pin of the same boot", Node{BootID: "new", Pin: Pin{"new", "other"}, Claim: pin}, "sum", "old", "", detect.Text},
		{"a claim beside the pin of an earlier boot", Node{BootID: "new", Pin: Pin{"old", "other"}, Claim: pin}, "sum", "old", "", detect.Claimed},
		{"a boot that the Node does not run", Node{BootID: "newer", Pin: pin}, "sum", "old", "", detect.Text},
		{"another secret", pinned, "other", "old", "", detect.Text},
		{"no secret", Node{BootID: "new", Pin: Pin{Boot: "new"}}, "", "old", "", detect.Text},
		{"itself", pinned, "sum", "new", "", detect.Text},
		{"no boot", pinned, "sum", "", "", detect.Text},
	} {
		got, err := ObituaryBy(tt.node, "new", tt.sum, tt.old, tt.last)
		if got != tt.want || (err != nil) != (tt.want == detect.Text) {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestObituaryOf(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	n := Node{Name: "n", UID: "u", BootID: "new", ProviderID: "aws:///z/i-1", Kernel: "7.0.0"}
	dies := func(boot string) detect.BootLog {
		return detect.BootLog{Boot: boot, Death: detect.Incident{Verdict: detect.Dying, Cause: "KernelPanic", Title: "of " + boot, Trace: []string{"a", "b"}}}
	}
	for _, tt := range []struct {
		name  string
		o     netconsole.Obituary
		logs  []detect.BootLog
		want  string // cause: reason
		by    Evidence
		time  time.Time
		lines int
	}{
		{"its kernel's words", netconsole.Obituary{Cause: "x", Evidence: "pstore", Time: at.Add(-time.Hour)}, []detect.BootLog{dies("old")}, "KernelPanic: of old", ByPstore, at.Add(-time.Hour), 2},
		{"words that name no boot", netconsole.Obituary{Cause: "x", Evidence: "kdump"}, []detect.BootLog{dies("")}, "KernelPanic: of ", ByKdump, at, 2},
		{"the words of another boot", netconsole.Obituary{Cause: "Watchdog", Evidence: "watchdog", Text: []byte("watchdog0 has bootstatus 32\nmore\n")},
			[]detect.BootLog{dies("other")}, "Watchdog: watchdog0 has bootstatus 32", ByWatchdog, at, 2},
		{"the words of the boot before it", netconsole.Obituary{Cause: "Watchdog", Evidence: "watchdog", Text: []byte("watchdog0 has bootstatus 32\nmore\n")},
			[]detect.BootLog{dies(""), {Boot: "old"}}, "Watchdog: watchdog0 has bootstatus 32", ByWatchdog, at, 2},
		{"its words, and then another boot's", netconsole.Obituary{Cause: "x", Evidence: "pstore"}, []detect.BootLog{dies("old"), dies("other")}, "KernelPanic: of old", ByPstore, at, 2},
		{"words without a reason", netconsole.Obituary{Cause: "Unexplained", Evidence: "pstore", Text: []byte("eth0: link up\n")}, nil,
			"Unexplained: the kernel left its last lines, and no reason in them", ByPstore, at, 1},
		{"nothing", netconsole.Obituary{Cause: "Unexplained", Evidence: "none"}, nil, "Unexplained: the boot ended without a word", ByNothing, at, 0},
		{"evidence that is no word of ours", netconsole.Obituary{Cause: "Unexplained", Evidence: "netconsole"}, nil, "Unexplained: the boot ended without a word", ByNothing, at, 0},
		{"a clock that was never set", netconsole.Obituary{Cause: "PowerLoss", Evidence: "firmware", Time: time.Unix(90, 0), Text: []byte("power")}, nil, "PowerLoss: power", ByFirmware, at, 1},
		{"an oops that the kernel survived", netconsole.Obituary{Cause: "Unexplained", Evidence: "none", Text: []byte("oops\n")},
			[]detect.BootLog{{Survived: detect.Incident{Verdict: detect.Oops, Cause: "KernelOops", Title: "null pointer in foo"}}},
			"Unexplained: the boot ended without a word; its kernel had oopsed before: null pointer in foo", ByNothing, at, 1},
		{"an oops of another boot", netconsole.Obituary{Cause: "Unexplained", Evidence: "none", Text: []byte("oops\n")},
			[]detect.BootLog{{Boot: "other", Survived: detect.Incident{Verdict: detect.Oops, Cause: "KernelOops", Title: "null pointer in foo"}}},
			"Unexplained: the boot ended without a word", ByNothing, at, 1},
		{"a time to come", netconsole.Obituary{Cause: "PowerLoss", Evidence: "firmware", Time: at.Add(time.Hour), Text: []byte("power")}, nil, "PowerLoss: power", ByFirmware, at, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Boot, tt.o.Kernel = "old", "6.12.0"
			d := ObituaryOf(n, tt.o, tt.logs, detect.Pinned, at)
			if got := d.Cause + ": " + d.Reason; got != tt.want || !slices.Equal(d.Evidence, []Evidence{tt.by}) || !d.Time.Equal(tt.time) || len(d.Trace) != tt.lines {
				t.Errorf("%s by %v at %s, %d lines; want %s by %s at %s, %d lines", got, d.Evidence, d.Time, len(d.Trace), tt.want, tt.by, tt.time, tt.lines)
			}
			if d.Name != DeathName("n", "old") || d.Boot != "old" || d.Release != "6.12.0" || d.Authority != detect.Pinned || d.Phase != Recorded || d.Instance != "i-1" {
				t.Errorf("death: %+v", d)
			}
		})
	}
}

func TestLearn(t *testing.T) {
	have := Death{Cause: "KernelPanic", Reason: "Fatal exception", Trace: []string{"a"}, Evidence: []Evidence{ByNetconsole}, Release: "6.12.0"}
	more := Death{Cause: "KernelPanic", Reason: "null pointer", Trace: []string{"a", "b"}, Evidence: []Evidence{ByPstore}}
	got := have
	if !got.Learn(more) || got.Reason != "null pointer" || got.Release != "6.12.0" || !slices.Equal(got.Evidence, []Evidence{ByNetconsole, ByPstore}) {
		t.Errorf("learnt %+v", got)
	}
	if len(have.Evidence) != 1 {
		t.Error("it wrote into a slice that a copy shares")
	}
	if got.Learn(more) {
		t.Error("it learns the same twice")
	}
	shorter := Death{Cause: "Unexplained", Reason: "x", Trace: []string{"a", "b", "c"}, Evidence: []Evidence{ByNothing}}
	if got.Learn(shorter) || got.Reason != "null pointer" {
		t.Errorf("no word is better than one: %+v", got)
	}
	none := Death{Cause: "Unexplained", Reason: "without a word", Trace: []string{"an", "oops", "before"}, Evidence: []Evidence{ByNothing}}
	console := Death{Cause: "KernelPanic", Reason: "null pointer", Trace: []string{"a", "b"}, Evidence: []Evidence{ByConsole}}
	if !none.Learn(console) || none.Cause != "KernelPanic" || len(none.Trace) != 3 || !slices.Equal(none.Evidence, []Evidence{ByConsole}) {
		t.Errorf("no word is explained by fewer lines than an oops had: %+v", none)
	}
	if none.Learn(Death{Cause: "Unexplained", Evidence: []Evidence{ByNothing}}) {
		t.Errorf("it learns that nothing is known: %+v", none)
	}
}
