// Package redisstore keeps key rings, revocations and refresh tokens' families
// in Redis or Valkey, from version 6.2 on, alone or as a Cluster.
//
// One [Store] is a Store of packages keys, revoke and refresh at once, and
// tells a revoke.List of news with a blocking read. Several issuers share one
// store: names of rings and namespaces keep them apart.
//
// Every reading proves that a master gave it: a replica, whose copy may lag, is
// an error. The time that is told with a reading is the server's.
//
// # What Redis promises
//
// Redis acknowledges a write before it is on disk unless it runs with
// "appendonly yes" and "appendfsync always", and loses what it had acknowledged
// when it is killed: with its default settings minutes of it, with "appendfsync
// everysec" a second. A sign-out that is lost is a session that lives on, for
// as long as it is renewed. A store logs it if its server is not set up for
// that; see [Store.CheckPersistence]. A replica that takes over may lack the
// last writes too; Config.WaitReplicas has each write wait for replicas.
//
// # Rights
//
// The server's user needs these commands, on the keys of the prefix alone. For
// the default prefix:
//
//	ACL SETUSER sessiontoken on >PASSWORD ~{sessiontoken}:*
//	ACL SETUSER sessiontoken +del +eval +evalsha +exists +get +hget +hmget
//	ACL SETUSER sessiontoken +hset +pexpireat +pttl +set +time +xadd +xdel
//	ACL SETUSER sessiontoken +xrange +xread +xrevrange +zadd +zrange
//	ACL SETUSER sessiontoken +zrangebyscore +zrem +zremrangebyscore
//
// Config.WaitReplicas needs +wait too, a Cluster +cluster|slots, and
// [Store.CheckPersistence] +config|get.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Config says what a [Store] uses.
type Config struct {
	// Client is the connection, which the caller opens and closes: of one
	// server, of a Sentinel or of a Cluster. It is a *redis.Client, or a
	// *redis.ClusterClient that reads from masters. Required. With
	// ContextTimeoutEnabled its calls end when their context does; without,
	// they may outlive it by its ReadTimeout.
	Client redis.UniversalClient
	// Prefix is what all keys begin with, within a hash tag, so that they are
	// on one node of a Cluster. Empty means "sessiontoken".
	Prefix string
	// KeepFor should be longer than the MaxSession of every issuer. Revocations
	// that are over within it are in a log that is trimmed by age, by the
	// server's clock. Those that live longer, such as those of keys, are kept
	// too, each until it is over, and take twice the memory. 0 means 25 h.
	KeepFor time.Duration
	// WaitReplicas is how many replicas must have a write before it counts; a
	// write that fewer have within WaitTimeout is an error, and may have
	// happened all the same. 0 means none. In a Cluster they are those of the
	// master that has the keys.
	WaitReplicas int
	// WaitTimeout bounds that. 0 means 1 s.
	WaitTimeout time.Duration
	// Logger is told once, before the first write, if the server loses what it
	// has acknowledged (Warn): see [Store.CheckPersistence]. Nil means
	// slog.Default().
	Logger *slog.Logger
}

// Store keeps everything under one prefix. It is safe for concurrent use, by
// any number of processes.
type Store struct {
	cfg     Config
	tag     string
	checked atomic.Bool // what is there is of this version
	asked   atomic.Bool // whether the server loses what it acknowledged
}

var (
	_ keys.Store    = (*Store)(nil)
	_ revoke.Store  = (*Store)(nil)
	_ refresh.Store = (*Store)(nil)
)

// New checks the configuration and returns the store for it. An error names the
// field at fault. It does no I/O.
func New(cfg Config) (*Store, error) {
	if err := checkClient(cfg.Client); err != nil {
		return nil, err
	}
	switch {
	case strings.ContainsAny(cfg.Prefix, "{}"):
		return nil, errors.New("redisstore: Config.Prefix must hold no braces")
	case cfg.KeepFor < 0:
		return nil, errors.New("redisstore: Config.KeepFor is negative")
	case cfg.WaitReplicas < 0:
		return nil, errors.New("redisstore: Config.WaitReplicas is negative")
	case cfg.WaitTimeout < 0:
		return nil, errors.New("redisstore: Config.WaitTimeout is negative")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "sessiontoken"
	}
	if cfg.KeepFor == 0 {
		cfg.KeepFor = 25 * time.Hour
	}
	if cfg.WaitTimeout == 0 {
		cfg.WaitTimeout = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Store{cfg: cfg, tag: "{" + cfg.Prefix + "}:"}, nil
}

// checkClient returns an error for a client that may read from a replica, or
// from a server that does not have the keys.
func checkClient(client redis.UniversalClient) error {
	if arg.IsNil(client) {
		return errors.New("redisstore: Config.Client is required")
	}
	switch c := client.(type) {
	case *redis.Client:
		return nil
	case *redis.ClusterClient:
		if o := c.Options(); o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return errors.New("redisstore: Config.Client reads from replicas, which may lag; leave ReadOnly, RouteByLatency and RouteRandomly off")
		}
		return nil
	}
	return fmt.Errorf("redisstore: Config.Client is a %T; it must be a *redis.Client or a *redis.ClusterClient", client)
}

