package authority_test

import (
	"context"
	"crypto/aes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	feedPath  = "/.well-known/session-revocations"
	feedToken = "0123456789abcdef0123456789abcdef"
)

func withFeed(tokens ...string) func(*cfg) {
	return func(c *cfg) { c.FeedTokens = tokens }
}

// feedRequest asks the feed, with a query after the nonce.
func feedRequest(query string) *http.Request {
	return request("GET", feedPath+"?nonce=n&"+query, "Authorization", "Bearer "+feedToken)
}

type page struct {
	Nonce   string    `json:"nonce"`
	Age     int64     `json:"age"`
	Key     string    `json:"key"`
	Time    time.Time `json:"time"`
	Next    string    `json:"next"`
	More    bool      `json:"more"`
	Reset   bool      `json:"reset"`
	Entries []struct {
		Scope  string `json:"scope"`
		Digest string `json:"digest"`
		Except string `json:"except"`
		Before int64  `json:"before"`
		Until  int64  `json:"until"`
		Skip   bool   `json:"skip"`
	} `json:"entries"`
}

func feedPage(t testing.TB, r *replica, cursor string) (p page) {
	t.Helper()
	resp := r.do(feedRequest("cursor=" + cursor))
	text := body(t, resp)
	require.Equal(t, 200, resp.StatusCode, text)
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	require.NoError(t, json.Unmarshal([]byte(text), &p, json.RejectUnknownMembers(true)))
	require.Equal(t, "n", p.Nonce)
	return p
}

// TestFeedNeedsACredential: without one in the configuration there is no feed,
// and the discovery document does not name it.
func TestFeedNeedsACredential(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*cfg)
		served bool
	}{
		{"nothing", func(*cfg) {}, false},
		{"an empty list", func(c *cfg) { c.FeedTokens = []string{} }, false},
		{"a token", withFeed(feedToken), true},
		{"a check", func(c *cfg) {
			c.FeedCheck = func(r *http.Request) bool { return r.Header.Get("X-Client") == "api" }
		}, true},
	} {
		for _, path := range []string{"", "/tenants/a"} {
			t.Run(tt.name+path, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newReplica(t, authority.Memory(), tt.change, func(c *cfg) { c.Issuer += path })
					doc := body(t, r.do(request("GET", path+"/.well-known/openid-configuration")))
					req := request("GET", path+feedPath+"?nonce=n", "Authorization", "Bearer "+feedToken, "X-Client", "api")
					if tt.served {
						require.Contains(t, doc, `"session_revocation_feed":"`+issuer+path+feedPath+`"`)
						require.Equal(t, 200, r.status(req))
						req.Header.Del("Authorization")
						req.Header.Del("X-Client")
						require.Equal(t, 401, r.status(req))
					} else {
						require.NotContains(t, doc, "feed")
						require.Equal(t, 404, r.status(req))
					}
				})
			})
		}
	}
}

