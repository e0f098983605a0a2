package sessionhttp_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// signsIn mounts a sign-in with options.
func (r *replica) signsIn(path string, start sessiontoken.Start, options ...sessionhttp.SignInOption) {
	h := func(w http.ResponseWriter, req *http.Request) {
		if _, err := r.SignIn(w, req, start, state{Name: "Ada"}, options...); err != nil {
			r.Refuse(w, req, err)
		}
	}
	r.mux.HandleFunc(path, h)
	r.mux.HandleFunc("/session"+path, h)
}

// ages returns the Max-Age of each cookie that an answer sets, 0 for none.
func ages(t testing.TB, resp *http.Response) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, c := range resp.Cookies() {
		require.NotContains(t, all, c.Name, "set once")
		all[c.Name] = c.MaxAge
	}
	return all
}

// How long the browser keeps the cookies of one sign-in is how long it keeps those
// that follow: after a renewal on the way, a renewal on demand, an update, a refresh.
func TestRemember(t *testing.T) {
	const hour, month = 3600, 30 * 24 * 3600
	for _, tt := range []struct {
		name    string
		options []sessionhttp.SignInOption
		session int // Max-Age
		refresh int
		suffix  string
	}{
		{"untold", nil, 0, month, ""},
		{"remembered", []sessionhttp.SignInOption{sessionhttp.Remember(true)}, hour, month, "~r"},
		{"forgotten", []sessionhttp.SignInOption{sessionhttp.Remember(false)}, 0, 0, "~f"},
		{"the last one counts", []sessionhttp.SignInOption{sessionhttp.Remember(true), {}, sessionhttp.Remember(false)}, 0, 0, "~f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newSite(t).month()
				r.signsIn("/come", ada, tt.options...)
				r.mux.HandleFunc("/change", func(w http.ResponseWriter, req *http.Request) {
					_, err := r.Update(w, req, func(*state) error { return nil })
					require.NoError(t, err)
				})
				b := new(browser)
				resp := r.send(b, "POST", "/session/come")
				require.Equal(t, map[string]int{name: tt.session, refreshName: tt.refresh, binderName: tt.refresh}, ages(t, resp))
				binder := b.binder
				require.True(t, strings.HasSuffix(binder, tt.suffix))
				for range 2 {
					time.Sleep(4 * time.Minute)
					for _, path := range []string{"/who", "/renew", "/change"} {
						resp = r.send(b, "POST", path)
						require.Equal(t, 200, resp.StatusCode, path)
						require.Equal(t, map[string]int{name: tt.session}, ages(t, resp), path)
						token, ok := strings.CutSuffix(b.session, tt.suffix)
						require.True(t, ok)
						_, err := r.issuer.Identify(t.Context(), token)
						require.NoError(t, err, "the token alone stands before it")
					}
					time.Sleep(time.Hour)
					b.session = "" // the browser was closed for a while, or idle
					resp = r.send(b, "POST", "/session/refresh")
					require.Equal(t, 204, resp.StatusCode)
					got := ages(t, resp)
					require.Equal(t, tt.session, got[name])
					require.Equal(t, tt.refresh != 0, got[refreshName] > 0)
					require.Equal(t, got[refreshName], got[binderName])
					require.Equal(t, binder, b.binder, "never rotated")
				}
				old := *b
				resp = r.send(b, "POST", "/session/out")
				require.Equal(t, map[string]int{name: -1, refreshName: -1, binderName: -1}, ages(t, resp))
				require.Equal(t, 401, r.send(&old, "GET", "/who").StatusCode)
				require.Equal(t, 401, r.send(&old, "POST", "/session/refresh").StatusCode)

				first := r.browse(t)
				resp = r.send(first, "POST", "/session/come")
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, tt.session, ages(t, resp)[name], "each sign-in has its own")
				resp = r.send(first, "POST", "/session/in")
				require.Equal(t, map[string]int{name: 0, refreshName: month, binderName: month}, ages(t, resp))
			})
		})
	}
}

// A remembered cookie stays no longer than its token can be renewed, nor than the
// session lasts.
func TestRememberLengthensNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		r.signsIn("/come", ada, sessionhttp.Remember(true))
		resp := r.do(request("POST", "/come", ""))
		cookie := cookieOf(t, resp)
		require.Equal(t, 3600, resp.Cookies()[0].MaxAge)
		for range 27 {
			time.Sleep(50 * time.Minute)
			resp = r.do(request("GET", "/who", cookie))
			require.Equal(t, 200, resp.StatusCode)
			cookie = cookieOf(t, resp)
			require.LessOrEqual(t, resp.Cookies()[0].MaxAge, 3600)
		}
		time.Sleep(59 * time.Minute) // 23 h 29 min
		resp = r.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode)
		require.InDelta(t, 31*60, resp.Cookies()[0].MaxAge, 1)
		cookie = cookieOf(t, resp)
		time.Sleep(32 * time.Minute)
		require.Equal(t, 401, r.status(request("GET", "/who", cookie)))
	})
}

