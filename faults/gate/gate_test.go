//go:build unix

// Package gate tests the command's gate behind real proxies, with the files that
// the command shows for them, in front of a service in another language.
package gate_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
)

// Tags of requests: the service may have those with a session alone.
const (
	tagGood = "X-Tag: good"
	tagBad  = "X-Tag: bad"
)

// shown is what the service answers.
type shown struct {
	Subject, ID, Audience string
	State                 map[string]string
}

func shownBy(t *testing.T, text string) (s shown) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &s), text)
	return s
}

// TestSignIn: a service that knows nothing of tokens learns who its users are.
func TestSignIn(t *testing.T) {
	withProxies(t, authority.Limits{}, func(t *testing.T, w *world) {
		resp, _ := w.newBrowser().must("GET", "/", "", tagBad)
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, "Bearer", resp.Header.Get("WWW-Authenticate"))

		b := w.signIn("ada")
		claims, err := w.site.Verifier().Verify(t.Context(), b.cookie["__Host-session"])
		require.NoError(t, err)
		resp, text := b.must("GET", "/page?x=1", "", tagGood)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, shown{"ada", claims.SessionID, "service", map[string]string{"role": "role of ada"}}, shownBy(t, text))
		require.Equal(t, []string{"theme=dark; Path=/"}, resp.Header["Set-Cookie"]) // the service's own, and no other

		t.Run("a bearer token", func(t *testing.T) {
			resp, text := w.newBrowser().must("GET", "/", "", tagGood, "Authorization: Bearer "+b.cookie["__Host-session"])
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "ada", shownBy(t, text).Subject)
		})
		t.Run("a body", func(t *testing.T) {
			body := strings.Repeat("all of it. ", 10_000)
			resp, _ := b.must("POST", "/form", body, "X-Tag: body", "Origin: "+origin, "Sec-Fetch-Site: same-origin")
			require.Equal(t, 200, resp.StatusCode)
			require.Eventually(t, func() bool { return len(w.service.with("body")) == 1 }, 30*time.Second, 10*time.Millisecond)
			got := w.service.with("body")[0]
			require.Equal(t, "POST", got.Method)
			require.Equal(t, "/form", got.URL)
			require.Equal(t, body, got.Body)
		})
		t.Run("an error of the service", func(t *testing.T) {
			resp, _ := b.must("GET", "/fails", "", tagGood)
			require.Equal(t, 500, resp.StatusCode)
		})
		require.Empty(t, w.service.with("bad"))
	})
}

