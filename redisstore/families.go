package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/refresh"
)

var (
	createFamily = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'data', ARGV[2])
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
redis.call('SADD', KEYS[2], ARGV[4])
local t = redis.call('TIME')
if redis.call('PTTL', KEYS[2]) < ARGV[3] - t[1] * 1000 then redis.call('PEXPIREAT', KEYS[2], ARGV[3]) end
return 1`)
	swapFamily = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'data', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
redis.call('SADD', KEYS[2], ARGV[5])
local t = redis.call('TIME')
if redis.call('PTTL', KEYS[2]) < ARGV[4] - t[1] * 1000 then redis.call('PEXPIREAT', KEYS[2], ARGV[4]) end
return 1`)
	// The keys of a subject's families are found in its set: on the same node,
	// by the hash tag.
	deleteSubject = redis.NewScript(`
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do redis.call('DEL', ARGV[1] .. id) end
redis.call('DEL', KEYS[1])
return 1`)
)

// forget is when the server may drop a family: an hour late, for clocks that
// differ.
func forget(r *refresh.Record) int64 { return r.Until.Add(time.Hour).UnixMilli() }

// Create adds a family. It is part of refresh.Store.
func (s *Store) Create(ctx context.Context, r refresh.Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("redisstore: encode a family: %w", err)
	}
	_, err = s.run(ctx, "create a family", createFamily, []string{s.family(r.ID), s.subject(r.Subject)}, r.Version, data, forget(&r), r.ID)
	return err
}

// Find returns a family. It is part of refresh.Store.
func (s *Store) Find(ctx context.Context, id string) (refresh.Record, error) {
	const doing = "find a family"
	if err := s.ready(ctx, doing, false); err != nil {
		return refresh.Record{}, err
	}
	data, err := s.cfg.Client.HGet(ctx, s.family(id), "data").Result()
	if errors.Is(err, redis.Nil) {
		return refresh.Record{}, refresh.ErrNotFound
	}
	if err != nil {
		return refresh.Record{}, failed(ctx, doing, err)
	}
	return decode(data)
}

func decode(data string) (r refresh.Record, err error) {
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return r, errors.New("redisstore: a family's hash is not what this version writes")
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
		return fmt.Errorf("redisstore: encode a family: %w", err)
	}
	n, err := s.run(ctx, "change a family", swapFamily, []string{s.family(r.ID), s.subject(r.Subject)}, r.Version-1, r.Version, data, forget(&r), r.ID)
	switch {
	case err != nil:
		return err
	case n == 0:
		return refresh.ErrConflict
	}
	return nil
}

var deleteFamily = redis.NewScript(`
redis.call('DEL', KEYS[1])
return 1`)

// Delete removes a family. It is part of refresh.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.run(ctx, "delete a family", deleteFamily, []string{s.family(id)})
	return err
}

// DeleteSubject removes all families of a subject. It is part of refresh.Store.
func (s *Store) DeleteSubject(ctx context.Context, subject string) error {
	_, err := s.run(ctx, "delete families", deleteSubject, []string{s.subject(subject)}, s.family(""))
	return err
}

// List returns the families of a subject. It is part of refresh.Store.
func (s *Store) List(ctx context.Context, subject string) ([]refresh.Record, error) {
	const doing = "list families"
	if err := s.ready(ctx, doing, false); err != nil {
		return nil, err
	}
	ids, err := s.cfg.Client.SMembers(ctx, s.subject(subject)).Result()
	if err != nil {
		return nil, failed(ctx, doing, err)
	}
	found := make([]*redis.StringCmd, len(ids))
	_, err = s.cfg.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			found[i] = p.HGet(ctx, s.family(id), "data")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, failed(ctx, doing, err)
	}
	var out []refresh.Record
	for _, cmd := range found {
		data, err := cmd.Result()
		if errors.Is(err, redis.Nil) {
			continue // deleted, or over
		}
		if err != nil {
			return nil, failed(ctx, doing, err)
		}
		r, err := decode(data)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