// TestFeedRefuses: all but a GET with a credential, over https, with a query
// within its bounds.
func TestFeedRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := strings.Repeat("b", 32)
		r := newReplica(t, authority.Memory(), withFeed(feedToken, second))
		refusal := ""
		for _, tt := range []struct {
			name   string
			change func(*http.Request)
			want   int
		}{
			{"right", func(*http.Request) {}, 200},
			{"the second token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+second) }, 200},
			{"the scheme in small letters", func(r *http.Request) { r.Header.Set("Authorization", "bearer "+feedToken) }, 200},
			{"no header", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
			{"no token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, 401},
			{"the scheme alone", func(r *http.Request) { r.Header.Set("Authorization", "Bearer") }, 401},
			{"another", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("x", 32)) }, 401},
			{"nearly right", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+feedToken[:31]+"0") }, 401},
			{"one character less", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+feedToken[:31]) }, 401},
			{"one character more", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+feedToken+"f") }, 401},
			{"in large letters", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.ToUpper(feedToken)) }, 401},
			{"a space more", func(r *http.Request) { r.Header.Set("Authorization", "Bearer  "+feedToken) }, 401},
			{"another scheme", func(r *http.Request) { r.Header.Set("Authorization", "Basic "+feedToken) }, 401},
			{"two headers", func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+feedToken) }, 401},
			{"long", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat(feedToken, 1000)) }, 401},
			{"in the query", func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery += "&access_token=" + feedToken }, 401},
			{"POST", func(r *http.Request) { r.Method = "POST" }, 405},
			{"HEAD", func(r *http.Request) { r.Method = "HEAD" }, 405},
			{"plain http", func(r *http.Request) { r.TLS, r.RemoteAddr = nil, "192.0.2.1:1" }, 403},
			{"no nonce", func(r *http.Request) { r.URL.RawQuery = "" }, 400},
			{"an empty nonce", func(r *http.Request) { r.URL.RawQuery = "nonce=" }, 400},
			{"two nonces", func(r *http.Request) { r.URL.RawQuery = "nonce=a&nonce=b" }, 400},
			{"a nonce with a quote", func(r *http.Request) { r.URL.RawQuery = "nonce=a%22" }, 400},
			{"a long nonce", func(r *http.Request) { r.URL.RawQuery = "nonce=" + strings.Repeat("a", 65) }, 400},
			{"a long cursor", func(r *http.Request) { r.URL.RawQuery += "&cursor=" + strings.Repeat("a", 2049) }, 400},
			{"a cursor of 2048", func(r *http.Request) { r.URL.RawQuery += "&cursor=" + strings.Repeat("a", 2048) }, 200},
			{"two cursors", func(r *http.Request) { r.URL.RawQuery += "&cursor=a&cursor=b" }, 400},
			{"a cursor of any bytes", func(r *http.Request) { r.URL.RawQuery += "&cursor=%00%ff%22" }, 200},
			{"a negative wait", func(r *http.Request) { r.URL.RawQuery += "&wait=-1" }, 400},
			{"a wait that is no number", func(r *http.Request) { r.URL.RawQuery += "&wait=1s" }, 400},
			{"a wait of a day", func(r *http.Request) { r.URL.RawQuery += "&wait=86400000" }, 200},
			{"a negative age", func(r *http.Request) { r.URL.RawQuery += "&age=-1" }, 400},
			{"malformed", func(r *http.Request) { r.URL.RawQuery += "&%zz" }, 400},
			{"long query", func(r *http.Request) { r.URL.RawQuery += "&x=" + strings.Repeat("a", 9000) }, 400},
			{"an unknown parameter", func(r *http.Request) { r.URL.RawQuery += "&x=1&x=2" }, 200},
			{"an unknown key", func(r *http.Request) { r.URL.RawQuery += "&key=abc" }, 404},
		} {
			req := feedRequest("")
			tt.change(req)
			began := time.Now()
			resp := r.do(req)
			require.Equal(t, tt.want, resp.StatusCode, tt.name)
			require.LessOrEqual(t, time.Since(began), 25*time.Second)
			require.Equal(t, "no-store", resp.Header.Get("Cache-Control"), tt.name)
			require.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"), tt.name)
			text := body(t, resp)
			require.NotContains(t, text, feedToken)
			if tt.want == 401 {
				require.Equal(t, `Bearer realm="session-revocations"`, resp.Header.Get("WWW-Authenticate"))
				if refusal == "" {
					refusal = text
				}
				require.Equal(t, refusal, text, "every refusal is the same")
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
	})
}

// TestFeedConfig: a credential that cannot be safe is refused, and is in no
// error.
func TestFeedConfig(t *testing.T) {
	for name, tokens := range map[string][]string{
		"short":      {feedToken[:31]},
		"empty":      {""},
		"long":       {strings.Repeat("a", 4097)},
		"a space":    {feedToken + " x"},
		"a newline":  {feedToken + "\n"},
		"no ASCII":   {feedToken + "é"},
		"only signs": {strings.Repeat("=", 32)},
		"twice":      {feedToken, feedToken},
	} {
		_, err := authority.New(config(authority.Memory(), withFeed(tokens...)))
		require.ErrorContains(t, err, "Config.FeedTokens[", name)
		require.NotContains(t, err.Error(), feedToken[:31], name)
	}
}

// countedLog counts the readings of its log, and may be unable to wait.
type countedLog struct {
	authority.Store
	reads      atomic.Int64
	cannotWait bool
}

func (c *countedLog) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	c.reads.Add(1)
	return c.Store.Since(ctx, cursor)
}

func (c *countedLog) Wait(ctx context.Context, cursor string) error {
	if c.cannotWait {
		return errors.ErrUnsupported
	}
	return c.Store.Wait(ctx, cursor)
}

