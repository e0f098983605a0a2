package sqlstore

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// sweepEvery is how often a process deletes what is over, at most; sweepAtMost
// is how much of it at once, so that no write takes long for that.
const (
	sweepEvery  = time.Minute
	sweepAtMost = 10_000
)

// The tables that are swept.
const (
	revocations = "sessiontoken_revocations"
	families    = "sessiontoken_families"
)

// sweeps are the statements that delete what was over an hour ago: late, for
// clocks that differ. Of revocations the birth of the store stays, and the
// newest row, which is what cursors name.
var sweeps = map[string]string{
	revocations: `DELETE FROM sessiontoken_revocations WHERE seq IN (SELECT seq FROM sessiontoken_revocations
		WHERE until_ms < NOW - 3600000 AND scope <> 'birth' AND seq < (SELECT max(seq) FROM sessiontoken_revocations) LIMIT $1 LOCK)`,
	families: `DELETE FROM sessiontoken_families WHERE (namespace, id) IN (SELECT namespace, id FROM sessiontoken_families
		WHERE until_ms < NOW - 3600000 LIMIT $1 LOCK)`,
}

// sweep deletes what is over from a table, unless this process did so within
// the last minute. What fails is left for the next time.
func (s *Store) sweep(ctx context.Context, table string) {
	if !s.due(table) {
		return
	}
	// The clock is the one that all share: one that is wrong must not delete
	// what the others need.
	now, lock := strconv.FormatInt(s.clock.Now().UnixMilli(), 10), ""
	if s.dialect == Postgres {
		now, lock = `(extract(epoch FROM statement_timestamp()) * 1000)::bigint`, `FOR UPDATE SKIP LOCKED`
	}
	n, err := s.exec(ctx, "delete what is over", strings.NewReplacer("NOW", now, "LOCK", lock).Replace(sweeps[table]), sweepAtMost)
	if err == nil && n == sweepAtMost { // there is more: the next write goes on
		s.sweeping.Lock()
		defer s.sweeping.Unlock()
		delete(s.swept, table)
	}
}

// due reports whether it is time to sweep a table, once.
func (s *Store) due(table string) bool {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if at := s.swept[table]; !at.IsZero() && s.clock.Age(at) < sweepEvery {
		return false
	}
	s.swept[table] = s.clock.Read()
	return true
}
