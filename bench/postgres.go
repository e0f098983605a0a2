package bench

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// openPostgres is a table of sessions, by the hash of what the client presents,
// with the state as jsonb.
func openPostgres(s Servers, subjects []string, life time.Duration) (*Opened, error) {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, s.Postgres)
	if err != nil {
		return nil, fmt.Errorf("bench: postgres: %w", err)
	}
	o := &Opened{Close: pool.Close}
	if _, err := pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS sessions (
		id bytea PRIMARY KEY, subject text NOT NULL, expires timestamptz NOT NULL, state jsonb NOT NULL)`); err != nil {
		pool.Close()
		return nil, fmt.Errorf("bench: postgres: %w", err)
	}
	state, err := json.Marshal(SampleState())
	if err != nil {
		pool.Close()
		return nil, err
	}
	for _, subject := range subjects {
		id := rand.Text()
		sum := sha256.Sum256([]byte(id))
		if _, err := pool.Exec(ctx, `INSERT INTO sessions VALUES ($1, $2, $3, $4)`, sum[:], subject, time.Now().Add(life), state); err != nil {
			pool.Close()
			return nil, fmt.Errorf("bench: postgres: %w", err)
		}
		o.Presented = append(o.Presented, id)
	}
	o.Read = func(ctx context.Context, id string) (subject string, state State, err error) {
		sum := sha256.Sum256([]byte(id))
		err = pool.QueryRow(ctx, `SELECT subject, state FROM sessions WHERE id = $1 AND expires > now()`, sum[:]).Scan(&subject, &state)
		return subject, state, err
	}
	return o, nil
}