// feedCount is a replica whose list does not run, so that the feed alone reads.
func feedCount(t testing.TB) (*replica, *countedLog) {
	store := &countedLog{Store: authority.Memory()}
	return newReplica(t, store, withFeed(feedToken), with(secret(1))), store
}

// TestFeedSharesReadings: 10,000 readers with one cursor cost one reading, and
// 10,000 that wait cost one for each item of news, no goroutine and little
// memory.
func TestFeedSharesReadings(t *testing.T) {
	const readers = 10_000
	synctest.Test(t, func(t *testing.T) {
		r, store := feedCount(t)
		require.NoError(t, r.Revocations().RevokeSession(t.Context(), "one"))
		time.Sleep(time.Minute)
		first := feedPage(t, r, "")
		time.Sleep(time.Second)

		before := store.reads.Load()
		done := make(chan int, readers)
		for range readers {
			go func() { done <- r.status(feedRequest("cursor=" + first.Next)) }()
		}
		for range readers {
			require.Equal(t, 200, <-done)
		}
		require.LessOrEqual(t, store.reads.Load()-before, int64(1))

		time.Sleep(time.Second)
		runtime.GC()
		var was, is runtime.MemStats
		runtime.ReadMemStats(&was)
		goroutines := runtime.NumGoroutine()
		before = store.reads.Load()
		for range readers {
			go func() {
				w := httptest.NewRecorder()
				r.mux.ServeHTTP(w, feedRequest("wait=25000&cursor="+first.Next))
				if w.Code == 200 && strings.Contains(w.Body.String(), `"news":true`) {
					done <- 1
				} else {
					done <- 0
				}
			}()
		}
		synctest.Wait()
		require.Empty(t, done)
		require.LessOrEqual(t, runtime.NumGoroutine()-goroutines, readers+10)
		runtime.GC()
		runtime.ReadMemStats(&is)
		each := int64(is.HeapAlloc+is.StackInuse-was.HeapAlloc-was.StackInuse) / readers
		t.Logf("%d bytes for a waiting reader, with its goroutine and its request", each)
		require.Less(t, each, int64(64<<10))
		require.LessOrEqual(t, store.reads.Load()-before, int64(3))
		time.Sleep(15 * time.Second)
		require.Empty(t, done)
		before = store.reads.Load()
		require.NoError(t, r.Revocations().RevokeSession(t.Context(), "two"))
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		news := 0
		for range readers {
			news += <-done
		}
		require.Equal(t, readers, news)
		require.LessOrEqual(t, store.reads.Load()-before, int64(4), "that of the revocation is one")
		for range 100 {
			require.Len(t, feedPage(t, r, first.Next).Entries, 1)
		}
		require.LessOrEqual(t, store.reads.Load()-before, int64(5))
		time.Sleep(time.Minute)
	})
}

// TestFeedWaits: a reader is told of what comes after its cursor, and of the end
// of its time.
func TestFeedWaits(t *testing.T) {
	for _, wait := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r, store := feedCount(t)
			store.cannotWait = !wait
			require.NoError(t, r.Revocations().RevokeSession(t.Context(), "one"))
			time.Sleep(time.Minute)
			last := feedPage(t, r, "").Next
			ask := func(query string) (news bool, took time.Duration) {
				t.Helper()
				began := time.Now()
				text := body(t, r.do(feedRequest(query)))
				require.Contains(t, []string{`{"nonce":"n","news":true}`, `{"nonce":"n","news":false}`}, text)
				return strings.Contains(text, "true"), time.Since(began)
			}
			news, took := ask("wait=25000")
			require.True(t, news, "there is something after the beginning")
			require.Zero(t, took)
			news, took = ask("wait=25000&cursor=made-up")
			require.True(t, news, "the store does not know the cursor")
			require.Zero(t, took)
			for _, w := range []time.Duration{0, time.Second, 13 * time.Second, 25 * time.Second} {
				news, took = ask(fmt.Sprintf("wait=%d&cursor=%s", w.Milliseconds(), last))
				require.False(t, news)
				require.Equal(t, w, took)
			}
			_, took = ask("wait=3600000&cursor=" + last)
			require.Equal(t, 25*time.Second, took)
			for i := range 20 {
				go func() {
					time.Sleep(7 * time.Second)
					if i%2 == 0 {
						require.NoError(t, store.Append(t.Context(), entry(fmt.Sprint("more ", i)))) // by another process
					} else {
						require.NoError(t, r.Revocations().RevokeSession(t.Context(), fmt.Sprint("more ", i)))
					}
				}()
				news, took = ask("wait=25000&cursor=" + last)
				require.True(t, news)
				require.GreaterOrEqual(t, took, 7*time.Second)
				most := 20 * time.Millisecond
				if !wait && i%2 == 0 {
					most = 300 * time.Millisecond
				}
				require.LessOrEqual(t, took, 7*time.Second+most)
				p := feedPage(t, r, last)
				require.Len(t, p.Entries, 1, "no page is served again that lacks the news")
				last = p.Next
			}
			time.Sleep(time.Minute)
		})
	}
}

