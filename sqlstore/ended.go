package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// sweepEvery is after how many writes of this process what is over is deleted.
const sweepEvery = 512

// sweep deletes what was over an hour ago: late, for clocks that differ. If it
// fails, the next one does it.
func (s *Store) sweep(ctx context.Context, table string) {
	if s.writes.Add(1)%sweepEvery != 0 {
		return
	}
	// By the clock of the machine that all share: one that is wrong must not
	// delete what the others need.
	now := strconv.FormatInt(time.Now().UnixMicro(), 10)
	if s.dialect == Postgres {
		now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	}
	_, _ = s.exec(ctx, "delete what is over", `DELETE FROM `+table+` WHERE until_us < `+now+` - 3600000000`)
}

// Append adds an ended session. It is part of revoke.Store.
func (s *Store) Append(ctx context.Context, e revoke.Entry) error {
	_, err := s.exec(ctx, "write what was ended", `INSERT INTO sessiontoken_ended (scope, value, before_us, until_us) VALUES ($1, $2, $3, $4)`,
		string(e.Scope), []byte(e.Value), e.Before.UnixMicro(), e.Until.UnixMicro())
	if err != nil {
		return err
	}
	s.sweep(ctx, "sessiontoken_ended")
	return nil
}

// portion is how many entries Since returns at most.
const portion = 10_000

// Since returns what was ended since. It is part of revoke.Store.
func (s *Store) Since(ctx context.Context, cursor string) (entries []revoke.Entry, next string, more bool, err error) {
	const doing = "read what was ended"
	if err := s.ready(ctx, doing); err != nil {
		return nil, "", false, err
	}
	since := s.sinceNumber
	if s.dialect == Postgres {
		since = s.sinceSnapshot
	}
	entries, next, more, err = since(ctx, cursor)
	if errors.Is(err, errUnknownCursor) {
		entries, next, more, err = since(ctx, "")
	}
	if err != nil {
		return nil, "", false, s.explain(ctx, doing, err)
	}
	return entries, next, more, nil
}

// errUnknownCursor: the database was restored, or is another one.
var errUnknownCursor = errors.New("the cursor is of another database")

// sinceNumber reads SQLite, which has one writer at a time: numbers are given out
// in the order in which writers commit, and the last one seen is the cursor.
func (s *Store) sinceNumber(ctx context.Context, cursor string) (entries []revoke.Entry, next string, more bool, err error) {
	from, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil {
		from = 0
	}
	rows, err := s.db.QueryContext(ctx, `SELECT (SELECT coalesce(max(seq), 0) FROM sessiontoken_ended), e.seq, e.scope, e.value, e.before_us, e.until_us
		FROM (SELECT 1) one LEFT JOIN (
			SELECT * FROM sessiontoken_ended WHERE seq > $1 AND until_us > $2 ORDER BY seq LIMIT $3
		) e ON true ORDER BY e.seq`, from, time.Now().UnixMicro(), portion)
	if err != nil {
		return nil, "", false, err
	}
	defer rows.Close()
	var newest int64
	var last sql.NullInt64
	for rows.Next() {
		var row endedRow
		if err := rows.Scan(append([]any{&newest, &last}, row.fields()...)...); err != nil {
			return nil, "", false, err
		}
		entries = row.appendTo(entries)
	}
	if newest < from {
		err = errUnknownCursor
	}
	if more = len(entries) == portion; more {
		newest = last.Int64
	}
	return entries, strconv.FormatInt(newest, 10), more, errors.Join(err, rows.Err())
}

// endedRow is a row of the table, or none.
type endedRow struct {
	scope         sql.NullString
	value         []byte
	before, until sql.NullInt64
}

func (r *endedRow) fields() []any { return []any{&r.scope, &r.value, &r.before, &r.until} }

func (r *endedRow) appendTo(entries []revoke.Entry) []revoke.Entry {
	if !r.scope.Valid {
		return entries
	}
	return append(entries, revoke.Entry{Scope: revoke.Scope(r.scope.String), Value: string(r.value),
		Before: time.UnixMicro(r.before.Int64).UTC(), Until: time.UnixMicro(r.until.Int64).UTC()})
}

