package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/sqlstore"
)

// open opens the store at a place: "sqlite:FILE", a postgres or redis URL, or
// "memory".
func open(ctx context.Context, place string) (store authority.Store, end func(), err error) {
	kind, rest, _ := strings.Cut(place, ":")
	switch kind {
	case "memory":
		return authority.Memory(), func() {}, nil
	case "sqlite":
		db, err := sqlstore.OpenSQLite(rest)
		if err != nil {
			return nil, nil, err
		}
		return openSQL(ctx, db, sqlstore.SQLite)
	case "postgres", "postgresql":
		db, err := sqlstore.OpenPostgres(place)
		if err != nil {
			return nil, nil, err
		}
		return openSQL(ctx, db, sqlstore.Postgres)
	case "redis", "rediss":
		options, err := redis.ParseURL(place)
		if err != nil {
			return nil, nil, errors.New("webapp: -store is not a URL of a Redis")
		}
		options.ContextTimeoutEnabled = true
		client := redis.NewClient(options)
		s, err := redisstore.New(redisstore.Config{Client: client, Prefix: "webapp"})
		if err != nil {
			return nil, nil, err
		}
		return s, func() { _ = client.Close() }, nil
	}
	return nil, nil, fmt.Errorf("webapp: -store begins with %q; it must be sqlite:, postgres:, redis: or memory", kind)
}

func openSQL(ctx context.Context, db *sql.DB, d sqlstore.Dialect) (store authority.Store, end func(), err error) {
	s, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: d})
	if err != nil {
		return nil, nil, err
	}
	if err := s.CreateSchema(ctx); err != nil {
		return nil, nil, err
	}
	return s, func() { _ = db.Close() }, nil
}

// readSecret reads the secret that the replicas share, or makes it. A real site
// has it from where it keeps its secrets.
func readSecret(file string) ([]byte, error) {
	secret, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		secret = make([]byte, 32)
		rand.Read(secret)
		err = os.WriteFile(file, secret, 0o600)
	}
	return secret, err
}
