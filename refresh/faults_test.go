package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// unreliable is a store that fails, before or after it has done what it was asked
// for, and takes its time.
type unreliable struct {
	refresh.MemStore
	mu     sync.Mutex
	random *rand.Rand
}

func (u *unreliable) roll(n int) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.random.IntN(n)
}

func (u *unreliable) do(ctx context.Context, f func() error) error {
	select {
	case <-time.After(time.Duration(u.roll(200)) * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	switch u.roll(6) {
	case 0:
		return errDown
	case 1:
		_ = f()
		return errDown
	}
	return f()
}

func (u *unreliable) Find(ctx context.Context, namespace, id string) (r refresh.Record, err error) {
	err = u.do(ctx, func() error { r, err = u.MemStore.Find(ctx, namespace, id); return err })
	return r, err
}

func (u *unreliable) Swap(ctx context.Context, r refresh.Record) error {
	return u.do(ctx, func() error { return u.MemStore.Swap(ctx, r) })
}

func (u *unreliable) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	return u.do(ctx, func() error { return u.MemStore.DeleteSession(ctx, namespace, sessionID) })
}

// Stores that fail, answers that are lost, clients that hang up and machines
// whose clocks are wrong sign no honest user out.
func TestFaultsSignNoUserOut(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			s, r := &unreliable{random: rand.New(rand.NewPCG(seed, 2))}, new(revocations)
			var replicas []*refresh.Manager
			for _, ahead := range []time.Duration{0, time.Minute, -time.Minute, 32 * 24 * time.Hour} {
				m, _ := machine(t, ahead, s, on(t, r), func(c *refresh.Config) { c.MaxSession, c.IdleTimeout = 30*24*time.Hour, 24*time.Hour })
				replicas = append(replicas, m)
			}
			token := start(t, replicas[0])
			clean := true // the generation before had no retry
			for range 100 {
				pause := 40 * time.Second
				if random.IntN(4) == 0 && clean {
					pause = 10 * time.Hour // the client sleeps before it tries again
				}
				began, tries := time.Now(), 0
				for {
					tries++
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(2000))*time.Millisecond)
					out, _, err := replicas[random.IntN(len(replicas))].Exchange(ctx, app(token), issue)
					cancel()
					if err == nil && random.IntN(4) != 0 {
						token = out
						break
					}
					if err != nil {
						require.NotErrorIs(t, err, refresh.ErrInvalid)
					}
					if pause > time.Minute && tries == 1 {
						time.Sleep(pause)
						pause = time.Second
						began = time.Now()
						continue
					}
					if time.Since(began) < 20*time.Second {
						time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
					}
				}
				clean = tries == 1
				time.Sleep(5 * time.Minute)
			}
			require.Zero(t, r.revoked(t))
		})
	}
}

// TestNoFamilyWithoutAVerdict: a family begins only while the list can tell that
// its session is live. If the list has another environment's store before it, the
// families would be written there too.
func TestNoFamilyWithoutAVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(ownMark)
		list, err := revoke.NewList(revoke.Config{Store: r, Logger: quiet})
		require.NoError(t, err)
		m := newManager(t, s, func(c *refresh.Config) { c.Revocations = list })
		began, err := list.Begin(t.Context(), revoke.Question{Subject: "ada"})
		require.NoError(t, err)
		f := refresh.Family{Subject: "ada", SessionID: "sid-1", Began: began}
		time.Sleep(time.Minute)
		require.NoError(t, list.RevokeSession(t.Context(), "sid-1"))
		_, _, err = m.Start(t.Context(), f, "")
		require.ErrorIs(t, err, refresh.ErrInvalid)

		r.foreign.Store(true)
		time.Sleep(time.Hour)
		require.Error(t, list.RevokeSession(t.Context(), "sid-2")) // the list reads
		began, err = list.Begin(t.Context(), revoke.Question{Subject: "ada"})
		require.NoError(t, err)
		_, _, err = m.Start(t.Context(), refresh.Family{Subject: "ada", SessionID: "sid-3", Began: began}, "")
		require.Error(t, err)
		require.NotErrorIs(t, err, refresh.ErrInvalid)
		records, err := s.List(t.Context(), "", "ada")
		require.NoError(t, err)
		require.Empty(t, records)
	})
}

// TestErrorsOfTheListDecideNothing: what the list's store fails with is neither a
// revocation nor a fault of the refresh token, and no record is deleted.
func TestErrorsOfTheListDecideNothing(t *testing.T) {
	for name, err := range map[string]error{
		"revoked": revoke.ErrRevoked, "owed": revoke.ErrOwed, "both": errors.Join(revoke.ErrOwed, revoke.ErrRevoked),
		"invalid": refresh.ErrInvalid, "expired": refresh.ErrExpired, "reused": refresh.ErrReused,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, r := new(refresh.MemStore), new(saying)
			list, failure := newList(t, r), fmt.Errorf("upstream: %w", err)
			m := newManager(t, s, func(c *refresh.Config) { c.Revocations = list })
			began, err := list.Begin(t.Context(), revoke.Question{Subject: "ada"})
			require.NoError(t, err)
			token, _, err := m.Start(t.Context(), refresh.Family{Subject: "ada", SessionID: "sid-1", Began: began}, "")
			require.NoError(t, err)
			exchange := func() error {
				_, _, err := m.Exchange(t.Context(), refresh.Presented{Token: token}, func(context.Context, refresh.Family) error { return nil })
				return err
			}
			r.err.Store(&failure)
			time.Sleep(time.Minute)
			got := exchange()
			require.ErrorContains(t, got, "upstream", name)
			require.NotErrorIs(t, got, refresh.ErrInvalid, name)
			require.NotErrorIs(t, got, refresh.ErrExpired, name)
			require.NotErrorIs(t, got, refresh.ErrReused, name)
			records, err := s.List(t.Context(), "", "ada")
			require.NoError(t, err)
			require.Len(t, records, 1, name)
			r.err.Store(nil)
			time.Sleep(10 * time.Second) // the pause after a failure
			_ = exchange()               // has the store read again
			time.Sleep(time.Second)
			require.NoError(t, exchange(), name)
		})
	}
}

// saying is a store whose Since fails with err, if it is set.
type saying struct {
	revocations
	err atomic.Pointer[error]
}

func (s *saying) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if err := s.err.Load(); err != nil {
		return revoke.Page{}, *err
	}
	return s.revocations.Since(ctx, cursor)
}

// ownMark is a store that is replaced by another one, which was born long ago.
type ownMark struct {
	revocations
	foreign atomic.Bool
}

func (o *ownMark) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if !o.foreign.Load() {
		return o.revocations.Since(ctx, cursor)
	}
	born := time.Now().Add(-24 * time.Hour).UTC()
	birth := revoke.Entry{Scope: revoke.Birth, Digest: revoke.Digest{1}, Before: born, Until: born.AddDate(100, 0, 0)}
	return revoke.Page{Entries: []revoke.Entry{birth}, Next: "theirs", Reset: cursor != "theirs", Time: time.Now()}, nil
}
