package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTablesOfStores(t *testing.T) {
	committed, err := os.ReadFile("../results/stores.txt")
	require.NoError(t, err)
	want, err := operatingTables(string(committed))
	require.NoError(t, err)

	// As the tests of the stores put it now.
	now := strings.NewReplacer(
		"a session that is ended after", "a session that is revoked after",
		"ends were acknowledged", "revocations were acknowledged",
		"subjects ended; ", "subjects revoked; ", "; ended ones: ", "; revoked ones: ",
		" after the end (bound", " afterwards (bound",
	).Replace(string(committed))
	require.NotEqual(t, string(committed), now)
	got, err := operatingTables(now)
	require.NoError(t, err)
	require.Equal(t, want, got)

	for _, test := range []struct{ name, old, new, mark, row string }{
		{"half a tenth is rounded up", "p50 1.63ms, p99 4.52ms", "p50 1.65ms, p99 4.55ms", "measured soon", "| Redis | 1 s | 1.7 ms | 4.6 ms | 9.5 ms |"},
		{"a verifier missed one", "the verifier behind them: 205 acknowledged, 0 missed", "the verifier behind them: 205 acknowledged, 1 missed", "measured faults", "| revocations acknowledged / missed by any of three verifiers | 2,150 / 1 | 1,690 / 0 | 2,311 / 0 | 752 / 0 |"},
		{"more than a second", "killed, and started again after 1 s: a session that is ended after that is refused: 26ms", "killed, and started again after 1 s: a session that is ended after that is refused: 1.26s", "measured faults", "| killed, and started again after 1 s: a revocation is known after that | 1.3 s | 2.0 s | 65 ms | – |"},
		{"a larger list", "1000000 entries in 92 MiB", "1000000 entries in 93 MiB", "measured list", "- A list holds a million revoked sessions in 93 MiB."},
		{"fewer rotations of one issuer", "issuer 2: 60 rotations, 6", "issuer 2: 59 rotations, 6", "measured soak", "| rotations | 59 | 60 | 60 |"},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(string(committed), test.old, test.new, 1)
			require.NotEqual(t, string(committed), changed)
			got, err := operatingTables(changed)
			require.NoError(t, err)
			require.NotContains(t, want[test.mark], test.row)
			require.Contains(t, got[test.mark], test.row)
		})
	}

	for _, test := range []struct{ name, old, new string }{
		{"no part soon", "# soon, ", "# later, "},
		{"no part changed", "# changed, ", "# same, "},
		{"no part faults", "# faults, ", "# luck, "},
		{"no part list", "# list, ", "# lust, "},
		{"no part many", "# many, ", "# few, "},
		{"no part soak", "# soak, ", "# soap, "},
		{"an engine that was not measured", "TestHowSoon/postgres: read", "TestHowSoon/other: read"},
		{"a test of no engine", "TestFaultsSQLite: 545 ends", "TestFaultsOther: 545 ends"},
		{"a fault that is not whole", "a cut of 3 s: it answers again: 69ms\n", "\n"},
		{"a fault of no engine", "another process holds the lock for 3 s: a session", "it rains: a session"},
		{"a fault twice", "TestFullDisk/postgres: 372 ends", "TestFullDisk/sqlite: 372 ends"},
		{"wrong verdicts", "0 wrong verdicts", "2 wrong verdicts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(string(committed), test.old, test.new, 1)
			require.NotEqual(t, string(committed), changed)
			_, err := operatingTables(changed)
			require.Error(t, err)
		})
	}
}

func TestTableOfChangedStates(t *testing.T) {
	var output strings.Builder
	for _, engine := range []string{"cluster", "one", "sqlite", "postgres"} {
		test := "    TestHowSoonChanged/" + engine + ": "
		output.WriteString(test + "one round trip to the store takes 42µs; lists read every 20ms; 1000 trials over two processes; 0 sign-outs, one Load a mark and client\n" +
			test + "revoked, until a request is refused: p50 3.44ms, p99 17.46ms; in round trips p50 82.1, p99 415.7\n" +
			test + "one renewal with a cookie: p50 660µs, p99 7.14ms; in round trips p50 15.6, p99 170.4\n" +
			test + "changed, until a request with a cookie has the new role: p50 680µs, p99 16.29ms; in round trips p50 16.2, p99 387.9\n" +
			test + "one renewal with a bearer: p50 2.12ms, p99 11.85ms; in round trips p50 50.7, p99 282.9\n" +
			test + "changed, until a request with a bearer has the new role: p50 6.15ms, p99 1.02s; in round trips p50 146.8, p99 24285.7\n")
	}
	table, err := changedTable(output.String())
	require.NoError(t, err)
	require.Contains(t, table, "| PostgreSQL | 20 ms | 0.04 ms | 3.4 ms (82) / 17.5 ms (416) | 0.7 ms (16) / 16.3 ms (388) | 6.2 ms (147) / 1020.0 ms (24286) |\n")
	for _, test := range []struct{ name, old, new string }{
		{"an engine that was not measured", "/sqlite: one round", "/other: one round"},
		{"no cookie", "/one: changed, until a request with a cookie", "/one: changed, later"},
		{"a sign-out", "/postgres: one round trip to the store takes 42µs; lists read every 20ms; 1000 trials over two processes; 0 sign-outs", "/postgres: one round trip to the store takes 42µs; lists read every 20ms; 1000 trials over two processes; 1 sign-outs"},
		{"no duration", "p99 1.02s", "p99 soon"},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(output.String(), test.old, test.new, 1)
			require.NotEqual(t, output.String(), changed)
			_, err := changedTable(changed)
			require.Error(t, err)
		})
	}
}
