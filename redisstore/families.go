package redisstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/refresh"
)

// A family is a hash. Its id is in the sorted set of its subject and in that of
// its session, with the time at which the server drops it. A set is dropped
// with its last id. All keys of one prefix are on one node, so that a script
// may use keys that it reads from other keys.

// indexFamily is the end of a script that has written a family: KEYS[1] is the
// family, ARGV[3] its expiry, ARGV[4] its id, and KEYS[2] and KEYS[3] are its
// sets.
const indexFamily = `
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, 3 do
	redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%.0f', now))
	redis.call('ZADD', KEYS[i], ARGV[3], ARGV[4])
	local ttl = redis.call('PTTL', KEYS[i])
	if ttl < 0 or ttl < ARGV[3] - now then redis.call('PEXPIREAT', KEYS[i], ARGV[3]) end
end
return 1`

var (
	createFamily = newScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'data', ARGV[2], 'until', ARGV[5], 'subject', ARGV[6], 'session', ARGV[7])` + indexFamily)
	swapFamily = newScript(`
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[6] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'data', ARGV[2], 'until', ARGV[5])` + indexFamily)
	deleteFamily = newScript(`
local of = redis.call('HMGET', KEYS[1], 'subject', 'session')
if of[1] then redis.call('ZREM', ARGV[2] .. of[1], ARGV[1]) end
if of[2] then redis.call('ZREM', ARGV[3] .. of[2], ARGV[1]) end
redis.call('DEL', KEYS[1])
return 1`)
	deleteSession = newScript(`
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
	local subject = redis.call('HGET', ARGV[1] .. id, 'subject')
	if subject then redis.call('ZREM', ARGV[2] .. subject, id) end
	redis.call('DEL', ARGV[1] .. id)
end
redis.call('DEL', KEYS[1])
return 1`)
	deleteSubject = newScript(`
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
	local session = redis.call('HGET', ARGV[1] .. id, 'session')
	if ARGV[3] == '' or session ~= ARGV[3] then
		if session then redis.call('ZREM', ARGV[2] .. session, id) end
		redis.call('ZREM', KEYS[1], id)
		redis.call('DEL', ARGV[1] .. id)
	end
