package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

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
