//go:build unix

package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// sizes are how much is copied, and how often a copy is killed.
func sizes() (families, revocations, kills int) {
	if os.Getenv("SESSIONTOKEN_FULL") != "" {
		return 10_000, 100_000, 20
	}
	return 400, 4_000, 5
}

// each calls f for each number below n, some at once.
func each(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var running sync.WaitGroup
	errs := make([]error, 16)
	for w := range errs {
		running.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = f(i)
			}
		})
	}
	running.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
}

// Between each pair of engines, a copy that is killed at random points, and
// started again, is complete in the end: all users stay signed in, and what was
// revoked, at the source or meanwhile at the target, stays revoked.
func TestCopyKilled(t *testing.T) {
	families, revocations, kills := sizes()
	for from, open := range engines {
		t.Run(from, func(t *testing.T) {
			source := open(t)
			p := source.begin(t)
			sessions := make([]signedIn, families)
			each(t, families, func(i int) (err error) {
				sessions[i], err = p.signIn(t.Context(), fmt.Sprint("user-", i/2))
				return err
			})
			now := time.Now().UTC().Truncate(time.Millisecond)
			entries := make([]revoke.Entry, 0, revocations)
			for i := range revocations {
				e := revoke.Entry{Namespace: issuer, Scope: revoke.Session, Digest: randomDigest(), Before: now, Until: now.Add(25 * time.Hour)}
				if i < families/4 {
					e.Digest = revoke.Session.Digest(sessions[4*i].claims.SessionID)
				}
				entries = append(entries, e)
			}
			require.NoError(t, p.store.Append(t.Context(), entries...))
			for to, open := range engines {
				if to != from {
					t.Run("to "+to, func(t *testing.T) { copyKilled(t, source, open(t), sessions, revocations, kills) })
				}
			}
		})
	}
}

func copyKilled(t *testing.T, source, target *place, sessions []signedIn, revocations, kills int) {
	store := target.open(t)
	env := []string{"SESSIONTOKEN_FROM=" + source.url, "SESSIONTOKEN_TO=" + target.url, "SESSIONTOKEN_ISSUER=" + issuer}
	began := time.Now()
	killed, limit := 0, 200*time.Millisecond
	for killed < kills {
		cmd := command(t, env, "copy", "--timeout", "2m")
		require.NoError(t, cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done: // it ended before: kill sooner
			require.NoError(t, err)
			limit = max(limit/2, 5*time.Millisecond)
		case <-time.After(rand.N(limit)):
			err := cmd.Process.Kill()
			<-done
			if errors.Is(err, os.ErrProcessDone) {
				continue // it ended at that moment
			}
			require.NoError(t, err)
			killed++
			limit = limit * 3 / 2
		}
	}
	// One session is revoked at the target before the copy is complete.
	there := replica(t, store)
	require.NoError(t, there.Revocations().RevokeSession(t.Context(), sessions[1].claims.SessionID))

	var report struct {
		Ring        string
		Revocations struct{ Source, Copied int }
		Devices     struct{ Source, Copied int }
		Missing     int
	}
	require.NoError(t, json.Unmarshal([]byte(must(t, env, "copy", "--json", "--timeout", "2m")), &report))
	require.Zero(t, report.Missing)
	require.Equal(t, len(sessions), report.Devices.Source)
	require.GreaterOrEqual(t, report.Revocations.Source, revocations)
	took := time.Since(began)

	a := replica(t, store)
	require.NoError(t, a.Revocations().Sync(t.Context()))
	each(t, len(sessions), func(i int) error {
		s, want := sessions[i], i != 1 && i%4 > 0
		if _, err := a.Verifier().Verify(t.Context(), s.token); want != (err == nil) {
			return fmt.Errorf("session %d: %w", i, err)
		} else if !want {
			require.ErrorIs(t, err, sessiontoken.ErrRevoked)
		}
		err := exchange(t.Context(), a, s.refresh)
		if want && err != nil {
			return fmt.Errorf("the refresh token of session %d: %w", i, err)
		} else if !want {
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
		return nil
	})
	require.GreaterOrEqual(t, a.Revocations().Status().Entries, revocations)

	// The next copy has nothing to do, and takes nothing of what the target has
	// gained.
	require.NoError(t, json.Unmarshal([]byte(must(t, env, "copy", "--json", "--timeout", "2m")), &report))
	require.Zero(t, report.Missing)
	require.Zero(t, report.Devices.Copied)
	require.Zero(t, report.Revocations.Copied)
	t.Logf("%s: %d devices, %d revocations, killed %d times: complete after %v", strings.TrimPrefix(t.Name(), "TestCopyKilled/"), len(sessions), revocations, kills, took.Round(time.Millisecond))
}