end
return 1`)
)

// forget returns when the server may drop a family: an hour after its Until,
// since clocks differ.
func forget(r *refresh.Record) int64 { return r.Until.Add(time.Hour).UnixMilli() }

// keysOf returns the keys of a family and of its sets.
func (s *Store) keysOf(r *refresh.Record) []string {
	return []string{s.family(r.Namespace, r.ID), s.subject(r.Namespace, r.Subject), s.session(r.Namespace, r.SessionID)}
}

// Create adds a family. It is part of refresh.Store.
func (s *Store) Create(ctx context.Context, r refresh.Record) error {
	_, err := s.run(ctx, "create a family", createFamily, s.keysOf(&r), r.Version, r.Data, forget(&r), r.ID, r.Until.UnixMilli(), r.Subject, r.SessionID)
	return err
}

// Swap replaces a family. It is part of refresh.Store.
func (s *Store) Swap(ctx context.Context, r refresh.Record) error {
	if r.Version == 0 {
		return refresh.ErrConflict
	}
	n, err := s.run(ctx, "change a family", swapFamily, s.keysOf(&r), r.Version, r.Data, forget(&r), r.ID, r.Until.UnixMilli(), r.Version-1)
	switch {
	case err != nil:
		return err
	case n == 0:
		return refresh.ErrConflict
	}
	return nil
}

// Delete removes a family. It is part of refresh.Store.
func (s *Store) Delete(ctx context.Context, namespace, id string) error {
	_, err := s.run(ctx, "delete a family", deleteFamily, []string{s.family(namespace, id)}, id, s.subject(namespace, ""), s.session(namespace, ""))
	return err
}

// DeleteSession removes the families of a session. It is part of refresh.Store.
func (s *Store) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	_, err := s.run(ctx, "delete families", deleteSession, []string{s.session(namespace, sessionID)}, s.family(namespace, ""), s.subject(namespace, ""))
	return err
}

// DeleteSubject removes the families of a subject except those of one session.
// It is part of refresh.Store.
func (s *Store) DeleteSubject(ctx context.Context, namespace, subject, exceptSessionID string) error {
	_, err := s.run(ctx, "delete families", deleteSubject, []string{s.subject(namespace, subject)}, s.family(namespace, ""), s.session(namespace, ""), exceptSessionID)
	return err
}

// Find returns a family. It is part of refresh.Store.
func (s *Store) Find(ctx context.Context, namespace, id string) (refresh.Record, error) {
	found, err := s.families(ctx, "find a family", namespace, id)
	switch {
	case err != nil:
		return refresh.Record{}, err
	case len(found) == 0:
		return refresh.Record{}, refresh.ErrNotFound
	}
	return found[0], nil
}

// List returns the families of a subject. It is part of refresh.Store.
func (s *Store) List(ctx context.Context, namespace, subject string) ([]refresh.Record, error) {
	const doing = "list families"
	var ids *redis.StringSliceCmd
	err := s.ask(ctx, doing, func(p redis.Pipeliner) { ids = p.ZRange(ctx, s.subject(namespace, subject), 0, -1) })
	if err != nil || len(ids.Val()) == 0 {
		return nil, err
	}
	return s.families(ctx, doing, namespace, ids.Val()...)
}

// families returns the families with these ids that exist.
func (s *Store) families(ctx context.Context, doing, namespace string, ids ...string) (out []refresh.Record, err error) {
	found := make([]*redis.SliceCmd, len(ids))
	err = s.ask(ctx, doing, func(p redis.Pipeliner) {
		for i, id := range ids {
			found[i] = p.HMGet(ctx, s.family(namespace, id), "version", "data", "until", "subject", "session")
		}
	})
	if err != nil {
		return nil, err
	}
	for i, cmd := range found {
		v := cmd.Val()
		if v[0] == nil {
			continue // deleted or expired
		}
		r, err := decode(v)
		if err != nil {
			return nil, err
		}
		r.Namespace, r.ID = namespace, ids[i]
		out = append(out, r)
	}
	return out, nil
}

func decode(values []any) (r refresh.Record, err error) {
	var text [5]string
	for i, v := range values {
		s, ok := v.(string)
		if !ok {
			err = errors.New("a field is missing")
		}
		text[i] = s
	}
	version, err1 := strconv.ParseUint(text[0], 10, 64)
	until, err2 := strconv.ParseInt(text[2], 10, 64)
	if errors.Join(err, err1, err2) != nil {
		return r, errors.New("redisstore: a family's hash is not what this version writes")
	}
	return refresh.Record{Version: version, Data: []byte(text[1]), Until: time.UnixMilli(until).UTC(), Subject: text[3], SessionID: text[4]}, nil
}

// familiesAtOnce is about how many keys of the server a page of ListAll looks
// at.
const familiesAtOnce = 1000

// ListAll returns a page of the families of a namespace. It is part of
// refresh.AllLister. It looks at all keys of the server, some at a time.
func (s *Store) ListAll(ctx context.Context, namespace, after string) (page []refresh.Record, next string, err error) {
	const doing = "list all families"
	var cursor uint64
	if after != "" {
		if cursor, err = strconv.ParseUint(after, 10, 64); err != nil {
			return nil, "", errors.New("redisstore: list all families: after is not the next of a page")
		}
	}
	prefix := s.family(namespace, "")
	var found *redis.ScanCmd
	err = s.ask(ctx, doing, func(p redis.Pipeliner) { found = p.Scan(ctx, cursor, literal.Replace(prefix)+"*", familiesAtOnce) })
	if err != nil {
		return nil, "", err
	}
	names, cursor := found.Val()
	if cursor != 0 {
		next = strconv.FormatUint(cursor, 10)
	}
	if len(names) == 0 {
		return nil, next, nil
	}
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, prefix)
	}
	page, err = s.families(ctx, doing, namespace, names...)
	return page, next, err
}

// literal escapes what a pattern of SCAN gives a meaning.
var literal = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`, `^`, `\^`)