// A session cookie with its suffix is no more than 4096 bytes.
func TestRememberedCookieOfUpTo4096Bytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		largest := 0
		for n := 2600; ; n++ {
			require.Less(t, n, 2800)
			r.mux = http.NewServeMux()
			r.mux.HandleFunc("/come", func(w http.ResponseWriter, req *http.Request) {
				if _, err := r.SignIn(w, req, ada, state{Name: strings.Repeat("x", n)}, sessionhttp.Remember(true)); err != nil {
					r.Refuse(w, req, err)
				}
			})
			resp := r.do(request("POST", "/come", ""))
			if resp.StatusCode != 200 {
				break
			}
			largest = len(name) + len(cookieOf(t, resp))
			require.LessOrEqual(t, largest, 4096)
		}
		require.GreaterOrEqual(t, largest, 4094)
	})
}

// Every cookie of a Sessions that is Partitioned has the attribute, also those that
// remove one: without it they would leave it where it is.
func TestPartitioned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		change := func(partitioned bool) *replica {
			return s.month(func(p *parts) {
				p.http = func(c *sessionhttp.Config[state]) {
					c.RefreshPath = "/session/"
					c.SameSite, c.InsecureSameSiteNone, c.Partitioned = http.SameSiteNoneMode, true, partitioned
				}
			})
		}
		r, before := change(true), change(false)
		lines := func(resp *http.Response) (with, without []string) {
			for _, line := range resp.Header["Set-Cookie"] {
				require.Contains(t, line, "; Secure; SameSite=None", line)
				if strings.HasSuffix(line, "; Partitioned") {
					with = append(with, line)
				} else {
					without = append(without, line)
				}
			}
			return with, without
		}
		b := new(browser)
		resp := r.send(b, "POST", "/session/in")
		with, without := lines(resp)
		require.Len(t, with, 3)
		require.Empty(t, without, "there is nothing to remove")
		for _, tt := range []struct {
			path string
			wait time.Duration
			set  int
		}{
			{"/who", 4 * time.Minute, 1}, {"/renew", 0, 1}, {"/session/refresh", 0, 3},
		} {
			time.Sleep(tt.wait)
			resp = r.send(b, "POST", tt.path)
			require.Less(t, resp.StatusCode, 300)
			with, without = lines(resp)
			require.Len(t, with, tt.set, tt.path)
			require.Empty(t, without, tt.path)
		}
		resp = r.do(b.request("POST", "/session/out"))
		with, without = lines(resp)
		require.Len(t, with, 3)
		require.Len(t, without, 3)
		for _, line := range append(with, without...) {
			require.Contains(t, line, "Max-Age=0")
		}

		// The cookies of before the setting are removed by the next sign-in: they would
		// be sent beside the new ones.
		old := before.browse(t)
		resp = r.do(old.request("POST", "/session/in"))
		with, without = lines(resp)
		require.Len(t, with, 3)
		require.NotContains(t, strings.Join(with, ""), "Max-Age=0")
		require.Len(t, without, 3)
		for _, line := range without {
			require.Contains(t, line, "Max-Age=0")
		}
	})
}

// A session that begins before a user has signed in has a subject of its own,
// which no user can have.
func TestAnonymous(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.shop(func(p *parts) { p.http = func(c *sessionhttp.Config[state]) { c.RefreshPath = "/session/" } })
		r.signsIn("/visit", sessiontoken.Start{}, sessionhttp.Anonymous())
		b := new(browser)
		resp := r.send(b, "POST", "/session/visit")
		require.Equal(t, 200, resp.StatusCode)
		require.Empty(t, b.refresh, "what its token owns would not be in the next one")
		first := body(t, r.send(b, "GET", "/who"))
		subject, _, _ := strings.Cut(first, " ")
		require.Regexp(t, `^anonymous:[A-Z2-7]{26}$`, subject)
		other := new(browser)
		r.send(other, "POST", "/session/visit")
		require.NotEqual(t, subject, strings.Fields(body(t, r.send(other, "GET", "/who")))[0])

		for range 3 { // it is renewed as others are
			time.Sleep(30 * time.Minute)
			resp = r.send(b, "POST", "/add?item=+shoes")
			require.Equal(t, 200, resp.StatusCode)
		}
		for _, path := range []string{"/session/everywhere", "/session/others", "/pay"} {
			resp = r.send(b, "POST", path)
			require.Equal(t, 401, resp.StatusCode, path)
			require.Empty(t, resp.Cookies(), path)
		}
		require.Equal(t, "Ada shoes shoes shoes", body(t, r.send(b, "GET", "/name")), "it goes on")
		old := *b
		require.Equal(t, 200, r.send(b, "POST", "/session/out").StatusCode)
		require.Equal(t, 401, r.send(&old, "GET", "/who").StatusCode)
	})
}

