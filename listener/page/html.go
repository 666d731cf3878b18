package page

import (
	"bytes"
	stdhtml "html"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// html is a page under construction. Markup is of type literal, to which only constants convert implicitly; everything else
// goes through text and is escaped.
type html struct {
	bytes.Buffer

	now time.Time // to which ages refer
}

// literal is markup that stands in the source.
type literal string

// attr is an attribute of an element.
type attr struct {
	name  literal
	value string
}

func class(names string) attr { return attr{"class", names} }

// href is a link within the page.
func href(path literal, last string, query url.Values) attr {
	return attr{"href", address(path, last, query)}
}

// address is a path that begins with a literal, a last part that is escaped, and a query.
func address(path literal, last string, query url.Values) string {
	to := string(path) + url.PathEscape(last)
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	return to
}

// raw writes markup, with an escaped text in place of each %s.
func (h *html) raw(m literal, texts ...string) {
	rest := string(m)
	for _, t := range texts {
		before, after, _ := strings.Cut(rest, "%s")
		h.WriteString(before)
		h.text(t)
		rest = after
	}
	h.WriteString(rest)
}

// text writes text. What cannot be printed or would change the direction of the text becomes visible, as in dmesg.
func (h *html) text(s string) { h.WriteString(stdhtml.EscapeString(netconsole.Printable(s))) }

func (h *html) number(n int) { h.WriteString(grouped(n)) }

func (h *html) open(tag literal, attrs ...attr) {
	h.raw("<" + tag)
	for _, a := range attrs {
		h.raw(" "+a.name+`="%s"`, a.value)
	}
	h.raw(">")
}

// element writes an element with text in it.
func (h *html) element(tag literal, text string, attrs ...attr) {
	h.open(tag, attrs...)
	h.raw("%s</"+tag+">", text)
}

// host writes a node's name. It breaks after the host, as EC2 names nodes by host and domain, and elsewhere only where it must.
func (h *html) host(s string) {
	first, domain, _ := strings.Cut(s, ".")
	if _, err := netip.ParseAddr(s); err == nil {
		first, domain = s, ""
	}
	h.element("span", first, class("part"))
	if domain != "" {
		h.element("span", "."+domain, class("part domain"))
	}
}

// link writes a link with the name of a node in it.
func (h *html) link(to attr, node string) {
	h.open("a", to)
	h.host(node)
	h.raw("</a>")
}

// image writes the name of a container's image. It breaks after the registry, and elsewhere only where it must.
func (h *html) image(s string) {
	i := strings.LastIndex(s, "/") + 1
	if i > 0 {
		h.element("span", s[:i], class("part quiet"))
	}
	h.element("span", s[i:], class("part"))
}

// command writes a command for a person to run. It is never wider than its box, so that all of it can be read.
func (h *html) command(words ...string) {
	h.raw(`<pre class="command">%s</pre>`, strings.Join(words, " "))
}

// cell writes a cell of a table, with its column's name for narrow screens, where columns become lines.
func (h *html) cell(column literal, content func()) {
	h.raw(`<td role="cell" data-column="` + column + `"><div>`)
	content()
	h.raw("</div></td>")
}

func (h *html) textCell(column literal, text string) { h.cell(column, func() { h.text(text) }) }

// table writes a table. Its rows are written with row. The roles survive the narrow layout, in which CSS does not treat rows as a table.
func (h *html) table(caption string, columns []literal, rows func()) {
	h.raw(`<table role="table"><caption>%s</caption><thead role="rowgroup"><tr role="row">`, caption)
	for _, c := range columns {
		h.raw(`<th role="columnheader" scope="col">` + c + "</th>")
	}
	h.raw(`</tr></thead><tbody role="rowgroup">`)
	rows()
	h.raw("</tbody></table>")
}

func (h *html) row(cells func()) {
	h.raw(`<tr role="row">`)
	cells()
	h.raw("</tr>")
}

// ago writes when something happened: how long ago, and exactly.
func (h *html) ago(t time.Time) {
	if t.IsZero() {
		h.raw("unknown")
		return
	}
	h.raw(`<time datetime="%s" title="%s">%s</time>`, t.UTC().Format(time.RFC3339Nano), stamp(t), age(h.now, t))
}

// at writes when something happened, exactly first.
func (h *html) at(t time.Time) {
	if t.IsZero() {
		h.raw("unknown")
		return
	}
	h.raw(`<time datetime="%s">%s</time> <span class="quiet">%s</span>`, t.UTC().Format(time.RFC3339Nano), stamp(t), age(h.now, t))
}

// stamp is a time as people compare it with their logs.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// age is how long ago t was, in one unit.
func age(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < -time.Minute:
		return "in the future"
	case d < time.Second:
		return "just now"
	}
	return span(d) + " ago"
}

// span is a duration in one unit.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Millisecond:
		return "0 ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 2*time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + " s"
	case d < 2*time.Hour:
		return strconv.FormatInt(int64(d/time.Minute), 10) + " min"
	case d < 2*day:
		return strconv.FormatInt(int64(d/time.Hour), 10) + " h"
	}
	return strconv.FormatInt(int64(d/day), 10) + " days"
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + many
}

// grouped is a number with a comma before each group of three digits, from 10,000 on.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	if len(digits) > 4 {
		for i := len(digits) - 3; i > 0; i -= 3 {
			digits = digits[:i] + "," + digits[i:]
		}
	}
	return digits
}
