package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// operatingTables makes the tables of OPERATING.md, by the name of their marks,
// from what measure-stores wrote.
func operatingTables(output string) (map[string]string, error) {
	stale, err := staleTable(part(output, "soon"), part(output, "changed"), part(output, "live"))
	if err != nil {
		return nil, err
	}
	feed, err := feedSentence(part(output, "feed"))
	if err != nil {
		return nil, err
	}
	faults, err := faultsTable(part(output, "faults"))
	if err != nil {
		return nil, err
	}
	soak, err := soakTable(part(output, "soak"))
	if err != nil {
		return nil, err
	}
	list, err := listBullets(part(output, "list"), part(output, "many"))
	if err != nil {
		return nil, err
	}
	return map[string]string{"measured stale": stale, "measured feed": feed, "measured faults": faults, "measured soak": soak, "measured list": list}, nil
}

// part is what the output has between the lines of one part of measure-stores.
func part(output, name string) string {
	_, rest, _ := strings.Cut("\n"+output, "\n# "+name+", ")
	body, _, _ := strings.Cut(rest, "\n# end of "+name+"\n")
	return body
}

var (
	millionIn    = regexp.MustCompile(`(?m)^ +1000000 entries in (\d+) MiB$`)
	startsWithIt = regexp.MustCompile(`(?m)^ +TestReplicaStartsWithMany(?:/\w+)?: it starts with 1000000 entries in (\S+)$`)
)

// listBullets are the lines of OPERATING.md on a list of a million entries: the
// worst of all runs and engines.
func listBullets(list, many string) (string, error) {
	most := 0
	for _, m := range millionIn.FindAllStringSubmatch(list, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return "", err
		}
		most = max(most, n)
	}
	slowest := time.Duration(0)
	starts := startsWithIt.FindAllStringSubmatch(many, -1)
	for _, m := range starts {
		d, err := time.ParseDuration(m[1])
		if err != nil {
			return "", err
		}
		slowest = max(slowest, d)
	}
	if most == 0 || len(starts) < 3 {
		return "", errors.New("the results lack the list of a million, or the start of a replica with it")
	}
	return fmt.Sprintf("- A list holds a million revoked sessions in %d MiB.\n- A replica that starts with a million of them has read all after %.1f s.\n", most, slowest.Seconds()), nil
}

// engine is what happened to one: the faults by name, with what was measured of
// each, and how many revocations were acknowledged and missed.
type engine struct {
	faults               map[string]map[string]time.Duration
	acknowledged, missed int
}

var (
	faultLine   = regexp.MustCompile(`^ +(.+?): (it is known to be stale|past MaxStale no token is accepted|it answers again|a session that is \w+ after that is refused): (\S+)$`)
	writtenLine = regexp.MustCompile(`^ +(Test\w+(?:/\w+)?): (\d+) \w+ were acknowledged, \d+ were not$`)
	missedLine  = regexp.MustCompile(`^ +the verifier [a-z ]+: (\d+) acknowledged, (\d+) missed$`)
)

// readFaults reads the tests of faults. The lines of a fault come before the one
// that names its test, which the counts follow.
func readFaults(output string, tests map[string]string) (map[string]*engine, error) {
	engines := map[string]*engine{}
	pending := map[string]map[string]time.Duration{}
	var current *engine
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if m := faultLine.FindStringSubmatch(line); m != nil {
			d, err := time.ParseDuration(m[3])
			if err != nil {
				return nil, err
			}
			if pending[m[1]] == nil {
				pending[m[1]] = map[string]time.Duration{}
			}
			what := m[2]
			if strings.HasPrefix(what, "a session that is ") {
				what = "known"
			}
			pending[m[1]][what] = d
		} else if m := writtenLine.FindStringSubmatch(line); m != nil {
			name, ok := tests[m[1]]
			if !ok {
				return nil, fmt.Errorf("%s is a test of no engine", m[1])
			}
			if engines[name] == nil {
				engines[name] = &engine{faults: map[string]map[string]time.Duration{}}
			}
			current = engines[name]
			n, err := strconv.Atoi(m[2])
			if err != nil {
				return nil, err
			}
			current.acknowledged += n
			for fault, measured := range pending {
				if current.faults[fault] != nil {
					return nil, fmt.Errorf("%s: %q is there twice", m[1], fault)
				}
				current.faults[fault] = measured
			}
			clear(pending)
		} else if m := missedLine.FindStringSubmatch(line); m != nil {
			if current == nil {
				return nil, errors.New("what was missed is of no test")
			}
			n, err := strconv.Atoi(m[2])
			if err != nil {
				return nil, err
			}
			current.missed += n
		}
	}
	return engines, nil
}

