package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/keys"
)

const maxDocument = 1 << 20

var saveRing = redis.NewScript(`
local rev = redis.call('HGET', KEYS[1], 'rev') or ''
if rev ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'doc', ARGV[2], 'rev', ARGV[3])
return 1`)

// Load returns the ring's document. It is part of keys.Store.
func (s *Store) Load(ctx context.Context) (doc []byte, rev string, err error) {
	const doing = "load the ring"
	if err := s.ready(ctx, doing, false); err != nil {
		return nil, "", err
	}
	got, err := s.cfg.Client.HMGet(ctx, s.ring(), "doc", "rev").Result()
	if err != nil {
		return nil, "", failed(ctx, doing, err)
	}
	if got[0] == nil && got[1] == nil {
		return nil, "", nil
	}
	text, _ := got[0].(string)
	rev, _ = got[1].(string)
	if text == "" || rev == "" {
		return nil, "", errors.New("redisstore: load the ring: the hash is not what this version writes")
	}
	return []byte(text), rev, nil
}

// Save replaces the ring's document. It is part of keys.Store.
func (s *Store) Save(ctx context.Context, doc []byte, rev string) (string, error) {
	if len(doc) == 0 || len(doc) > maxDocument {
		return "", fmt.Errorf("redisstore: save the ring: a document of %d bytes; it must have 1 to %d", len(doc), maxDocument)
	}
	next := rand.Text() // no revision comes twice, also if the key is lost and made anew
	n, err := s.run(ctx, "save the ring", saveRing, []string{s.ring()}, rev, doc, next)
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", keys.ErrConflict
	}
	return next, nil
}
