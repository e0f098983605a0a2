package authority_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
)

type (
	cfg   = authority.Config[state]
	limit = authority.Limits
)

// TestErrorsNameTheRemedy: the mistakes of a first program are answered with what to
// write.
func TestErrorsNameTheRemedy(t *testing.T) {
	for _, tt := range []struct {
		name, remedy string
		change       func(*cfg)
	}{
		{"no issuer", "such as https://site.example", func(c *cfg) { c.Issuer = "" }},
		{"an issuer that is no URL", "such as https://site.example", func(c *cfg) { c.Issuer = "site" }},
		{"an issuer over http", "HTTP.TLSInFront", func(c *cfg) { c.Issuer = "http://site.example" }},
		{"no audience", "the name of this server", func(c *cfg) { c.Audience = nil }},
		{"no store", "Memory()", func(c *cfg) { c.Store = nil }},
		{"no load", "from your database", func(c *cfg) { c.Load = nil }},
		{"no secret", "openssl rand -base64 32", func(c *cfg) { c.Secrets = nil }},
		{"a variable that is not set", "openssl rand -base64 32", func(c *cfg) { c.Secrets = [][]byte{nil} }},
		{"a bare number", "a bare number is one of nanoseconds", func(c *cfg) { c.Limits.TTL = 300 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(newNetwork(), with(secret(1)))
			tt.change(&c)
			_, err := authority.New(c)
			require.ErrorContains(t, err, tt.remedy)
		})
	}
}

// TestNewNamesTheField: what cannot work is refused, by the name of the field.
func TestNewNamesTheField(t *testing.T) {
	for _, tt := range []struct {
		name, field string
		change      func(*cfg)
	}{
		{"no issuer", "Issuer", func(c *cfg) { c.Issuer = "" }},
		{"no audience", "Audience", func(c *cfg) { c.Audience = nil }},
		{"an empty audience", "Audience", func(c *cfg) { c.Audience = []string{"site", ""} }},
		{"an audience that is no text", "Audience", func(c *cfg) { c.Audience = []string{"\xff"} }},
		{"no store", "Store", func(c *cfg) { c.Store = nil }},
		{"a nil store", "Store", func(c *cfg) { c.Store = (*network)(nil) }},
		{"a store beside a host", "Store", func(c *cfg) { c.Host, c.Namespace = newHost(t, authority.Memory()), "one" }},
		{"a zero host", "Host", func(c *cfg) { c.Store, c.Host, c.Namespace = nil, new(authority.Host), "one" }},
		{"a host without a namespace", "Namespace", func(c *cfg) { c.Store, c.Host = nil, newHost(t, authority.Memory()) }},
		{"a namespace that the host has", "Namespace", func(c *cfg) {
			h := newHost(t, authority.Memory())
			newTenant(t, h, "one")
			c.Store, c.Host, c.Namespace = nil, h, "one"
		}},
		{"no secrets in a host", "Secrets", func(c *cfg) { c.Store, c.Host, c.Namespace, c.Secrets = nil, newHost(t, newNetwork()), "one", nil }},
		{"no secrets", "Secrets", func(c *cfg) { c.Secrets = nil }},
		{"a short secret", "Secrets[1]", func(c *cfg) { c.Secrets = [][]byte{secret(1), secret(2)[:31]} }},
		{"a secret twice", "Secrets[2]", func(c *cfg) { c.Secrets = [][]byte{secret(1), secret(2), secret(1)} }},
		{"a nil seal", "Seal", func(c *cfg) { c.Seal = (*kms)(nil) }},
		{"an algorithm that is not offered", "Algorithm", func(c *cfg) { c.Algorithm = "HS256" }},
		{"a long namespace", "Namespace", func(c *cfg) { c.Namespace = strings.Repeat("n", 257) }},
		{"a namespace with a NUL", "Namespace", func(c *cfg) { c.Namespace = "a\x00b" }},
		{"no load", "Load", func(c *cfg) { c.Load = nil }},
		{"a bare number of TTL", "Limits.TTL", func(c *cfg) { c.Limits.TTL = 300 }},
		{"a bare number of IdleTimeout", "Limits.IdleTimeout", func(c *cfg) { c.Limits.IdleTimeout = 3600 }},
		{"a bare number of MaxSession", "Limits.MaxSession", func(c *cfg) { c.Limits.MaxSession = 86400 }},
		{"a bare number of RefreshIdle", "Limits.RefreshIdle", func(c *cfg) { c.Limits.RefreshIdle = 3600 }},
		{"negative", "Limits.TTL", func(c *cfg) { c.Limits.TTL = -time.Minute }},
		{"parts of a second", "Limits.TTL", func(c *cfg) { c.Limits.TTL = 1500 * time.Millisecond }},
		{"a TTL over IdleTimeout", "Limits.TTL", func(c *cfg) { c.Limits = limit{TTL: 2 * time.Hour, IdleTimeout: time.Hour} }},
		{"an IdleTimeout over MaxSession", "Limits.IdleTimeout", func(c *cfg) { c.Limits.IdleTimeout = 25 * time.Hour }},
		{"a RefreshIdle over MaxSession", "Limits.RefreshIdle", func(c *cfg) { c.Limits.RefreshIdle = 14 * 24 * time.Hour }},
		{"a MaxSession without end", "Limits.MaxSession", func(c *cfg) { c.Limits.MaxSession = 401 * 24 * time.Hour }},
		{"a cookie name with a prefix", "HTTP: sessionhttp: Config.CookieName", func(c *cfg) { c.HTTP.CookieName = "__Host-session" }},
		{"cookies for other sites", "HTTP: sessionhttp: Config.SameSite", func(c *cfg) { c.HTTP.SameSite = http.SameSiteNoneMode }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(newNetwork(), with(secret(1)))
			_, err := authority.New(c)
			require.NoError(t, err)
			tt.change(&c)
			a, err := authority.New(c)
			require.ErrorContains(t, err, "authority: Config."+tt.field)
			require.Nil(t, a)
			for n := range byte(3) {
				require.NotContains(t, err.Error(), string(secret(n)[:31]))
			}
		})
	}
}

