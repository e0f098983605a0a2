package sessionhttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// TestMixedLoad runs browsers, native clients and noise against a real server:
// for a second, or for as long as SESSIONTOKEN_LOAD says ("60s"). Tokens live for
// two seconds, so that renewal is part of it.
func TestMixedLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("a second of real time")
	}
	d := time.Second
	if s := os.Getenv("SESSIONTOKEN_LOAD"); s != "" {
		var err error
		d, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	s := newSite(t)
	r := s.replica(func(c *sessionhttp.Config[state]) {
		issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{
			Issuer: "https://a.example", Audience: []string{"web"}, Keys: s.source, TTL: 2 * time.Second, Revocations: c.Revocations,
		})
		require.NoError(t, err)
		c.Issuer, c.OnRefused = issuer, nil
	})
	r.mux.HandleFunc("POST /native", func(w http.ResponseWriter, req *http.Request) {
		tokens, err := r.SignInNative(req, sessionhttp.Device{ClientID: "app", Label: "load"}, sessiontoken.Start{Subject: fmt.Sprint("user-", rand.IntN(1000))}, state{})
		if err != nil {
			r.Refuse(w, req, err)
			return
		}
		_ = json.NewEncoder(w).Encode(tokens)
	})
	server := httptest.NewServer(r.mux)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- r.list.Run(ctx) }()

	var statuses [600]atomic.Int64
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	send := func(client *http.Client, method, path, body string, header ...string) (int, string) {
		req, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		statuses[resp.StatusCode].Add(1)
		return resp.StatusCode, string(text)
	}
	want := func(what string, got int, allowed ...int) {
		for _, a := range allowed {
			if got == a {
				return
			}
		}
		t.Errorf("%s: %d", what, got)
	}
	browser := func() {
		jar, _ := cookiejar.New(nil)
		client := &http.Client{Transport: transport, Jar: jar}
		status, _ := send(client, "POST", "/in", "")
		want("sign-in", status, 200)
		var wg sync.WaitGroup
		for range 4 { // tabs
			wg.Go(func() {
				for range 10 {
					status, _ := send(client, "GET", "/who", "")
					want("who", status, 200)
					time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
				}
			})
		}
		wg.Wait()
		status, _ = send(client, "POST", "/out", "")
		want("sign-out", status, 200)
		status, _ = send(client, "GET", "/who", "")
		want("after sign-out", status, 401)
	}
	native := func() {
		client := &http.Client{Transport: transport}
		_, text := send(client, "POST", "/native", "")
		for range 5 {
			var tokens sessionhttp.Tokens
			if err := json.Unmarshal([]byte(text), &tokens); err != nil {
				t.Error(err)
				return
			}
			status, _ := send(client, "GET", "/who", "", "Authorization", "Bearer "+tokens.AccessToken)
			want("who with a header", status, 200)
			time.Sleep(20 * time.Millisecond)
			status, text = send(client, "POST", "/refresh", grant(tokens.RefreshToken).Encode(), "Content-Type", "application/x-www-form-urlencoded")
			want("refresh", status, 200)
		}
	}
	noise := func() {
		client := &http.Client{Transport: transport}
		for range 20 {
			status, _ := send(client, "GET", "/who", "", "Authorization", "Bearer "+strings.Repeat("x", rand.IntN(9000)))
			want("noise", status, 400, 401)
			status, _ = send(client, "POST", "/refresh", "grant_type=refresh_token&refresh_token="+strings.Repeat("x", rand.IntN(9000)), "Content-Type", "application/x-www-form-urlencoded")
			want("noise", status, 400)
			status, _ = send(client, "POST", "/in", "", "Sec-Fetch-Site", "cross-site")
			want("cross-site", status, 403)
		}
	}
	round := func(until time.Time) {
		var wg sync.WaitGroup
		for _, f := range []func(){browser, browser, browser, native, native, noise} {
			wg.Go(func() {
				for {
					f()
					if !time.Now().Before(until) {
						return
					}
				}
			})
		}
		wg.Wait()
	}
	measure := func() (goroutines int, heap uint64) {
		transport.CloseIdleConnections()
		for range 50 { // connections end in their own time
			runtime.GC()
			if goroutines = runtime.NumGoroutine(); goroutines < 20 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return goroutines, m.HeapAlloc
	}
	round(time.Now().Add(d / 4))
	goroutines, heap := measure()
	round(time.Now().Add(d / 4 * 3))
	goroutines2, heap2 := measure()
	cancel()
	require.ErrorIs(t, <-running, context.Canceled)

	total := int64(0)
	for status := range statuses {
		if n := statuses[status].Load(); n > 0 {
			total += n
			t.Logf("%d: %d", status, n)
			require.Less(t, status, 500)
		}
	}
	t.Logf("%d requests; goroutines %d, then %d; heap %d KiB, then %d KiB; %d sessions ended", total, goroutines, goroutines2, heap>>10, heap2>>10, r.list.Status().Entries)
	require.Less(t, goroutines2, goroutines+20)
	// What grows is what has to be remembered: ended sessions and families, some
	// hundred bytes each, and the cache up to its bound.
	require.Less(t, heap2, heap+32<<20)
}
