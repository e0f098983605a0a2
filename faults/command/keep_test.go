//go:build unix

package command

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// The command does not know the KeepFor of the program. It writes nothing that
// the program drops too early, and drops nothing of what the program has written,
// however long ago, also when it copies entries that are past their Until.
func TestRedisKeeps(t *testing.T) {
	place := newRedis(t)
	p := place.begin(t)
	_, prefix, _ := strings.Cut(place.url, "prefix=")
	client := redis.NewClient(&redis.Options{Addr: place.addr})
	defer client.Close()
	recent := "{" + prefix + "}:revocations"
	now := time.Now()
	digest := func(s string) string { d := revoke.Session.Digest(s); return string(d[:]) }
	for i := range 1000 { // of a program whose KeepFor is long, two days ago
		at := now.Add(-48 * time.Hour).UnixMilli()
		require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: recent, ID: fmt.Sprintf("%d-%d", at, i), Values: []any{
			"namespace", issuer, "scope", "session", "digest", digest(fmt.Sprint("old-", i)), "except", string(make([]byte, 16)),
			"before", at, "until", now.Add(30 * 24 * time.Hour).UnixMilli(), "skip", 0, "tag", fmt.Sprint("tag", i),
		}}).Err())
	}
	s, err := p.signIn(t.Context(), "ada")
	require.NoError(t, err)
	must(t, place.env(), "sessions", "revoke", "--", s.claims.SessionID)
	must(t, place.env(), "sessions", "changed", "ada") // a mark that is shorter than the KeepFor of programs
	require.EqualValues(t, 1000, client.XLen(t.Context(), recent).Val())

	store, err := redisstore.New(redisstore.Config{Client: client, Prefix: prefix, KeepFor: time.Nanosecond, Logger: quiet}) // as the command
	require.NoError(t, err)
	for _, until := range []time.Duration{-time.Hour, 0, time.Millisecond, 2 * time.Millisecond, 24 * time.Hour} {
		e := revoke.Entry{Namespace: issuer, Scope: revoke.Session, Digest: randomDigest(), Before: now, Until: time.Now().Add(until)}
		require.NoError(t, store.Append(t.Context(), e, e))
	}
	require.EqualValues(t, 1000, client.XLen(t.Context(), recent).Val())

	// A program with the default KeepFor drops what is old in the one stream, and
	// not what the command has written, which is in the other.
	require.NoError(t, p.store.Append(t.Context(), revoke.Entry{Namespace: issuer, Scope: revoke.Session, Digest: randomDigest(), Before: now, Until: now.Add(time.Hour)}))
	a := replica(t, p.store)
	require.ErrorIs(t, check(t.Context(), a, s), revoke.ErrRevoked)
	found := client.XRange(t.Context(), "{"+prefix+"}:kept", "-", "+").Val()
	kept := 0
	for _, m := range found {
		if m.Values["digest"] == digest(s.claims.SessionID) {
			kept++
		}
	}
	require.Equal(t, 1, kept)
}
