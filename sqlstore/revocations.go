package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// rowsAtOnce is how many rows one statement adds at most: SQLite takes 32,766
// parameters, PostgreSQL 65,535.
const rowsAtOnce = 500

// Append adds entries, all or none. It is part of revoke.Store.
func (s *Store) Append(ctx context.Context, entries ...revoke.Entry) error {
	const doing = "write revocations"
	if len(entries) == 0 {
		return nil
	}
	err := s.write(ctx, doing, func() error {
		if len(entries) <= rowsAtOnce {
			return insert(ctx, s.db, entries)
		}
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		for len(entries) > 0 {
			n := min(len(entries), rowsAtOnce)
			if err := insert(ctx, tx, entries[:n]); err != nil {
				return err
			}
			entries = entries[n:]
		}
		return tx.Commit()
	})
	if err != nil {
		return err
	}
	s.sweep(ctx, revocations)
	return nil
}

// insert adds entries with one statement, numbered in their order.
func insert(ctx context.Context, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, entries []revoke.Entry) error {
	const columns = 8
	var query strings.Builder
	query.WriteString(`INSERT INTO sessiontoken_revocations (tag, namespace, scope, digest, spared, before_ms, until_ms, skip) VALUES `)
	args := make([]any, 0, columns*len(entries))
	for i, e := range entries {
		if i > 0 {
			query.WriteByte(',')
		}
		for c := range columns {
			fmt.Fprintf(&query, "%c$%d", "(,,,,,,,"[c], i*columns+c+1)
		}
		query.WriteByte(')')
		skip := int64(0)
		if e.Skip {
			skip = 1
		}
		args = append(args, newTag(), e.Namespace, string(e.Scope), e.Digest[:], e.Except[:], e.Before.UnixMilli(), e.Until.UnixMilli(), skip)
	}
	_, err := db.ExecContext(ctx, query.String(), args...)
	return err
}

// newTag returns a positive random number. A row with the same number in
// another database, or in this one after it was restored, has another tag.
func newTag() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return int64(binary.BigEndian.Uint64(b[:])>>1 | 1)
}

// pageSize is how many entries Since returns at most.
const pageSize = 10_000

// errUnknownCursor: the database was restored or emptied, or is another one.
var errUnknownCursor = errors.New("the cursor is of another database")

// errNoWait matches [errors.ErrUnsupported].
var errNoWait = fmt.Errorf("sqlstore: Wait: %w", errors.ErrUnsupported)

// Wait returns an error that matches [errors.ErrUnsupported]: a list reads the
// store every SyncEvery. It is part of revoke.Store.
func (s *Store) Wait(ctx context.Context, cursor string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return errNoWait
}

// Since returns the entries after a cursor. It is part of revoke.Store.
func (s *Store) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	const doing = "read revocations"
	if err := s.ready(ctx, doing); err != nil {
		return revoke.Page{}, err
	}
	since := s.sinceNumber
	if s.dialect == Postgres {
		since = s.sinceSnapshot
	}
	page, err := since(ctx, cursor)
	if errors.Is(err, errUnknownCursor) {
		page, err = since(ctx, "")
		page.Reset = true
	}
	if err != nil {
		return revoke.Page{}, s.explain(ctx, doing, err)
	}
	return page, nil
}

// rowName names a row by its number and its tag. The zero rowName is before all
// rows.
type rowName struct{ seq, tag int64 }

func (n rowName) String() string { return fmt.Sprintf("%d.%d", n.seq, n.tag) }

func parseRowName(s string) (n rowName, ok bool) {
	seq, tag, _ := strings.Cut(s, ".")
	var err1, err2 error
	n.seq, err1 = strconv.ParseInt(seq, 10, 64)
	n.tag, err2 = strconv.ParseInt(tag, 10, 64)
	return n, err1 == nil && err2 == nil && n.seq >= 0
}

// page is a query of Since. Its rows begin with the columns of proof, whether
// the row that the cursor names exists, and the name of the newest row.
const pageColumns = `p.standby, p.now_us,
	(SELECT count(*) FROM sessiontoken_revocations k WHERE k.seq = $1 AND k.tag = $2), n.seq, n.tag`