// kms is an AEAD of another kind.
type kms struct{ keys.AEAD }

// TestIssuerHasOneSpelling: of two URLs that mean the same, one is refused.
func TestIssuerHasOneSpelling(t *testing.T) {
	for _, good := range []string{
		"https://auth.example", "https://auth.example/tenants/a-1", "https://auth.example:8443", "https://[2001:db8::1]", "https://10.0.0.1/x_y",
		"http://localhost", "http://localhost:8080", "http://app.localhost:8080/a", "http://127.0.0.1:1", "http://[::1]:8080",
	} {
		_, err := authority.New(config(authority.Memory(), func(c *cfg) { c.Issuer = good }))
		require.NoError(t, err, good)
	}
	for name, bad := range map[string]string{
		"no scheme": "auth.example", "another scheme": "ftp://auth.example", "plain http": "http://auth.example", "almost loopback": "http://localhost.example",
		"no host": "https:///a", "opaque": "https:auth.example", "a slash at the end": "https://auth.example/", "after a path": "https://auth.example/a/",
		"capitals in the host": "https://Auth.example", "in the scheme": "HTTPS://auth.example", "default port": "https://auth.example:443",
		"default port of http": "http://localhost:80", "empty port": "https://auth.example:", "user": "https://u:hunter2@auth.example", "query": "https://auth.example?a",
		"empty query": "https://auth.example?", "fragment": "https://auth.example#a", "empty fragment": "https://auth.example#", "two slashes": "https://auth.example//a",
		"dots": "https://auth.example/a/../b", "a dot": "https://auth.example/./a", "escapes": "https://auth.example/%61", "space": "https://auth.example/a b",
		"dot at the end of the host": "https://auth.example.", "not a URL": "https://auth.example/%zz", "NUL": "https://auth.example/\x00", "line": "https://auth.example/\n",
		"long": "https://auth.example/" + strings.Repeat("a", 256), "a zone": "http://[::1%25lo]:8080",
	} {
		_, err := authority.New(config(authority.Memory(), func(c *cfg) { c.Issuer = bad }))
		require.ErrorContains(t, err, "authority: Config.Issuer", name)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// TestWrongWirings: parts that do not belong together let a sign-out revoke
// nothing. Each way to put them together wrongly is either refused by name, or
// there is no field to write it in, and the parts that New makes do belong
// together.
func TestWrongWirings(t *testing.T) {
	other, err := authority.New(config(authority.Memory(), func(c *cfg) { c.Issuer = "https://other.example" }))
	require.NoError(t, err)
	var (
		verifier = func(c *cfg) { c.HTTP.Verifier = other.Verifier() }
		issued   = func(c *cfg) { c.HTTP.Issuer = other.Issuer() }
		manager  = func(c *cfg) { c.HTTP.Refresh = other.Refresh() }
		list     = func(c *cfg) { c.HTTP.Revocations = other.Revocations() }
	)
	of := func(a *authority.Authority[state]) (v sessiontoken.VerifierConfig, i sessiontoken.IssuerConfig, m refresh.Config) {
		return a.Verifier().Config(), a.Issuer().Config(), a.Refresh().Config()
	}
	for _, tt := range []struct {
		name   string
		field  string
		change func(*cfg)
		holds  func(t *testing.T, a *authority.Authority[state])
	}{
		{"verifier without the list", "HTTP.Verifier", verifier, func(t *testing.T, a *authority.Authority[state]) {
			v, _, _ := of(a)
			require.Same(t, a.Revocations(), v.Revocations)
		}},
		{"verifier with another list", "HTTP.Revocations", list, nil},
		{"issuer without the list", "HTTP.Issuer", issued, func(t *testing.T, a *authority.Authority[state]) {
			_, i, _ := of(a)
			require.Same(t, a.Revocations(), i.Revocations)
		}},
		{"issuer with another list", "HTTP.Issuer", func(c *cfg) { issued(c); list(c) }, nil},
		{"neither has it", "HTTP.Verifier", func(c *cfg) { verifier(c); issued(c) }, nil},
		{"sign-out writes to another list", "HTTP.Revocations", list, nil},
		{"verifier of another ring", "HTTP.Verifier", verifier, func(t *testing.T, a *authority.Authority[state]) {
			v, i, _ := of(a)
			require.Same(t, a.Ring(), v.Keys)
			require.Same(t, a.Ring(), i.Keys)
		}},
		{"verifier of another issuer", "Issuer", func(c *cfg) { c.Issuer += "/" }, func(t *testing.T, a *authority.Authority[state]) {
			v, i, _ := of(a)
			require.Equal(t, i.Issuer, v.Issuer)
		}},
		{"verifier of another audience", "HTTP.Verifier", verifier, func(t *testing.T, a *authority.Authority[state]) {
			v, i, _ := of(a)
			require.Equal(t, i.Audience[0], v.Audience)
		}},
		{"tokens that live longer than the verifier takes", "Limits.TTL", func(c *cfg) { c.Limits.TTL = 25 * time.Hour }, func(t *testing.T, a *authority.Authority[state]) {
			v, i, _ := of(a)
			require.GreaterOrEqual(t, v.MaxTTL, i.TTL)
			require.GreaterOrEqual(t, v.MaxBytes, i.MaxBytes)
		}},
		{"refresh manager with another list", "HTTP.Refresh", manager, func(t *testing.T, a *authority.Authority[state]) {
			_, _, m := of(a)
			require.Same(t, a.Revocations(), m.Revocations)
		}},
		{"refresh manager without a list", "HTTP.Refresh", manager, func(t *testing.T, a *authority.Authority[state]) {
			_, _, m := of(a)
			require.False(t, m.InsecureSessionsLiveOn)
		}},
		{"refresh tokens that outlive the session", "Limits.RefreshIdle", func(c *cfg) { c.Limits.RefreshIdle = 25 * time.Hour }, func(t *testing.T, a *authority.Authority[state]) {
			_, i, m := of(a)
			require.Equal(t, i.MaxSession, m.MaxSession)
		}},
		{"a list, or keys, that forget before the session ends", "Limits.MaxSession", func(c *cfg) { c.Limits.MaxSession = 500 * 24 * time.Hour }, func(t *testing.T, a *authority.Authority[state]) {
			_, i, _ := of(a)
			require.Equal(t, i.MaxSession, a.Revocations().RetainFor())
			require.GreaterOrEqual(t, a.Ring().IdentifyFor(), i.MaxSession)
			require.GreaterOrEqual(t, a.Ring().RetainFor(), max(i.IdleTimeout, i.TTL+time.Minute))
		}},
		{"verifier that shares what another one has verified", "Store", func(c *cfg) { c.Host, c.Namespace = newHost(t, authority.Memory()), "one" }, nil},
		{"two tenants of one name", "Namespace", func(c *cfg) {
			h := newHost(t, authority.Memory())
			newTenant(t, h, "one")
			c.Store, c.Host, c.Namespace = nil, h, "one"
		}, nil},
		{"another authority on the state", "HTTP.Load", func(c *cfg) { c.HTTP.Load = load }, nil},
		{"another logger", "HTTP.Logger", func(c *cfg) { c.HTTP.Logger = quiet }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(newNetwork(), with(secret(1)))
			a, err := authority.New(c)
			require.NoError(t, err)
			if tt.holds != nil {
				tt.holds(t, a)
			}
			tt.change(&c)
			_, err = authority.New(c)
			require.ErrorContains(t, err, "authority: Config."+tt.field)
		})
	}
}

// TestTimesFollowFromLimits: with any limits that are accepted, the parts are
// made, and their times fit.
func TestTimesFollowFromLimits(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name         string
		set, becomes limit
	}{
		{"none", limit{}, limit{5 * time.Minute, time.Hour, day, time.Hour}},
		{"a short session", limit{MaxSession: time.Minute}, limit{time.Minute, time.Minute, time.Minute, time.Minute}},
		{"the shortest", limit{time.Second, time.Second, time.Second, time.Second}, limit{time.Second, time.Second, time.Second, time.Second}},
		{"a long token", limit{TTL: 3 * time.Hour}, limit{3 * time.Hour, 3 * time.Hour, day, 3 * time.Hour}},
		{"AAL3", limit{MaxSession: 12 * time.Hour, IdleTimeout: 15 * time.Minute}, limit{5 * time.Minute, 15 * time.Minute, 12 * time.Hour, 15 * time.Minute}},
		{"AAL1", limit{MaxSession: 30 * day, RefreshIdle: 14 * day}, limit{5 * time.Minute, time.Hour, 30 * day, 14 * day}},
		{"the longest", limit{400 * day, 400 * day, 400 * day, 400 * day}, limit{400 * day, 400 * day, 400 * day, 400 * day}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := authority.New(config(authority.Memory(), func(c *cfg) { c.Limits = tt.set }))
			require.NoError(t, err)
			i := a.Issuer().Config()
			require.Equal(t, tt.becomes, limit{i.TTL, i.IdleTimeout, i.MaxSession, a.Refresh().Config().IdleTimeout})
			require.Equal(t, i.MaxSession, a.Revocations().RetainFor())
			require.GreaterOrEqual(t, a.Ring().IdentifyFor(), i.MaxSession)
		})
	}
}

