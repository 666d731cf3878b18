package page

import (
	"math"
	"strconv"
	"time"
)

// Size of the drawing, in its own units.
const (
	drawingWidth, drawingLine = 800.0, 56.0
	drawingLeft, drawingRight = 16.0, 784.0
	dotApart                  = 26.0 // the least distance of two dots, so that their numbers can be read
	letter                    = 7    // about the width of one, in the size of a step's name
)

// rows are the heights at which the names of steps are written, the nearest to the line first.
func rows() []float64 { return []float64{38, 24, 10} }

// drawTimeline draws the moments on a logarithmic scale: what matters happens in milliseconds, and the last step may take
// minutes. The dots have the numbers of the list below, and the names of their steps where there is room.
func drawTimeline(h *html, moments []moment) {
	if len(moments) < 2 {
		return
	}
	// Where a time after the first is drawn, before dots are moved apart.
	const unit = 10 * time.Millisecond
	scale := func(after time.Duration) float64 { return math.Log1p(float64(max(after, 0)) / float64(unit)) }
	longest := max(moments[len(moments)-1].Time.Sub(moments[0].Time), time.Second)
	at := func(after time.Duration) float64 {
		return drawingLeft + (drawingRight-drawingLeft)*scale(after)/scale(longest)
	}
	xs := make([]float64, len(moments))
	for i, m := range moments {
		xs[i] = at(m.Time.Sub(moments[0].Time))
		if i > 0 {
			xs[i] = max(xs[i], xs[i-1]+dotApart)
		}
	}
	// What was pushed over the edge is pushed back.
	for i, edge := len(xs)-1, drawingRight; i > 0 && xs[i] > edge; i, edge = i-1, edge-dotApart {
		xs[i] = edge
	}
	h.raw(`<svg class="drawing" viewBox="0 0 800 88" role="img" aria-label="Timeline on a logarithmic scale; the list below says the same">` +
		`<line class="axis" x1="16" x2="784" y1="56" y2="56"></line>`)
	for _, t := range [...]struct {
		after time.Duration
		name  literal
	}{
		{100 * time.Millisecond, "0.1 s"}, {time.Second, "1 s"}, {10 * time.Second, "10 s"}, {time.Minute, "1 min"},
		{10 * time.Minute, "10 min"}, {time.Hour, "1 h"}, {day, "1 day"},
	} {
		if t.after > longest {
			break
		}
		x := coordinate(at(t.after))
		h.raw(`<line class="tick" x1="%s" x2="%s" y1="56" y2="72"></line><text class="label" x="%s" y="84">`+t.name+"</text>", x, x, x)
	}
	nameSteps(h, moments, xs)
	for i, m := range moments {
		kind, x := literal("dot"), coordinate(xs[i])
		if !m.Done {
			kind = "dot open"
		}
		h.raw(`<circle class="`+kind+`" cx="%s" cy="%s" r="11"></circle><text class="mark" x="%s" y="60">%s</text>`,
			x, coordinate(drawingLine), x, strconv.Itoa(i+1))
	}
	h.raw("</svg>")
}

// nameSteps writes the name of each moment above its dot at x, in the nearest row in which it touches no other. One for which there is
// no room is left to the list.
func nameSteps(h *html, moments []moment, xs []float64) {
	free := make([]float64, len(rows())) // where the last name of a row ends
	for i, m := range moments {
		half := float64(len(m.Name)) * letter / 2
		x := min(max(xs[i], half), drawingWidth-half)
		for row, y := range rows() {
			if free[row] > 0 && x-half < free[row]+letter {
				continue
			}
			free[row] = x + half
			if row > 0 {
				at := coordinate(xs[i])
				h.raw(`<line class="leader" x1="%s" x2="%s" y1="%s" y2="%s"></line>`, at, at, coordinate(y+3), coordinate(drawingLine-12))
			}
			h.raw(`<text class="step" x="%s" y="%s">%s</text>`, coordinate(x), coordinate(y), m.Name)
			break
		}
	}
}
