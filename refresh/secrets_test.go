package refresh_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
)

var fresh = bytes.Repeat([]byte{2}, 32)

// A secret is replaced in the three steps of Config.Secrets while replicas roll:
// those of one step and the next run side by side, and no user notices.
func TestSecretsRotateWhileReplicasRoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxAge, idle = 10 * 24 * time.Hour, 5 * 24 * time.Hour
		s, r := new(refresh.MemStore), new(revocations)
		replica := func(secrets ...[]byte) *refresh.Manager {
			return newManager(t, s, on(t, r), func(c *refresh.Config) { c.Secrets, c.MaxSession, c.IdleTimeout = secrets, maxAge, idle })
		}
		steps := []func() *refresh.Manager{
			func() *refresh.Manager { return replica(secret) },
			func() *refresh.Manager { return replica(secret, fresh) },
			func() *refresh.Manager { return replica(fresh, secret) },
			func() *refresh.Manager { return replica(fresh) },
		}
		signedIn := map[string]time.Time{} // token to when it began
		begin := func(m *refresh.Manager) {
			signedIn[start(t, m, session(fmt.Sprint("sid-", len(signedIn))))] = time.Now()
		}
		begin(steps[0]())
		for i := range len(steps) - 1 {
			replicas := []*refresh.Manager{steps[i](), steps[i+1]()}
			if i == 2 {
				for range int(maxAge/(time.Hour*24)) - 1 { // the wait of the third step
					time.Sleep(24 * time.Hour)
					for token, began := range signedIn {
						delete(signedIn, token)
						signedIn[next(t, replicas[0], token)] = began
					}
					begin(replicas[0])
				}
				time.Sleep(24 * time.Hour)
			}
			begin(replicas[0])
			begin(replicas[1])
			for range 4 { // each token at both, retries at the other one too
				for token, began := range signedIn {
					if time.Since(began) >= maxAge {
						delete(signedIn, token)
						continue
					}
					for j, m := range replicas {
						other := replicas[1-j]
						f, err := other.Find(t.Context(), app(token))
						require.NoError(t, err)
						successor := next(t, m, token)
						list, err := other.List(t.Context(), f.Subject)
						require.NoError(t, err)
						require.NotEmpty(t, list)
						retried := next(t, other, token)
						if j == 0 { // both forms of the successor are good
							retried = successor
						}
						delete(signedIn, token)
						token = retried
						signedIn[token] = began
						time.Sleep(31 * time.Second)
					}
				}
			}
		}
		require.NotEmpty(t, signedIn)
		require.Zero(t, r.revoked(t), "a user was signed out")
	})
}

// Without the first step a user can be signed out, as documented, but no session
// is ever revoked as theft; a record of the newer secret is told.
func TestRecordOfANewerSecretIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s, r := new(refresh.MemStore), new(revocations)
		old := newManager(t, s, on(t, r), func(c *refresh.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		ahead := newManager(t, s, on(t, r), func(c *refresh.Config) { c.Secrets = [][]byte{fresh, secret} })
		token := start(t, old)
		successor := next(t, ahead, token)
		_, err := exchange(t, old, successor)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		for range 3 {
			_, _, err = old.Exchange(t.Context(), app(token), func(context.Context, refresh.Family) error { t.Error("issued"); return nil })
			require.Error(t, err)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
			err = old.Revoke(t.Context(), app(token))
			require.Error(t, err)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
		}
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("reason=record")), "one line a minute")
		require.Contains(t, log.String(), "Config.Secrets")
		require.EqualValues(t, 6, old.Metrics()["refresh_unauthenticated_records_total"])
		require.EqualValues(t, 3, old.Metrics()["refresh_undecided_total"])
		list, err := old.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Empty(t, list)
		next(t, ahead, successor)
		require.Zero(t, r.revoked(t))
	})
}

func TestSecretsAreApart(t *testing.T) {
	s := new(refresh.MemStore)
	old := newManager(t, s)
	both := newManager(t, s, func(c *refresh.Config) { c.Secrets = [][]byte{fresh, secret} })
	only := newManager(t, s, func(c *refresh.Config) { c.Secrets = [][]byte{fresh} })
	token := start(t, old)
	_, err := exchange(t, only, token)
	require.ErrorIs(t, err, refresh.ErrInvalid)
	token = next(t, both, token)
	_, err = exchange(t, old, token)
	require.ErrorIs(t, err, refresh.ErrInvalid)
	next(t, only, token)
}

// Who writes to the store can end a session, and cannot become another user.
func TestRecordIsNotBelieved(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r, other *refresh.Record)
	}{
		{"another subject", func(r, _ *refresh.Record) { r.Subject = "root" }},
		{"another session", func(r, other *refresh.Record) { r.SessionID = other.SessionID }},
		{"another version", func(r, _ *refresh.Record) { r.Version += 2 }},
		{"a later end", func(r, _ *refresh.Record) { r.Until = r.Until.Add(time.Hour) }},
		{"another's data", func(r, other *refresh.Record) { r.Data = other.Data }},
		{"all of another's but the id", func(r, other *refresh.Record) { id := r.ID; *r = *other; r.ID = id }},
		{"no data", func(r, _ *refresh.Record) { r.Data = nil }},
		{"made up data", func(r, _ *refresh.Record) { r.Data = append(make([]byte, 33), `{"counter":1}`...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, r := new(refresh.MemStore), new(revocations)
			m := newManager(t, s, on(t, r))
			read(t, m)
			mine := start(t, m)
			rec := records(t, s)[0]
			theirs, other, err := m.Start(t.Context(), refresh.Family{Subject: "root", SessionID: "sid-root", Began: time.Now()}, "")
			require.NoError(t, err)
			root, err := s.Find(t.Context(), "", other.ID)
			require.NoError(t, err)
			c.change(&rec, &root)
			require.NoError(t, s.Delete(t.Context(), "", rec.ID))
			require.NoError(t, s.Create(t.Context(), rec))

			_, _, err = m.Exchange(t.Context(), app(mine), func(context.Context, refresh.Family) error { t.Error("issued"); return nil })
			require.Error(t, err)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
			_, err = m.Find(t.Context(), app(mine))
			require.Error(t, err)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
			require.Error(t, m.RevokeFamily(t.Context(), rec.Subject, rec.ID))
			require.Zero(t, r.revoked(t))
			_, _, err = m.Exchange(t.Context(), refresh.Presented{Token: theirs}, issue)
			require.NoError(t, err)
			require.NoError(t, m.DeleteSubject(t.Context(), rec.Subject, ""), "that it can be removed is enough")
		})
	}
}
