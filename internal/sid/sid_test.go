package sid_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/sid"
)

const (
	a = "AAAAAAAAAAAAAAAA"
	b = "09azAZ-_09azAZ-_"
)

// What is not exactly groups and a random part has no group at all.
func TestGroups(t *testing.T) {
	for _, c := range []struct {
		name, id string
		want     []string
	}{
		{"no group", "random", nil},
		{"one", a + ".random", []string{a}},
		{"two", b + "." + a + ".random", []string{b, a}},
		{"four", strings.Repeat(b+".", 4) + "r", []string{b, b, b, b}},
		{"the random part looks like a group", a + "." + b, []string{a}},
		{"a group alone is the random part", a, nil},
		{"empty", "", nil},
		{"a dot", ".", nil},
		{"dots", "....", nil},
		{"no random part", a + ".", nil},
		{"an empty group", "." + a + ".random", nil},
		{"an empty group behind one", a + "..random", nil},
		{"five", strings.Repeat(a+".", 5) + "r", nil},
		{"a thousand", strings.Repeat(a+".", 1000) + "r", nil},
		{"too short", a[1:] + ".random", nil},
		{"too long", a + "A.random", nil},
		{"one good, one short", a + "." + a[1:] + ".random", nil},
		{"plus and slash", "AAAAAAAAAAAAAA+/.random", nil},
		{"padding", "AAAAAAAAAAAAAA==.random", nil},
		{"a space", "AAAAAAAA AAAAAAA.random", nil},
		{"NUL", "AAAAAAAA\x00AAAAAAA.random", nil},
		{"beyond ASCII", "AAAAAAAAAAAAAAé.random", nil},
		{"another dot", "AAAAAAAAAAAAAAAA。random", nil},
		{"not UTF-8", "\xff\xff\xff\xff.random", nil},
		{"an id of another maker", "example.com|42.7", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			groups, n := sid.Groups(c.id)
			require.Equal(t, c.want, append([]string(nil), groups[:n]...))
			for _, g := range groups[n:] {
				require.Empty(t, g)
			}
		})
	}
}

func TestIsGroup(t *testing.T) {
	for s, want := range map[string]bool{a: true, b: true, "": false, a[1:]: false, a + "A": false, "AAAAAAAAAAAAAAA.": false, "AAAAAAAAAAAAAAA\n": false} {
		require.Equal(t, want, sid.IsGroup(s), "%q", s)
	}
}

// FuzzGroups: the groups of an id are what is before its random part.
func FuzzGroups(f *testing.F) {
	for _, id := range []string{"", ".", "random", a + ".random", a + "." + b + ".", strings.Repeat(a+".", 5) + "r"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		groups, n := sid.Groups(id)
		if n == 0 {
			return
		}
		head := strings.Join(groups[:n], ".") + "."
		rest, ok := strings.CutPrefix(id, head)
		require.True(t, ok)
		require.NotEmpty(t, rest)
		require.NotContains(t, rest, ".")
		for _, g := range groups[:n] {
			require.True(t, sid.IsGroup(g))
		}
	})
}