func (s *Store) ring(name string) string { return s.tag + "ring:" + name }
func (s *Store) version() string         { return s.tag + "version" }
func (s *Store) revocations() string     { return s.tag + "revocations" }
func (s *Store) kept() string            { return s.tag + "kept" }
func (s *Store) keptUntil() string       { return s.tag + "kept-until" }

func (s *Store) family(namespace, id string) string       { return s.in(namespace, "family", id) }
func (s *Store) subject(namespace, subject string) string { return s.in(namespace, "subject", subject) }
func (s *Store) session(namespace, id string) string      { return s.in(namespace, "session", id) }

// in is a key of a namespace, whose length keeps it from running into what
// comes after it.
func (s *Store) in(namespace, kind, name string) string {
	return fmt.Sprintf("%s%s:%d:%s:%s", s.tag, kind, len(namespace), namespace, name)
}

// version is that of what is written.
const version = "2"

// ready returns an error if what is there is of another version. Before the
// first write, it says what may be lost.
func (s *Store) ready(ctx context.Context, doing string, writes bool) error {
	if err := ctx.Err(); err != nil {
		return failed(ctx, doing, err)
	}
	if !s.checked.Load() {
		if err := s.checkVersion(ctx, doing, writes); err != nil {
			return err
		}
	}
	if writes && !s.asked.Load() {
		if err := s.CheckPersistence(ctx); ctx.Err() == nil && !s.asked.Swap(true) && err != nil {
			s.cfg.Logger.Warn("redisstore: revocations, and who is signed in, may be lost", "error", err)
		}
	}
	return nil
}

// checkVersion asks until something is there, and marks what is about to be
// written.
func (s *Store) checkVersion(ctx context.Context, doing string, writes bool) error {
	if writes {
		err := s.cfg.Client.SetArgs(ctx, s.version(), version, redis.SetArgs{Mode: "NX"}).Err()
		if err != nil && !errors.Is(err, redis.Nil) { // it is there
			return failed(ctx, doing, err)
		}
	}
	found, err := s.cfg.Client.Get(ctx, s.version()).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil // nothing was written yet
	case err != nil:
		return failed(ctx, doing, err)
	case found != version:
		return fmt.Errorf("redisstore: %s: what is there is of version %.20q, and this program reads version %s: use a release that reads it, or another prefix", doing, found, version)
	}
	s.checked.Store(true)
	return nil
}

// errReplica is the error of a reading that a replica answered.
var errReplica = errors.New("the server is not a master")

// ask sends commands to the one server that has the keys, in one round trip. It
// is an error unless that is a master: it says so before and after the
// commands, with HELLO, which any user may send.
func (s *Store) ask(ctx context.Context, doing string, commands func(p redis.Pipeliner)) error {
	if err := s.ready(ctx, doing, false); err != nil {
		return err
	}
	for attempt := range 4 {
		err := s.askOnce(ctx, commands)
		if err == nil {
			return nil
		}
		cluster, ok := s.cfg.Client.(*redis.ClusterClient)
		if !ok {
			return failed(ctx, doing, err)
		}
		cluster.ReloadState(ctx) // the keys may be elsewhere by now
		if attempt == 3 || !movedAway(err) {
			return failed(ctx, doing, err)
		}
		select {
		case <-ctx.Done():
			return failed(ctx, doing, err)
		case <-time.After(10 * time.Millisecond << attempt):
		}
	}
	panic("unreachable")
}

func (s *Store) askOnce(ctx context.Context, commands func(p redis.Pipeliner)) error {
	node, err := s.node(ctx)
	if err != nil {
		return err
	}
	var before, after *redis.Cmd
	_, err = node.Pipelined(ctx, func(p redis.Pipeliner) error {
		before = p.Do(ctx, "HELLO")
		commands(p)
		after = p.Do(ctx, "HELLO")
		return nil
	})
	if err != nil {
		return err
	}
	if !isMaster(before) || !isMaster(after) {
		return errReplica
	}
	return nil
}

