// Package redisstore keeps key rings, ended sessions and refresh tokens' families
// in Redis or Valkey, from version 6.2 on, alone or as a Cluster.
//
// One [Store] is a Store of packages keys, revoke and refresh at once, and tells a
// revoke.List of news with a blocking read.
//
// # What Redis promises
//
// Redis acknowledges a write before it is on disk unless it runs with
// "appendonly yes" and "appendfsync always", and loses what it had acknowledged
// when it is killed: with its default settings minutes of it, with "appendfsync
// everysec" a second. A sign-out that is lost is a session that lives on until its
// token's end. [Store.CheckPersistence] says how a server is set up. A replica that
// takes over may lack the last writes too; Config.WaitReplicas has each write wait
// for replicas.
package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Config says what a [Store] uses.
type Config struct {
	// Client is the connection, which the caller opens and closes: of one
	// server, of a Sentinel or of a Cluster. Required. With
	// ContextTimeoutEnabled its calls end when their context does; without, they
	// may outlive it by its ReadTimeout.
	Client redis.UniversalClient
	// Prefix is what all keys begin with, within a hash tag, so that they are on
	// one node of a Cluster. Empty means "sessiontoken".
	Prefix string
	// KeepEnded is how long what was ended is kept in the log: at least the
	// issuer's MaxSession. 0 means 31 days.
	KeepEnded time.Duration
	// WaitReplicas is how many replicas must have a write before it counts; a
	// write that fewer have within WaitTimeout is an error, and may have
	// happened all the same. 0 means none. Not with a Cluster.
	WaitReplicas int
	// WaitTimeout bounds that. 0 means 1 s.
	WaitTimeout time.Duration
}

// Store keeps everything under one prefix. It is safe for concurrent use, by any
// number of processes.
type Store struct {
	cfg Config
	tag string
}

var (
	_ keys.Store    = (*Store)(nil)
	_ revoke.Store  = (*Store)(nil)
	_ revoke.Waiter = (*Store)(nil)
	_ refresh.Store = (*Store)(nil)
)

// New checks the configuration and returns the store for it. An error names the
// field at fault. It does no I/O.
func New(cfg Config) (*Store, error) {
	switch {
	case cfg.Client == nil:
		return nil, errors.New("redisstore: Config.Client is required")
	case strings.ContainsAny(cfg.Prefix, "{}"):
		return nil, errors.New("redisstore: Config.Prefix must hold no braces")
	case cfg.KeepEnded < 0:
		return nil, errors.New("redisstore: Config.KeepEnded is negative")
	case cfg.WaitReplicas < 0:
		return nil, errors.New("redisstore: Config.WaitReplicas is negative")
	case cfg.WaitReplicas > 0 && isCluster(cfg.Client):
		return nil, errors.New("redisstore: Config.WaitReplicas cannot be had with a Cluster: its nodes are not addressed one by one here")
	case cfg.WaitTimeout < 0:
		return nil, errors.New("redisstore: Config.WaitTimeout is negative")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "sessiontoken"
	}
	if cfg.KeepEnded == 0 {
		cfg.KeepEnded = 31 * 24 * time.Hour
	}
	if cfg.WaitTimeout == 0 {
		cfg.WaitTimeout = time.Second
	}
	return &Store{cfg: cfg, tag: "{" + cfg.Prefix + "}:"}, nil
}

func isCluster(c redis.UniversalClient) bool {
	_, ok := c.(*redis.ClusterClient)
	return ok
}

func (s *Store) ring() string                  { return s.tag + "ring" }
func (s *Store) ended() string                 { return s.tag + "ended" }
func (s *Store) family(id string) string       { return s.tag + "family:" + id }
func (s *Store) subject(subject string) string { return s.tag + "subject:" + subject }

// failed wraps an error. One of a context that has ended is the context's.
func failed(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("redisstore: %s: %w", doing, err)
}

// run runs a script that writes, and waits for the replicas.
func (s *Store) run(ctx context.Context, doing string, script *redis.Script, keys []string, args ...any) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, failed(ctx, doing, err)
	}
	n, err := script.Run(ctx, s.cfg.Client, keys, args...).Int64()
	if err != nil {
		return 0, failed(ctx, doing, err)
	}
	if n > 0 {
		if err := s.wait(ctx); err != nil {
			return 0, failed(ctx, doing, err)
		}
	}
	return n, nil
}

// wait returns when the replicas have what was written before. WAIT speaks for the
// connection that it is sent on, and a script cannot call it, so a small write and
// the WAIT go together.
func (s *Store) wait(ctx context.Context) error {
	if s.cfg.WaitReplicas == 0 {
		return nil
	}
	var got *redis.Cmd
	_, err := s.cfg.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		// Its offset in the replication stream is beyond that of the write before.
		p.Set(ctx, s.tag+"acknowledged", 1, 0)
		got = p.Do(ctx, "WAIT", s.cfg.WaitReplicas, s.cfg.WaitTimeout.Milliseconds())
		return nil
	})
	if err != nil {
		return err
	}
	n, err := got.Int()
	if err != nil {
		return err
	}
	if n < s.cfg.WaitReplicas {
		return fmt.Errorf("%d of %d replicas have the write", n, s.cfg.WaitReplicas)
	}
	return nil
}

// CheckPersistence returns an error if the server loses acknowledged writes when it
// is killed, or does not say whether it does. Call it at the start of a program,
// and decide: a cache may lose them, a list of ended sessions should not.
func (s *Store) CheckPersistence(ctx context.Context) error {
	for _, c := range []struct{ name, want string }{{"appendonly", "yes"}, {"appendfsync", "always"}} {
		got, err := s.cfg.Client.ConfigGet(ctx, c.name).Result()
		if err != nil {
			return failed(ctx, "ask for "+c.name, err)
		}
		if got[c.name] != c.want {
			return fmt.Errorf("redisstore: the server has %s %q; without %q it loses acknowledged writes when it is killed", c.name, got[c.name], c.want)
		}
	}
	return nil
}

