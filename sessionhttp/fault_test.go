package sessionhttp_test

import (
	"bytes"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// What can never succeed is 500, told and counted; each 5xx and 403 is one log
// line a reason and minute, with the reason and what to do, and with nothing of a
// token.
func TestFailingIsLoud(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		var log bytes.Buffer
		r := s.month(func(p *parts) {
			before := p.http
			p.http = func(c *sessionhttp.Config[state]) {
				before(c)
				c.OnRefused = nil
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			}
		})
		api := s.replica(func(c *sessionhttp.Config[state]) {
			c.Issuer, c.Load, c.Revocations, c.Refresh = nil, nil, nil, nil
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		b := r.browse(t)
		r.mux.HandleFunc("/latin1", func(w http.ResponseWriter, req *http.Request) {
			if _, err := r.SignIn(w, req, ada, state{Name: "Andr\xe9"}); err != nil {
				r.Refuse(w, req, err)
			}
		})
		for _, tt := range []struct {
			name, reason string
			status       int
			do           func() *http.Response
		}{
			{"another origin", "cross_origin", 403, func() *http.Response { return r.send(b, "POST", "/who", "Sec-Fetch-Site", "cross-site") }},
			{"plain http", "insecure", 403, func() *http.Response {
				req := b.request("POST", "/in")
				req.TLS = nil
				return r.do(req)
			}},
			{"a state over its budget", "too_large", 500, func() *http.Response {
				s.big.Store(20_000)
				defer s.big.Store(0)
				return r.send(b, "POST", "/in")
			}},
			{"a cookie over 4096 B", "too_large", 500, func() *http.Response {
				s.big.Store(2800)
				defer s.big.Store(0)
				return r.send(b, "POST", "/in")
			}},
			{"a name in Latin-1", "state_unwritable", 500, func() *http.Response { return r.send(b, "POST", "/latin1") }},
			{"no issuer", "not_configured", 500, func() *http.Response { return api.send(b, "POST", "/in") }},
			{"Load fails", "cannot_tell", 503, func() *http.Response {
				s.fail(errDown)
				defer s.fail(nil)
				return r.send(b, "POST", "/session/refresh")
			}},
			{"Load hangs", "late", 503, func() *http.Response {
				s.slow.Store(int64(time.Minute))
				defer s.slow.Store(0)
				return r.send(b, "POST", "/session/refresh")
			}},
			{"an owed revocation", "revocation_owed", 503, func() *http.Response {
				left := r.browse(t)
				s.revoked.down.Store(true)
				defer s.revoked.down.Store(false)
				r.send(left, "POST", "/out")
				return r.send(left, "POST", "/out")
			}},
		} {
			log.Reset()
			which := r
			if tt.name == "no issuer" {
				which = api
			}
			before := which.Metrics()
			resp := tt.do()
			require.Equal(t, tt.status, resp.StatusCode, tt.name)
			require.Equal(t, tt.status == 503, resp.Header.Get("Retry-After") != "", tt.name)
			after := which.Metrics()
			metric := "sessionhttp_refused_" + tt.reason + "_total"
			require.Greater(t, after[metric], before[metric], tt.name)
			require.Equal(t, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
			if tt.name != "a cookie over 4096 B" { // within the minute of the one before
				require.Equal(t, 1, strings.Count(log.String(), "reason="+tt.reason), "%s: %s", tt.name, log.String())
			}
			for _, secret := range []string{b.session, b.refresh, b.binder} {
				require.NotContains(t, log.String(), secret[:20])
			}
			for range 20 {
				tt.do()
			}
			require.LessOrEqual(t, strings.Count(log.String(), "reason="+tt.reason), 3, tt.name)
			time.Sleep(10 * time.Minute)
		}
	})
}

// A renewal that fails in the background is told, though no user notices.
func TestFailedRenewalIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		var log bytes.Buffer
		r := s.replica(func(c *sessionhttp.Config[state]) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		cookie := r.signIn(t)
		time.Sleep(3 * time.Minute)
		s.fail(errDown)
		require.Equal(t, 200, r.status(request("GET", "/who", cookie)))
		require.Contains(t, log.String(), "reason=renewal_failed")
		require.EqualValues(t, 1, r.Metrics()["sessionhttp_renewal_failures_total"])
		require.Zero(t, r.Metrics()["sessionhttp_refused_cannot_tell_total"], "no request was refused")
	})
}
