package netconsole

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCredentials(t *testing.T) {
	for _, tt := range []struct {
		name, payload string
		boot, secret  string
	}{
		{"as nodes send them", "6.12.117,0,1,1,-;x\n instance=i-0abc\n boot=7f3c\n gasp=c2Vj\n", "7f3c", "c2Vj"},
		{"with what newer kernels add", "0,1,1,-;x\n boot=7f3c\n gasp=c2Vj\n cpu=3\n taskname=x\n boot=forged\n gasp=forged\n", "7f3c", "c2Vj"},
		{"with a dictionary", "0,1,1,-;x\n SUBSYSTEM=net\n DEVICE=n2\n boot=7f3c\n gasp=c2Vj\n", "7f3c", "c2Vj"},
		{"of which a secret alone proves nothing", "0,1,1,-;x\n gasp=c2Vj\n", "", ""},
		{"of which a boot alone proves nothing", "0,1,1,-;x\n boot=7f3c\n", "", ""},
		{"in the text", "0,1,1,-;x boot=7f3c gasp=c2Vj\n", "", ""},
		{"in a fragment", "0,1,1,-,ncfrag=2/90;\n boot=7f3c\n gasp=c2Vj\n", "", ""},
		{"of which the end is lost", "0,1,1,-;x\n boot=7f3c\n gasp=c2V", "", ""},
		{"in the basic format", "[    1.000000] x\n boot=7f3c\n gasp=c2Vj\n", "", ""},
		{"a boot of two lines", "0,1,1,-;x\n boot=7f3c\nx\n gasp=c2Vj\n", "", ""},
		{"a secret of two lines", "0,1,1,-;x\n boot=7f3c\n gasp=c2Vj\nx\n", "", ""},
		{"a boot with a secret in it", "0,1,1,-;x\n boot=7f3c\t\xffgasp=c2Vj\n gasp=q\n", "", ""},
		{"a secret of two words", "0,1,1,-;x\n boot=7f3c\n gasp=c2 Vj\n", "", ""},
		{"a secret in a secret", "0,1,1,-;x\n boot=7f3c\n gasp=gasp=c2Vj\n", "", ""},
		{"a boot that is too long", "0,1,1,-;x\n boot=" + strings.Repeat("b", 65) + "\n gasp=c2Vj\n", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFrame([]byte(tt.payload))
			if err != nil {
				t.Fatal(err)
			}
			boot, secret, ok := f.Credentials()
			if !ok {
				boot, secret = nil, nil
			}
			if string(boot) != tt.boot || string(secret) != tt.secret || ok != (tt.boot != "") {
				t.Errorf("boot %q, secret %q, %v; want %q and %q", boot, secret, ok, tt.boot, tt.secret)
			}
		})
	}
}

// FuzzCredentials: what is read of a datagram in front of everything is what its record says of itself.
func FuzzCredentials(f *testing.F) {
	f.Add([]byte("6.12.117,0,1,1,-;x\n instance=i-0abc\n boot=7f3c\n gasp=c2Vj\n"))
	f.Add([]byte("0,1,1,-;x\n boot=7f3c\n gasp=c2Vj\n x=y\n\n boot=z\n =\n gasp=q\n"))
	f.Add([]byte("0,1,1,-;x\n boot=7f3c\t\xffgasp=c2Vj\n gasp=q\n"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		frame, err := ParseFrame(payload)
		if err != nil {
			return
		}
		boot, secret, ok := frame.Credentials()
		if seal, sealed := frame.Seal(); sealed != ok || seal.On(&frame) != ok || ok && string(seal.secret) != string(secret) {
			t.Fatalf("boot %q and secret %q, sealed: %v with %q", boot, secret, sealed, seal.secret)
		}
		var got []Record
		var s Stream
		_ = s.Push(start, payload, collect(&got))
		if !ok || len(got) != 1 {
			return
		}
		id := got[0].Identity()
		if id.Boot != string(boot) || string(id.Secret) != string(secret) {
			t.Fatalf("boot %q and secret %q of a record of %q", boot, secret, id)
		}
	})
}

