package sqlstore

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// sweepEvery is the least time between two sweeps of a process. sweepAtMost is
// how many rows a sweep deletes, so that the write that sweeps does not take
// long.
const (
	sweepEvery  = time.Minute
	sweepAtMost = 10_000
)

// The tables that are swept.
const (
	revocations = "sessiontoken_revocations"
	families    = "sessiontoken_families"
)

// sweeps are the statements that delete rows whose Until was an hour ago, since
// clocks differ. Two kinds of revocations are kept: the births of the store,
// and the newest row, which cursors name.
var sweeps = map[string]string{
	revocations: `DELETE FROM sessiontoken_revocations WHERE seq IN (SELECT seq FROM sessiontoken_revocations
		WHERE until_ms < NOW - 3600000 AND scope <> 'birth' AND seq < (SELECT max(seq) FROM sessiontoken_revocations) LIMIT $1 LOCK)`,
	families: `DELETE FROM sessiontoken_families WHERE (namespace, id) IN (SELECT namespace, id FROM sessiontoken_families
		WHERE until_ms < NOW - 3600000 LIMIT $1 LOCK)`,
}

// sweep deletes expired rows of a table, unless this process did so within the
// last minute. A failure is left for the next sweep.
func (s *Store) sweep(ctx context.Context, table string) {
	if !s.due(table) {
		return
	}
	// The clock is the server's: a machine with a wrong clock must not delete
	// rows that the others need.
	now, lock := strconv.FormatInt(s.clock.Now().UnixMilli(), 10), ""
	if s.dialect == Postgres {
		now, lock = `(extract(epoch FROM statement_timestamp()) * 1000)::bigint`, `FOR UPDATE SKIP LOCKED`
	}
	n, err := s.exec(ctx, "delete what is over", strings.NewReplacer("NOW", now, "LOCK", lock).Replace(sweeps[table]), sweepAtMost)
	if err == nil && n == sweepAtMost { // there are more: the next write continues
		s.sweeping.Lock()
		defer s.sweeping.Unlock()
		delete(s.swept, table)
	}
}

// due reports whether a table is to be swept now, and records that it is.
func (s *Store) due(table string) bool {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if at := s.swept[table]; !at.IsZero() && s.clock.Age(at) < sweepEvery {
		return false
	}
	s.swept[table] = s.clock.Read()
	return true
}
