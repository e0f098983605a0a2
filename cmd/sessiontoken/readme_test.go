package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(text)
}

// TestReadmeNamesEachCommand: README.md has each command, and no other.
func TestReadmeNamesEachCommand(t *testing.T) {
	_, table, found := strings.Cut(readme(t), "| command | what it does |\n| --- | --- |\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	var named []string
	for row := range strings.Lines(table) {
		group := ""
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			name := m[1]
			if words := strings.Fields(name); len(words) == 2 {
				group = words[0] + " "
			} else {
				name = group + name
			}
			named = append(named, name)
		}
	}
	var there []string
	for _, c := range commands {
		there = append(there, c.name)
	}
	require.ElementsMatch(t, there, named)
}

// TestReadmeErrorsExist: what README.md says that an error says is in the text
// of one.
func TestReadmeErrorsExist(t *testing.T) {
	_, table, found := strings.Cut(readme(t), "| the error says | then |\n| --- | --- |\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	var source strings.Builder
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		source.Write(text)
	}
	rows := 0
	for row := range strings.Lines(table) {
		for said := range strings.SplitSeq(strings.Split(row, "|")[1], ";") {
			for piece := range strings.SplitSeq(said, "…") {
				if piece = strings.TrimSpace(piece); piece != "" {
					rows++
					require.Contains(t, source.String(), piece)
				}
			}
		}
	}
	require.Greater(t, rows, 10)
}