func faultsTable(output string) (string, error) {
	columns := []string{"Redis", "Redis Cluster", "PostgreSQL", "SQLite"}
	engines, err := readFaults(output, map[string]string{
		"TestFaults": "Redis", "TestFullDisk": "Redis", "TestFailOverSentinel": "Redis",
		"TestFaultsCluster": "Redis Cluster", "TestFailOverCluster": "Redis Cluster",
		"TestFaultsPostgres": "PostgreSQL", "TestFullDisk/postgres": "PostgreSQL", "TestFailOver": "PostgreSQL",
		"TestFaultsSQLite": "SQLite", "TestFullDisk/sqlite": "SQLite",
	})
	if err != nil {
		return "", err
	}
	const stale, again, known = "it is known to be stale", "it answers again", "known"
	staleAndAgain := func(m map[string]time.Duration) string { return tenths(m[stale]) + ", " + millis(m[again]) }
	throughout := func(map[string]time.Duration) string { return "it answers throughout" }
	soonAfter := func(m map[string]time.Duration) string {
		if m[known] < time.Second {
			return millis(m[known])
		}
		return tenths(m[known])
	}
	text := "| what happens, with `SyncEvery` 100 ms and `MaxStale` 2 s | " + strings.Join(columns, " | ") + " |\n" + strings.Repeat("| --- ", len(columns)+1) + "|\n"
	for _, row := range []struct {
		name   string
		needs  string // what must have been measured
		faults []string
		say    func(map[string]time.Duration) string
		notes  map[string]string
	}{
		{"the way is cut for 3 s: known after, answers again after it", again, []string{"a cut of 3 s"}, staleAndAgain, nil},
		{"it swallows everything for 5 s", again, []string{"a black hole of 5 s"}, staleAndAgain, nil},
		{"the engine is frozen for 4 s", again, []string{"frozen for 4 s"}, staleAndAgain, nil},
		{"the way takes 150 ms", known, []string{"a way that takes 150 ms"}, throughout, nil},
		{"another process holds the lock for 3 s", known, []string{"another process holds the lock for 3 s"}, throughout, nil},
		{"killed, and started again after 1 s: a revocation is known after that", known, []string{"killed, and started again after 1 s"}, soonAfter, nil},
		{"a writing process is killed, 20 times", known, []string{"a writing process is killed 20 times"}, throughout, nil},
		{"its disk is full for 4 s: a revocation is known after that", known, []string{"a disk that is full for 4 s"}, soonAfter,
			map[string]string{"Redis": ", once it was started again"}},
		{"its replica takes over: a revocation is known after that", known,
			[]string{"the master is killed, and a replica takes over", "the primary is killed, and its standby promoted after 2 s"},
			func(m map[string]time.Duration) string { return tenths(m[known]) },
			map[string]string{"Redis": " (Sentinel)", "PostgreSQL": " (synchronous standby, promoted by hand)"}},
	} {
		cells, some := []string{row.name}, false
		for _, column := range columns {
			cell := "–"
			for _, fault := range row.faults {
				if e := engines[column]; e != nil && e.faults[fault] != nil {
					if _, ok := e.faults[fault][row.needs]; !ok {
						return "", fmt.Errorf("%s: the results of %q are not whole", column, fault)
					}
					cell, some = row.say(e.faults[fault])+row.notes[column], true
				}
			}
			cells = append(cells, cell)
		}
		if !some {
			return "", fmt.Errorf("the results lack %q", row.faults)
		}
		text += tableRow(cells...)
	}
	cells := []string{"revocations acknowledged / missed by any of three verifiers"}
	for _, column := range columns {
		e := engines[column]
		if e == nil {
			return "", fmt.Errorf("the results lack %s", column)
		}
		cells = append(cells, fmt.Sprintf("%s / %s", thousands(e.acknowledged), thousands(e.missed)))
	}
	return text + tableRow(cells...), nil
}

