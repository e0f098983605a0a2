package sessionhttp_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Where it is not known when the user signed in, the sign-in is not fresh.
func TestRequireFreshWithoutAuthTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		begin := func(auth time.Time) string {
			token, _, err := r.issuer.Begin(t.Context(), sessiontoken.Start{Subject: "ada", AuthTime: auth, Renewal: sessiontoken.Renewable}, state{})
			require.NoError(t, err)
			return token
		}
		require.Equal(t, 200, r.status(request("POST", "/pay", begin(time.Now()))))
		unknown := begin(time.Time{})
		for _, req := range [][]string{{unknown}, {"", "Authorization", "Bearer " + unknown}} {
			resp := r.do(request("POST", "/pay", req[0], req[1:]...))
			require.Equal(t, 401, resp.StatusCode)
			require.Contains(t, resp.Header.Get("WWW-Authenticate"), "insufficient_user_authentication")
			require.Error(t, r.lastRefusal())
			require.Equal(t, 200, r.status(request("GET", "/who", req[0], req[1:]...)), "it is good for the rest")
		}
	})
}

// A refresh gives Load what belongs to the session and not to the user, and the
// new token says it; a browser's cookie and a native client's answer alike.
func TestRefreshKeepsWhatBelongsToTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var loaded []sessiontoken.Claims[state]
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) {
			c.Load = func(_ context.Context, old *sessiontoken.Claims[state]) (state, error) {
				loaded = append(loaded, *old)
				return state{Name: string(old.Context())}, nil
			}
		})
		_, admin, err := r.issuer.Begin(t.Context(), sessiontoken.Start{Subject: "admin"}, state{})
		require.NoError(t, err)
		_, c, err := r.issuer.Begin(t.Context(), sessiontoken.Start{
			Subject: "ada", AuthTime: time.Now().Add(-time.Hour), ACR: "aal2", AMR: []string{"pwd", "otp"}, Context: []byte("tenant 7"),
			Actor:  &sessiontoken.Actor{Subject: "admin", SessionID: admin.SessionID, Began: admin.Began},
			Groups: []sessiontoken.Group{sessiontoken.GroupOf("sid", "i", "1")},
		}, state{})
		require.NoError(t, err)
		token, _, err := r.manager.Start(t.Context(), refresh.Family{
			Subject: "ada", SessionID: c.SessionID, ClientID: "app", Began: c.Began, AuthTime: c.AuthTime, ACR: c.ACR(), AMR: c.AMR(), Context: c.Context(),
			ActorSubject: "admin", ActorSessionID: admin.SessionID, ActorBegan: admin.Began,
		}, "")
		require.NoError(t, err)
		for range 5 {
			time.Sleep(10 * time.Minute)
			resp := r.do(refreshRequest(grant(token)))
			require.Equal(t, 200, resp.StatusCode)
			tokens := tokensIn(t, resp)
			token = tokens.RefreshToken
			old := loaded[len(loaded)-1]
			require.Equal(t, []any{"https://a.example", "ada", "", c.SessionID, "", c.Began, c.AuthTime, time.Time{}, time.Time{}, false, state{}},
				[]any{old.Issuer, old.Subject, old.TokenID, old.SessionID, old.KeyID, old.Began, old.AuthTime, old.IssuedAt, old.Expires, old.Renewable, old.State})
			require.Equal(t, []any{"aal2", []string{"pwd", "otp"}, c.Actor(), []byte("tenant 7")}, []any{old.ACR(), old.AMR(), old.Actor(), old.Context()})
			read, err := r.verifier.Verify(t.Context(), tokens.AccessToken)
			require.NoError(t, err)
			require.Equal(t, []any{c.SessionID, c.Began, c.AuthTime, "aal2", []string{"pwd", "otp"}, c.Actor()},
				[]any{read.SessionID, read.Began, read.AuthTime, read.ACR(), read.AMR(), read.Actor()})
			require.Equal(t, "tenant 7", read.State.Name, "Load decides what of the context is in the state")
		}
		require.Len(t, loaded, 5)

		// The end of the group ends all of it.
		require.NoError(t, r.list.RevokeGroup(t.Context(), strings.Split(c.SessionID, ".")[0]))
		resp := r.do(refreshRequest(grant(token)))
		require.Equal(t, 400, resp.StatusCode)
		require.JSONEq(t, `{"error":"invalid_grant"}`, body(t, resp))
		require.Len(t, loaded, 5)
	})
}