// TestConfigIsCopied: what the caller changes after New changes nothing.
func TestConfigIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, first := newNetwork(), secret(1)
		c := config(store, with(first))
		a, err := authority.New(c)
		require.NoError(t, err)
		c.Audience[0], c.Secrets[0] = "evil", secret(9)
		copy(first, secret(8))
		token, _, err := a.Issuer().Issue(t.Context(), "ada", state{})
		require.NoError(t, err)
		b := newReplica(t, store, with(secret(1)))
		_, err = b.Verifier().Verify(t.Context(), token)
		require.NoError(t, err)
		_, err = b.Ring().SigningKey(t.Context())
		require.NoError(t, err)
	})
}

// TestStoreThatWrapsMemory: a store that wraps one in memory may be shared over
// a network, and is treated as such a one: private keys are sealed, secrets are
// required, and the list asks since when it has lost nothing.
func TestStoreThatWrapsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrapped := struct{ authority.Store }{authority.Memory()}
		_, err := authority.New(config(wrapped))
		require.ErrorContains(t, err, "authority: Config.Secrets")
		a := newReplica(t, wrapped, with(secret(1)))
		_, err = a.Ring().SigningKey(t.Context())
		require.NoError(t, err)
		require.Zero(t, a.Ring().Status().Unsealed)
		stored, err := wrapped.Load(t.Context(), issuer)
		require.NoError(t, err)
		require.Equal(t, 2, bytes.Count(stored.Doc, []byte(`"sealed":true`)))
		_, err = a.Revocations().Now(t.Context())
		require.NoError(t, err)
		require.NotZero(t, a.Revocations().Status().Birth)

		local := newReplica(t, authority.Memory())
		_, err = local.Revocations().Now(t.Context())
		require.NoError(t, err)
		require.Zero(t, local.Revocations().Status().Birth)
		_, err = local.Ring().SigningKey(t.Context())
		require.NoError(t, err)
		require.Zero(t, local.Ring().Status().Unsealed)
	})
}

// TestNewDoesNoIO: not even with a store that cannot be called.
func TestNewDoesNoIO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		_, err := authority.New(config(struct{ authority.Store }{}, with(secret(1))))
		require.NoError(t, err)
	})
}

// TestSeal: an AEAD of the caller's seals the keys, and the secrets do not.
func TestSeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		aead, err := keys.NewAESGCM(secret(7))
		require.NoError(t, err)
		store := newNetwork()
		sealed := func(c *cfg) { c.Seal = &kms{aead} }
		_, err = newReplica(t, store, with(secret(1)), sealed).Ring().SigningKey(t.Context())
		require.NoError(t, err)
		_, err = newReplica(t, store, with(secret(2)), sealed).Ring().SigningKey(t.Context())
		require.NoError(t, err)
		_, err = newReplica(t, store, with(secret(1))).Ring().SigningKey(t.Context())
		require.ErrorIs(t, err, keys.ErrUnseal)
	})
}