// TestForgedHeaders: no client sets what the service believes, in any spelling,
// with or without a session.
func TestForgedHeaders(t *testing.T) {
	withProxies(t, authority.Limits{}, func(t *testing.T, w *world) {
		b := w.signIn("ada")
		claims, err := w.site.Verifier().Verify(t.Context(), b.cookie["__Host-session"])
		require.NoError(t, err)
		forged := [][]string{
			{"X-Session-Subject: root"},
			{"x-session-subject: root"},
			{"X-SESSION-SUBJECT: root", "X-Session-Subject: root"},
			{"X_Session_Subject: root"},
			{"X-Session_Subject: root", "X_Session-Subject: root"},
			{"x_session_id: root", "x-session-id: root"},
			{"X-Session-Audience: root", "X-Session-State: root", "X_SESSION_STATE: root"},
			{"X-Session-Subject:", "X-Session-Subject: root"},
			{"Connection: keep-alive, X-Session-Subject", "X-Session-Subject: root"},
			{"Connection: Upgrade, X-Session-Subject", "X-Session-Subject: root", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
		}
		for i, lines := range forged {
			tag := fmt.Sprint("forged", i)
			head := "Host: app.example\r\n" + strings.Join(lines, "\r\n") + "\r\n"
			if !strings.Contains(head, "Connection:") {
				head += "Connection: close\r\n"
			}
			require.Contains(t, []int{401, 400}, w.raw("GET / HTTP/1.1\r\nX-Tag: bad\r\n"+head+"\r\n"), lines)
			status := w.raw("GET / HTTP/1.1\r\nX-Tag: " + tag + "\r\n" + head + "Cookie: __Host-session=" + b.cookie["__Host-session"] + "\r\n\r\n")
			require.Contains(t, []int{200, 400}, status, lines) // a proxy may refuse such a name
			if status != 200 {
				continue
			}
			require.Eventually(t, func() bool { return len(w.service.with(tag)) == 1 }, 30*time.Second, 10*time.Millisecond)
			got := w.service.with(tag)[0]
			for name, want := range map[string]string{
				"X-Session-Subject": "ada", "X-Session-Id": claims.SessionID, "X-Session-Audience": "service", "X-Session-State": `{"role":"role of ada"}`,
			} {
				require.Equal(t, []string{want}, got.values(name), "%v: %s", lines, name)
			}
		}
		require.Empty(t, w.service.with("bad"))
	})
}

// TestOtherOrigins: a page of another site changes nothing with the cookie of a
// user, also if it could set the headers by which the proxy tells the gate of the
// request.
func TestOtherOrigins(t *testing.T) {
	withProxies(t, authority.Limits{}, func(t *testing.T, w *world) {
		b := w.signIn("ada")
		upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
		evil := []string{tagBad, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}
		for _, tt := range []struct {
			name, method string
			headers      []string
			status       int
		}{
			{"a POST of another site", "POST", evil, 403},
			{"a DELETE of another site", "DELETE", evil, 403},
			{"of an old browser", "POST", evil[:2], 403},
			{"that says it is a GET", "POST", append([]string{"X-Forwarded-Method: GET", "X-Http-Method-Override: GET"}, evil...), 403},
			{"that says it is for another host", "POST", append([]string{"X-Forwarded-Host: evil.example"}, evil[:2]...), 403},
			{"that says so twice", "POST", append([]string{"X-Forwarded-Host: evil.example", "X-Forwarded-Host: evil.example", "X-Forwarded-Method: GET", "X-Forwarded-Method: GET"}, evil[:2]...), 403},
			{"a WebSocket", "GET", append(upgrade, evil[:2]...), 403},
			{"a link", "GET", []string{tagGood, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"}, 200},
			{"a POST of the same origin", "POST", []string{tagGood, "Origin: " + origin, "Sec-Fetch-Site: same-origin"}, 200},
		} {
			t.Run(tt.name, func(t *testing.T) {
				body := ""
				if tt.method == "POST" {
					body = "x=1"
				}
				resp, _ := b.must(tt.method, "/", body, tt.headers...)
				require.Equal(t, tt.status, resp.StatusCode)
			})
		}
		require.Empty(t, w.service.with("bad"))
	})
}

// TestRenewal: a user who stays is never refused, though tokens live for 4 s. The
// browser gets the new cookies.
func TestRenewal(t *testing.T) {
	const ttl = 4 * time.Second
	withProxies(t, authority.Limits{TTL: ttl, IdleTimeout: time.Hour}, func(t *testing.T, w *world) {
		b := w.signIn("ada")
		first := b.cookie["__Host-session"]
		seen := map[string]bool{first: true}
		for began := time.Now(); len(seen) < 4; {
			require.Less(t, time.Since(began), 2*time.Minute)
			before := b.cookie["__Host-session"]
			method, headers := "GET", []string{tagGood}
			if len(seen)%2 == 0 {
				method, headers = "POST", append(headers, "Origin: "+origin, "Sec-Fetch-Site: same-origin")
			}
			resp, text := b.must(method, "/", "", headers...)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "ada", shownBy(t, text).Subject)
			if now := b.cookie["__Host-session"]; now != before {
				require.Len(t, resp.Cookies(), 2) // this one and the service's
				for _, c := range resp.Cookies() {
					if c.Name == "__Host-session" {
						require.True(t, c.Secure && c.HttpOnly)
					}
				}
				seen[now] = true
			}
			time.Sleep(50 * time.Millisecond)
		}
		require.Zero(t, w.metrics()["sessiontoken_serve_renewal_failures_total"])

		t.Run("many at once", func(t *testing.T) {
			old := b.copyOf()
			require.Eventually(t, func() bool {
				resp, _, err := old.copyOf().send("GET", "/", "", tagGood)
				return err == nil && resp.StatusCode == 200 && len(resp.Cookies()) == 2
			}, time.Minute, 50*time.Millisecond)
			var wg sync.WaitGroup
			var refused atomic.Int64
			for range 30 {
				wg.Go(func() {
					resp, _, err := old.copyOf().send("GET", "/", "", tagGood)
					if err != nil || resp.StatusCode != 200 {
						refused.Add(1)
					}
				})
			}
			wg.Wait()
			require.Zero(t, refused.Load())
		})
		t.Run("for another site", func(t *testing.T) {
			require.Eventually(t, func() bool { // until it has expired
				resp, _ := w.newBrowser().must("GET", "/", "", tagBad, "Authorization: Bearer "+first)
				return resp.StatusCode == 401
			}, time.Minute, 50*time.Millisecond)
			thief := w.newBrowser()
			thief.cookie["__Host-session"] = first
			resp, _ := thief.must("POST", "/", "", tagBad, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
			require.Equal(t, 403, resp.StatusCode)
			require.Equal(t, first, thief.cookie["__Host-session"])
		})
		t.Run("after the sign-out", func(t *testing.T) {
			stolen := b.copyOf()
			resp, text := b.must("POST", "/session/sign-out", "", "Origin: "+origin, "Sec-Fetch-Site: same-origin")
			require.Equal(t, 200, resp.StatusCode, text)
			require.Eventually(t, func() bool {
				resp, _ := stolen.must("GET", "/", "", tagGood)
				return resp.StatusCode == 401
			}, time.Minute, 10*time.Millisecond)
			for began := time.Now(); time.Since(began) < ttl+time.Second; { // until it has expired, too
				resp, _ := stolen.must("GET", "/", "", tagBad)
				require.Equal(t, 401, resp.StatusCode)
				time.Sleep(50 * time.Millisecond)
			}
		})
		require.Empty(t, w.service.with("bad"))
	})
}

// TestSignOut: a session that was signed out, at the authority and through the
// proxy, is refused by the proxy within the bound of the feed.
func TestSignOut(t *testing.T) {
	withProxies(t, authority.Limits{}, func(t *testing.T, w *world) {
		var slowest time.Duration
		for i := range 5 {
			b := w.signIn(fmt.Sprint("user", i))
			stolen := b.copyOf()
			resp, _ := stolen.must("GET", "/", "", tagGood)
			require.Equal(t, 200, resp.StatusCode)
			resp, text := b.must("POST", "/session/sign-out", "", "Origin: "+origin, "Sec-Fetch-Site: same-origin")
			require.Equal(t, 200, resp.StatusCode, text)
			began := time.Now()
			require.Eventually(t, func() bool {
				resp, _ := stolen.must("GET", "/", "", tagGood)
				return resp.StatusCode == 401
			}, 50*time.Second, 10*time.Millisecond)
			slowest = max(slowest, time.Since(began))
			resp, _ = stolen.must("GET", "/", "", tagBad)
			require.Equal(t, 401, resp.StatusCode)
		}
		t.Logf("the slowest of 5 sign-outs was known behind the proxy after %v", slowest.Round(time.Millisecond))
		require.Empty(t, w.service.with("bad"))
	})
}

// TestNothingPasses: whatever goes away and comes back, the service has no
// request without a session. Each of them is refused, and those with a session
// pass again.
func TestNothingPasses(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: it waits for the bound of the feed, 30 s")
	}
	withProxies(t, authority.Limits{}, func(t *testing.T, w *world) {
		b := w.signIn("ada")
		revoked := w.signIn("eve").copyOf()
		require.NoError(t, w.site.Revocations().RevokeSubject(t.Context(), "eve"))
		wait := func(b *browser, status int, headers ...string) {
			t.Helper()
			require.Eventually(t, func() bool {
				resp, _, err := b.send("GET", "/", "", headers...)
				return err == nil && resp.StatusCode == status
			}, 2*time.Minute, 50*time.Millisecond)
		}
		wait(revoked, 401, tagGood)

		// These have no session. They come all the time, each kind in turn.
		forged := w.newBrowser()
		forged.cookie["__Host-session"] = b.cookie["__Host-session"][:len(b.cookie["__Host-session"])-8] + "AAAAAAAA"
		stop, done := make(chan struct{}), make(chan struct{})
		var asked, passed, malformed atomic.Int64
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				by, headers := w.newBrowser(), []string{tagBad}
				switch i % 4 {
				case 1:
					by = forged
				case 2:
					by = revoked
				case 3:
					headers = append(headers, "Authorization: Bearer x.y.z", "X-Session-Subject: root")
				}
				resp, _, err := by.send([]string{"GET", "POST"}[i/4%2], "/", "", headers...)
				asked.Add(1)
				switch {
				case err != nil:
				case resp.StatusCode < 300:
					passed.Add(1)
				case resp.StatusCode != 401 && resp.StatusCode != 403 && resp.StatusCode != 503:
					malformed.Add(1)
				}
			}
		}()

		w.site.stop() // sessions pass while what is known is new enough, and then nothing does
		wait(b, 503, tagGood)
		resp, _ := b.must("GET", "/", "", tagBad)
		require.Equal(t, 503, resp.StatusCode)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
		t.Log("the authority is gone: nothing passes")

		w.gate.kill()
		wait(b, 503, tagBad)
		t.Log("the gate is gone: nothing passes")
		w.startGate() // which knows no key
		for range 20 {
			resp, _ := b.must("GET", "/", "", tagBad)
			require.Equal(t, 503, resp.StatusCode)
		}

		w.site.start(t)
		wait(b, 200, tagGood)
		t.Log("the authority is back: sessions pass")
		for range 3 {
			w.gate.kill()
			resp, _ := b.must("GET", "/", "", tagBad)
			require.Equal(t, 503, resp.StatusCode)
			w.startGate()
			wait(b, 200, tagGood)
		}
		require.NoError(t, w.site.Revocations().RevokeSubject(t.Context(), "ada"))
		wait(b, 401, tagGood)

		close(stop)
		<-done
		require.Zero(t, passed.Load())
		require.Zero(t, malformed.Load())
		require.Empty(t, w.service.with("bad"))
		require.Greater(t, asked.Load(), int64(100))
		t.Logf("%d requests without a session, of which the service has had none", asked.Load())
	})
}

// TestGateEndsWithItsAnswers: a gate that is asked to end answers what it was
// asked before.
func TestGateEndsWithItsAnswers(t *testing.T) {
	w := newWorld(t, proxies[0], authority.Limits{})
	b := w.signIn("ada")
	var wg sync.WaitGroup
	var undecided, other atomic.Int64
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, _, err := b.copyOf().send("GET", "/", "", tagGood)
				switch {
				case err != nil:
					other.Add(1)
				case resp.StatusCode == http.StatusServiceUnavailable:
					undecided.Add(1)
				case resp.StatusCode != http.StatusOK:
					other.Add(1)
				}
			}
		})
	}
	for range 5 {
		require.NoError(t, w.gate.cmd.Process.Signal(syscall.SIGTERM))
		<-w.gate.done
		require.Zero(t, w.gate.cmd.ProcessState.ExitCode())
		w.startGate()
	}
	close(stop)
	wg.Wait()
	require.Zero(t, other.Load())
	t.Logf("%d requests came while no gate listened", undecided.Load())
}