// A sign-in tells when it was, by cookie and native, and a refresh does not make
// it later.
func TestAuthTimeOfASignIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).month()
		at := time.Now().UTC()
		b, tokens := r.browse(t), r.native(t)
		for range 3 {
			for _, token := range []string{b.session, tokens.AccessToken} {
				c, err := r.verifier.Verify(t.Context(), token)
				require.NoError(t, err)
				require.Equal(t, at, c.AuthTime)
			}
			time.Sleep(time.Hour)
			require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
			tokens = tokensIn(t, r.do(refreshRequest(grant(tokens.RefreshToken))))
		}
	})
}

// TestRequireACR: a session whose user has proven who they are in one of the
// ways that the handler names passes. Every other one is told which they are, by
// cookie and as Bearer token, and is good for the rest.
func TestRequireACR(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		values := []string{"aal3", "urn:example:acr:2"}
		r.mux.Handle("POST /admin", r.RequireACR(values, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		values[1] = "aal1" // the handler has the values as they were
		begin := func(subject, acr string) string {
			token, _, err := r.issuer.Begin(t.Context(), sessiontoken.Start{Subject: subject, ACR: acr, AuthTime: time.Now(), Renewal: sessiontoken.Renewable}, state{})
			require.NoError(t, err)
			return token
		}
		const challenge = `Bearer error="insufficient_user_authentication", error_description="sign in in another way", acr_values="aal3 urn:example:acr:2"`
		for _, tt := range []struct {
			name, subject, acr string
			want               int
		}{
			{"the preferred one", "ada", "aal3", 200},
			{"another one", "ada", "urn:example:acr:2", 200},
			{"none", "ada", "", 401},
			{"one that is not asked for", "ada", "aal1", 401},
			{"another case", "ada", "AAL3", 401},
			{"the beginning of one", "ada", "urn:example:acr", 401},
			{"all of them as one", "ada", "aal3 urn:example:acr:2", 401},
			{"an anonymous session", "anonymous:AAAAAAAAAAAAAAAAAAAAAAAAAA", "aal3", 401},
		} {
			token := begin(tt.subject, tt.acr)
			for _, credential := range [][]string{{token}, {"", "Authorization", "Bearer " + token}} {
				resp := r.do(request("POST", "/admin", credential[0], credential[1:]...))
				require.Equal(t, tt.want, resp.StatusCode, tt.name)
				if tt.want == 401 {
					require.Equal(t, challenge, resp.Header.Get("WWW-Authenticate"), tt.name)
					require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
					require.Empty(t, resp.Cookies(), tt.name+": the session is not over")
					require.Error(t, r.lastRefusal())
				}
				require.Equal(t, 200, r.status(request("GET", "/who", credential[0], credential[1:]...)), tt.name+": it is good for the rest")
			}
		}
		resp := r.do(request("POST", "/admin", ""))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, "Bearer", resp.Header.Get("WWW-Authenticate"), "no session is no weak one")
		require.Equal(t, 403, r.status(request("POST", "/admin", begin("ada", "aal3"), "Sec-Fetch-Site", "cross-site")))
	})
}

// TestACRValues: RequireACR panics at what no session can have or no parameter
// can say. What it takes is read back from the challenge unchanged.
func TestACRValues(t *testing.T) {
	r := newSite(t).replica()
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for name, values := range map[string][]string{
		"nil": nil, "empty": {}, "an empty one": {"aal2", ""}, "a space": {"a b"}, "a quote": {`a", max_age="0`}, "a backslash": {`a\`},
		"a line": {"a\r\nX: y"}, "a tab": {"a\tb"}, "DEL": {"a\x7f"}, "NUL": {"a\x00"}, "not ASCII": {"ä"}, "not UTF-8": {"\xff"}, "65 bytes": {strings.Repeat("a", 65)},
	} {
		require.Panics(t, func() { r.RequireACR(values, next) }, name)
	}
	var all []byte
	for b := byte('!'); b < 0x7f; b++ {
		if b != '"' && b != '\\' {
			all = append(all, b)
		}
	}
	token, _, err := r.issuer.Begin(t.Context(), sessiontoken.Start{Subject: "ada", Renewal: sessiontoken.Renewable}, state{})
	require.NoError(t, err)
	values := []string{string(all[:50]), string(all[50:]), strings.Repeat("a", 64)}
	r.mux.Handle("POST /admin", r.RequireACR(values, next))
	challenge := r.do(request("POST", "/admin", token)).Header.Get("WWW-Authenticate")
	_, quoted, ok := strings.Cut(challenge, ` acr_values="`)
	require.True(t, ok)
	require.Equal(t, values, strings.Split(strings.TrimSuffix(quoted, `"`), " "))
}
