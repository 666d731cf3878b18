package netconsole

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var someBye = Bye{
	Nonce: nonce, Cause: ByeReboot, Instance: "i-0123456789abcdef0", Boot: "7f3c2f6e-0000-4000-8000-000000000001", Cluster: "prod-1",
	Secret: "AAECAwQFBgcICQoLDA0ODw", By: "alice", Command: "reboot", Sudo: true,
}

func TestByeLine(t *testing.T) {
	const want = "lastgasp: bye v1 cause=reboot by=alice command=reboot sudo=1 boot=7f3c2f6e-0000-4000-8000-000000000001" +
		" gasp=AAECAwQFBgcICQoLDA0ODw instance=i-0123456789abcdef0 cluster=prod-1 nonce=0123456789abcdef0123456789abcdef"
	if got := someBye.Line(); got != want {
		t.Errorf("line %q, want %q", got, want)
	}
}

func TestByeRoundTrip(t *testing.T) {
	bare := Bye{Nonce: nonce, Cause: "new-word", Instance: "a", Boot: "b"}
	full := someBye
	full.Unit, full.Event, full.Due = "unattended-upgrades.service", "instance-event-0d59937288b749b32", time.Unix(1_800_000_000, 0).UTC()
	full.Cluster = strings.Repeat("c", 100)
	longest := Bye{Nonce: nonce, Due: time.Unix(253402300799, 0).UTC(), Sudo: true, Cluster: strings.Repeat("c", 100)}
	for _, to := range []*string{&longest.Cause, &longest.Instance, &longest.Boot, &longest.By, &longest.Command, &longest.Unit, &longest.Event} {
		*to = strings.Repeat("x", 64)
	}
	longest.Secret = Secret(strings.Repeat("s", 64))
	for _, y := range []Bye{someBye, bare, full, longest} {
		if n := len(y.Line()); n < maxAck || n > maxLine {
			t.Errorf("a line of %d bytes, want %d to %d: %q", n, maxAck, maxLine, y.Line())
		}
		got, ok := ParseBye(y.Line())
		if diff := cmp.Diff(y, got); !ok || diff != "" {
			t.Errorf("farewell %v (-want +got):\n%s", ok, diff)
		}
		if !IsBye([]byte(y.Line())) {
			t.Errorf("not a farewell: %q", y.Line())
		}
	}

	// What is no word becomes one: a value never breaks the line it is in.
	odd := Bye{Nonce: nonce, Cause: "re boot", Instance: "i 0\nboot=x", Boot: "é", By: "al ice", Command: strings.Repeat("v", 100)}
	want := Bye{Nonce: nonce, Cause: "re_boot", Instance: "i_0_boot=x", Boot: "__", By: "al_ice", Command: strings.Repeat("v", 64)}
	got, ok := ParseBye(odd.Line())
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("farewell %v (-want +got):\n%s", ok, diff)
	}
}

func TestParseByeRefuses(t *testing.T) {
	const start, good = "lastgasp: bye v1 cause=reboot", " instance=i-0123456789abcdef0 boot=7f3c2f6e" + filler
	named := good + " nonce=" + nonce
	tests := []struct{ name, text string }{
		{"nothing", ""},
		{"a line that quotes one", "x " + start + named},
		{"another version", strings.Replace(start, "v1", "v2", 1) + named},
		{"no cause", "lastgasp: bye v1 cause=" + named},
		{"a second cause", start + named + " cause=halt"},
		{"a cause of 65 bytes", "lastgasp: bye v1 cause=" + strings.Repeat("c", 65) + named},
		{"a cause with a newline", "lastgasp: bye v1 cause=a\nb" + named},
		{"no nonce", start + good},
		{"a short nonce", start + good + " nonce=" + nonce[1:]},
		{"a nonce in capitals", start + good + " nonce=" + strings.ToUpper(nonce)},
		{"a second nonce", start + named + " nonce=" + nonce},
		{"no instance", start + " boot=b nonce=" + nonce + filler},
		{"no boot", start + " instance=i nonce=" + nonce + filler},
		{"a boot twice", start + named + " boot=c"},
		{"an unknown key twice", start + named + " x=1 x=1"},
		{"a word without value", start + named + " fast"},
		{"a value without key", start + named + " =1"},
		{"two spaces", start + " " + named},
		{"a space at the end", start + named + " "},
		{"a newline at the end", start + named + "\n"},
		{"a user of 65 bytes", start + named + " by=" + strings.Repeat("v", 65)},
		{"a user with a control character", start + named + " by=al\x1bice"},
		{"a sudo that is no bit", start + named + " sudo=yes"},
		{"a time that is no number", start + named + " due=soon"},
		{"a time before all time", start + named + " due=-1"},
		{"a time of no calendar", start + named + " due=253402300800"},
		{"less than an ack could be", start + " instance=i boot=b nonce=" + nonce},
		{"more than a line may have", start + named + manyWords(300)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if y, ok := ParseBye(tt.text); ok {
				t.Errorf("read %+v from %q", y, tt.text)
			}
		})
	}
}

func FuzzBye(f *testing.F) {
	f.Add(someBye.Line())
	f.Add("lastgasp: bye v1 cause=spot event=terminate due=1800000000 boot=b instance=i nonce=" + nonce + filler)
	f.Fuzz(func(t *testing.T, line string) {
		y, ok := ParseBye(line)
		if !ok {
			if diff := cmp.Diff(Bye{}, y); diff != "" {
				t.Errorf("refused, but (-want +got):\n%s", diff)
			}
			return
		}
		again, ok := ParseBye(y.Line())
		if diff := cmp.Diff(y, again); !ok || diff != "" {
			t.Errorf("%q becomes %q %v (-want +got):\n%s", line, y.Line(), ok, diff)
		}
	})
}
