package authority_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
)

const hiddenMail = "ada.lovelace@example.com"

type sealedState struct {
	Role string
	Mail sessiontoken.Sealed[string]
}

// newSealed returns an authority of states with a sealed field, and a site that
// signs in and shows it.
func newSealed(t *testing.T, store authority.Store, log *slog.Logger, secrets ...[]byte) (*authority.Authority[sealedState], http.Handler) {
	t.Helper()
	current := sealedState{"admin", sessiontoken.Seal(hiddenMail)}
	a, err := authority.New(authority.Config[sealedState]{
		Issuer: issuer, Audience: []string{"site"}, Store: store, Secrets: secrets, Algorithm: keys.EdDSA, Logger: log,
		Load: func(_ context.Context, old *sessiontoken.Claims[sealedState]) (sealedState, error) {
			if mail, err := old.State.Mail.Open(); err != nil || mail != hiddenMail {
				return sealedState{}, errDown
			}
			return current, nil
		},
	})
	require.NoError(t, err)
	mux, s := http.NewServeMux(), a.Sessions()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		_, err := s.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, current)
		require.NoError(t, err)
	})
	mux.HandleFunc("POST /renew", func(w http.ResponseWriter, r *http.Request) {
		_, err := s.Renew(w, r)
		require.NoError(t, err)
	})
	mux.Handle("GET /page", s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		mail, err := c.State.Mail.Open()
		require.NoError(t, err)
		_, _ = w.Write([]byte(mail))
	})))
	return a, mux
}

// TestSealedStateIsRotatedWithSecrets: the secrets are replaced as Config.Secrets
// says, with replicas half-way at each step. Each replica opens the state of each
// other, and renews its cookies. Nothing of a sealed field is in a header or in
// the log.
func TestSealedStateIsRotatedWithSecrets(t *testing.T) {
	a, b := secret(1), secret(2)
	steps := [][][]byte{{a}, {a, b}, {b, a}}
	var text lockedBuffer
	log := slog.New(slog.NewJSONHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for i := range steps[1:] {
		for _, pair := range [][2]int{{i, i}, {i, i + 1}, {i + 1, i}, {i + 1, i + 1}} {
			store := authority.Memory()
			_, writer := newSealed(t, store, log, steps[pair[0]]...)
			readers, reader := newSealed(t, store, log, steps[pair[1]]...)
			do := func(site http.Handler, method, path string, cookies []*http.Cookie) *http.Response {
				req := httptest.NewRequestWithContext(t.Context(), method, issuer+path, nil)
				for _, c := range cookies {
					req.AddCookie(c)
				}
				w := httptest.NewRecorder()
				site.ServeHTTP(w, req)
				require.Equal(t, 200, w.Code)
				for _, values := range w.Result().Header {
					for _, v := range values {
						require.NotContains(t, v, hiddenMail)
					}
				}
				if path == "/page" {
					require.Equal(t, hiddenMail, w.Body.String())
				}
				return w.Result()
			}
			cookies := do(writer, "POST", "/sign-in", nil).Cookies()
			do(reader, "GET", "/page", cookies)
			renewed := do(reader, "POST", "/renew", cookies).Cookies()
			do(writer, "GET", "/page", renewed)
			do(writer, "POST", "/renew", renewed)
			old := 0.0
			if steps[pair[0]][0][0] != steps[pair[1]][0][0] {
				old = 1
			}
			require.Equal(t, old, readers.Metrics()["state_old_secret_total"])
		}
	}
	require.NotContains(t, text.String(), hiddenMail)
}

// TestSealedStateOfAnotherServer: an API opens a sealed field with what
// StateSecrets returns, or leaves it. Without either it is told at construction.
func TestSealedStateOfAnotherServer(t *testing.T) {
	a, _ := newSealed(t, authority.Memory(), quiet, secret(1), secret(2))
	a.StateSecrets()[0][0]++ // the caller's own
	server := &http.Client{Transport: transport(func(r *http.Request) *http.Response {
		in := r.Clone(r.Context())
		in.TLS, in.Host = new(tls.ConnectionState), r.URL.Host
		w := httptest.NewRecorder()
		a.WellKnown().ServeHTTP(w, in)
		return w.Result()
	})}
	token, _, err := a.Issuer().Issue(t.Context(), "ada", sealedState{"admin", sessiontoken.Seal(hiddenMail)})
	require.NoError(t, err)
	for _, tt := range []struct {
		name    string
		secrets [][]byte
		leave   bool
		mail    string
		err     error
	}{
		{"opens", a.StateSecrets(), false, hiddenMail, nil},
		{"leaves", nil, true, "", sessiontoken.ErrSealed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := remote.New[sealedState](remote.Config{Issuer: issuer, Audience: "site", Client: server, Logger: quiet, StateSecrets: tt.secrets, LeaveSealed: tt.leave})
			require.NoError(t, err)
			c, err := r.Verifier().Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, "admin", c.State.Role)
			mail, err := c.State.Mail.Open()
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.mail, mail)
		})
	}
	_, err = remote.New[sealedState](remote.Config{Issuer: issuer, Audience: "site", Client: server, Logger: quiet})
	require.ErrorContains(t, err, "StateSecrets is required, since State.Mail of authority_test.sealedState is a Sealed")
	// The secrets of the state are neither those of the configuration nor those of
	// another issuer.
	require.NotContains(t, a.StateSecrets(), secret(1))
	other, err := authority.New(authority.Config[sealedState]{
		Issuer: "https://other.example", Audience: []string{"site"}, Store: authority.Memory(), Secrets: [][]byte{secret(1)}, Logger: quiet,
		Load: func(context.Context, *sessiontoken.Claims[sealedState]) (sealedState, error) {
			return sealedState{}, nil
		},
	})
	require.NoError(t, err)
	require.NotContains(t, a.StateSecrets(), other.StateSecrets()[0])
}

// lockedBuffer is for a log that goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// transport answers requests in memory.
type transport func(*http.Request) *http.Response

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }
