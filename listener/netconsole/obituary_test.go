package netconsole

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	someSender   = Identity{Instance: "i-0123456789abcdef0", Boot: "7f3c2f6e-0000-4000-8000-000000000002", Secret: "c2VjcmV0c2VjcmV0c2VjcmV0"}
	someObituary = Obituary{
		Boot: "7f3c2f6e-0000-4000-8000-000000000001", Cause: "KernelPanic", Evidence: "pstore", Kernel: "7.3.4+deb14-cloud-amd64",
		Cluster: "prod-1", Time: start.UTC().Truncate(time.Second),
		Text: []byte("<6>[    3.592626] Kernel\n<0>[   11.000001] Kernel panic - not syncing: sysrq triggered crash\n"),
	}
)

// received is what a listener's stream makes of datagrams.
func received(t *testing.T, datagrams ...[]byte) []Record {
	t.Helper()
	var s Stream
	var records []Record
	for _, d := range datagrams {
		for _, r := range push(t, &s, start, string(d)) {
			r.Text = bytes.Clone(r.Text)
			records = append(records, r)
		}
	}
	return records
}

// partsOf is an obituary as it arrives.
func partsOf(t *testing.T, o Obituary, id Identity) []ObituaryPart {
	t.Helper()
	nonce, datagrams := o.Datagrams(id)
	var parts []ObituaryPart
	for i, r := range received(t, datagrams...) {
		if len(datagrams[i]) > maxPart {
			t.Errorf("part %d has %d bytes", i+1, len(datagrams[i]))
		}
		if diff := cmp.Diff(id, r.Identity()); diff != "" {
			t.Fatalf("identity of part %d (-want +got):\n%s", i+1, diff)
		}
		p, ok := r.Obituary()
		if !ok || p.Nonce != nonce || p.Part != i+1 || p.Parts != len(datagrams) {
			t.Fatalf("part %d of %d: %+v, %v from %q", i+1, len(datagrams), p, ok, datagrams[i])
		}
		parts = append(parts, p)
	}
	return parts
}

func TestObituaryOnTheWire(t *testing.T) {
	o := someObituary
	o.Text = []byte("panic\n")
	nonce, parts := o.Datagrams(someSender)
	want := "12,1,0,-,caller=lastgasp;lastgasp: died v1 nonce=" + nonce + " part=1/1 size=6 boot=7f3c2f6e-0000-4000-8000-000000000001" +
		" cause=KernelPanic by=pstore kernel=7.3.4+deb14-cloud-amd64 cluster=prod-1 time=" + strconv.FormatInt(start.Unix(), 10) + `\x0apanic\x0a` + "\n" +
		" instance=i-0123456789abcdef0\n boot=7f3c2f6e-0000-4000-8000-000000000002\n gasp=c2VjcmV0c2VjcmV0c2VjcmV0\n"
	if len(parts) != 1 || string(parts[0]) != want {
		t.Errorf("%d parts, the first %q, want %q", len(parts), parts[0], want)
	}
	if again, _ := o.Datagrams(someSender); again != nonce {
		t.Errorf("nonce %s, then %s: a node that begins again must continue", nonce, again)
	}
	f, err := ParseFrame(parts[0])
	if boot, secret, ok := f.Credentials(); err != nil || !ok || string(boot) != someSender.Boot || string(secret) != string(someSender.Secret) {
		t.Errorf("credentials %q, %v, %v", boot, ok, err)
	}
}

// long is a text of many parts.
func long(n int, line string) []byte { return bytes.Repeat([]byte(line), n/len(line)+1)[:n] }