// TestFeedBounds: waiting readers, made-up cursors, and a reader that does not
// read.
func TestFeedBounds(t *testing.T) {
	t.Run("too many wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, _ := feedCount(t)
			last := feedPage(t, r, "").Next
			last = feedPage(t, r, last).Next
			const most = 20_000
			done := make(chan int, most)
			for range most {
				go func() { done <- r.status(feedRequest("wait=20000&cursor=" + last)) }()
			}
			synctest.Wait()
			resp := r.do(feedRequest("wait=20000&cursor=" + last))
			require.Equal(t, 503, resp.StatusCode)
			require.NotEmpty(t, resp.Header.Get("Retry-After"))
			feedPage(t, r, last)
			for range most {
				require.Equal(t, 200, <-done)
			}
			require.Equal(t, 200, r.status(feedRequest("wait=1&cursor="+last)))
			time.Sleep(time.Minute)
		})
	})
	t.Run("made-up cursors", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, store := feedCount(t)
			require.NoError(t, r.Revocations().RevokeSession(t.Context(), "one"))
			before, began := store.reads.Load(), time.Now()
			for i := range 6000 {
				resp := r.do(feedRequest(fmt.Sprintf("cursor=made-up-%d", i)))
				if resp.StatusCode == 200 {
					require.Contains(t, body(t, resp), `"reset":true`)
				} else {
					require.Equal(t, 503, resp.StatusCode)
				}
				time.Sleep(time.Millisecond)
			}
			require.LessOrEqual(t, store.reads.Load()-before, 500*(1+int64(time.Since(began)/time.Second)))
			time.Sleep(2 * time.Second)
			feedPage(t, r, "")
		})
	})
	t.Run("readers that do not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, store := feedCount(t)
			for i := range 2000 {
				require.NoError(t, store.Append(t.Context(), entry(fmt.Sprint(i))))
			}
			ended := make(chan struct{}, 64)
			for range 64 {
				go func() {
					r.mux.ServeHTTP(&deaf{ResponseRecorder: httptest.NewRecorder()}, feedRequest("cursor="))
					ended <- struct{}{}
				}()
			}
			synctest.Wait()
			require.Equal(t, 503, r.status(feedRequest("cursor=")))
			time.Sleep(20 * time.Second)
			require.Len(t, ended, 64)
			require.Len(t, feedPage(t, r, "").Entries, 2000)
		})
	})
}

// deaf is a connection whose reader does not read.
type deaf struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (d *deaf) SetWriteDeadline(at time.Time) error { d.deadline = at; return nil }
func (d *deaf) FlushError() error                   { return nil }

func (d *deaf) Write([]byte) (int, error) {
	if d.deadline.IsZero() {
		select {} // for ever
	}
	time.Sleep(time.Until(d.deadline))
	return 0, os.ErrDeadlineExceeded
}

func entry(session string) revoke.Entry {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return revoke.Entry{Namespace: issuer, Scope: revoke.Session, Digest: revoke.Session.Digest(session), Before: now, Until: now.Add(time.Hour)}
}

