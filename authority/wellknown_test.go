package authority_test

import (
	"testing"
	"testing/synctest"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
)

// TestWellKnown: the documents are where the issuer's URL says, and nowhere
// else.
func TestWellKnown(t *testing.T) {
	for _, tt := range []struct {
		name, issuer           string
		jwks, discovery, oauth string
		absent                 []string
	}{
		{
			"no path", "https://auth.example",
			"/.well-known/jwks.json", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server",
			[]string{"/", "/.well-known/", "/.well-known/jwks.json/", "/a/.well-known/jwks.json", "/.well-known/other"},
		},
		{
			"a path", "https://auth.example/tenants/a",
			"/tenants/a/.well-known/jwks.json", "/tenants/a/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/tenants/a",
			[]string{"/.well-known/jwks.json", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/tenants/b/.well-known/jwks.json"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newReplica(t, authority.Memory(), func(c *cfg) { c.Issuer = tt.issuer })
				set, err := keys.ParseSet([]byte(body(t, a.do(request("GET", tt.jwks)))))
				require.NoError(t, err)
				require.Len(t, set.Keys(), 2)
				for _, path := range []string{tt.discovery, tt.oauth} {
					resp := a.do(request("GET", path))
					require.Equal(t, 200, resp.StatusCode, path)
					var doc struct {
						Issuer string `json:"issuer"`
						JWKS   string `json:"jwks_uri"`
					}
					require.NoError(t, json.Unmarshal([]byte(body(t, resp)), &doc))
					require.Equal(t, tt.issuer, doc.Issuer)
					require.Equal(t, "https://auth.example"+tt.jwks, doc.JWKS)
				}
				for _, path := range tt.absent {
					require.Equal(t, 404, a.status(request("GET", path)), path)
				}
				require.Equal(t, 405, a.status(request("POST", tt.jwks)))
			})
		})
	}
}

// TestWellKnownOverPlainHTTP: the keys go over plain http to this host alone,
// unless a proxy in front takes requests over https.
func TestWellKnownOverPlainHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name   string
			change func(*cfg)
			peer   string
			want   int
		}{
			{"another host", func(*cfg) {}, "192.0.2.1:1", 403},
			{"this host", func(*cfg) {}, "127.0.0.1:1", 200},
			{"a loopback issuer, another host", func(c *cfg) { c.Issuer = "http://localhost:8080" }, "192.0.2.1:1", 403},
			{"a loopback issuer, this host", func(c *cfg) { c.Issuer = "http://localhost:8080" }, "[::1]:1", 200},
			{"behind a proxy", func(c *cfg) { c.HTTP.TLSInFront = true }, "192.0.2.1:1", 200},
		} {
			a := newReplica(t, authority.Memory(), tt.change)
			req := request("GET", "/.well-known/jwks.json")
			req.TLS, req.RemoteAddr = nil, tt.peer
			require.Equal(t, tt.want, a.status(req), tt.name)
		}
	})
}