func TestObituaryRoundTrip(t *testing.T) {
	with := func(change func(*Obituary)) Obituary {
		o := someObituary
		change(&o)
		return o
	}
	for _, tt := range []struct {
		name       string
		sent, want Obituary
	}{
		{"a short one", someObituary, someObituary},
		{"one without a word", Obituary{Boot: "b", Cause: CauseUnexplained, Evidence: "none"}, Obituary{Boot: "b", Cause: CauseUnexplained, Evidence: "none"}},
		{"64 KiB", with(func(o *Obituary) {
			o.Text = long(MaxObituary, "<6>[    3.592626] a line of a usual length, whatever it says\n")
		}),
			with(func(o *Obituary) {
				o.Text = long(MaxObituary, "<6>[    3.592626] a line of a usual length, whatever it says\n")
			})},
		{"64 KiB of bytes that are escaped, and words as long as they may be", with(func(o *Obituary) {
			w := strings.Repeat("w", 64)
			o.Boot, o.Cause, o.Evidence, o.Kernel, o.Cluster = w, w, w, w, strings.Repeat("c", 100)
			o.Text = long(MaxObituary, "\x01")
		}), with(func(o *Obituary) {
			w := strings.Repeat("w", 64)
			o.Boot, o.Cause, o.Evidence, o.Kernel, o.Cluster = w, w, w, w, strings.Repeat("c", 100)
			o.Text = long(MaxObituary, "\x01")
		})},
		{"more than 64 KiB: the end counts", with(func(o *Obituary) { o.Text = append([]byte("first"), long(MaxObituary, "x")...) }),
			with(func(o *Obituary) { o.Text = long(MaxObituary, "x") })},
		{"words that are none", with(func(o *Obituary) { o.Cause, o.Kernel = "Kernel Panic\n", strings.Repeat("7", 70) }),
			with(func(o *Obituary) { o.Cause, o.Kernel = "Kernel_Panic_", strings.Repeat("7", 64) })},
		{"a secret in the text", with(func(o *Obituary) { o.Text = []byte("x gasp=c2Vj y\n") }), with(func(o *Obituary) { o.Text = []byte("x gasp:(gasp) y\n") })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parts := partsOf(t, tt.sent, someSender)
			var s Obituaries
			var got *Obituary
			for i, p := range parts {
				whole, ack := s.Add(start, someSender, p)
				if ack != (i < len(parts)-1) {
					t.Fatalf("part %d of %d is acknowledged: %v", i+1, len(parts), ack)
				}
				if whole != nil {
					got = whole
				}
			}
			if got == nil {
				t.Fatalf("%d parts make nothing", len(parts))
			}
			if diff := cmp.Diff(tt.want, *got, cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })); diff != "" {
				t.Errorf("obituary (-want +got):\n%s", diff)
			}
			if len(parts) > MaxParts {
				t.Errorf("%d parts", len(parts))
			}
		})
	}
}

// TestNoKernelSendsAnObituary: who may write to /dev/kmsg has the target's secret added by the kernel, but not the caller.
func TestNoKernelSendsAnObituary(t *testing.T) {
	_, datagrams := someObituary.Datagrams(someSender)
	good := received(t, datagrams[0])[0]
	if _, ok := good.Obituary(); !ok {
		t.Fatalf("refused %q", datagrams[0])
	}
	for _, tt := range []struct {
		name   string
		change func(*Record)
	}{
		{"a kernel's caller", func(r *Record) { r.Caller = "T1" }},
		{"no caller", func(r *Record) { r.Caller = "" }},
		{"a kernel's release", func(r *Record) { r.Release = "6.12" }},
		{"a kernel's record", func(r *Record) { r.Prefix = 4 }},
		{"another part's number", func(r *Record) { r.Seq++ }},
		{"fragments", func(r *Record) { r.Assembled = true }},
		{"a beginning", func(r *Record) { r.Partial = true }},
		{"a hole", func(r *Record) { r.Missing = 1 }},
		{"the basic format", func(r *Record) { r.Extended = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := good
			tt.change(&r)
			if p, ok := r.Obituary(); ok {
				t.Errorf("read %+v", p)
			}
		})
	}
	k := sent{prefix: 12, seq: 1, flag: '-', caller: "T1", text: string(good.Text), user: []Field{{KeyBoot, someSender.Boot}}}
	for _, d := range k.datagrams() {
		for _, r := range received(t, d) {
			if _, ok := r.Obituary(); ok {
				t.Errorf("an obituary from a kernel: %q", d)
			}
		}
	}
}

