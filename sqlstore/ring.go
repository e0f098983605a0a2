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

// Load returns the ring's document. It is part of keys.Store.
func (s *Store) Load(ctx context.Context) (doc []byte, rev string, err error) {
	const doing = "load the ring"
	if err := s.ready(ctx, doing); err != nil {
		return nil, "", err
	}
	err = s.db.QueryRowContext(ctx, `SELECT doc, rev FROM sessiontoken_ring WHERE name = $1`, s.ring).Scan(&doc, &rev)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", s.explain(ctx, doing, err)
	}
	if len(doc) == 0 || rev == "" {
		return nil, "", errors.New("sqlstore: load the ring: the row is empty")
	}
	return doc, rev, nil
}

// Save replaces the ring's document. It is part of keys.Store.
func (s *Store) Save(ctx context.Context, doc []byte, rev string) (string, error) {
	if len(doc) == 0 || len(doc) > maxDocument {
		return "", fmt.Errorf("sqlstore: save the ring: a document of %d bytes; it must have 1 to %d", len(doc), maxDocument)
	}
	next := rand.Text() // no revision comes twice, also if the row is lost and made anew
	var n int64
	var err error
	if rev == "" {
		n, err = s.exec(ctx, "save the ring", `INSERT INTO sessiontoken_ring (name, doc, rev) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, s.ring, doc, next)
	} else {
		n, err = s.exec(ctx, "save the ring", `UPDATE sessiontoken_ring SET doc = $2, rev = $3 WHERE name = $1 AND rev = $4`, s.ring, doc, next, rev)
	}
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", keys.ErrConflict
	}
	return next, nil
}
