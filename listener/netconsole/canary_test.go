package netconsole

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// filler makes any canary long enough.
const filler = " a=0123456789012345678901234567890123456789 b=0123456789012345678901234567890123456789"

var (
	nonce      = strings.Repeat("0123456789abcdef", 2)
	someCanary = Canary{
		Nonce: nonce, Instance: "i-0123456789abcdef0", Boot: "7f3c2f6e-0000-4000-8000-000000000001", Cluster: "prod-1",
		Facts:    Facts{Kernel: "6.12.117+deb13-cloud-amd64", Panic: -10, PanicOnOops: true, Kdump: true, ConsoleLevel: 7, Version: "v1.2.3"},
		Interval: 10 * time.Minute,
	}
)

func TestCanaryLine(t *testing.T) {
	const want = "lastgasp: canary v1 nonce=0123456789abcdef0123456789abcdef instance=i-0123456789abcdef0" +
		" boot=7f3c2f6e-0000-4000-8000-000000000001 cluster=prod-1 kernel=6.12.117+deb13-cloud-amd64 panic=-10 panic_on_oops=1 kdump=1 console=7 version=v1.2.3 interval=600"
	if got := someCanary.Line(); got != want {
		t.Errorf("line %q, want %q", got, want)
	}
}

func TestCanaryRoundTrip(t *testing.T) {
	bare := Canary{Nonce: nonce, Instance: "a", Boot: "b"}
	longCluster := Canary{Nonce: nonce, Instance: "a", Boot: "b", Cluster: strings.Repeat("c", 100)}
	unmuted := someCanary
	unmuted.Facts.Unmuted = true
	without := someCanary
	without.Facts.NoNetconsole = true
	for _, c := range []Canary{someCanary, bare, longCluster, unmuted, without} {
		got, ok := ParseCanary(c.Line())
		if !ok {
			t.Fatalf("refused %q", c.Line())
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("canary (-want +got):\n%s", diff)
		}
	}

	// What is no word becomes one: a value never breaks the line it is in.
	odd := Canary{Nonce: nonce, Instance: "i 0\nboot=x", Boot: "é", Facts: Facts{Version: strings.Repeat("v", 100), Kernel: "a=b"}}
	want := Canary{Nonce: nonce, Instance: "i_0_boot=x", Boot: "__", Facts: Facts{Version: strings.Repeat("v", 64), Kernel: "a=b"}}
	got, ok := ParseCanary(odd.Line())
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("canary %v (-want +got):\n%s", ok, diff)
	}
}

// TestCanaryThroughTheKernel takes the way of a real one: /dev/kmsg, escaping, datagram, stream.
func TestCanaryThroughTheKernel(t *testing.T) {
	var s Stream
	k := sent{prefix: 14, seq: 512, flag: '-', text: someCanary.Line(), user: []Field{{KeyInstance, someCanary.Instance}}}
	for _, d := range k.datagrams() {
		for _, r := range push(t, &s, start, string(d)) {
			got, ok := r.Canary()
			if diff := cmp.Diff(someCanary, got); !ok || diff != "" {
				t.Errorf("canary %v (-want +got):\n%s", ok, diff)
			}
		}
	}
}

// TestCanaryOfTheConfigurator: what it sends itself says that the kernel cannot.
func TestCanaryOfTheConfigurator(t *testing.T) {
	without := someCanary
	without.Facts.NoNetconsole = true
	for c, want := range map[Canary]bool{someCanary: false, without: true} {
		r := received(t, AppendRecord(nil, 7, c.Line(), someSender))[0]
		got, ok := r.Canary()
		if ok != want || ok && got != c || r.Seq != 7 || r.Identity() != someSender || r.FromKernel() {
			t.Errorf("canary %+v, %v from %+v", got, ok, r)
		}
	}
}

func TestParseCanaryReadsWhatNewerOnesSay(t *testing.T) {
	got, ok := ParseCanary("lastgasp: canary v1 nonce=" + nonce + " colour=blue version=2 boot=b console=4 instance=i" + filler)
	want := Canary{Nonce: nonce, Instance: "i", Boot: "b", Facts: Facts{ConsoleLevel: 4, Version: "2"}}
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("canary %v (-want +got):\n%s", ok, diff)
	}
}

