package sessionhttp_test

import (
	"context"
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
