package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	"github.com/sessiontoken/sessiontoken/keys"
)

// maxGrant is how many bytes a grant has at most.
const maxGrant = 64 << 10

// LoadGrant returns a grant and its revision, or nil and "" if there is none.
// It is part of oidclogin.GrantStore.
func (s *Store) LoadGrant(ctx context.Context, namespace, key string) (sealed []byte, rev string, err error) {
	const doing = "load a grant"
	if err := s.ready(ctx, doing); err != nil {
		return nil, "", err
	}
	var from witness
	var found sql.NullString
	err = s.db.QueryRowContext(ctx, `SELECT p.standby, p.now_us, g.sealed, g.rev
		FROM (SELECT `+s.proof()+`) p LEFT JOIN sessiontoken_grants g ON g.namespace = $1 AND g.id = $2`, namespace, key).
		Scan(&from.standby, &from.micros, &sealed, &found)
	if err = errors.Join(err, from.err()); err != nil {
		return nil, "", s.explain(ctx, doing, err)
	}
	if found.Valid && (len(sealed) == 0 || found.String == "") {
		return nil, "", errors.New("sqlstore: load a grant: the row is empty")
	}
	return sealed, found.String, nil
}

// SaveGrant replaces a grant of that revision, or deletes it if sealed is
// empty. Another revision is keys.ErrConflict. It is part of
// oidclogin.GrantStore.
func (s *Store) SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (newRev string, err error) {
	const doing = "save a grant"
	if len(sealed) > maxGrant {
		return "", fmt.Errorf("sqlstore: save a grant: it has %d bytes, and may have %d", len(sealed), maxGrant)
	}
	if len(sealed) == 0 {
		return "", s.deleteGrant(ctx, namespace, key, rev)
	}
	next := rand.Text() // so that no revision is used twice, even if the row is lost
	var n int64
	if rev == "" {
		n, err = s.exec(ctx, doing, `INSERT INTO sessiontoken_grants (namespace, id, sealed, rev) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, namespace, key, sealed, next)
	} else {
		n, err = s.exec(ctx, doing, `UPDATE sessiontoken_grants SET sealed = $3, rev = $4 WHERE namespace = $1 AND id = $2 AND rev = $5`, namespace, key, sealed, next, rev)
	}
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", keys.ErrConflict
	}
	return next, nil
}

func (s *Store) deleteGrant(ctx context.Context, namespace, key, rev string) error {
	if rev == "" { // it must not be there
		found, _, err := s.LoadGrant(ctx, namespace, key)
		if err == nil && found != nil {
			err = keys.ErrConflict
		}
		return err
	}
	n, err := s.exec(ctx, "delete a grant", `DELETE FROM sessiontoken_grants WHERE namespace = $1 AND id = $2 AND rev = $3`, namespace, key, rev)
	if err == nil && n == 0 {
		err = keys.ErrConflict
	}
	return err
}
