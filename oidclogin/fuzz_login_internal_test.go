package oidclogin

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

func FuzzAnswer(f *testing.F) {
	state := newState(time.Unix(1_800_000_000, 0))
	for _, seed := range []string{"", "state=" + state + "&code=x&iss=https%3A%2F%2Fop.example", "state=" + state + "&error=access_denied", "a;b", "state=%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := parseAnswer(raw)
		if err != nil {
			require.ErrorIs(t, err, errRefused)
			return
		}
		require.True(t, isState(a.state))
		require.LessOrEqual(t, len(a.code)+len(a.issuer)+len(a.failure), maxQuery)
	})
}

// A path to return to never leads to another site, whatever a browser makes of
// it.
func FuzzLocalPath(f *testing.F) {
	for _, seed := range []string{"", "/", "/a?b", "//x", `/\x`, "/\tx", "https://x", "/a#b", "/%2F/x", "/.//x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		p := localPath(given)
		require.True(t, p == given || p == "/")
		require.True(t, strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "//"))
		require.NotContains(t, p, `\`)
		site, err := url.Parse("https://site.example/oidc/callback")
		require.NoError(t, err)
		for _, location := range []string{p, "https://site.example" + p} {
			to, err := site.Parse(location)
			require.NoError(t, err)
			require.Equal(t, "https://site.example", to.Scheme+"://"+to.Host)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	good, err := json.Marshal(metadata{Issuer: "https://op.example", AuthorizationEndpoint: "https://op.example/a", TokenEndpoint: "https://op.example/t", KeysURL: "https://op.example/k"})
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte(`{"issuer":"https://op.example","issuer":"x"}`))
	f.Add([]byte(strings.Repeat("[", 100)))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := parseMetadata(body, "https://op.example")
		if err != nil {
			return
		}
		require.Equal(t, "https://op.example", m.Issuer)
		for _, at := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, m.KeysURL} {
			require.True(t, strings.HasPrefix(strings.ToLower(at), "https://"), at)
		}
		for _, a := range m.algorithms() {
			require.Contains(t, signatureAlgorithms, a)
		}
	})
}

// The algorithms are those of the provider's metadata that need a public key.
// Without any it is RS256, and nothing weaker.
func TestAlgorithms(t *testing.T) {
	for _, tt := range []struct{ told, want []string }{
		{nil, []string{"RS256"}}, {[]string{"HS256", "none"}, nil}, {[]string{"none", "ES256", "HS256", "RS256"}, []string{"RS256", "ES256"}},
	} {
		require.Equal(t, tt.want, (&metadata{Algorithms: tt.told}).algorithms())
	}
}

// A provider on loopback, as in development, may have http endpoints there
// alone.
func TestMetadataOnLoopback(t *testing.T) {
	const issuer = "http://127.0.0.1:9000"
	for name, tt := range map[string]struct {
		token string
		ok    bool
	}{
		"itself": {issuer + "/token", true}, "another loopback": {"http://localhost/token", true}, "https": {"https://op.example/token", true},
		"http elsewhere": {"http://op.example/token", false}, "another scheme": {"ftp://127.0.0.1/token", false}, "a fragment": {issuer + "/token#x", false},
	} {
		body, err := json.Marshal(metadata{Issuer: issuer, AuthorizationEndpoint: issuer + "/a", TokenEndpoint: tt.token, KeysURL: issuer + "/k"})
		require.NoError(t, err)
		_, err = parseMetadata(body, issuer)
		require.Equal(t, tt.ok, err == nil, name)
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"1"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},null,7]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseKeys(body)
		if err != nil {
			return
		}
		require.NotEmpty(t, keys)
		for _, k := range keys {
			require.True(t, k.IsPublic() && k.Valid())
		}
	})
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer error="insufficient_user_authentication", max_age=60, acr_values="a b"`)
	f.Add(`Bearer a="b`)
	f.Fuzz(func(t *testing.T, challenge string) {
		ask := askedBy([]string{challenge})
		require.GreaterOrEqual(t, ask.MaxAge, time.Duration(0))
	})
}

// A sealed value opens with its own kind, associated data, issuer, client and
// secret alone, and in its own spelling.
func TestSealed(t *testing.T) {
	secret, other := []byte("0123456789abcdef0123456789abcdef"), []byte("another secret, of 32 bytes too.")
	sealerOf := func(issuer, client string, secrets ...[]byte) *sealer {
		s, err := newSealer(secrets, issuer, client)
		require.NoError(t, err)
		return s
	}
	mine := sealerOf("https://op.example", "c", secret)
	value, err := mine.seal(kindLogin, "state", pending{Nonce: "n"})
	require.NoError(t, err)
	for _, tt := range []struct {
		name                    string
		s                       *sealer
		kind, associated, value string
		opens                   bool
	}{
		{"as it was sealed", mine, kindLogin, "state", value, true},
		{"a second secret", sealerOf("https://op.example", "c", other, secret), kindLogin, "state", value, true},
		{"another secret", sealerOf("https://op.example", "c", other), kindLogin, "state", value, false},
		{"another issuer", sealerOf("https://op.examplex", "c", secret), kindLogin, "state", value, false},
		{"another client", sealerOf("https://op.example", "d", secret), kindLogin, "state", value, false},
		{"another state", mine, kindLogin, "state2", value, false},
		{"another kind", mine, kindHint, "state", value, false},
		{"padded", mine, kindLogin, "state", value + "=", false},
		{"with a line break", mine, kindLogin, "state", value[:4] + "\n" + value[4:], false},
		{"in capitals", mine, kindLogin, "state", strings.ToUpper(value), false},
		{"cut", mine, kindLogin, "state", value[:len(value)-1], false},
		{"empty", mine, kindLogin, "state", "", false},
	} {
		l := new(pending)
		require.Equal(t, tt.opens, tt.s.open(tt.kind, tt.associated, tt.value, l), tt.name)
		require.Equal(t, tt.opens, l.Nonce == "n", tt.name)
	}
	// What no browser keeps is not decrypted.
	value, err = mine.seal(kindHint, "", hinted{strings.Repeat("x", maxCookie)})
	require.NoError(t, err)
	require.False(t, mine.open(kindHint, "", value, new(hinted)))
}

func FuzzSealed(f *testing.F) {
	s, err := newSealer([][]byte{[]byte("0123456789abcdef0123456789abcdef")}, "https://op.example", "c")
	require.NoError(f, err)
	value, err := s.seal(kindLogin, "state", pending{Nonce: "n"})
	require.NoError(f, err)
	f.Add(value)
	f.Add(value + "A")
	f.Add("")
	f.Fuzz(func(t *testing.T, value string) {
		if l := new(pending); s.open(kindLogin, "state", value, l) {
			require.Equal(t, "n", l.Nonce) // the seed, of this process or the one that began it
		}
		require.False(t, s.open(kindLogin, "another state", value, new(pending)))
		require.False(t, s.open(kindHint, "state", value, new(hinted)))
	})
}