// The claims of the session that a sign-in replaces are those that Check returns
// before it: the basket moves, and the session of before is revoked.
func TestSignInReplacesTheAnonymousSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, wait := range []time.Duration{0, 3 * time.Minute, 20 * time.Minute} { // fresh, due, expired
			s := newSite(t)
			r := s.shop()
			r.signsIn("/visit", sessiontoken.Start{}, sessionhttp.Anonymous())
			r.mux.HandleFunc("/enter", func(w http.ResponseWriter, req *http.Request) {
				st := state{Name: "Ada:"}
				replaced, err := r.Check(w, req)
				switch {
				case err == nil:
					st.Name += replaced.State.Name
				case !errors.Is(err, sessionhttp.ErrNoSession) && !errors.Is(err, sessiontoken.ErrInvalid):
					r.Refuse(w, req, err)
					return
				}
				c, err := r.SignIn(w, req, ada, st)
				require.NoError(t, err)
				require.Equal(t, "ada", c.Subject)
				require.NotEqual(t, replaced.SessionID, c.SessionID)
			})
			visit := cookieOf(t, r.do(request("POST", "/visit", "")))
			visit = cookieOf(t, r.do(request("POST", "/add?item=+shoes", visit)))
			time.Sleep(wait)
			cookie := cookieOf(t, r.do(request("POST", "/enter", visit)))
			require.Equal(t, "Ada:Ada shoes", r.name(t, cookie))
			require.Equal(t, 401, r.status(request("GET", "/who", visit)))
			require.Equal(t, 200, r.status(request("POST", "/pay", cookie)))
		}
	})
}

// The subjects of anonymous sessions are no user's: what would make them one is the
// caller's mistake, 500.
func TestAnonymousSubjectsAreReserved(t *testing.T) {
	r := newSite(t).replica()
	anonymous := []sessionhttp.SignInOption{sessionhttp.Anonymous()}
	for _, tt := range []struct {
		name    string
		subject string
		options []sessionhttp.SignInOption
	}{
		{"a user of that name", "anonymous:AAAAAAAAAAAAAAAAAAAAAAAAAA", nil},
		{"the prefix alone", "anonymous:", nil},
		{"a user without one", "", nil},
		{"anonymous with a subject", "ada", anonymous},
		{"anonymous with such a subject", "anonymous:x", anonymous},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := sessiontoken.Start{Subject: tt.subject}
			r.mux = http.NewServeMux()
			r.signsIn("/come", start, tt.options...)
			resp := r.do(request("POST", "/come", ""))
			require.Equal(t, 500, resp.StatusCode)
			require.Empty(t, resp.Cookies())
			if tt.options == nil {
				_, err := r.SignInNative(request("POST", "/", ""), sessionhttp.Device{}, start, state{})
				require.Error(t, err)
			}
		})
	}
	r.mux = http.NewServeMux()
	r.signsIn("/come", sessiontoken.Start{Subject: "anonymously"})
	require.Equal(t, 200, r.status(request("POST", "/come", "")), "another name")
}

// What Start says reaches the session, of a browser and of a native client.
func TestSignInPassesTheStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		r.signIn(t) // the store of revocations is no older than its first use
		time.Sleep(time.Hour)
		now := time.Now()
		for _, tt := range []struct {
			name            string
			start           sessiontoken.Start
			began, authTime time.Time
		}{
			{"now", ada, now, now},
			{"a login that took a while", sessiontoken.Start{Subject: "ada", Earliest: now.Add(-time.Minute)}, now.Add(-time.Minute), now},
			{"a login of before", sessiontoken.Start{Subject: "ada", AuthTime: now.Add(-10 * time.Minute)}, now, now.Add(-10 * time.Minute)},
			{"renewal is the channel's", sessiontoken.Start{Subject: "ada", Renewal: 99}, now, now},
		} {
			c, err := r.SignIn(recorder(), request("POST", "/", ""), tt.start, state{})
			require.NoError(t, err, tt.name)
			require.True(t, c.Renewable, tt.name)
			require.Equal(t, tt.began.UnixMilli(), c.Began.UnixMilli(), tt.name)
			require.Equal(t, tt.authTime.Unix(), c.AuthTime.Unix(), tt.name)
			tokens, err := r.SignInNative(request("POST", "/", ""), sessionhttp.Device{}, tt.start, state{})
			require.NoError(t, err, tt.name)
			c, err = r.Check(recorder(), request("GET", "/", "", bearer(tokens.AccessToken)...))
			require.NoError(t, err, tt.name)
			require.False(t, c.Renewable, tt.name)
			require.Equal(t, tt.began.UnixMilli(), c.Began.UnixMilli(), tt.name)
			require.Equal(t, tt.authTime.Unix(), c.AuthTime.Unix(), tt.name)
		}
	})
}