const pageNewest = `LEFT JOIN (SELECT seq, tag FROM sessiontoken_revocations ORDER BY seq DESC LIMIT 1) n ON true`

// pageRow is a row of such a query.
type pageRow struct {
	witness
	known          int64
	newest, newTag sql.NullInt64

	seq, tag       sql.NullInt64
	namespace      sql.NullString
	scope          sql.NullString
	digest, spared []byte
	before, until  sql.NullInt64
	skip           sql.NullInt64
}

const entryColumns = `e.seq, e.tag, e.namespace, e.scope, e.digest, e.spared, e.before_ms, e.until_ms, e.skip`

func (r *pageRow) fields(more ...any) []any {
	return append([]any{&r.standby, &r.micros, &r.known, &r.newest, &r.newTag,
		&r.seq, &r.tag, &r.namespace, &r.scope, &r.digest, &r.spared, &r.before, &r.until, &r.skip}, more...)
}

// entry returns the entry of the row, if it has one.
func (r *pageRow) entry() (e revoke.Entry, ok bool, err error) {
	if !r.seq.Valid {
		return e, false, nil
	}
	if len(r.digest) != len(e.Digest) || len(r.spared) != len(e.Except) {
		return e, false, fmt.Errorf("row %d is not what this version writes", r.seq.Int64)
	}
	return revoke.Entry{Namespace: r.namespace.String, Scope: revoke.Scope(r.scope.String),
		Digest: revoke.Digest(r.digest), Except: revoke.Digest(r.spared),
		Before: time.UnixMilli(r.before.Int64).UTC(), Until: time.UnixMilli(r.until.Int64).UTC(), Skip: r.skip.Int64 != 0}, true, nil
}

// readPage reads the rows of a query, whose last columns are scanned into more.
// r holds the last row afterwards.
func readPage(rows *sql.Rows, cursor rowName, r *pageRow, more ...any) (entries []revoke.Entry, err error) {
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(r.fields(more...)...); err != nil {
			return nil, err
		}
		if err := r.err(); err != nil {
			return nil, err
		}
		if cursor != (rowName{}) && r.known == 0 {
			return nil, errUnknownCursor
		}
		e, ok, err := r.entry()
		if err != nil {
			return nil, err
		}
		if ok {
			entries = append(entries, e)
		}
	}
	return entries, rows.Err()
}

// sinceNumber reads SQLite. It has one writer at a time, so that rows are
// numbered in the order of their commits, and the cursor is the last row that
// was read.
func (s *Store) sinceNumber(ctx context.Context, cursor string) (revoke.Page, error) {
	from, ok := parseRowName(cursor)
	if cursor != "" && !ok {
		return revoke.Page{}, errUnknownCursor
	}
	now := s.clock.Now()
	rows, err := s.db.QueryContext(ctx, `SELECT `+pageColumns+`, `+entryColumns+`
		FROM (SELECT `+s.proof()+`) p `+pageNewest+` LEFT JOIN (
			SELECT * FROM sessiontoken_revocations WHERE seq > $1 AND (until_ms > $3 OR scope = 'birth') ORDER BY seq LIMIT $4
		) e ON true ORDER BY e.seq`, from.seq, from.tag, now.UnixMilli(), pageSize)
	if err != nil {
		return revoke.Page{}, err
	}
	var last pageRow
	page := revoke.Page{Time: now}
	if page.Entries, err = readPage(rows, from, &last); err != nil {
		return revoke.Page{}, err
	}
	next := rowName{last.newest.Int64, last.newTag.Int64}
	if page.More = len(page.Entries) == pageSize; page.More {
		next = rowName{last.seq.Int64, last.tag.Int64}
	}
	page.Next = next.String()
	return page, nil
}

