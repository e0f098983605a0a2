package oauth2client_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/oauth2client"
	"github.com/sessiontoken/sessiontoken/sessionclient"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type state struct{}

// newServer is a site whose token endpoint also takes a code, as x/oauth2 sends
// it. It counts refresh tokens.
func newServer(t *testing.T) (server *httptest.Server, refreshes *atomic.Int64) {
	t.Helper()
	a, err := authority.New(authority.Config[state]{
		Issuer: "https://id.example", Audience: []string{"api"}, Store: authority.Memory(),
		Load:   func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{}, nil },
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	s, mux := a.Sessions(), http.NewServeMux()
	refreshes = new(atomic.Int64)
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("code") == "" {
			refreshes.Add(1)
			s.RefreshHandler().ServeHTTP(w, r)
			return
		}
		tokens, err := s.SignInNative(r, sessionhttp.Device{ClientID: "app"}, sessiontoken.Start{Subject: "ada"}, state{})
		if err != nil {
			s.Refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(tokens)
	})
	mux.Handle("/api", s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		_, _ = io.WriteString(w, c.Subject)
	})))
	server = httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server, refreshes
}

// TestBothWays: x/oauth2 gets a token by a code, a client adopts it and renews
// it, and an http.Client of x/oauth2 sends the client's tokens.
func TestBothWays(t *testing.T) {
	server, refreshes := newServer(t)
	keeper, err := sessionclient.File(filepath.Join(t.TempDir(), "session"))
	require.NoError(t, err)
	c, err := sessionclient.New(sessionclient.Config{TokenURL: server.URL + "/token", ClientID: "app", Origins: []string{server.URL}, Keeper: keeper})
	require.NoError(t, err)

	cfg := oauth2.Config{ClientID: "app", Endpoint: oauth2.Endpoint{TokenURL: server.URL + "/token", AuthStyle: oauth2.AuthStyleInParams}}
	token, err := cfg.Exchange(t.Context(), "code")
	require.NoError(t, err)
	for n, change := range []func(*oauth2.Token){
		func(*oauth2.Token) {},
		func(t *oauth2.Token) { t.Expiry = t.Expiry.AddDate(0, 0, -1) },
	} {
		change(token)
		require.NoError(t, oauth2client.Adopt(t.Context(), c, token))
		source := oauth2client.Source{Client: c}
		resp, err := oauth2.NewClient(t.Context(), source).Get(server.URL + "/api")
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "ada", string(body))
		require.Equal(t, int64(n), refreshes.Load())
		got, err := source.Token()
		require.NoError(t, err)
		require.True(t, got.Valid())
		require.Empty(t, got.RefreshToken)
	}
}