var (
	soakLine      = regexp.MustCompile(`^ +(TestSoak(?:/\w+)?): (\d+) issued, (\d+) renewed, (\d+) sessions and (\d+) subjects \w+; valid tokens: (\d+) accepted; \w+ ones: (\d+) refused, (\d+) accepted up to (\S+) .*\(bound (\S+)\);.* calls that failed then: (\d+)$`)
	rotationsLine = regexp.MustCompile(`^ +issuer \d+: (\d+) rotations, `)
	wrongLine     = regexp.MustCompile(`^ +(\d+) wrong verdicts$`)
)

func soakTable(output string) (string, error) {
	type soak struct {
		numbers   []string
		rotations int // of the issuer that has seen the fewest
		right     bool
	}
	soaks := map[string]*soak{}
	var current *soak
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if m := soakLine.FindStringSubmatch(line); m != nil {
			current = &soak{numbers: m[2:]}
			soaks[m[1]] = current
		} else if m := rotationsLine.FindStringSubmatch(line); m != nil && current != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				return "", err
			}
			if current.rotations == 0 || n < current.rotations {
				current.rotations = n
			}
		} else if m := wrongLine.FindStringSubmatch(line); m != nil && current != nil {
			current.right = m[1] == "0"
		}
	}
	rows := [][]string{
		{"sessions begun / renewals"}, {"rotations"}, {"revoked: sessions / subjects"}, {"valid tokens accepted / refused"},
		{""}, {"accepted before others knew; the latest after"}, {"calls that failed while it was away, and have to be repeated"},
	}
	for _, e := range []struct {
		test, note string // note is on the latest
		killed     bool
	}{
		{"TestSoak", "", true},
		{"TestSoak/postgres", ", while the engine was away", true},
		{"TestSoak/sqlite", "", false},
	} {
		s := soaks[e.test]
		if s == nil || s.rotations == 0 {
			return "", fmt.Errorf("the results lack %s", e.test)
		}
		if !s.right {
			return "", fmt.Errorf("%s has wrong verdicts", e.test)
		}
		var n []string
		for _, field := range s.numbers {
			if i, err := strconv.Atoi(field); err == nil {
				field = thousands(i)
			}
			n = append(n, field)
		}
		latest, err := time.ParseDuration(n[7])
		if err != nil {
			return "", err
		}
		bound, err := time.ParseDuration(n[8])
		if err != nil {
			return "", err
		}
		after := millis(latest)
		if latest >= time.Second {
			after = fmt.Sprintf("%.2f s", latest.Seconds())
		}
		failed := "–"
		if e.killed {
			failed = n[9]
		}
		rows[4][0] = fmt.Sprintf("revoked tokens refused / accepted past the bound of %s", tenths(bound))
		for i, cell := range []string{
			n[0] + " / " + n[1], strconv.Itoa(s.rotations), n[2] + " / " + n[3], n[4] + " / 0", n[5] + " / 0", n[6] + "; " + after + e.note, failed,
		} {
			rows[i] = append(rows[i], cell)
		}
	}
	text := "| | Redis | PostgreSQL | SQLite (not killed) |\n| --- | ---: | ---: | ---: |\n"
	for _, row := range rows {
		text += tableRow(row...)
	}
	return text, nil
}

func tableRow(cells ...string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func tenths(d time.Duration) string {
	return fmt.Sprintf("%.1f s", d.Round(time.Second/10).Seconds())
}

// thousands puts commas between the thousands.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
