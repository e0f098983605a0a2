package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sessiontoken/sessiontoken/refresh"
)

// Create adds a family. It is part of refresh.Store.
func (s *Store) Create(ctx context.Context, r refresh.Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("sqlstore: encode a family: %w", err)
	}
	_, err = s.exec(ctx, "create a family", `INSERT INTO sessiontoken_families (id, subject, version, data, until_us) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		r.ID, []byte(r.Subject), int64(r.Version), string(data), r.Until.UnixMicro())
	if err != nil {
		return err
	}
	s.sweep(ctx, "sessiontoken_families")
	return nil
}

// Find returns a family. It is part of refresh.Store.
func (s *Store) Find(ctx context.Context, id string) (refresh.Record, error) {
	const doing = "find a family"
	if err := s.ready(ctx, doing); err != nil {
		return refresh.Record{}, err
	}
	var data string
	err := s.db.QueryRowContext(ctx, `SELECT data FROM sessiontoken_families WHERE id = $1`, id).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return refresh.Record{}, refresh.ErrNotFound
	}
	if err != nil {
		return refresh.Record{}, s.explain(ctx, doing, err)
	}
	return decode(data)
}

func decode(data string) (r refresh.Record, err error) {
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return r, errors.New("sqlstore: a family's row is not what this version writes")
	}
	return r, nil
}

// Swap replaces a family. It is part of refresh.Store.
func (s *Store) Swap(ctx context.Context, r refresh.Record) error {
	if r.Version == 0 {
		return refresh.ErrConflict
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("sqlstore: encode a family: %w", err)
	}
	n, err := s.exec(ctx, "change a family", `UPDATE sessiontoken_families SET version = $2, data = $3, until_us = $4 WHERE id = $1 AND version = $5`,
		r.ID, int64(r.Version), string(data), r.Until.UnixMicro(), int64(r.Version-1))
	switch {
	case err != nil:
		return err
	case n == 0:
		return refresh.ErrConflict
	}
	return nil
}

// Delete removes a family. It is part of refresh.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.exec(ctx, "delete a family", `DELETE FROM sessiontoken_families WHERE id = $1`, id)
	return err
}

// DeleteSubject removes all families of a subject. It is part of refresh.Store.
func (s *Store) DeleteSubject(ctx context.Context, subject string) error {
	_, err := s.exec(ctx, "delete families", `DELETE FROM sessiontoken_families WHERE subject = $1`, []byte(subject))
	return err
}

// List returns the families of a subject. It is part of refresh.Store.
func (s *Store) List(ctx context.Context, subject string) ([]refresh.Record, error) {
	const doing = "list families"
	if err := s.ready(ctx, doing); err != nil {
		return nil, err
	}
	rows, err := s.db.QueryContext(ctx, `SELECT data FROM sessiontoken_families WHERE subject = $1`, []byte(subject))
	if err != nil {
		return nil, s.explain(ctx, doing, err)
	}
	defer rows.Close()
	var out []refresh.Record
	for rows.Next() {
		var data string
		if err := rows.Scan(&data); err != nil {
			return nil, s.explain(ctx, doing, err)
		}
		r, err := decode(data)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(ctx, doing, err)
	}
	return out, nil
}
