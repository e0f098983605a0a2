// Package redisstore keeps key rings, revocations, refresh tokens' families and
// offline grants in Redis or Valkey, from version 6.2 on, alone or as a Cluster.
//
// One [Store] is a Store of packages keys, revoke and refresh and a GrantStore
// of package oidclogin at once. Its Wait is a blocking read, so that a
// revoke.List reads new entries at once. Several issuers can share one store:
// the names of their rings and their namespaces separate them.
//
// Every reading proves that a master answered it. A replica, whose copy may
// lag, is an error. The time of a reading is the server's.
//
// # What Redis promises
//
// Unless it runs with "appendonly yes" and "appendfsync always", Redis
// acknowledges a write before it is on disk, and loses acknowledged writes when
// it is killed: those of minutes with its default settings, those of a second
// with "appendfsync everysec". If a sign-out is lost, the session is accepted
// again, for as long as it is renewed. A store logs a server with other
// settings; see [Store.CheckPersistence]. A replica that takes over may lack
// the last writes too: with Config.WaitReplicas, each write waits for replicas.
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
// [Store.CheckPersistence] +config|get, and Store.ListAll +scan.
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

// Config configures a [Store].
type Config struct {
	// Client is the client of a server, a Sentinel or a Cluster, which the
	// caller opens and closes. It is a *redis.Client, or a *redis.ClusterClient
	// that reads from masters. Required. With ContextTimeoutEnabled a call ends
	// when its context does; without it, up to ReadTimeout later.
	Client redis.UniversalClient
	// Prefix is the prefix of all keys. It is written as a hash tag, so that
	// they are on one node of a Cluster. Empty means "sessiontoken".
	Prefix string
	// KeepFor should be longer than the MaxSession of every issuer. Revocations
	// whose Until is within KeepFor are in a log that is trimmed by age, by the
	// server's clock. Later ones, such as those of keys, are each kept until
	// their Until, and take twice the memory. 0 means 25 h.
	KeepFor time.Duration
	// WaitReplicas is how many replicas must have a write before it is
	// acknowledged. If fewer have it within WaitTimeout, the write returns an
	// error, and may have taken effect. 0 means none. In a Cluster they are
	// replicas of the master that has the keys.
	WaitReplicas int
	// WaitTimeout is how long a write waits for replicas. 0 means 1 s.
	WaitTimeout time.Duration
	// Logger gets one line before the first write if the server may lose
	// acknowledged writes (Warn): see [Store.CheckPersistence]. Nil means
	// slog.Default().
	Logger *slog.Logger
}

// Store keeps its data under one prefix. It is safe for concurrent use, by any
// number of processes.
type Store struct {
	cfg     Config
	tag     string
	checked atomic.Bool // the stored data is of this version
	asked   atomic.Bool // the settings of the server were checked
}

var (
	_ keys.Store        = (*Store)(nil)
	_ revoke.Store      = (*Store)(nil)
	_ refresh.AllLister = (*Store)(nil)
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

// checkClient returns an error for a client that may read from a replica or
// from a server without the keys.
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

// in returns a key within a namespace. The length of the namespace comes first,
// so that two keys are never equal.
func (s *Store) in(namespace, kind, name string) string {
	return fmt.Sprintf("%s%s:%d:%s:%s", s.tag, kind, len(namespace), namespace, name)
}

// version is the version of the stored data.
const version = "2"

// ready returns an error if the stored data is of another version. Before the
// first write, it logs whether the server may lose acknowledged writes.
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
			s.cfg.Logger.Warn("redisstore: acknowledged revocations and refresh tokens may be lost", "error", err)
		}
	}
	return nil
}

// checkVersion checks the version of the stored data at each call until there
// is data, and writes the version before the first write.
func (s *Store) checkVersion(ctx context.Context, doing string, writes bool) error {
	if writes {
		err := s.cfg.Client.SetArgs(ctx, s.version(), version, redis.SetArgs{Mode: "NX"}).Err()
		if err != nil && !errors.Is(err, redis.Nil) { // redis.Nil: written by another
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

// ask sends commands to the server that has the keys, in one round trip. It
// returns an error unless the server is a master before and after the commands,
// by its answers to HELLO, which any user may send.
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
		cluster.ReloadState(ctx) // another node may have the keys now
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

// isMaster reports whether an answer to HELLO is a master's. The answer is a
// map or a list, which depends on the protocol.
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

// movedAway reports whether an error means that another node of a Cluster has
// the keys.
func movedAway(err error) bool {
	return errors.Is(err, errReplica) || redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK")
}

// script is a script that writes.
type script struct {
	*redis.Script
	text string
}

func newScript(text string) *script { return &script{redis.NewScript(text), text} }

// run runs a script and, with WaitReplicas, waits for the replicas.
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
			cluster.ReloadState(ctx) // another node may have the keys now
		}
		return 0, failedIn(ctx, doing, script.text, err)
	}
	return n, nil
}

// node returns the client of the server that has the keys: in a Cluster, of one
// master.
func (s *Store) node(ctx context.Context) (redis.Cmdable, error) {
	if cluster, ok := s.cfg.Client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, s.version())
	}
	return s.cfg.Client, nil
}

// runAndWait runs a script and returns when the replicas have its write and all
// earlier ones. WAIT is about the connection that it is sent on, so that it is
// sent with the script: later, it could reach a server that has taken over and
// lacks the write. It is sent even if the script had nothing to write: an
// earlier call may have written the same, and not reached the replicas.
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

// CheckPersistence returns an error if the server may lose acknowledged writes
// when it is killed or when its memory is full, or if its settings cannot be
// read. The error names each setting at fault. A store logs it before its first
// write. Call it at the start of a program that must not run with such a
// server. In a Cluster it asks the master that has the keys.
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
