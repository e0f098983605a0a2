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
		{"no part live", "# live, ", "# dead, "},
		{"no part feed", "# feed, ", "# food, "},
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

func TestTableOfStaleness(t *testing.T) {
	var soon, changed, live strings.Builder
	for _, engine := range []string{"cluster", "one", "sqlite", "postgres"} {
		soon.WriteString("    TestHowSoon/" + engine + ": read every 20ms, 1000 trials over two processes: p50 17ms, p99 1.2s, worst 2s\n")
		test := "    TestHowSoonChanged/" + engine + ": "
		changed.WriteString(test + "one round trip to the store takes 40µs; lists read every 20ms; 1000 trials over two processes; 0 sign-outs, one Load a mark and client\n" +
			test + "changed, until a request with a cookie has the new role: p50 680µs, p99 16.29ms; in round trips p50 17.0, p99 407.3\n" +
			test + "changed, until a request with a bearer has the new role: p50 6.15ms, p99 1.02s; in round trips p50 153.8, p99 25500.0\n")
		live.WriteString("    TestHowSoonLive/" + engine + ": revoked, until its connections have ended: p50 1.75ms, p99 16.94ms; in round trips p50 15.9, p99 153.5\n")
	}
	table, err := staleTable(soon.String(), changed.String(), live.String())
	require.NoError(t, err)
	all := func(cell string) string { return " | " + strings.Repeat(cell+" | ", 3) + cell + " |\n" }
	for _, row := range []string{
		"refuses the token" + all("17.0 / 1200.0 ms (425 / 30000)"),
		"a cookie has the new state" + all("0.7 / 16.3 ms (17 / 407)"),
		"refreshed, and has it" + all("6.2 / 1020.0 ms (153 / 25500)"),
		"have ended" + all("1.8 / 16.9 ms (43 / 423)"),
		"| a round trip to the store" + all("0.04 ms"),
		"| `SyncEvery`" + all("20 ms"),
	} {
		require.Contains(t, table, row)
	}
	whole := soon.String() + changed.String() + live.String()
	for _, test := range []struct{ name, old, new string }{
		{"an engine that was not measured", "Changed/sqlite: one round", "Changed/other: one round"},
		{"no revocation", "TestHowSoon/one: read", "TestHowSoon/one: write"},
		{"no cookie", "/one: changed, until a request with a cookie", "/one: changed, later"},
		{"no connection", "/one: revoked, until its connections", "/one: later"},
		{"a sign-out", "/postgres: one round trip to the store takes 40µs; lists read every 20ms; 1000 trials over two processes; 0 sign-outs", "/postgres: one round trip to the store takes 40µs; lists read every 20ms; 1000 trials over two processes; 1 sign-outs"},
		{"no duration", "p99 1.02s", "p99 soon"},
	} {
		t.Run(test.name, func(t *testing.T) {
			other := strings.Replace(whole, test.old, test.new, 1)
			require.NotEqual(t, whole, other)
			_, err := staleTable(other, other, other)
			require.Error(t, err)
		})
	}
}

func TestSentenceOfTheFeed(t *testing.T) {
	sentence, err := feedSentence("    500 sign-outs, known after 2.9 round trips of 1.62ms (p50) and 5.7 (p99)\n")
	require.NoError(t, err)
	require.Equal(t, "An API that follows the feed knew of 500 sign-outs after 2.9 round trips to the authority (p50), and 5.7 (p99).\n", sentence)
	_, err = feedSentence("")
	require.Error(t, err)
}
