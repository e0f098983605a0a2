package sessionhttp_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// handedOut is all that a site hands out to one browser and one native client.
type handedOut struct {
	browser *browser
	access  string
	refresh string
}

// credentials are what can be presented, by name, with whose session it is.
var credentials = []struct {
	name  string
	whose int
	value func(h *handedOut) string
}{
	{"cookie token", 0, func(h *handedOut) string { return h.browser.session }},
	{"access token", 1, func(h *handedOut) string { return h.access }},
	{"native refresh token", 1, func(h *handedOut) string { return h.refresh }},
	{"browser's refresh token", 0, func(h *handedOut) string { return h.browser.refresh }},
	{"binder", 0, func(h *handedOut) string { return h.browser.binder }},
}

// places are where something can be presented. Each returns the status.
var places = []struct {
	name string
	send func(r *replica, h *handedOut, v string) int
}{
	{"session cookie", func(r *replica, _ *handedOut, v string) int { return r.status(request("GET", "/who", v)) }},
	{"Authorization", func(r *replica, _ *handedOut, v string) int {
		return r.status(request("GET", "/who", "", bearer(v)...))
	}},
	{"binder cookie", func(r *replica, _ *handedOut, v string) int {
		return r.status((&browser{binder: v}).request("GET", "/who"))
	}},
	{"refresh form", func(r *replica, _ *handedOut, v string) int { return r.status(refreshRequest(grant(v))) }},
	{"refresh form without a client", func(r *replica, _ *handedOut, v string) int {
		return r.status(refreshRequest(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {v}}))
	}},
	{"refresh cookie beside the binder", func(r *replica, h *handedOut, v string) int {
		return r.status((&browser{refresh: v, binder: h.browser.binder}).request("POST", "/session/refresh"))
	}},
	{"refresh cookie alone", func(r *replica, _ *handedOut, v string) int {
		return r.status((&browser{refresh: v}).request("POST", "/session/refresh"))
	}},
	{"refresh cookie beside itself", func(r *replica, _ *handedOut, v string) int {
		return r.status((&browser{refresh: v, binder: v}).request("POST", "/session/refresh"))
	}},
	{"revoke", func(r *replica, _ *handedOut, v string) int {
		return r.status(formRequest("/revoke", url.Values{"token": {v}, "client_id": {"app"}}))
	}},
	{"sign-out by session cookie", func(r *replica, _ *handedOut, v string) int { return r.status(request("POST", "/out", v)) }},
	{"sign-out by Authorization", func(r *replica, _ *handedOut, v string) int {
		return r.status(request("POST", "/out", "", bearer(v)...))
	}},
	{"sign-out by refresh cookie beside the binder", func(r *replica, h *handedOut, v string) int {
		return r.status((&browser{refresh: v, binder: h.browser.binder}).request("POST", "/session/out"))
	}},
	{"sign-out by refresh cookie alone", func(r *replica, _ *handedOut, v string) int {
		return r.status((&browser{refresh: v}).request("POST", "/session/out"))
	}},
	{"everywhere by session cookie", func(r *replica, _ *handedOut, v string) int { return r.status(request("POST", "/everywhere", v)) }},
	{"everywhere by Authorization", func(r *replica, _ *handedOut, v string) int {
		return r.status(request("POST", "/everywhere", "", bearer(v)...))
	}},
	{"everywhere by refresh cookie beside the binder", func(r *replica, h *handedOut, v string) int {
		return r.status((&browser{refresh: v, binder: h.browser.binder}).request("POST", "/session/everywhere"))
	}},
	{"everywhere by refresh cookie alone", func(r *replica, _ *handedOut, v string) int {
		return r.status((&browser{refresh: v}).request("POST", "/session/everywhere"))
	}},
}