func TestParseObituaryRefuses(t *testing.T) {
	head := "lastgasp: died v1 nonce=" + nonce
	const good = " part=1/2 size=9 boot=b cause=c by=pstore"
	if p, ok := parseObituary([]byte(head + good + " colour=blue\nlines")); !ok || string(p.Text) != "lines" {
		t.Fatalf("refused a good one: %+v", p)
	}
	for _, tt := range []struct{ name, text string }{
		{"nothing", ""},
		{"another version", strings.Replace(head, "v1", "v2", 1) + good + "\n"},
		{"a short nonce", strings.TrimSuffix(head, "f") + good + "\n"},
		{"a second nonce", head + good + " nonce=" + nonce + "\n"},
		{"no end of its first line", head + good},
		{"no part", head + " size=9 boot=b cause=c by=pstore\n"},
		{"no size", head + " part=1/2 boot=b cause=c by=pstore\n"},
		{"no boot", head + " part=1/2 size=9 cause=c by=pstore\n"},
		{"no cause", head + " part=1/2 size=9 boot=b by=pstore\n"},
		{"no evidence", head + " part=1/2 size=9 boot=b cause=c\n"},
		{"a boot twice", head + good + " boot=b\n"},
		{"an unknown word twice", head + good + " x=1 x=1\n"},
		{"part nought", head + " part=0/2 size=9 boot=b cause=c by=pstore\n"},
		{"a part behind the last", head + " part=3/2 size=9 boot=b cause=c by=pstore\n"},
		{"a part without a total", head + " part=1 size=9 boot=b cause=c by=pstore\n"},
		{"more parts than there can be", head + " part=1/513 size=9 boot=b cause=c by=pstore\n"},
		{"a negative size", head + " part=1/2 size=-9 boot=b cause=c by=pstore\n"},
		{"more than 64 KiB", head + " part=1/2 size=65537 boot=b cause=c by=pstore\n"},
		{"more text than its size", head + good + "\n0123456789"},
		{"a time that is no number", head + good + " time=soon\n"},
		{"a time of nothing", head + good + " time=0\n"},
		{"a long word", head + good + " kernel=" + strings.Repeat("k", 65) + "\n"},
		{"two spaces", head + " " + good + "\n"},
		{"a first line longer than any", head + good + manyWords(300) + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p, ok := parseObituary([]byte(tt.text)); ok {
				t.Errorf("read %+v from %q", p, tt.text)
			}
		})
	}
}

// TestObituariesSurviveLossAndRepetition plays a lossy network: in any order and number, with repetitions until acknowledged.
func TestObituariesSurviveLossAndRepetition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	o := someObituary
	o.Text = long(20<<10, "a line\n")
	parts := partsOf(t, o, someSender)
	var s Obituaries
	emitted, acked, done := 0, make([]bool, len(parts)), false
	for round := 0; ; round++ {
		if round == 100 {
			t.Fatal("never complete")
		}
		left := false
		now := start.Add(time.Duration(round) * time.Second)
		for _, i := range rng.Perm(len(parts)) {
			if acked[i] {
				continue
			}
			left = true
			for range rng.IntN(3) { // lost, once, twice
				whole, ack := s.Add(now, someSender, parts[i])
				if whole != nil {
					emitted++
					if !bytes.Equal(whole.Text, o.Text) {
						t.Fatal("not the text that was sent")
					}
					s.Done(parts[i].Nonce, someSender)
					done = true
				}
				acked[i] = acked[i] || ack && rng.IntN(2) == 0 // or the ack is lost
			}
		}
		if !left {
			break
		}
	}
	if emitted != 1 || !done {
		t.Errorf("emitted %d times", emitted)
	}
}

// TestObituariesWaitForTheRecord: a listener that fails to record an obituary gets it again, and only then acknowledges.
func TestObituariesWaitForTheRecord(t *testing.T) {
	p := partsOf(t, someObituary, someSender)[0]
	var s Obituaries
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for _, tt := range []struct {
		seconds    int
		whole, ack bool
	}{{0, true, false}, {1, false, false}, {10, true, false}, {11, false, false}} {
		whole, ack := s.Add(at(tt.seconds), someSender, p)
		if (whole != nil) != tt.whole || ack != tt.ack {
			t.Errorf("after %d s: whole %v, ack %v", tt.seconds, whole != nil, ack)
		}
	}
	if s.Recorded(p.Nonce, someSender) {
		t.Error("recorded before Done")
	}
	s.Done(p.Nonce, someSender)
	if !s.Recorded(p.Nonce, someSender) {
		t.Error("not recorded after Done")
	}
	if whole, ack := s.Add(at(30), someSender, p); whole != nil || !ack {
		t.Errorf("recorded: whole %v, ack %v", whole != nil, ack)
	}
}

