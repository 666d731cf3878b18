package netconsole

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"plain text", "Kernel panic - not syncing\tx~", "Kernel panic - not syncing\tx~"},
		{"letters of other languages", "größe 日本 é", "größe 日本 é"},
		{"an escape sequence", "\x1b[2Jx", `\x1b[2Jx`},
		{"a newline and a carriage return", "a\r\nb", `a\x0d\x0ab`},
		{"delete", "a\x7f", `a\x7f`},
		{"a control character of Latin-1", "a\u009b31m", `a\xc2\x9b31m`},
		{"a right-to-left override", "a\u202eb", `a\xe2\x80\xaeb`},
		{"an isolate", "a\u2066b", `a\xe2\x81\xa6b`},
		{"a zero-width space", "a\u200bb", `a\xe2\x80\x8bb`},
		{"a line separator", "a\u2028b", `a\xe2\x80\xa8b`},
		{"a byte order mark", "\ufeffb", `\xef\xbb\xbfb`},
		{"a tag character", "\U000e0041", `\xf3\xa0\x81\x81`},
		{"no UTF-8", "a\xffb\xc3", `a\xffb\xc3`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Printable(tt.in); got != tt.want {
				t.Errorf("Printable(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b\u202e\xff日")
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not UTF-8", got)
		}
		for _, r := range got {
			if r != '\t' && !unicode.IsGraphic(r) {
				t.Fatalf("%q has %U in it", got, r)
			}
		}
		if again := Printable(got); again != got {
			t.Fatalf("%q becomes %q", got, again)
		}
	})
}

// TestSecretIsHiddenInEveryForm sends a record in forms that this program knows and in forms that a kernel may come to
// have. Whatever is made of it, no half of the secret is told, but as the identity's secret.
func TestSecretIsHiddenInEveryForm(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0c2Vjcg"
	tail := "\n instance=i-0abc\n boot=7f3c\n gasp=" + secret + "\n"
	cut := func(header string, at int) []string { // into two fragments, within the secret
		body := "Kernel panic - not syncing: " + strings.Repeat("x", 800) + tail
		end := len(body) - len(secret) - 1 + at
		return []string{
			fmt.Sprintf("%s,ncfrag=0/%d;%s", header, len(body), body[:end]),
			fmt.Sprintf("%s,ncfrag=%d/%d;%s", header, end, len(body), body[end:]),
		}
	}
	for _, tt := range []struct {
		name      string
		datagrams []string
	}{
		{"as kernels send it", []string{"6.12.117,0,1,1,-;Kernel panic" + tail}},
		{"fragments as kernels send them", cut("6.12.117,0,1,1,-", 10)},
		{"a space in the release", []string{"6.12.117 custom,0,1,1,-;Kernel panic" + tail}},
		{"a new flag", []string{"6.12.117,0,1,1,x;Kernel panic" + tail}},
		{"blanks around the equals sign", []string{"6.12.117,0,1,1,-;Kernel panic" + strings.Replace(tail, "gasp=", "gasp \t= ", 1)}},
		{"blanks behind the equals sign of a basic record", []string{"Kernel panic" + strings.Replace(tail, "gasp=", "gasp=  ", 1)}},
		{"blanks around the equals sign of a basic record", []string{"Kernel panic" + strings.Replace(tail, "gasp=", "gasp = ", 1)}},
		{"another key of that name", []string{"6.12.117,0,1,1,-;Kernel panic" + strings.Replace(tail, "gasp=", "gasp[0]=", 1)}},
		{"the key in the middle of a value", []string{"6.12.117,0,1,1,-;Kernel panic" + strings.Replace(tail, "gasp=", "x=gasp =", 1)}},
		{"a new number", []string{"6.12.117,0,1,1,7,-;Kernel panic" + tail}},
		{"a new first word", []string{"v2,6.12.117,0,1,1,-;Kernel panic" + tail}},
		{"a release of 65 bytes", []string{strings.Repeat("6", 65) + "a,0,1,1,-;Kernel panic" + tail}},
		{"fragments with a space in the release", cut("6.12.117 custom,0,1,1,-", 10)},
		{"fragments of a new form, cut in the key", cut("6.12.117,0,1,1,x", -3)},
		{"the second fragment of a new form alone", cut("6.12.117,0,1,1,x", 10)[1:]},
		{"another blank before the key", []string{"6.12.117,0,1,1,-;Kernel panic" + strings.ReplaceAll(tail, " ", "\t")}},
		{"a word before the key", []string{"6.12.117,0,1,1,-;Kernel panic" + strings.ReplaceAll(tail, " gasp", " user gasp")}},
		{"the key first and its newline lost", []string{"6.12.117,0,1,1,-;Kernel panic gasp=" + secret + "\n boot=7f3c\n"}},
		{"all on one line", []string{"6.12.117,0,1,1,-;Kernel panic" + strings.ReplaceAll(tail, "\n", "")}},
		{"in the basic format", []string{"[    1.000000] Kernel panic" + tail}},
		{"in the basic format, each line with a time", []string{"[    1.000000] Kernel panic" + strings.ReplaceAll(tail, "\n", "\n[    1.000000] ")}},
		{"a replay notice before it", []string{replayNotice + "6.12.117 x,0,1,1,-;Kernel panic" + tail}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			var got []Record
			for _, d := range tt.datagrams {
				_ = s.Push(start, []byte(d), collect(&got))
			}
			s.Flush(start.Add(time.Hour), collect(&got))
			if len(got) == 0 {
				t.Fatal("no record")
			}
			for _, r := range got {
				fields, err := json.Marshal(r.Fields)
				if err != nil {
					t.Fatal(err)
				}
				id := r.Identity()
				told := string(r.Text) + string(fields) + id.Instance + id.Boot
				for _, f := range r.Fields {
					if f.Key != KeySecret {
						told += " " + f.Key + "=" + f.Value
					}
				}
				for _, part := range []string{secret[:8], secret[len(secret)-8:]} {
					if strings.Contains(told, part) {
						t.Errorf("%q is told in %q", part, told)
					}
				}
				if id.Secret != "" && string(id.Secret) != secret {
					t.Errorf("the secret became %q", string(id.Secret))
				}
			}
		})
	}
}

// An identity is kept for as long as the boot: it must be no larger than it has to be, whatever is sent for one.
func TestIdentityIsBoundedAndCopied(t *testing.T) {
	long := strings.Repeat("b", 900)
	var s Stream
	payload := []byte("6.1\x1b2,0,1,1,-,caller=T\x1b7;x\n instance=i-0\x1b[31m\u202e\n boot=" + long + "\n gasp=" + long[:70] + "\n")
	var got []Record
	if err := s.Push(start, payload, collect(&got)); err != nil {
		t.Fatal(err)
	}
	want := Identity{Instance: "i-0_[31m___", Boot: long[:64], Secret: Secret(long[:64])}
	if id := got[0].Identity(); id != want {
		t.Errorf("identity %q, want %q", id, want)
	}
	if got[0].Release != "6.1_2" || got[0].Caller != "T_7" {
		t.Errorf("release %q and caller %q, want words", got[0].Release, got[0].Caller)
	}
}