const maxDocument = 1 << 20

var saveRing = redis.NewScript(`
local rev = redis.call('HGET', KEYS[1], 'rev') or ''
if rev ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'doc', ARGV[2], 'rev', ARGV[3])
return 1`)

// Load returns the ring's document. It is part of keys.Store.
func (s *Store) Load(ctx context.Context) (doc []byte, rev string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", failed(ctx, "load the ring", err)
	}
	got, err := s.cfg.Client.HMGet(ctx, s.ring(), "doc", "rev").Result()
	if err != nil {
		return nil, "", failed(ctx, "load the ring", err)
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

var appendEnded = redis.NewScript(`
redis.call('XADD', KEYS[1], 'MINID', '~', ARGV[1], '*', 'scope', ARGV[2], 'value', ARGV[3], 'before', ARGV[4], 'until', ARGV[5])
return 1`)

// Append adds an ended session. It is part of revoke.Store.
func (s *Store) Append(ctx context.Context, e revoke.Entry) error {
	_, err := s.run(ctx, "write what was ended", appendEnded, []string{s.ended()},
		time.Now().Add(-s.cfg.KeepEnded-time.Hour).UnixMilli(), string(e.Scope), e.Value, e.Before.UnixMicro(), e.Until.UnixMicro())
	return err
}

// Since returns what was ended since. It is part of revoke.Store.
func (s *Store) Since(ctx context.Context, cursor string) ([]revoke.Entry, string, error) {
	const doing = "read what was ended"
	if err := ctx.Err(); err != nil {
		return nil, "", failed(ctx, doing, err)
	}
	from, ok := parseID(cursor)
	if !ok {
		cursor, from = "0-0", streamID{}
	}
	var last, after *redis.XMessageSliceCmd
	_, err := s.cfg.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		last = p.XRevRangeN(ctx, s.ended(), "+", "-", 1)
		after = p.XRange(ctx, s.ended(), "("+cursor, "+")
		return nil
	})
	if err != nil {
		return nil, "", failed(ctx, doing, err)
	}
	messages, next := after.Val(), cursor
	newest := streamID{}
	if l := last.Val(); len(l) > 0 {
		newest, _ = parseID(l[0].ID)
	}
	if newest.before(from) { // the server lost its data, or is another one
		if messages, err = s.cfg.Client.XRange(ctx, s.ended(), "-", "+").Result(); err != nil {
			return nil, "", failed(ctx, doing, err)
		}
		next = "0-0"
	}
	var entries []revoke.Entry
	for _, m := range messages {
		e, err := entryOf(m.Values)
		if err != nil {
			return nil, "", err
		}
		entries, next = append(entries, e), m.ID
	}
	return entries, next, nil
}

func entryOf(values map[string]any) (e revoke.Entry, err error) {
	text := func(name string) string { v, _ := values[name].(string); return v }
	before, err1 := strconv.ParseInt(text("before"), 10, 64)
	until, err2 := strconv.ParseInt(text("until"), 10, 64)
	if text("scope") == "" || err1 != nil || err2 != nil {
		return e, errors.New("redisstore: read what was ended: an entry is not what this version writes")
	}
	return revoke.Entry{Scope: revoke.Scope(text("scope")), Value: text("value"), Before: time.UnixMicro(before).UTC(), Until: time.UnixMicro(until).UTC()}, nil
}

// streamID is the id of an entry in a stream.
type streamID struct{ ms, seq uint64 }

func (a streamID) before(b streamID) bool { return a.ms < b.ms || a.ms == b.ms && a.seq < b.seq }

func parseID(s string) (id streamID, ok bool) {
	ms, seq, _ := strings.Cut(s, "-")
	var err1, err2 error
	id.ms, err1 = strconv.ParseUint(ms, 10, 64)
	id.seq, err2 = strconv.ParseUint(seq, 10, 64)
	if err1 != nil || err2 != nil {
		return streamID{}, false
	}
	return id, true
}

// maxBlock bounds one blocking read: a context that is cancelled, and not at its
// deadline, is noticed after that.
const maxBlock = time.Second

// Wait returns when there may be something after cursor. It is part of
// revoke.Waiter. It occupies a connection of the client while it waits.
func (s *Store) Wait(ctx context.Context, cursor string) error {
	if _, ok := parseID(cursor); !ok {
		return nil
	}
	for {
		block := maxBlock
		if deadline, ok := ctx.Deadline(); ok {
			block = min(block, time.Until(deadline))
		}
		if ctx.Err() != nil || block < time.Millisecond { // 0 would block for ever
			<-ctx.Done()
			return ctx.Err()
		}
		err := s.cfg.Client.XRead(ctx, &redis.XReadArgs{Streams: []string{s.ended(), cursor}, Count: 1, Block: block}).Err()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, redis.Nil):
			return failed(ctx, "wait for news", err)
		}
	}
}

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
	if err := ctx.Err(); err != nil {
		return refresh.Record{}, failed(ctx, "find a family", err)
	}
	data, err := s.cfg.Client.HGet(ctx, s.family(id), "data").Result()
	if errors.Is(err, redis.Nil) {
		return refresh.Record{}, refresh.ErrNotFound
	}
	if err != nil {
		return refresh.Record{}, failed(ctx, "find a family", err)
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
	if err := ctx.Err(); err != nil {
		return nil, failed(ctx, doing, err)
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
