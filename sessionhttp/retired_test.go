package sessionhttp_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// A token of a key that has retired still signs its session out, for as long as
// that can live. A ring that would not know the key by then is refused.
func TestSignOutWithARetiredKey(t *testing.T) {
	const month = 30 * 24 * time.Hour
	bubble(t, func(t *testing.T) {
		for _, identify := range []time.Duration{0, month - 1, month} {
			s := newSite(t)
			ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), RotateEvery: 2 * 24 * time.Hour, IdentifyFor: identify, Logger: quiet})
			require.NoError(t, err)
			list, err := revoke.NewList(revoke.Config{Store: &s.revoked, MaxSession: month, Logger: quiet})
			require.NoError(t, err)
			verifier, err := sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: "https://a.example", Audience: "web", Keys: ring, Revocations: list})
			require.NoError(t, err)
			issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"web"}, Keys: ring, Revocations: list, MaxSession: month})
			require.NoError(t, err)
			manager, err := refresh.NewManager(refresh.Config{Store: &s.families, Secrets: [][]byte{make([]byte, 32)}, Revocations: list, MaxSession: month, IdleTimeout: month / 2, Logger: quiet})
			require.NoError(t, err)
			sessions, err := sessionhttp.New(sessionhttp.Config[state]{Verifier: verifier, Issuer: issuer, Load: s.load, Revocations: list, Refresh: manager, Logger: quiet})
			if identify < month {
				require.ErrorContains(t, err, "RingConfig.IdentifyFor")
				continue
			}
			require.NoError(t, err)
			r := &replica{Sessions: sessions, list: list, issuer: issuer, manager: manager, mux: http.NewServeMux()}
			r.routes(s)
			old := r.native(t)
			now := old
			for range 20 {
				time.Sleep(24 * time.Hour)
				now = tokensIn(t, r.do(refreshRequest(grant(now.RefreshToken))))
			}
			require.Equal(t, 200, r.status(request("GET", "/who", "", bearer(now.AccessToken)...)))
			require.Equal(t, 200, r.status(request("POST", "/out", "", bearer(old.AccessToken)...)))
			require.Equal(t, 401, r.status(request("GET", "/who", "", bearer(now.AccessToken)...)))
			require.Equal(t, 400, r.status(refreshRequest(grant(now.RefreshToken))))
		}
	})
}
