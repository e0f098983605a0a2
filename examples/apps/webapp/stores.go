package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// open opens the store at a place: "sqlite:FILE", a postgres or redis URL, or
// "memory".
func open(ctx context.Context, place string) (store authority.Store, end func(), err error) {
	kind, rest, _ := strings.Cut(place, ":")
	switch kind {
	case "memory":
		return authority.Memory(), func() {}, nil
	case "sqlite":
		s, err := sqlite.Open(ctx, rest)
		return inSQL(s, err)
	case "postgres", "postgresql":
		s, err := postgres.Open(ctx, place)
		return inSQL(s, err)
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

// inSQL is the store in a SQL database, unless it could not be opened.
func inSQL(s *sqlstore.Store, err error) (store authority.Store, end func(), _ error) {
	if err != nil {
		return nil, nil, err
	}
	return s, func() { _ = s.Close() }, nil
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
