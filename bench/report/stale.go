package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

var (
	howSoon     = regexp.MustCompile(`(?m)^ +TestHowSoon/(\w+): read every (\S+), \d+ trials over two processes: p50 (\S+), p99 (\S+), worst \S+$`)
	changedTrip = regexp.MustCompile(`(?m)^ +TestHowSoonChanged/(\w+): one round trip to the store takes (\S+); lists read every (\S+); \d+ trials over two processes; 0 sign-outs, one Load a mark and client$`)
	changedSoon = regexp.MustCompile(`(?m)^ +TestHowSoonChanged/(\w+): changed, until a request with a (\w+) has the new role: p50 (\S+), p99 (\S+);`)
	liveSoon    = regexp.MustCompile(`(?m)^ +TestHowSoonLive/(\w+): revoked, until its connections have ended: p50 (\S+), p99 (\S+);`)
)

// staleTable is how soon another process knows of what has happened in one, by
// kind and engine: in milliseconds and in round trips to the store.
func staleTable(soon, changed, live string) (string, error) {
	const revoked, cookie, bearer, ended = "revoked", "cookie", "bearer", "ended"
	type measured struct {
		every string
		trip  time.Duration
		rows  map[string][]string // p50 and p99
	}
	engines := map[string]*measured{}
	for _, m := range changedTrip.FindAllStringSubmatch(changed, -1) {
		trip, err := time.ParseDuration(m[2])
		if err != nil {
			return "", err
		}
		engines[m[1]] = &measured{every: m[3], trip: trip, rows: map[string][]string{}}
	}
	for _, lines := range []struct {
		found [][]string
		row   func(m []string) (name string, values []string)
	}{
		{howSoon.FindAllStringSubmatch(soon, -1), func(m []string) (string, []string) { return revoked, m[3:5] }},
		{changedSoon.FindAllStringSubmatch(changed, -1), func(m []string) (string, []string) { return m[2], m[3:5] }},
		{liveSoon.FindAllStringSubmatch(live, -1), func(m []string) (string, []string) { return ended, m[2:4] }},
	} {
		for _, m := range lines.found {
			e := engines[m[1]]
			if e == nil {
				return "", fmt.Errorf("the results lack the round trip of %s", m[1])
			}
			name, values := lines.row(m)
			e.rows[name] = values
		}
	}
	columns := []struct{ name, test string }{{"Redis", "one"}, {"Redis Cluster of 3", "cluster"}, {"PostgreSQL", "postgres"}, {"SQLite", "sqlite"}}
	header, trips, syncs := []string{"from the acknowledgement in one process, until"}, []string{"a round trip to the store"}, []string{"`SyncEvery`"}
	for _, c := range columns {
		e := engines[c.test]
		if e == nil {
			return "", fmt.Errorf("the results lack TestHowSoonChanged/%s", c.test)
		}
		header = append(header, c.name)
		syncs = append(syncs, strings.NewReplacer("ms", " ms", "s", " s").Replace(e.every))
		trips = append(trips, fmt.Sprintf("%.2f ms", e.trip.Seconds()*1000))
	}
	text := tableRow(header...) + "| --- | ---: | ---: | ---: | ---: |\n"
	for _, row := range []struct{ name, key string }{
		{"revoked: another process refuses the token", revoked},
		{"changed: a request with a cookie has the new state", cookie},
		{"changed: a client with a Bearer token has refreshed, and has it", bearer},
		{"revoked: 3 of 100,000 connections of another process have ended", ended},
	} {
		cells := []string{row.name}
		for _, c := range columns {
			e := engines[c.test]
			values := e.rows[row.key]
			if values == nil {
				return "", fmt.Errorf("the results lack %q of %s", row.key, c.test)
			}
			p50, err1 := time.ParseDuration(values[0])
			p99, err2 := time.ParseDuration(values[1])
			if err := errors.Join(err1, err2); err != nil {
				return "", err
			}
			cells = append(cells, fmt.Sprintf("%.1f / %.1f ms (%d / %d)", p50.Seconds()*1000, p99.Seconds()*1000, p50/e.trip, p99/e.trip))
		}
		text += tableRow(cells...)
	}
	return text + tableRow(trips...) + tableRow(syncs...), nil
}

var feedSoon = regexp.MustCompile(`(?m)^ +(\d+) sign-outs, known after (\S+) round trips of (\S+) \(p50\) and (\S+) \(p99\)$`)

// feedSentence is how soon an API that follows the feed knows of a sign-out.
func feedSentence(output string) (string, error) {
	m := feedSoon.FindStringSubmatch(output)
	if m == nil {
		return "", errors.New("the results lack the feed")
	}
	return fmt.Sprintf("An API that follows the feed knew of %s sign-outs after %s round trips to the authority (p50), and %s (p99).\n", m[1], m[2], m[4]), nil
}