// accepts are the cells that are meant to accept: "in" lets the request act for
// the session, "out" revokes it. All other cells do neither.
var accepts = map[string]map[string]string{
	"cookie token": {
		"session cookie": "in", "Authorization": "in",
		"revoke": "out", "sign-out by session cookie": "out", "sign-out by Authorization": "out",
		"everywhere by session cookie": "out", "everywhere by Authorization": "out",
	},
	"access token": {
		"Authorization": "in",
		"revoke":        "out", "sign-out by session cookie": "out", "sign-out by Authorization": "out",
		"everywhere by Authorization": "out",
	},
	"native refresh token": {"refresh form": "in", "revoke": "out"},
	"browser's refresh token": {
		"refresh cookie beside the binder":               "in",
		"sign-out by refresh cookie beside the binder":   "out",
		"everywhere by refresh cookie beside the binder": "out",
	},
}

// Everything that the library hands out, presented at every place that takes
// something, before and after its end: only the cells that are meant to accept
// do.
func TestEveryCredentialAtEveryPlace(t *testing.T) {
	ends := []struct {
		name string
		end  func(t *testing.T, r *replica, h *handedOut)
		dead func(credential, cell string) bool // a cell that accepts no more
	}{
		{"before its end", func(*testing.T, *replica, *handedOut) {}, func(string, string) bool { return false }},
		{"expired", func(*testing.T, *replica, *handedOut) { time.Sleep(90 * time.Minute) }, func(credential, cell string) bool {
			// What revokes its own session alone does so for as long as that can live.
			return (credential == "cookie token" || credential == "access token") && !(cell == "revoke" || cell == "sign-out by session cookie" || cell == "sign-out by Authorization")
		}},
		{"signed out", func(t *testing.T, r *replica, h *handedOut) {
			require.Equal(t, 200, r.status(h.browser.request("POST", "/session/out")))
			require.Equal(t, 200, r.status(request("POST", "/out", "", bearer(h.access)...)))
		}, func(string, string) bool { return true }},
		{"signed out everywhere", func(t *testing.T, r *replica, _ *handedOut) {
			require.NoError(t, r.list.RevokeSubject(t.Context(), "ada"))
		}, func(string, string) bool { return true }},
		{"at the end of the session", func(*testing.T, *replica, *handedOut) { time.Sleep(31 * 24 * time.Hour) }, func(_, cell string) bool {
			return cell != "revoke" && cell != "sign-out by session cookie" && cell != "sign-out by Authorization"
		}},
	}
	for _, end := range ends {
		for _, c := range credentials {
			for _, p := range places {
				bubble(t, func(t *testing.T) {
					cell := end.name + ": " + c.name + " at " + p.name
					s := newSite(t)
					r, other := s.month(), s.month()
					tokens := r.native(t)
					h := &handedOut{browser: r.browse(t), access: tokens.AccessToken, refresh: tokens.RefreshToken}
					alive := func() (alive [2]bool) { // as another replica has it
						list, err := other.manager.List(t.Context(), "ada")
						require.NoError(t, err)
						for _, f := range list {
							if f.Label == "phone" {
								alive[1] = true
							} else {
								alive[0] = true
							}
						}
						return alive
					}
					end.end(t, r, h)
					before := alive()
					status := p.send(r, h, c.value(h))
					time.Sleep(time.Minute)
					after := alive()

					want := accepts[c.name][p.name]
					if end.dead(c.name, p.name) {
						want = ""
					}
					in := status == 200 || status == 204
					if isIn := p.name == "session cookie" || p.name == "Authorization" || p.name == "binder cookie" ||
						len(p.name) > 7 && p.name[:7] == "refresh"; isIn {
						require.Equal(t, want == "in", in, "%s: %d", cell, status)
						require.Equal(t, before, after, cell)
						return
					}
					if want == "out" && before[c.whose] {
						require.True(t, in, "%s: %d", cell, status)
						require.False(t, after[c.whose], cell)
						return
					}
					require.Equal(t, before, after, "%s revokes nothing: %d", cell, status)
				})
			}
		}
	}
}