func TestObituariesRefuse(t *testing.T) {
	o := someObituary
	o.Text = long(3000, "a line\n")
	parts := partsOf(t, o, someSender)
	other := someSender
	other.Secret = "another"
	for _, tt := range []struct {
		name   string
		id     Identity
		change func(*ObituaryPart)
	}{
		{"another text", someSender, func(p *ObituaryPart) { p.Text = bytes.ToUpper(p.Text) }},
		{"more text than it said", someSender, func(p *ObituaryPart) { p.Text = append(bytes.Clone(p.Text), 'x') }},
		{"another cause", someSender, func(p *ObituaryPart) { p.Cause = "Other" }},
		{"another boot", someSender, func(p *ObituaryPart) { p.Boot = "other" }},
		{"another time", someSender, func(p *ObituaryPart) { p.Time = p.Time.Add(time.Second) }},
		{"another number of parts", someSender, func(p *ObituaryPart) { p.Parts++ }},
		{"another secret", other, func(*ObituaryPart) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Obituaries
			for i, p := range parts {
				id := someSender
				if i == len(parts)-1 {
					id = tt.id
					tt.change(&p)
				}
				if whole, _ := s.Add(start, id, p); whole != nil {
					t.Errorf("whole: %+v", whole)
				}
			}
		})
	}
}

func TestObituariesAreBounded(t *testing.T) {
	o := someObituary
	o.Text = long(3000, "a line\n")
	first, second := partsOf(t, o, someSender)[0], partsOf(t, o, someSender)[1]
	var s Obituaries
	for i := range 3 * maxObituaries {
		id := someSender
		id.Boot = strconv.Itoa(i)
		s.Add(start.Add(time.Duration(i)*time.Millisecond), id, first)
	}
	if len(s.open) != maxObituaries {
		t.Errorf("%d are open, %d are the most", len(s.open), maxObituaries)
	}
	s.Add(start.Add(obituaryTimeout+time.Second), someSender, second)
	if len(s.open) != 1 {
		t.Errorf("%d are open after the timeout, want the new one", len(s.open))
	}
}

// TestObituariesOfOneSender: whoever knows one secret pushes out nobody else's obituary, however many he begins.
func TestObituariesOfOneSender(t *testing.T) {
	o := someObituary
	o.Text = long(3000, "a line\n")
	parts := partsOf(t, o, someSender)
	var s Obituaries
	for _, p := range parts[1:] {
		s.Add(start, someSender, p)
	}
	for i := range 3 * maxObituaries {
		id := Identity{Instance: "i-" + strconv.Itoa(i), Boot: "another", Secret: "another"}
		o.Time = start.Add(time.Duration(i) * time.Minute)
		s.Add(start.Add(time.Second), id, partsOf(t, o, id)[0])
	}
	if len(s.open) != 2 {
		t.Errorf("%d are open, want one of each sender", len(s.open))
	}
	if whole, _ := s.Add(start.Add(2*time.Second), someSender, parts[0]); whole == nil {
		t.Error("the obituary of the other sender is lost")
	}
}

func FuzzObituary(f *testing.F) {
	f.Add([]byte("lastgasp: died v1 nonce="+nonce+" part=1/1 size=5 boot=b cause=c by=none\nlines"), []byte("x"))
	f.Add([]byte("lastgasp: died v1 nonce="+nonce+" part=2/3 size=65536 boot=b cause=c by=none kernel=6 cluster=p time=1 x=y\n\x00\xff"), []byte("gasp=x\\"))
	f.Fuzz(func(t *testing.T, text, log []byte) {
		if p, ok := parseObituary(text); ok {
			again, ok := parseObituary([]byte(p.line(p.Nonce, p.Part, p.Parts, p.Size) + "\n" + string(p.Text)))
			if diff := cmp.Diff(p, again); !ok || diff != "" {
				t.Fatalf("comes back %v (-want +got):\n%s", ok, diff)
			}
			var s Obituaries
			s.Add(start, someSender, p)
		} else if p.Text != nil {
			t.Fatalf("refused, and read %+v", p)
		}
		o := Obituary{Boot: "b", Cause: string(text), Evidence: "e", Text: log}
		if o.Cause == "" {
			o.Cause = "c"
		}
		var s Obituaries
		var got *Obituary
		for _, p := range partsOf(t, o, someSender) {
			got, _ = s.Add(start, someSender, p)
		}
		if want := o.clean(); got == nil || !bytes.Equal(got.Text, want.Text) || got.Cause != want.Cause {
			t.Fatalf("sent %+v, got %+v", want, got)
		}
	})
}
