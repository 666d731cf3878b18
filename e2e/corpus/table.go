package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/lastgasp/lastgasp/listener"
)

// A result is how one file came out.
type result struct {
	kind, kernel string
	skip         bool
	want, heard  int // incidents
	wrong        int // incidents nobody expected
	names, named int // incidents with a name expected, and those that have it
}

func (r result) asExpected() bool {
	return r.skip || r.want == r.heard && r.wrong == 0 && r.names == r.named
}

// compare counts what was found of what was wanted. The best name wins where several incidents would do.
func compare(want expectation, found []listener.Replayed) result {
	r := result{kind: want.kind, skip: want.skip}
	if want.unknown {
		r.kind, r.want = "not labelled", 1
		r.heard = min(1, len(found))
		if len(found) > 0 {
			r.kernel = major(found[0].Release)
		}
		return r
	}
	if r.kind == "" {
		r.kind = "no crash"
	}
	rest := slices.Clone(found)
	for _, i := range want.incidents {
		at, named := -1, false
		for n, f := range rest {
			if i.cause != "" && i.cause != f.Code || i.verdict != "" && i.verdict != f.Verdict.String() {
				continue
			}
			good := i.title != nil && i.title.MatchString(f.Title)
			if at < 0 || good && !named {
				at, named = n, good
			}
		}
		if at < 0 && i.optional {
			continue
		}
		r.want++
		if i.title != nil {
			r.names++
		}
		if at < 0 {
			continue
		}
		r.heard++
		if r.kernel == "" {
			r.kernel = major(rest[at].Release)
		}
		if named {
			r.named++
		}
		if i.cause != "" { // the file says all that is in it
			rest = slices.Delete(rest, at, at+1)
		} else {
			rest = nil
		}
	}
	r.wrong = len(rest)
	return r
}

var (
	version  = regexp.MustCompile(`^\d+\.\d+`)
	releases = regexp.MustCompile(`(?m)^.*(?:Not tainted|Tainted: [A-Z -]+) (\d+\.\d+)\S*|Linux version (\d+\.\d+)`)
)

// major is 6.12 of 6.12.117-cloud, and "6.12 arm64" of 6.12.118-cloud-arm64.
func major(release string) string {
	if strings.HasSuffix(release, "-arm64") {
		return version.FindString(release) + " arm64"
	}
	return version.FindString(release)
}

// release is the kernel that a log names.
func release(log []byte) string {
	m := releases.FindSubmatch(log)
	if m == nil {
		return ""
	}
	return string(m[1]) + string(m[2])
}

// A table sums results up.
type table struct {
	files         int
	kinds, kernel map[string]sum
}

type sum struct {
	result
	files int
}

func (t *table) add(r result) {
	if t.kinds == nil {
		t.kinds, t.kernel = make(map[string]sum), make(map[string]sum)
	}
	t.files++
	if r.skip {
		r = result{kind: "no kernel's (left out)", kernel: "left out"}
	}
	if r.kernel == "" {
		r.kernel = "?"
	}
	t.kinds[r.kind] = t.kinds[r.kind].plus(r)
	t.kernel[r.kernel] = t.kernel[r.kernel].plus(r)
}

func (s sum) plus(r result) sum {
	s.files++
	s.want += r.want
	s.heard += r.heard
	s.wrong += r.wrong
	s.names += r.names
	s.named += r.named
	return s
}

func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var total, named sum
	for _, kind := range []string{"panic", "oops", "kernel BUG", "KASAN, KFENCE", "BUG", "WARNING"} {
		named.files += t.kinds[kind].files - 1
		named = named.plus(t.kinds[kind].result)
	}
	for _, part := range []struct {
		title string
		rows  map[string]sum
	}{{"kind", t.kinds}, {"kernel", t.kernel}} {
		fmt.Fprintf(w, "%s\tfiles\tincidents\theard\trecall\tfalse\tnames\tright\t\t\n", part.title)
		total = sum{}
		for _, name := range slices.SortedFunc(maps.Keys(part.rows), byVersion) {
			s := part.rows[name]
			s.print(w, name)
			total.files += s.files - 1
			total = total.plus(s.result)
		}
		total.print(w, "total")
		if part.title == "kind" && named.files > 0 {
			named.print(w, "panics, oopses, KASAN, BUGs and warnings")
		}
		fmt.Fprintln(w, "\t\t\t\t\t\t\t\t\t")
	}
	return w.Flush()
}

// byVersion orders 4.9 before 4.19, and everything else by name.
func byVersion(a, b string) int {
	var a1, a2, b1, b2 int
	if _, err := fmt.Sscanf(a, "%d.%d", &a1, &a2); err != nil {
		return cmp.Compare(a, b)
	}
	if _, err := fmt.Sscanf(b, "%d.%d", &b1, &b2); err != nil {
		return cmp.Compare(a, b)
	}
	return cmp.Or(cmp.Compare(a1, b1), cmp.Compare(a2, b2), cmp.Compare(a, b))
}

func (s sum) print(w io.Writer, name string) {
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%d\t%d\t%d\t%s\t\n", name, s.files, s.want, s.heard, rate(s.heard, s.want), s.wrong, s.names, s.named, rate(s.named, s.names))
}

func rate(n, of int) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(of))
}