// TestFeedOfATenant: a feed has the entries of its own authority alone, and its
// credential opens no other.
func TestFeedOfATenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, err := authority.NewHost(authority.Memory(), nil, quiet)
		require.NoError(t, err)
		var replicas []*replica
		for i := range 3 {
			replicas = append(replicas, newReplica(t, nil, with(secret(1)), withFeed(fmt.Sprint(feedToken, i)), func(c *cfg) {
				c.Host, c.Namespace, c.Store = host, fmt.Sprint("tenant ", i), nil
				c.Issuer = fmt.Sprint(issuer, "/", i)
			}))
		}
		for i, r := range replicas {
			for n := range i + 1 {
				require.NoError(t, r.Revocations().RevokeSession(t.Context(), fmt.Sprint("session ", n)))
			}
		}
		time.Sleep(5 * time.Second)
		seen := map[string]int{}
		for i, r := range replicas {
			get := func(token string) *http.Response {
				return r.do(request("GET", fmt.Sprint("/", i, feedPath, "?nonce=n"), "Authorization", "Bearer "+token))
			}
			resp := get(fmt.Sprint(feedToken, i))
			var p page
			require.NoError(t, json.Unmarshal([]byte(body(t, resp)), &p))
			sessions := 0
			for _, e := range p.Entries {
				if e.Scope == "session" {
					sessions++
					seen[e.Digest]++
				}
			}
			require.Equal(t, i+1, sessions)
			require.Equal(t, 401, get(fmt.Sprint(feedToken, (i+1)%3)).StatusCode)
		}
		require.Len(t, seen, 6, "one session has another digest in each feed")
		time.Sleep(time.Minute)
	})
}

// TestFeedNamesNobody: a reader without the key finds no name of a dictionary in
// the bytes that are served, in any spelling of its digest. One with the key
// finds those that are there.
func TestFeedNamesNobody(t *testing.T) {
	names := 10_000
	if isLong() {
		names = 1_000_000
	}
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, authority.Memory(), withFeed(feedToken))
		list := r.Revocations()
		name := func(i int) string { return fmt.Sprintf("user-%07d", i) }
		for i := range 40 {
			require.NoError(t, list.RevokeSession(t.Context(), name(4*i)))
			require.NoError(t, list.RevokeSubject(t.Context(), name(4*i+1)))
			require.NoError(t, list.RevokeOthers(t.Context(), name(4*i+2), name(4*i)))
			require.NoError(t, list.Changed(t.Context(), name(4*i+3)))
			require.NoError(t, list.RevokeKey(t.Context(), name(4*i), time.Time{}))
		}
		var served strings.Builder
		for _, query := range []string{"cursor=", "cursor=made-up", "wait=1"} {
			served.WriteString(body(t, r.do(feedRequest(query))))
		}
		text := served.String()
		lengths := map[int]bool{12: true, 16: true, 22: true, 24: true, 32: true}
		windows := map[string]bool{}
		for n := range lengths {
			for i := 0; i+n <= len(text); i++ {
				windows[text[i:i+n]] = true
			}
		}
		for i := range names {
			found := windows[name(i)]
			for _, scope := range []revoke.Scope{revoke.Session, revoke.Subject, revoke.Group, revoke.Key, revoke.Changed} {
				d := scope.Digest(name(i))
				found = found || windows[string(d[:])] || windows[base64.RawURLEncoding.EncodeToString(d[:])] || windows[base64.RawStdEncoding.EncodeToString(d[:])] ||
					windows[base64.StdEncoding.EncodeToString(d[:])] || windows[hex.EncodeToString(d[:])]
			}
			require.False(t, found, name(i))
		}

		p := feedPage(t, r, "")
		var answer struct {
			Nonce, ID, Key string
		}
		require.NoError(t, json.Unmarshal([]byte(body(t, r.do(feedRequest("key="+p.Key)))), &answer, json.MatchCaseInsensitiveNames(true)))
		require.NotContains(t, text, answer.Key, "no page holds the key")
		key, err := base64.RawURLEncoding.DecodeString(answer.Key)
		require.NoError(t, err)
		block, err := aes.NewCipher(key)
		require.NoError(t, err)
		clear := map[revoke.Digest]bool{}
		for _, e := range p.Entries {
			raw, err := base64.RawURLEncoding.DecodeString(e.Digest)
			require.NoError(t, err)
			var d revoke.Digest
			block.Decrypt(d[:], raw)
			clear[d] = true
		}
		require.True(t, clear[revoke.Session.Digest(name(0))])
		require.True(t, clear[revoke.Subject.Digest(name(1))])
		require.True(t, clear[revoke.Subject.Digest(name(2))])
		require.True(t, clear[revoke.Subject.Digest(name(3))])
		require.True(t, clear[revoke.Key.Digest(name(0))])
		time.Sleep(time.Minute)
	})
}

func isLong() bool {
	return os.Getenv("SESSIONTOKEN_LONG") != "" || os.Getenv("SESSIONTOKEN_FULL") != ""
}
