package detect

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDeathsOfEveryKind judges testdata/deaths.txt: each log is "## what | incidents", then its lines. The same death on another
// machine has the same fingerprint, and deaths with different titles have different ones, if more than a helper differs.
func TestDeathsOfEveryKind(t *testing.T) {
	text, err := os.ReadFile("testdata/deaths.txt")
	if err != nil {
		t.Fatal(err)
	}
	titles := make(map[string]string) // by fingerprint
	helper := regexp.MustCompile(` \(\w+\) in `)
	for _, section := range strings.Split(string(text), "## ")[1:] {
		head, log, _ := strings.Cut(section, "\n")
		what, want, _ := strings.Cut(head, " | ")
		t.Run(what, func(t *testing.T) {
			log := strings.TrimSpace(log) + "\n"
			if got := strings.Join(completed(log), "; "); got != want {
				t.Fatalf("found %s, want %s", got, want)
			}
			if strings.Contains(want, "; ") {
				return
			}
			inc, other := completeIncident(t, log), completeIncident(t, elsewhere(log))
			if inc.Fingerprint != other.Fingerprint {
				t.Errorf("%s has fingerprint %s, and %s elsewhere as %s", inc.Title, inc.Fingerprint, other.Fingerprint, other.Title)
			}
			title := helper.ReplaceAllString(inc.Title, " in ")
			if of, ok := titles[inc.Fingerprint]; ok && of != title {
				t.Errorf("%q has the fingerprint of %q", title, of)
			}
			titles[inc.Fingerprint] = title
		})
	}
}

// elsewhere is the same log of another build on another machine.
func elsewhere(log string) string {
	for _, r := range []struct{ re, by string }{
		{`\+0x([1-9a-f][0-9a-f]*)/0x([0-9a-f]+)`, `+0x4$1/0x4$2`},
		{`\b([c-f9][0-9a-f]{4})[0-9a-f]{11}\b`, `${1}0123456789a`},
		{`PID: ([1-9])`, `PID: 7$1`},
		{`(Not tainted|Tainted: [A-Z -]+) \d\S*`, `$1 6.99.7-other`},
		{`\.(?:isra|constprop|part)\.0`, ``},
		{`bpf_(prog_[0-9a-f]{8}|trampoline_)[0-9a-f]{8}`, `bpf_${1}01234567`},
		{`nvme1n1p1|vda1`, `dm-7`},
	} {
		log = regexp.MustCompile(r.re).ReplaceAllString(log, r.by)
	}
	return log
}