// snapshotCursor says what was read of a PostgreSQL. Numbers are not given out in
// the order in which writers commit there, so what was read is named as PostgreSQL
// itself does: by the snapshot in which it was seen, whose transactions it lists.
// What comes next is what that snapshot does not show.
//
// While a portion was read and not all, seen is what was read before, goal is what
// will have been read at the end, and xid and seq are those of the last row.
//
// A server that takes over, or that was restored, may give transaction ids out
// again that the cursor knows, for other rows. So a cursor is good for one server,
// and for as long as that runs.
type snapshotCursor struct {
	server, seen, goal string
	xid                string
	seq                int64
}

var snapshotForm = regexp.MustCompile(`^[0-9]{1,20}:[0-9]{1,20}:([0-9]{1,20}(,[0-9]{1,20})*)?$`)

func (c snapshotCursor) String() string {
	if c.goal == "" {
		return c.server + "/" + c.seen
	}
	return fmt.Sprintf("%s/%s/%s/%s/%d", c.server, c.seen, c.goal, c.xid, c.seq)
}

// parseSnapshotCursor returns the cursor that means all for whatever it does not
// know.
func parseSnapshotCursor(s string) snapshotCursor {
	all := snapshotCursor{xid: "0"}
	part := strings.Split(s, "/")
	c := snapshotCursor{server: part[0]}
	switch len(part) {
	case 2:
		c.seen = part[1]
		if !snapshotForm.MatchString(c.seen) {
			return all
		}
		c.xid, _, _ = strings.Cut(c.seen, ":") // all before were seen; numbers begin at 1
	case 5:
		c.seen, c.goal, c.xid = part[1], part[2], part[3]
		var err error
		if c.seq, err = strconv.ParseInt(part[4], 10, 64); err != nil {
			return all
		}
		if c.seen != "" && !snapshotForm.MatchString(c.seen) || !snapshotForm.MatchString(c.goal) {
			return all
		}
	default:
		return all
	}
	if _, err := strconv.ParseUint(c.xid, 10, 64); err != nil || c.server == "" {
		return all
	}
	return c
}

// sinceSnapshot reads PostgreSQL.
func (s *Store) sinceSnapshot(ctx context.Context, cursor string) (entries []revoke.Entry, next string, more bool, err error) {
	c := parseSnapshotCursor(cursor)
	rows, err := s.db.QueryContext(ctx, `SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text, pg_current_snapshot()::text,
			e.xid::text, e.seq, e.scope, e.value, e.before_us, e.until_us
		FROM (SELECT 1) one LEFT JOIN (
			SELECT * FROM sessiontoken_ended
			WHERE (xid, seq) > ($1::text::xid8, $2::bigint) AND until_us > $3
				AND pg_visible_in_snapshot(xid, nullif($4::text, '')::pg_snapshot) IS NOT TRUE
			ORDER BY xid, seq LIMIT $5
		) e ON true ORDER BY e.xid, e.seq`, c.xid, c.seq, time.Now().UnixMicro(), c.seen, portion)
	if err != nil {
		return nil, "", false, err
	}
	defer rows.Close()
	var server, snapshot string
	var xid sql.NullString
	var seq sql.NullInt64
	for rows.Next() {
		var row endedRow
		if err := rows.Scan(append([]any{&server, &snapshot, &xid, &seq}, row.fields()...)...); err != nil {
			return nil, "", false, err
		}
		entries = row.appendTo(entries)
	}
	if err := rows.Err(); err != nil {
		return nil, "", false, err
	}
	if c.server != "" && c.server != server {
		return nil, "", false, errUnknownCursor
	}
	goal := c.goal
	if goal == "" {
		goal = snapshot
	}
	if more = len(entries) == portion; more {
		c = snapshotCursor{server: server, seen: c.seen, goal: goal, xid: xid.String, seq: seq.Int64}
	} else {
		c = snapshotCursor{server: server, seen: goal}
	}
	return entries, c.String(), more, nil
}