// snapshotCursor is a cursor of PostgreSQL. It does not number rows in the
// order of their commits, so that a number cannot be the cursor. The cursor is
// the snapshot in which the rows were read, which lists its transactions. The
// next rows are those that are not visible in that snapshot.
//
// Between two pages of one reading, seen is the snapshot before the first page,
// goal is the one that the last page completes, and xid and seq are those of
// the last row.
//
// A server that takes over, or that was restored, may use transaction ids of
// the cursor again, for other rows. A cursor is therefore valid for one server,
// until that restarts, and while the row that was the newest one exists.
type snapshotCursor struct {
	server     string
	newest     rowName
	seen, goal string
	xid        string
	seq        int64
}

var snapshotForm = regexp.MustCompile(`^[0-9]{1,20}:[0-9]{1,20}:([0-9]{1,20}(,[0-9]{1,20})*)?$`)

func (c snapshotCursor) String() string {
	if c.goal == "" {
		return c.server + "/" + c.newest.String() + "/" + c.seen
	}
	return fmt.Sprintf("%s/%v/%s/%s/%s/%d", c.server, c.newest, c.seen, c.goal, c.xid, c.seq)
}

// parseSnapshotCursor parses a cursor. It returns false for a malformed one.
func parseSnapshotCursor(s string) (c snapshotCursor, ok bool) {
	if s == "" {
		return snapshotCursor{xid: "0"}, true
	}
	part := strings.Split(s, "/")
	if len(part) != 3 && len(part) != 6 {
		return c, false
	}
	c.server, c.seen = part[0], part[2]
	if c.newest, ok = parseRowName(part[1]); !ok || c.server == "" {
		return c, false
	}
	if len(part) == 3 {
		c.xid, _, _ = strings.Cut(c.seen, ":") // all earlier ones are in the snapshot; numbers begin at 1
		return c, snapshotForm.MatchString(c.seen) && isNumber(c.xid)
	}
	c.goal, c.xid = part[3], part[4]
	var err error
	c.seq, err = strconv.ParseInt(part[5], 10, 64)
	return c, err == nil && isNumber(c.xid) && (c.seen == "" || snapshotForm.MatchString(c.seen)) && snapshotForm.MatchString(c.goal)
}

// isNumber reports whether s is an xid8 of PostgreSQL.
func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

// sinceSnapshot reads PostgreSQL.
func (s *Store) sinceSnapshot(ctx context.Context, cursor string) (revoke.Page, error) {
	c, ok := parseSnapshotCursor(cursor)
	if !ok {
		return revoke.Page{}, errUnknownCursor
	}
	rows, err := s.db.QueryContext(ctx, `SELECT `+pageColumns+`, `+entryColumns+`, p.server, p.snapshot, e.xid::text
		FROM (SELECT `+s.proof()+`, (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text AS server, pg_current_snapshot()::text AS snapshot) p
		`+pageNewest+` LEFT JOIN (
			SELECT * FROM sessiontoken_revocations
			WHERE (xid, seq) > ($3::text::xid8, $4::bigint) AND (until_ms > (extract(epoch FROM statement_timestamp()) * 1000)::bigint OR scope = 'birth')
				AND pg_visible_in_snapshot(xid, nullif($5::text, '')::pg_snapshot) IS NOT TRUE
			ORDER BY xid, seq LIMIT $6
		) e ON true ORDER BY e.xid, e.seq`, c.newest.seq, c.newest.tag, c.xid, c.seq, c.seen, pageSize)
	if err != nil {
		return revoke.Page{}, err
	}
	var last pageRow
	var server, snapshot string
	var xid sql.NullString
	var page revoke.Page
	if page.Entries, err = readPage(rows, c.newest, &last, &server, &snapshot, &xid); err != nil {
		return revoke.Page{}, err
	}
	if c.server != "" && c.server != server {
		return revoke.Page{}, errUnknownCursor
	}
	next := snapshotCursor{server: server, newest: rowName{last.newest.Int64, last.newTag.Int64}}
	goal := c.goal
	if goal == "" {
		goal = snapshot
	}
	if page.More = len(page.Entries) == pageSize; page.More {
		next.seen, next.goal, next.xid, next.seq = c.seen, goal, xid.String, last.seq.Int64
	} else {
		next.seen = goal
	}
	page.Next, page.Time = next.String(), last.time()
	return page, nil
}
