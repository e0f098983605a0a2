package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/sessiontoken/sessiontoken/refresh"
)

// Create adds a family. It is part of refresh.Store.
func (s *Store) Create(ctx context.Context, r refresh.Record) error {
	_, err := s.exec(ctx, "create a family", `INSERT INTO sessiontoken_families (namespace, id, subject, session_id, version, data, until_ms)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		r.Namespace, r.ID, []byte(r.Subject), []byte(r.SessionID), int64(r.Version), notNil(r.Data), r.Until.UnixMilli())
	if err != nil {
		return err
	}
	s.sweep(ctx, families)
	return nil
}

// notNil returns data as a value that is not NULL.
func notNil(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}

const familyColumns = `f.namespace, f.id, f.subject, f.session_id, f.version, f.data, f.until_ms`

// families returns the families of a query, whose rows begin with the columns
// of proof.
func (s *Store) families(ctx context.Context, doing, where string, args ...any) (out []refresh.Record, err error) {
	if err := s.ready(ctx, doing); err != nil {
		return nil, err
	}
	rows, err := s.db.QueryContext(ctx, `SELECT p.standby, p.now_us, `+familyColumns+`
		FROM (SELECT `+s.proof()+`) p LEFT JOIN sessiontoken_families f ON `+where, args...)
	if err != nil {
		return nil, s.explain(ctx, doing, err)
	}
	defer rows.Close()
	for rows.Next() {
		var from witness
		var namespace, id sql.NullString
		var subject, sessionID, data []byte
		var version, until sql.NullInt64
		err := rows.Scan(&from.standby, &from.micros, &namespace, &id, &subject, &sessionID, &version, &data, &until)
		if err = errors.Join(err, from.err()); err != nil {
			return nil, s.explain(ctx, doing, err)
		}
		if !id.Valid {
			continue // the row of the proof alone
		}
		out = append(out, refresh.Record{
			Namespace: namespace.String, ID: id.String, Subject: string(subject), SessionID: string(sessionID),
			Version: uint64(version.Int64), Data: data, Until: time.UnixMilli(until.Int64).UTC(),
		})
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(ctx, doing, err)
	}
	return out, nil
}

// Find returns a family. It is part of refresh.Store.
func (s *Store) Find(ctx context.Context, namespace, id string) (refresh.Record, error) {
	found, err := s.families(ctx, "find a family", `f.namespace = $1 AND f.id = $2`, namespace, id)
	switch {
	case err != nil:
		return refresh.Record{}, err
	case len(found) == 0:
		return refresh.Record{}, refresh.ErrNotFound
	}
	return found[0], nil
}

// List returns the families of a subject. It is part of refresh.Store.
func (s *Store) List(ctx context.Context, namespace, subject string) ([]refresh.Record, error) {
	return s.families(ctx, "list families", `f.namespace = $1 AND f.subject = $2`, namespace, []byte(subject))
}

// Swap replaces a family. It is part of refresh.Store.
func (s *Store) Swap(ctx context.Context, r refresh.Record) error {
	if r.Version == 0 {
		return refresh.ErrConflict
	}
	n, err := s.exec(ctx, "change a family", `UPDATE sessiontoken_families SET version = $3, data = $4, until_ms = $5 WHERE namespace = $1 AND id = $2 AND version = $6`,
		r.Namespace, r.ID, int64(r.Version), notNil(r.Data), r.Until.UnixMilli(), int64(r.Version-1))
	switch {
	case err != nil:
		return err
	case n == 0:
		return refresh.ErrConflict
	}
	s.sweep(ctx, families)
	return nil
}

// Delete removes a family. It is part of refresh.Store.
func (s *Store) Delete(ctx context.Context, namespace, id string) error {
	_, err := s.exec(ctx, "delete a family", `DELETE FROM sessiontoken_families WHERE namespace = $1 AND id = $2`, namespace, id)
	return err
}

// DeleteSession removes the families of a session. It is part of refresh.Store.
func (s *Store) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	_, err := s.exec(ctx, "delete families", `DELETE FROM sessiontoken_families WHERE namespace = $1 AND session_id = $2`, namespace, []byte(sessionID))
	return err
}

// DeleteSubject removes the families of a subject except those of one session.
// It is part of refresh.Store.
func (s *Store) DeleteSubject(ctx context.Context, namespace, subject, exceptSessionID string) error {
	query, args := `DELETE FROM sessiontoken_families WHERE namespace = $1 AND subject = $2`, []any{namespace, []byte(subject)}
	if exceptSessionID != "" {
		query, args = query+` AND session_id <> $3`, append(args, []byte(exceptSessionID))
	}
	_, err := s.exec(ctx, "delete families", query, args...)
	return err
}

// familiesAtOnce is how many families a page of ListAll has at most.
const familiesAtOnce = 1000

// ListAll returns a page of the families of a namespace, by their ids. It is
// part of refresh.AllLister.
func (s *Store) ListAll(ctx context.Context, namespace, after string) (page []refresh.Record, next string, err error) {
	page, err = s.families(ctx, "list all families", `f.namespace = $1 AND f.id > $2 ORDER BY f.id LIMIT $3`, namespace, after, familiesAtOnce)
	if err == nil && len(page) == familiesAtOnce {
		next = page[familiesAtOnce-1].ID
	}
	return page, next, err
}