// isMaster reports whether an answer to HELLO is a master's. It is a map or a
// list, by the protocol.
func isMaster(hello *redis.Cmd) bool {
	switch v := hello.Val().(type) {
	case map[any]any:
		return v["role"] == "master"
	case []any:
		for i := 0; i+1 < len(v); i += 2 {
			if v[i] == "role" {
				return v[i+1] == "master"
			}
		}
	}
	return false
}

// movedAway reports whether an error says that another node of a Cluster has
// the keys now.
func movedAway(err error) bool {
	return errors.Is(err, errReplica) || redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK")
}

// script is one that writes.
type script struct {
	*redis.Script
	text string
}

func newScript(text string) *script { return &script{redis.NewScript(text), text} }

// run runs a script that writes, and waits for the replicas if it has to.
func (s *Store) run(ctx context.Context, doing string, script *script, keys []string, args ...any) (int64, error) {
	if err := s.ready(ctx, doing, true); err != nil {
		return 0, err
	}
	if s.cfg.WaitReplicas == 0 {
		n, err := script.Run(ctx, s.cfg.Client, keys, args...).Int64()
		if err != nil {
			return 0, failedIn(ctx, doing, script.text, err)
		}
		return n, nil
	}
	n, err := s.runAndWait(ctx, script, keys, args...)
	if err != nil {
		if cluster, ok := s.cfg.Client.(*redis.ClusterClient); ok {
			cluster.ReloadState(ctx) // the keys may be elsewhere by now
		}
		return 0, failedIn(ctx, doing, script.text, err)
	}
	return n, nil
}

// node is the server that has the keys: of a Cluster, one master.
func (s *Store) node(ctx context.Context) (redis.Cmdable, error) {
	if cluster, ok := s.cfg.Client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, s.version())
	}
	return s.cfg.Client, nil
}

// runAndWait returns when the replicas have what the script wrote, and all that
// was written before. WAIT speaks for the connection that it is sent on: it
// goes with the script. Sent afterwards, it could reach a server that has taken
// over and knows nothing of the write. It is asked for also if the script found
// nothing to write, which may be because the same was tried before and no
// replica had it.
func (s *Store) runAndWait(ctx context.Context, script *script, keys []string, args ...any) (int64, error) {
	node, err := s.node(ctx)
	if err != nil {
		return 0, err
	}
	run := script.EvalSha
	for {
		var did, have *redis.Cmd
		_, err := node.Pipelined(ctx, func(p redis.Pipeliner) error {
			did = run(ctx, p, keys, args...)
			have = p.Do(ctx, "WAIT", s.cfg.WaitReplicas, s.cfg.WaitTimeout.Milliseconds())
			return nil
		})
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			run = script.Eval
			continue
		}
		if err != nil {
			return 0, err
		}
		n, err := did.Int64()
		if err != nil {
			return 0, err
		}
		replicas, err := have.Int()
		if err != nil {
			return 0, err
		}
		if replicas < s.cfg.WaitReplicas {
			return 0, fmt.Errorf("%d of %d replicas have the write", replicas, s.cfg.WaitReplicas)
		}
		return n, nil
	}
}

// CheckPersistence returns an error if the server loses acknowledged writes
// when it is killed, or drops some when its memory is full, or does not
// tell. The error names each setting at fault. A store logs it by
// itself before its first write; a program that would rather not start calls
// this. In a Cluster it asks the master that has the keys.
func (s *Store) CheckPersistence(ctx context.Context) error {
	node, err := s.node(ctx)
	if err != nil {
		return failed(ctx, "ask for its settings", err)
	}
	var losses []string
	for _, want := range []struct{ setting, value, loss string }{
		{"appendonly", "yes", "it loses acknowledged writes when it is killed"},
		{"appendfsync", "always", "it loses the last acknowledged writes when it is killed"},
		{"maxmemory-policy", "noeviction", "it drops revocations and signed-in users when its memory is full"},
	} {
		got, err := node.ConfigGet(ctx, want.setting).Result()
		if err != nil {
			return failed(ctx, "ask for "+want.setting, err)
		}
		if got[want.setting] != want.value {
			losses = append(losses, fmt.Sprintf("it has %s %.20q, and without %q %s", want.setting, got[want.setting], want.value, want.loss))
		}
	}
	if len(losses) > 0 {
		return fmt.Errorf("redisstore: the server is not set up to keep what it acknowledges: %s", strings.Join(losses, "; "))
	}
	return nil
}