func TestSeal(t *testing.T) {
	parse := func(payload string) *Frame {
		f, err := ParseFrame([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return &f
	}
	seal, ok := parse("6.12.117,0,1,1,-;x\n instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=1\n").Seal()
	if !ok {
		t.Fatal("no seal")
	}
	for _, tt := range []struct {
		name, payload string
		want          bool
	}{
		{"another record of the boot", "6.12.117,4,2,2,-;another text\n instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=1\n", true},
		{"an empty text", "6.12.117,4,2,2,-;\n instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=1\n", true},
		{"another CPU", "6.12.117,4,2,2,-;x\n instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=2\n", false},
		{"another secret", "6.12.117,4,2,2,-;x\n instance=i\n boot=7f3c\n gasp=c2VK\n cpu=1\n", false},
		{"another boot", "6.12.117,4,2,2,-;x\n instance=i\n boot=7f3d\n gasp=c2Vj\n cpu=1\n", false},
		{"a field before it", "6.12.117,4,2,2,-;x\n boot=0000\n instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=1\n", false},
		{"nothing but it", "6.12.117,4,2,2,-; instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=1\n", false},
		{"a fragment", "6.12.117,4,2,2,-,ncfrag=0/90;x\n instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=1\n", false},
		{"the basic format", "x\n instance=i\n boot=7f3c\n gasp=c2Vj\n cpu=1\n", false},
		{"the end alone", "6.12.117,4,2,2,-;x\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := parse(tt.payload)
			if got := seal.On(f); got != tt.want {
				t.Errorf("it is on %q: %v, want %v", tt.payload, got, tt.want)
			}
			if new(Seal).On(f) {
				t.Error("the zero Seal is on it")
			}
		})
	}
	if _, ok := parse("0,1,1,-;x\n boot=7f3c\n").Seal(); ok {
		t.Error("a record without a secret has a seal")
	}
}

// TestForgedFragments: whoever knows or guesses the header of a record sends fragments in the kernel's name.
func TestForgedFragments(t *testing.T) {
	const header = "6.12.117,0,400,5000000,-,caller=T9"
	body := "Kernel panic - not syncing: " + strings.Repeat("x", 60) + "\n instance=i-0abc\n boot=7f3c\n gasp=c2Vj\n"
	cut := strings.Index(body, "\n") + 5
	piece := func(header string, off, end int, of string) string {
		return fmt.Sprintf("%s,ncfrag=%d/%d;%s", header, off, len(of), of[off:end])
	}
	first, second := piece(header, 0, cut, body), piece(header, cut, len(body), body)
	forged := strings.ReplaceAll(strings.Replace(body, "Kernel panic", "KERNEL PANIC", 1), "c2Vj", "AAAA")
	forgedFirst, forgedSecond := piece(header, 0, cut, forged), piece(header, cut, len(body), forged)
	var flood []string
	for i := range maxOpen - 1 {
		flood = append(flood, piece(fmt.Sprintf("6.12.117,0,400,%d,-,caller=T9", 5000001+i), 0, cut, forged))
	}
	for _, tt := range []struct {
		name      string
		datagrams []string
		proved    bool // the kernel's record is told with its secret
	}{
		{"none", []string{first, second}, true},
		{"the first one before it", []string{forgedFirst, first, second}, false},
		{"the first one in between", []string{first, forgedFirst, second}, false},
		{"the first one after it", []string{first, second, forgedFirst}, true},
		{"all before it", []string{forgedFirst, forgedSecond, first, second}, false},
		{"the second one in between", []string{first, forgedSecond, second}, false},
		{"a first one cut elsewhere", []string{piece(header, 0, cut-1, forged), first, second}, false},
		{"all, cut elsewhere, before it", []string{piece(header, 0, cut-1, forged), piece(header, cut-1, len(body), forged), first, second}, false},
		{"a flood of other records in between", append(append([]string{first}, flood...), second), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			var got []Record
			for _, d := range tt.datagrams {
				if err := s.Push(start, []byte(d), collect(&got)); err != nil {
					t.Fatal(err)
				}
			}
			s.Flush(start.Add(time.Hour), collect(&got))
			panicked, proved := false, false
			for _, r := range got {
				panicked = panicked || strings.HasPrefix(string(r.Text), "Kernel panic")
				if r.Identity().Secret == "c2Vj" {
					proved = true
					if !strings.HasPrefix(string(r.Text), "Kernel panic") {
						t.Errorf("%q is told with the secret", r.Text)
					}
				}
			}
			if !panicked || proved != tt.proved {
				t.Errorf("the panic is told: %v, with its secret: %v, want %v", panicked, proved, tt.proved)
			}
		})
	}
}

// A datagram of the basic format that looks cut must not swallow what the kernel sends next.
func TestForgedBasicRecordSwallowsNothing(t *testing.T) {
	var s Stream
	var got []Record
	const line = "6.12.117,0,400,5000000,-;Kernel panic - not syncing: Fatal exception\n"
	cut := "[    1.000000] " + strings.Repeat("x", chunk-len("[    1.000000] "))
	for i, d := range []string{strings.Replace(line, "400", "399", 1), cut, line, cut, strings.Replace(line, "400", "401", 1)} {
		if err := s.Push(start, []byte(d), collect(&got)); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
	}
	n := 0
	for _, r := range got {
		if r.FromKernel() {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d records of the kernel, want 3", n)
	}
}
