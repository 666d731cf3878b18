package page

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

//go:embed page.css
var stylesheet []byte

const (
	perPage = 50 // rows of a list
	maxPods = 25 // found by a search
)

// readFor bounds how long a page may wait for its Source.
const readFor = 10 * time.Second

// Page serves the pages.
type Page struct {
	Source  Source
	Cluster string           // its name, empty if it has none
	Version string           // of the program
	Now     func() time.Time // nil means time.Now
}

// view is what one address shows. It is what JSON has.
type view interface {
	title() string
	render(h *html)
}

// failure is a view that says why there is no other.
type failure struct {
	Error string `json:"error"`
	code  int
}

func (f failure) title() string { return http.StatusText(f.code) }

func (f failure) render(h *html) {
	h.element("h1", f.title())
	h.element("p", f.Error)
}

// Handler serves every page. Any method but GET and HEAD is refused.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.serve("/", p.bugs))
	mux.HandleFunc("GET /deaths", p.serve("/deaths", p.deaths))
	mux.HandleFunc("GET /deaths/{name}", p.serve("/deaths", p.death))
	mux.HandleFunc("GET /fleet", p.serve("/fleet", p.fleet))
	mux.HandleFunc("GET /trends", p.serve("/trends", p.trends))
	mux.HandleFunc("GET /page.css", func(w http.ResponseWriter, _ *http.Request) {
		secure(w.Header())
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = w.Write(stylesheet) // an error means that the client is gone
	})
	mux.HandleFunc("GET /", p.serve("", func(*http.Request, time.Time) (view, error) {
		return failure{"There is no such page.", http.StatusNotFound}, nil
	}))
	return mux
}

// secure sets what keeps a page from being more than a page: no script, no frame, nothing from elsewhere.
func secure(header http.Header) {
	header.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// serve answers with what view returns, as HTML or JSON. section is the address of the menu's entry.
func (p *Page) serve(section string, make func(*http.Request, time.Time) (view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := time.Now
		if p.Now != nil {
			now = p.Now
		}
		at := now()
		ctx, cancel := context.WithTimeout(r.Context(), readFor)
		defer cancel()
		v, err := make(r.WithContext(ctx), at)
		switch {
		case errors.Is(err, ErrNotFound):
			v = failure{"There is no such death on record. Old ones are deleted after a while (keep.records, keep.for).", http.StatusNotFound}
		case err != nil:
			v = failure{"The deaths cannot be read now: " + err.Error() + ". Try again in a few seconds.", http.StatusServiceUnavailable}
		}
		secure(w.Header())
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Vary", "Accept")
		code := http.StatusOK
		if f, ok := v.(failure); ok {
			code = f.code
		}
		if wantsJSON(r.Header.Get("Accept")) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
			return
		}
		h := &html{now: at}
		p.layout(h, section, v)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(h.Bytes())
	}
}

// wantsJSON reports whether an Accept header names JSON and not HTML. Browsers name HTML.
func wantsJSON(accept string) bool {
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

func (p *Page) read(r *http.Request, now time.Time) (all []policy.Death, found []*policy.Death, pods []foundPod, f filter, err error) {
	f = filterFrom(r.URL.Query(), now)
	if all, err = p.Source.Deaths(r.Context()); err != nil {
		return nil, nil, nil, f, err
	}
	found, pods = f.match(all)
	return all, found, pods, f, nil
}

func (p *Page) layout(h *html, section string, v view) {
	h.raw(`<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">`+
		`<meta name="color-scheme" content="light dark"><link rel="stylesheet" href="/page.css"><link rel="icon" href="data:,">`+
		`<title>%s – lastgasp`, v.title())
	if p.Cluster != "" {
		h.text(" – " + p.Cluster)
	}
	h.raw(`</title></head><body><a class="skip" href="#main">Skip to the content</a><header><div><a class="home" href="/">lastgasp</a>`)
	if p.Cluster != "" {
		h.element("span", p.Cluster, class("cluster"))
	}
	h.raw(`</div><nav aria-label="Pages"><ul>`)
	for _, entry := range [...]struct {
		path literal
		name string
	}{{"/", "Bugs"}, {"/deaths", "Deaths"}, {"/fleet", "Coverage"}, {"/trends", "Trends"}} {
		h.raw("<li>")
		attrs := []attr{href(entry.path, "", nil)}
		if string(entry.path) == section {
			attrs = append(attrs, attr{"aria-current", "page"})
		}
		h.element("a", entry.name, attrs...)
		h.raw("</li>")
	}
	h.raw(`</ul></nav></header><main id="main" tabindex="-1">`)
	v.render(h)
	h.raw(`</main><footer>As of <time datetime="%s">%s</time>; reload to update. All times are UTC. Every page answers in JSON with `+
		"<code>Accept: application/json</code>. lastgasp-listener %s</footer></body></html>",
		h.now.UTC().Format(time.RFC3339), stamp(h.now), p.Version)
}