func TestParseCanaryRefuses(t *testing.T) {
	const good = " instance=i-0123456789abcdef0 boot=7f3c2f6e" + filler
	tests := []struct{ name, text string }{
		{"nothing", ""},
		{"a line that quotes one", "x lastgasp: canary v1 nonce=" + nonce + good},
		{"another version", "lastgasp: canary v2 nonce=" + nonce + good},
		{"a short nonce", "lastgasp: canary v1 nonce=" + nonce[1:] + good},
		{"a long nonce", "lastgasp: canary v1 nonce=0" + nonce + good},
		{"a nonce that is no hex", "lastgasp: canary v1 nonce=" + strings.Replace(nonce, "a", "g", 1) + good},
		{"a nonce in capitals", "lastgasp: canary v1 nonce=" + strings.ToUpper(nonce) + good},
		{"a second nonce", "lastgasp: canary v1 nonce=" + nonce + " nonce=" + nonce + good},
		{"no instance", "lastgasp: canary v1 nonce=" + nonce + " boot=7f3c2f6e kernel=6.12.117+deb13" + filler},
		{"no boot", "lastgasp: canary v1 nonce=" + nonce + " instance=i-0123456789abcdef0" + filler},
		{"an empty boot", "lastgasp: canary v1 nonce=" + nonce + " instance=i-0123456789abcdef0 boot=" + filler},
		{"a cluster of 101 bytes", "lastgasp: canary v1 nonce=" + nonce + good + " cluster=" + strings.Repeat("c", 101)},
		{"a cluster twice", "lastgasp: canary v1 nonce=" + nonce + good + " cluster=a cluster=a"},
		{"a boot twice", "lastgasp: canary v1 nonce=" + nonce + good + " boot=7f3c2f6e"},
		{"an unknown key twice", "lastgasp: canary v1 nonce=" + nonce + good + " x=1 x=1"},
		{"a word without value", "lastgasp: canary v1 nonce=" + nonce + good + " fast"},
		{"a value without key", "lastgasp: canary v1 nonce=" + nonce + good + " =1"},
		{"two spaces", "lastgasp: canary v1 nonce=" + nonce + " " + good},
		{"a space at the end", "lastgasp: canary v1 nonce=" + nonce + good + " "},
		{"a newline", "lastgasp: canary v1 nonce=" + nonce + good + "\nx=1"},
		{"a gap", "lastgasp: canary v1 nonce=" + nonce + good + Gap},
		{"a word of 65 bytes", "lastgasp: canary v1 nonce=" + nonce + good + " version=" + strings.Repeat("v", 65)},
		{"a panic that is no number", "lastgasp: canary v1 nonce=" + nonce + good + " panic=soon"},
		{"a panic not written as we do", "lastgasp: canary v1 nonce=" + nonce + good + " panic=+1"},
		{"a console that is no number", "lastgasp: canary v1 nonce=" + nonce + good + " console=0x7"},
		{"a kdump that is no bit", "lastgasp: canary v1 nonce=" + nonce + good + " kdump=2"},
		{"a panic_on_oops that is no bit", "lastgasp: canary v1 nonce=" + nonce + good + " panic_on_oops=true"},
		{"an interval that is no number", "lastgasp: canary v1 nonce=" + nonce + good + " interval=10m"},
		{"an interval of nothing", "lastgasp: canary v1 nonce=" + nonce + good + " interval=0"},
		{"an interval of more than a day", "lastgasp: canary v1 nonce=" + nonce + good + " interval=86401"},
		{"a netconsole that is there", "lastgasp: canary v1 nonce=" + nonce + good + " netconsole=1"},
		{"less than an ack could be", "lastgasp: canary v1 nonce=" + nonce + " instance=i boot=b"},
		{"more than a record holds", "lastgasp: canary v1 nonce=" + nonce + good + manyWords(300)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if c, ok := ParseCanary(tt.text); ok {
				t.Errorf("read %+v from %q", c, tt.text)
			}
		})
	}
}

// manyWords are n different ones.
func manyWords(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " k%d=v", i)
	}
	return b.String()
}

func TestMute(t *testing.T) {
	for _, tt := range []struct {
		name  string
		facts Facts
		want  string
	}{
		{"an old kernel that reboots", Facts{Kernel: "6.12.117+deb13-cloud-amd64", Panic: 10, PanicOnOops: true}, ""},
		{"an old kernel with kdump", Facts{Kernel: "6.1.0-56-cloud-amd64", Kdump: true}, ""},
		{"a new kernel that halts", Facts{Kernel: "7.3.4"}, ""},
		{"a new kernel that reboots", Facts{Kernel: "7.3.4+deb13", Panic: 10},
			"kernel 7.3.4+deb13 reboots before it sends anything, because kernel.panic is 10"},
		{"a new kernel that reboots at once", Facts{Kernel: "10.0.0", Panic: -1},
			"kernel 10.0.0 reboots before it sends anything, because kernel.panic is -1"},
		{"a new kernel with kdump", Facts{Kernel: "7.0.1", Kdump: true}, "kernel 7.0.1 starts its crash kernel before it sends anything"},
		{"a new kernel with the module", Facts{Kernel: "7.3.4", Panic: 10, Kdump: true, Unmuted: true}, ""},
		{"a kernel without netconsole", Facts{Kernel: "6.12.40-63.114.amzn2023.x86_64", NoNetconsole: true},
			"kernel 6.12.40-63.114.amzn2023.x86_64 has no netconsole: how it died is heard only after the fact"},
		{"a kernel that does not say", Facts{Panic: 10}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.facts.Mute(); got != tt.want {
				t.Errorf("Mute() = %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzCanary(f *testing.F) {
	f.Add(someCanary.Line())
	f.Add("lastgasp: canary v1 nonce=" + nonce + " instance=i boot=b colour=blue panic=0 kdump=1")
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := ParseCanary(text)
		if !ok {
			if c != (Canary{}) {
				t.Fatalf("refused, and told %+v", c)
			}
			return
		}
		if got, ok := ParseCanary(c.Line()); !ok || got != c {
			t.Fatalf("%+v comes back as %+v, %v", c, got, ok)
		}
		if len(text) < maxAck {
			t.Fatalf("an ack of up to %d bytes answers %d", maxAck, len(text))
		}
	})
}
