package sessionhttp

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOnlyToken: the quick way finds no other token than the one that all parts of
// the header have.
func FuzzOnlyToken(f *testing.F) {
	const name = "__Host-session"
	for _, line := range []string{
		name + "=eyJ.a.b",
		"a=b; " + name + "=eyJ.a.b; c=d",
		name + "=eyJ.a.b~r",
		name + "=eyJ.a.b; " + name + "=eyJ.c.d",
		name + "=eyJ.a.b; x=" + name,
		"x" + name + "=eyJ.a.b",
		"x\"; " + name + "=eyJ.a.b; y=\"",
		name + "=\"eyJ.a.b\"",
		name + " =eyJ.a.b",
		name + "=eyJ.a.b ",
		"a=b;" + name + "=eyJ.a.b",
		";; " + name + "=eyJ.a.b;",
		name,
		"",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		h := http.Header{"Cookie": {line}}
		token, ok := onlyToken(h, name)
		if !ok {
			return
		}
		tokens, found, all := cookieTokens(&http.Request{Header: h}, name, maxTried, isJWS)
		require.True(t, found)
		require.True(t, all)
		require.Equal(t, []string{token}, tokens)
		require.Len(t, (&http.Request{Header: h}).CookiesNamed(name), 1)
	})
}

func TestOnlyToken(t *testing.T) {
	const name = "__Host-session"
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"alone", []string{name + "=eyJ.a.b"}, "eyJ.a.b"},
		{"among others", []string{"a=b; " + name + "=eyJ.a.b; c=d"}, "eyJ.a.b"},
		{"remembered", []string{name + "=eyJ.a.b~r"}, "eyJ.a.b"},
		{"twice", []string{name + "=eyJ.a.b; " + name + "=eyJ.a.b"}, ""},
		{"in two lines", []string{name + "=eyJ.a.b", name + "=eyJ.a.b"}, ""},
		{"of another name", []string{"x" + name + "=eyJ.a.b"}, ""},
		{"no token", []string{name + "=garbage"}, ""},
		{"none", nil, ""},
	} {
		token, ok := onlyToken(http.Header{"Cookie": tt.lines}, name)
		require.Equal(t, tt.want != "", ok, tt.name)
		if ok {
			require.Equal(t, tt.want, token, tt.name)
		}
	}
}
