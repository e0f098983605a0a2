package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README, OPERATING.md and the plot say what the committed results say.
func TestTheReportIsThatOfTheResults(t *testing.T) {
	t.Chdir("..")
	files, err := build()
	require.NoError(t, err)
	require.Len(t, files, 3)
	for name, want := range files {
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "%s: run ./report in bench", name)
	}
}

func TestWorseForUs(t *testing.T) {
	r := results{}
	require.NoError(t, r.add("BenchmarkA/b-2 1 2.0 sessiontoken/floor 3.0 jwx/floor\nBenchmarkA/b-2 1 4.0 sessiontoken/floor 3.0 jwx/floor\n"))
	require.NoError(t, r.add("BenchmarkA/b-2 1 2.5 sessiontoken/floor 1.0 jwx/floor\n"))
	require.Equal(t, 3.0, r.cost("sessiontoken", "A/b sessiontoken/floor"))
	require.Equal(t, 2.5, r.gain("sessiontoken", "A/b sessiontoken/floor"))
	require.Equal(t, 1.0, r.cost("jwx", "A/b jwx/floor"))
	require.Equal(t, 3.0, r.gain("jwx", "A/b jwx/floor"))
	require.Error(t, r.add("ok"))
	require.Error(t, r.add("BenchmarkA 1 x y"))
	require.Panics(t, func() { r.least("A/b other") })
}
