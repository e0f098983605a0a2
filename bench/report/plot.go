package main

import (
	"fmt"
	"math"
	"strings"
)

// draw makes the plot: three panels with logarithmic axes, the floor marked at 1.
func draw(r results) string {
	const (
		width, left, right = 880, 280, 40
		rowHeight, head    = 24, 56
	)
	type dot struct {
		value  float64
		marker string
	}
	type row struct {
		label string
		ours  bool
		dots  []dot
	}
	type panel struct {
		title    string
		from, to float64
		ticks    []float64
		rows     []row
	}
	const es, ed = "ES256", "EdDSA"
	two := func(title, operation string, to float64) panel {
		p := panel{title: title, from: 0.9, to: to, ticks: []float64{1, 1.5, 2, 3}}
		for _, x := range peers {
			line := row{label: strings.Trim(x.label, "*"), ours: x.name == us}
			for _, alg := range []string{es, ed} {
				if key := "Interleaved/" + operation + "/" + alg + " " + x.name + "/floor"; r.has(key) {
					line.dots = append(line.dots, dot{r.cost(x.name, key), alg})
				}
			}
			p.rows = append(p.rows, line)
		}
		return p
	}
	session := panel{title: "Reading the session of a request, against one bare ES256 signature check", from: 0.001, to: 2, ticks: []float64{0.001, 0.01, 0.1, 1}}
	session.rows = append(session.rows, row{"sessiontoken, seen before, no lists", true,
		[]dot{{r.cost(us, "Interleaved/Session/ES256 sessiontoken-repeated-plain/floor"), es}}})
	for _, x := range ways {
		label := strings.ReplaceAll(strings.ReplaceAll(x.label, "*", ""), "a token seen", "seen")
		session.rows = append(session.rows, row{label, strings.HasPrefix(x.name, us),
			[]dot{{r.cost(x.name, "Interleaved/Session/ES256 "+x.name+"/floor"), es}}})
	}
	panels := []panel{
		two("First verification, against the bare signature check", "Verify", 3.4),
		two("Issue, against the bare signature", "Issue", 3.4),
		session,
	}

	height := 20
	for _, p := range panels {
		height += head + len(p.rows)*rowHeight + 34
	}
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="Time of each library as a multiple of the bare signature, on a logarithmic axis; less is better">`, width, height, width, height)
	w(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	y := 20
	for i, p := range panels {
		x := func(v float64) float64 {
			return left + (width-left-right)*math.Log(v/p.from)/math.Log(p.to/p.from)
		}
		bottom := y + head - 16 + len(p.rows)*rowHeight
		w(`<text x="20" y="%d" font-size="15" font-weight="600" fill="#1f2328">%s</text>`, y+14, p.title)
		if i < 2 {
			w(`<circle cx="%d" cy="%d" r="5" fill="#57606a"/><text x="%d" y="%d" fill="#57606a">ES256</text>`, width-170, y+10, width-160, y+14)
			w(`<path d="%s" fill="#57606a"/><text x="%d" y="%d" fill="#57606a">EdDSA</text>`, diamond(width-100, float64(y+10)), width-90, y+14)
		}
		for _, t := range p.ticks {
			color, line := "#57606a", "#d8dee4"
			if t == 1 {
				color, line = "#cf222e", "#cf222e"
			}
			w(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`, x(t), y+30, x(t), bottom, line)
			label := fmt.Sprintf("%g", t)
			if t == 1 {
				label = "1 = bare signature"
			}
			w(`<text x="%.1f" y="%d" text-anchor="middle" fill="%s" font-size="12">%s</text>`, x(t), bottom+16, color, label)
		}
		for n, line := range p.rows {
			cy := float64(y + head - 10 + n*rowHeight)
			weight, color := "400", "#57606a"
			if line.ours {
				weight, color = "600", "#0969da"
			}
			w(`<text x="%d" y="%.1f" text-anchor="end" font-weight="%s" fill="#1f2328">%s</text>`, left-14, cy+4, weight, line.label)
			for _, d := range line.dots {
				if d.marker == es {
					w(`<circle cx="%.1f" cy="%.1f" r="5" fill="%s"><title>%s, %s: %.3g</title></circle>`, x(d.value), cy, color, line.label, d.marker, d.value)
				} else {
					w(`<path d="%s" fill="%s"><title>%s, %s: %.3g</title></path>`, diamond(x(d.value), cy), color, line.label, d.marker, d.value)
				}
			}
		}
		y = bottom + 50
	}
	w(`</svg>`)
	return b.String()
}

func diamond(x, y float64) string {
	return fmt.Sprintf("M%.1f %.1fl6 6l-6 6l-6 -6z", x, y-6)
}
