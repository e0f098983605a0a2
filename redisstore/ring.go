package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/keys"
)

const maxDocument = 1 << 20

var saveRing = newScript(`
local rev = redis.call('HGET', KEYS[1], 'rev') or ''
if rev ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'doc', ARGV[2], 'rev', ARGV[3])
return 1`)

// Load returns the document of that name. It is part of keys.Store.
func (s *Store) Load(ctx context.Context, name string) (keys.Stored, error) {
	var now *redis.TimeCmd
	var got *redis.SliceCmd
	err := s.ask(ctx, "load the ring", func(p redis.Pipeliner) {
		now = p.Time(ctx)
		got = p.HMGet(ctx, s.ring(name), "doc", "rev")
	})
	if err != nil {
		return keys.Stored{}, err
	}
	stored := keys.Stored{Time: now.Val().UTC()}
	v := got.Val()
	if v[0] == nil && v[1] == nil {
		return stored, nil
	}
	doc, _ := v[0].(string)
	stored.Doc = []byte(doc)
	if stored.Rev, _ = v[1].(string); doc == "" || stored.Rev == "" {
		return keys.Stored{}, errors.New("redisstore: load the ring: the hash is not what this version writes")
	}
	return stored, nil
}

// Revisions returns the revisions of documents, in one round trip for any number
// of names. It is part of authority.Store.
func (s *Store) Revisions(ctx context.Context, names ...string) (revs []string, at time.Time, err error) {
	var now *redis.TimeCmd
	got := make([]*redis.SliceCmd, len(names))
	err = s.ask(ctx, "read the revisions of rings", func(p redis.Pipeliner) {
		now = p.Time(ctx)
		for i, name := range names {
			got[i] = p.HMGet(ctx, s.ring(name), "rev")
		}
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, v := range got {
		rev, _ := v.Val()[0].(string)
		revs = append(revs, rev)
	}
	return revs, now.Val().UTC(), nil
}

// Save replaces the document of that name. It is part of keys.Store.
func (s *Store) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if len(doc) == 0 || len(doc) > maxDocument {
		return "", fmt.Errorf("redisstore: save the ring: a document of %d bytes; it must have 1 to %d", len(doc), maxDocument)
	}
	next := rand.Text() // so that no revision is used twice, even if the key is lost
	n, err := s.run(ctx, "save the ring", saveRing, []string{s.ring(name)}, rev, doc, next)
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", keys.ErrConflict
	}
	return next, nil
}
