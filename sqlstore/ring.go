package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
)

const maxDocument = 1 << 20

// Load returns the document of that name. It is part of keys.Store.
func (s *Store) Load(ctx context.Context, name string) (keys.Stored, error) {
	const doing = "load the ring"
	if err := s.ready(ctx, doing); err != nil {
		return keys.Stored{}, err
	}
	var from witness
	var doc []byte
	var rev sql.NullString
	err := s.db.QueryRowContext(ctx, `SELECT p.standby, p.now_us, r.doc, r.rev
		FROM (SELECT `+s.proof()+`) p LEFT JOIN sessiontoken_rings r ON r.name = $1`, name).Scan(&from.standby, &from.micros, &doc, &rev)
	if err = errors.Join(err, from.err()); err != nil {
		return keys.Stored{}, s.explain(ctx, doing, err)
	}
	if rev.Valid && (len(doc) == 0 || rev.String == "") {
		return keys.Stored{}, errors.New("sqlstore: load the ring: the row is empty")
	}
	return keys.Stored{Doc: doc, Rev: rev.String, Time: from.time()}, nil
}

// Revisions returns the revisions of documents, by one statement for any number
// of names. It is part of authority.Store.
func (s *Store) Revisions(ctx context.Context, names ...string) (revs []string, now time.Time, err error) {
	const doing = "read the revisions of rings"
	if err := s.ready(ctx, doing); err != nil {
		return nil, time.Time{}, err
	}
	found, now, err := s.revisions(ctx, names)
	if err != nil {
		return nil, time.Time{}, s.explain(ctx, doing, err)
	}
	for _, name := range names {
		revs = append(revs, found[name])
	}
	return revs, now, nil
}

// revisions returns those that there are, by name. All names are one parameter, of
// which an engine takes a limited number.
func (s *Store) revisions(ctx context.Context, names []string) (found map[string]string, now time.Time, err error) {
	list, err := json.Marshal(append([]string{}, names...))
	if err != nil {
		return nil, now, err
	}
	members := `SELECT value FROM json_each($1)`
	if s.dialect == Postgres {
		members = `SELECT jsonb_array_elements_text($1::jsonb)`
	}
	rows, err := s.db.QueryContext(ctx, `SELECT p.standby, p.now_us, r.name, r.rev
		FROM (SELECT `+s.proof()+`) p LEFT JOIN sessiontoken_rings r ON r.name IN (`+members+`)`, string(list))
	if err != nil {
		return nil, now, err
	}
	defer rows.Close()
	found = make(map[string]string, len(names))
	for rows.Next() {
		var from witness
		var name, rev sql.NullString
		if err := errors.Join(rows.Scan(&from.standby, &from.micros, &name, &rev), from.err()); err != nil {
			return nil, now, err
		}
		if now = from.time(); name.Valid {
			found[name.String] = rev.String
		}
	}
	return found, now, rows.Err()
}

// Save replaces the document of that name. It is part of keys.Store.
func (s *Store) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if len(doc) == 0 || len(doc) > maxDocument {
		return "", fmt.Errorf("sqlstore: save the ring: a document of %d bytes; it must have 1 to %d", len(doc), maxDocument)
	}
	next := rand.Text() // so that no revision is used twice, even if the row is lost
	var n int64
	var err error
	if rev == "" {
		n, err = s.exec(ctx, "save the ring", `INSERT INTO sessiontoken_rings (name, doc, rev) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, name, doc, next)
	} else {
		n, err = s.exec(ctx, "save the ring", `UPDATE sessiontoken_rings SET doc = $2, rev = $3 WHERE name = $1 AND rev = $4`, name, doc, next, rev)
	}
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", keys.ErrConflict
	}
	return next, nil
}
