package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// stores are the three that replicas share. One value of a backend is all of them.
type stores struct {
	keys        keys.Store
	revocations revoke.Store
	families    refresh.Store
	close       func()
}

// open opens the stores at a place: "sqlite:FILE", a postgres or redis URL, or
// "memory". Keys are sealed with seal wherever they leave the process.
func open(ctx context.Context, place string, seal []byte) (stores, error) {
	aead, err := keys.NewAESGCM(seal)
	if err != nil {
		return stores{}, err
	}
	kind, rest, _ := strings.Cut(place, ":")
	switch kind {
	case "memory":
		return stores{new(keys.MemStore), new(revoke.MemStore), new(refresh.MemStore), func() {}}, nil
	case "sqlite":
		s, err := sqlite.Open(ctx, rest)
		return inSQL(s, aead, err)
	case "postgres", "postgresql":
		s, err := postgres.Open(ctx, place)
		return inSQL(s, aead, err)
	case "redis", "rediss":
		options, err := redis.ParseURL(place)
		if err != nil {
			return stores{}, errors.New("webapp: -store is not a URL of a Redis")
		}
		options.ContextTimeoutEnabled = true
		client := redis.NewClient(options)
		s, err := redisstore.New(redisstore.Config{Client: client, Prefix: "webapp"})
		if err != nil {
			return stores{}, err
		}
		return stores{keys.Sealed(s, aead), s, s, func() { _ = client.Close() }}, nil
	}
	return stores{}, fmt.Errorf("webapp: -store begins with %q; it must be sqlite:, postgres:, redis: or memory", kind)
}

// inSQL are the stores of one in a SQL database, unless it could not be opened.
func inSQL(s *sqlstore.Store, aead keys.AEAD, err error) (stores, error) {
	if err != nil {
		return stores{}, err
	}
	return stores{keys.Sealed(s, aead), s, s, func() { _ = s.Close() }}, nil
}

// secrets reads the sealing key and the secret of refresh tokens, or makes them. A
// real site has them from where it keeps its secrets.
func secrets(file string) (seal, tokens []byte, err error) {
	both, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		both = make([]byte, 64)
		rand.Read(both)
		err = os.WriteFile(file, both, 0o600)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(both) != 64 {
		return nil, nil, fmt.Errorf("webapp: %s does not hold 64 bytes", file)
	}
	return both[:32], both[32:], nil
}
