package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/keys"
)

// maxGrant is how many bytes a grant has at most.
const maxGrant = 64 << 10

var saveGrant = newScript(`
local rev = redis.call('HGET', KEYS[1], 'rev') or ''
if rev ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
	redis.call('DEL', KEYS[1])
else
	redis.call('HSET', KEYS[1], 'sealed', ARGV[2], 'rev', ARGV[3])
end
return 1`)

func (s *Store) grant(namespace, key string) string { return s.in(namespace, "grant", key) }

// LoadGrant returns a grant and its revision, or nil and "" if there is none.
// It is part of oidclogin.GrantStore.
func (s *Store) LoadGrant(ctx context.Context, namespace, key string) (sealed []byte, rev string, err error) {
	var got *redis.SliceCmd
	err = s.ask(ctx, "load a grant", func(p redis.Pipeliner) { got = p.HMGet(ctx, s.grant(namespace, key), "sealed", "rev") })
	if err != nil {
		return nil, "", err
	}
	v := got.Val()
	if v[0] == nil && v[1] == nil {
		return nil, "", nil
	}
	data, _ := v[0].(string)
	if rev, _ = v[1].(string); data == "" || rev == "" {
		return nil, "", errors.New("redisstore: load a grant: the hash is not what this version writes")
	}
	return []byte(data), rev, nil
}

// SaveGrant replaces a grant of that revision, or deletes it if sealed is
// empty. Another revision is keys.ErrConflict. It is part of
// oidclogin.GrantStore.
func (s *Store) SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (newRev string, err error) {
	if len(sealed) > maxGrant {
		return "", fmt.Errorf("redisstore: save a grant: it has %d bytes, and may have %d", len(sealed), maxGrant)
	}
	if len(sealed) > 0 {
		newRev = rand.Text() // so that no revision is used twice, even if the key is lost
	}
	n, err := s.run(ctx, "save a grant", saveGrant, []string{s.grant(namespace, key)}, rev, sealed, newRev)
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", keys.ErrConflict
	}
	return newRev, nil
}
