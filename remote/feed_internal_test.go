package remote

import (
	"crypto/aes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

const testPage = `{"nonce":"n","age":12,"key":"k","time":"2026-11-26T15:13:15.123456789Z","next":"7","more":true,"entries":[` +
	`{"scope":"subject","digest":"AAAAAAAAAAAAAAAAAAAAAA","except":"AQAAAAAAAAAAAAAAAAAAAA","before":1,"until":2,"skip":true}]}`

// TestFeedPage: a page that is not exactly what an authority serves is refused
// as a whole.
func TestFeedPage(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 32))
	require.NoError(t, err)
	read := func(text string) (revoke.Page, error) {
		p, err := parseFeedPage([]byte(text), "n")
		if err != nil {
			return revoke.Page{}, err
		}
		return p.decrypt(block)
	}
	p, err := read(testPage)
	require.NoError(t, err)
	require.Equal(t, "7", p.Next)
	require.True(t, p.More && !p.Reset)
	require.Equal(t, 123456789, p.Time.Nanosecond())
	require.Len(t, p.Entries, 1)
	require.Equal(t, revoke.Subject, p.Entries[0].Scope)
	require.True(t, p.Entries[0].Skip)

	var zero [16]byte // encrypted
	block.Encrypt(zero[:], zero[:])
	none := base64.RawURLEncoding.EncodeToString(zero[:])
	p, err = read(strings.Replace(testPage, `"AAAAAAAAAAAAAAAAAAAAAA"`, `"`+none+`"`, 1))
	require.NoError(t, err)
	require.Zero(t, p.Entries[0].Digest, "the digest of an entry of all")
	p, err = read(strings.Replace(testPage, `"except":"AQAAAAAAAAAAAAAAAAAAAA",`, ``, 1))
	require.NoError(t, err)
	require.Zero(t, p.Entries[0].Except)

	for _, tt := range []struct{ name, old, new string }{
		{"another nonce", `"nonce":"n"`, `"nonce":"m"`},
		{"no nonce", `"nonce":"n",`, ``},
		{"a name in large letters", `"nonce"`, `"Nonce"`},
		{"a name twice", `"nonce":"n"`, `"nonce":"n","nonce":"n"`},
		{"no age", `"age":12,`, ``},
		{"a negative age", `"age":12`, `"age":-1`},
		{"an age of a day", `"age":12`, `"age":86400000`},
		{"a fraction as age", `"age":12`, `"age":1.5`},
		{"text as age", `"age":12`, `"age":"12"`},
		{"no key", `"key":"k",`, ``},
		{"a long key", `"key":"k"`, `"key":"` + strings.Repeat("k", 65) + `"`},
		{"no time", `"time":"2026-11-26T15:13:15.123456789Z",`, ``},
		{"the zero time", `2026-11-26T15:13:15.123456789Z`, `0001-01-01T00:00:00Z`},
		{"a malformed time", `2026-11-26T15`, `2026-11-26 15`},
		{"no cursor", `"next":"7",`, ``},
		{"a long cursor", `"next":"7"`, `"next":"` + strings.Repeat("7", 2049) + `"`},
		{"no entries", `"entries":[`, `"others":[`},
		{"a number as more", `"more":true`, `"more":1`},
		{"no scope", `"scope":"subject",`, ``},
		{"no digest", `"digest":"AAAAAAAAAAAAAAAAAAAAAA",`, ``},
		{"a short digest", `"AAAAAAAAAAAAAAAAAAAAAA"`, `"AAAAAAAAAAAAAAAAAAAAA"`},
		{"a digest that is not canonical", `"AAAAAAAAAAAAAAAAAAAAAA"`, `"AAAAAAAAAAAAAAAAAAAAAB"`},
		{"a line break in a digest", `"AAAAAAAAAAAAAAAAAAAAAA"`, `"AAAAAAAAAAAAAAAAAAAAA\n"`},
		{"an exception of zero", `"AQAAAAAAAAAAAAAAAAAAAA"`, `"` + none + `"`},
		{"a short exception", `"AQAAAAAAAAAAAAAAAAAAAA"`, `"AQ"`},
		{"a time past the year 9999", `"until":2`, `"until":253402300800000`},
		{"a time beyond numbers", `"until":2`, `"until":1e30`},
		{"cut off", `}]}`, `}]`},
		{"something after it", `}]}`, `}]}{}`},
		{"deep", `"more":true`, `"more":` + strings.Repeat("[", 20) + strings.Repeat("]", 20)},
	} {
		text := strings.Replace(testPage, tt.old, tt.new, 1)
		require.NotEqual(t, testPage, text, tt.name)
		_, err := read(text)
		require.Error(t, err, tt.name)
		require.NotContains(t, err.Error(), "AAAA", tt.name)
	}
	_, err = read(strings.Replace(testPage, `"more":true`, `"more":true,"later":{"a":[1]}`, 1))
	require.NoError(t, err, "a member of a later version")
}

// FuzzFeedPage: whatever a server sends, a page that is taken is within its
// bounds.
func FuzzFeedPage(f *testing.F) {
	f.Add([]byte(testPage))
	f.Add([]byte(`{"nonce":"n","age":0,"key":"k","time":"2026-11-26T15:13:15Z","next":"","entries":[]}`))
	f.Add([]byte(`{"nonce":"n"}`))
	f.Add([]byte(`[`))
	block, err := aes.NewCipher(make([]byte, 32))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parseFeedPage(body, "n")
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, p.age, 0*p.age)
		require.LessOrEqual(t, p.age, maxFeedAge)
		require.NotEmpty(t, p.Next)
		page, err := p.decrypt(block)
		if err != nil {
			return
		}
		require.Len(t, page.Entries, len(p.Entries))
		for i, e := range page.Entries {
			require.NotEmpty(t, e.Scope)
			require.Equal(t, p.Entries[i].Before, e.Before.UnixMilli())
			require.Equal(t, p.Entries[i].Until, e.Until.UnixMilli())
			d := e.Digest
			block.Encrypt(d[:], d[:])
			require.Equal(t, p.Entries[i].Digest, base64.RawURLEncoding.EncodeToString(d[:]), fmt.Sprint("entry ", i))
		}
	})
}
