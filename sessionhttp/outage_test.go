package sessionhttp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// unreadable is a store of revocations that may fail at all calls.
type unreadable struct {
	revoke.MemStore
	down    atomic.Bool
	failure atomic.Pointer[error] // instead of errDown
}

func (u *unreadable) err() error {
	if err := u.failure.Load(); err != nil {
		return *err
	}
	return errDown
}

func (u *unreadable) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if u.down.Load() {
		return revoke.Page{}, u.err()
	}
	return u.MemStore.Since(ctx, cursor)
}

func (u *unreadable) Append(ctx context.Context, entries ...revoke.Entry) error {
	if u.down.Load() {
		return u.err()
	}
	return u.MemStore.Append(ctx, entries...)
}

// What the store of revocations fails with is no verdict about the session,
// whatever it is: the answer is 503, and the cookies are kept.
func TestErrorOfTheStoreIsNoVerdict(t *testing.T) {
	for _, err := range []error{sessiontoken.ErrExpired, sessiontoken.ErrRevoked, sessiontoken.ErrInvalid, sessiontoken.ErrAudience, revoke.ErrRevoked, revoke.ErrOwed} {
		bubble(t, func(t *testing.T) {
			s, store := newSite(t), new(unreadable)
			r := s.with(func(p *parts) { p.list.Store = store })
			cookie := r.signIn(t)
			failure := fmt.Errorf("upstream: %w", err)
			store.failure.Store(&failure)
			store.down.Store(true)
			time.Sleep(time.Minute)
			for _, target := range []string{"/who", "/maybe", "/out", "/everywhere", "/others", "/in"} {
				method := "POST"
				if target == "/who" || target == "/maybe" {
					method = "GET"
				}
				resp := r.do(request(method, target, cookie))
				require.Equal(t, 503, resp.StatusCode, "%s: %v", target, err)
				require.Empty(t, resp.Cookies(), "%s: %v", target, err)
			}
			store.down.Store(false)
			time.Sleep(10 * time.Second)             // the pause after a failure
			r.status(request("GET", "/who", cookie)) // has the store read again
			time.Sleep(10 * time.Second)
			require.Equal(t, 401, r.status(request("GET", "/who", cookie)), "the sign-out is written when the store is back: %v", err)
		})
	}
}

// While the store of revocations is down, requests are served for MaxStale and
// refused at once after it; users stay signed in, and go on within SyncEvery and
// 5 s of its return.
func TestStoreIsDownAndUsersStaySignedIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, store := newSite(t), new(unreadable)
		r := s.with(func(p *parts) { p.list.Store = store })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.list.Run(ctx) }()
		time.Sleep(time.Second)
		cookie := r.signIn(t)
		require.Equal(t, 200, r.status(request("GET", "/who", cookie)))

		store.down.Store(true)
		time.Sleep(28 * time.Second)
		require.Equal(t, 200, r.status(request("GET", "/who", cookie)))
		require.Error(t, r.list.Status().Err)
		time.Sleep(3 * time.Second)
		for range 3 {
			began := time.Now()
			resp := r.do(request("GET", "/who", cookie))
			require.Zero(t, time.Since(began), "at once")
			require.Equal(t, 503, resp.StatusCode)
			require.Equal(t, "1", resp.Header.Get("Retry-After"))
			require.Empty(t, resp.Cookies(), "the cookie is kept")
			time.Sleep(10 * time.Second)
		}
		store.down.Store(false)
		time.Sleep(6 * time.Second)
		require.Equal(t, 200, r.status(request("GET", "/who", cookie)))
		cancel()
		<-done
	})
}
