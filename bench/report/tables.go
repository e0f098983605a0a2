package main

import (
	"fmt"
	"slices"
	"strings"
)

// us is how the names of our own lines begin.
const us = "sessiontoken"

// peers are the lines of Verify and Issue, as the README calls them.
var peers = []struct{ name, label string }{
	{"sessiontoken", "**sessiontoken**"},
	{"golang-jwt-v5", "golang-jwt v5"},
	{"kataras-jwt", "kataras/jwt"},
	{"go-jose-v4", "go-jose v4"},
	{"jwx-v2", "jwx v2"},
	{"jwx-v3", "jwx v3"},
	{"tink-go-v2", "tink-go v2"},
}

// ways are the lines of Session and HTTP.
var ways = []struct{ name, label string }{
	{"sessiontoken-repeated", "**sessiontoken**, a token seen before"},
	{"sessiontoken-first", "**sessiontoken**, a token seen first"},
	{"golang-jwt-v5", "golang-jwt v5, ES256"},
	{"paseto-v4", "go-paseto, v4.public"},
	{"securecookie", "gorilla/securecookie, HMAC"},
	{"scs-memory", "scs, in memory"},
	{"scs-redis", "scs, Redis"},
	{"postgres-row", "pgx, a row of PostgreSQL"},
}

func tables(r results) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	ratio := func(name, key string) string {
		if !r.has(key) {
			return "–"
		}
		return fmt.Sprintf("%.2f", r.cost(name, key))
	}
	count := func(name, key string) string {
		if !r.has(key) {
			return "–"
		}
		return fmt.Sprintf("%.0f", r.cost(name, key))
	}
	p("| time, as a multiple of the bare signature | first verification ES256 | EdDSA | forged ES256 | issue ES256 | EdDSA | allocations, first ES256 | EdDSA | issue ES256 |\n")
	p("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, x := range peers {
		floor := x.name + "/floor"
		p("| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", x.label,
			ratio(x.name, "Interleaved/Verify/ES256 "+floor), ratio(x.name, "Interleaved/Verify/EdDSA "+floor),
			ratio(x.name, "Interleaved/Refuse/ES256 "+floor),
			ratio(x.name, "Interleaved/Issue/ES256 "+floor), ratio(x.name, "Interleaved/Issue/EdDSA "+floor),
			count(x.name, "Verify/ES256/"+x.name+" allocs/op"), count(x.name, "Verify/EdDSA/"+x.name+" allocs/op"),
			count(x.name, "Issue/ES256/"+x.name+" allocs/op"))
	}
	p("\n| reading the session of a request | time, as a multiple of one ES256 signature check | requests/s of a net/http server, as a share of those without a check | its CPU time per request |\n")
	p("| --- | ---: | ---: | ---: |\n")
	for _, x := range ways {
		p("| %s | %.3f | %.2f | %.0f µs |\n", x.label,
			r.cost(x.name, "Interleaved/Session/ES256 "+x.name+"/floor"),
			r.gain(x.name, "HTTP "+x.name+"/no-check"),
			r.cost(x.name, "HTTP "+x.name+"-cpu-ns")/1000)
	}
	p("| no check at all | | 1.00 | %.0f µs |\n", r.least("HTTP no-check-cpu-ns")/1000)

	plain := r.most("Interleaved/Session/ES256 sessiontoken-repeated-plain/floor")
	lists := r.most("Interleaved/Session/ES256 sessiontoken-repeated/floor")
	jwt := r.least("Interleaved/Session/ES256 golang-jwt-v5/floor")
	p("\nA token that was seen before is read %.0f times as fast as golang-jwt verifies it, and %.0f times if its state holds no lists. ", jwt/lists, jwt/plain)
	p("A set of a hundred keys costs %+.1f %% of a first verification against a set of one. ", 100*relative(r, "100-keys/floor", "1-keys/floor"))
	p("Two cores read %.2f times as many seen tokens as one, with 64 MB alive for the garbage collector; in an empty process, %.2f times. ",
		r.least("Cores/heap-64MB 2-cores/1-core"), r.least("Cores/heap-empty 2-cores/1-core"))
	p("Without a check the server answered %.0f requests/s. The bare signature check took %.0f µs (ES256) and %.0f µs (EdDSA).\n",
		r.least("HTTP no-check-req/s"), r.least("Interleaved/Verify/ES256 floor-ns")/1000, r.least("Interleaved/Verify/EdDSA floor-ns")/1000)
	return b.String()
}

// relative is the larger of the builds' differences between two lines of KeySet.
func relative(r results, a, b string) float64 {
	const name = "Interleaved/KeySet/ES256 "
	r.least(name + a)
	r.least(name + b)
	var d []float64
	for i := range 2 {
		d = append(d, r[name+a][i]/r[name+b][i]-1)
	}
	return slices.Max(d)
}
