package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// storeFlags are the flags that name a store.
type storeFlags struct {
	flag, env string // such as "store" and "SESSIONTOKEN_STORE"
	url, file string
}

// addStore declares --store and --store-file. Use addTimeout beside it.
func addStore(fs *flag.FlagSet) *storeFlags {
	return addStoreNamed(fs, "store", "SESSIONTOKEN_STORE", "the store")
}

func addStoreNamed(fs *flag.FlagSet, name, env, what string) *storeFlags {
	f := &storeFlags{flag: name, env: env}
	fs.StringVar(&f.url, name, "", "`URL` of "+what+", without a password: sqlite:path, postgres://…, redis://…, rediss://… or file:path (a key ring alone)")
	fs.StringVar(&f.file, name+"-file", "", "`file` that holds that URL, which may have a password; the environment variable "+env+" may hold it too")
	return f
}

// addTimeout declares --timeout.
func addTimeout(fs *flag.FlagSet) *time.Duration {
	return fs.Duration("timeout", 10*time.Second, "how long to wait for the store")
}

// read returns the URL.
func (f *storeFlags) read(c *call) (string, error) {
	switch {
	case f.url != "" && f.file != "":
		return "", usageError{fmt.Sprintf("--%s and --%[1]s-file are both set; leave one out", f.flag)}
	case f.url != "":
		if holdsPassword(f.url) {
			return "", usageError{fmt.Sprintf("--%s has a password in it, which other users of this machine can see; put the URL into %s or into a file for --%[1]s-file, and change the password", f.flag, f.env)}
		}
		return f.url, nil
	case f.file != "":
		text, err := readPrivate(f.file)
		if err != nil {
			return "", fmt.Errorf("--%s-file: %w", f.flag, err)
		}
		return string(bytes.TrimSpace(text)), nil
	}
	if at := c.getenv(f.env); at != "" {
		return at, nil
	}
	return "", usageError{fmt.Sprintf("no store is named; set --%s, --%[1]s-file or %s", f.flag, f.env)}
}

// open opens the store that the flags or the environment name. ctx bounds it.
func (f *storeFlags) open(ctx context.Context, c *call) (*openedStore, error) {
	at, err := f.read(c)
	if err != nil {
		return nil, err
	}
	return openStore(ctx, at, &c.warnings)
}

// holdsPassword reports whether a URL has a password, as far as it can be read.
func holdsPassword(at string) bool {
	scheme, _, _ := strings.Cut(at, ":")
	if scheme == "sqlite" || scheme == "file" {
		return false
	}
	// As RFC 3986 has it, also where the rest is no URL.
	if _, rest, found := strings.Cut(at, "://"); found {
		if end := strings.IndexAny(rest, "?#"); end >= 0 {
			rest = rest[:end]
		}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 && strings.Contains(rest[:i], ":") {
			return true
		}
	}
	u, err := url.Parse(at)
	if err != nil {
		return strings.Contains(at, "@") || strings.Contains(strings.ToLower(at), "pass")
	}
	if _, set := u.User.Password(); set {
		return true
	}
	for name := range u.Query() {
		if name = strings.ToLower(name); strings.Contains(name, "pass") && name != "passfile" {
			return true
		}
	}
	return strings.Contains(u.Opaque, "@") || strings.Contains(strings.ToLower(u.Opaque+u.Path), "password=")
}

// openedStore is a store that was opened and has answered.
type openedStore struct {
	kind string // sqlite, postgres, redis or file
	ring keys.Store
	all  authority.Store // nil for file

	db    *sql.DB           // for sqlite and postgres
	sql   *sqlstore.Store   // for sqlite and postgres
	redis *redisstore.Store // for redis
	path  string            // for sqlite and file

	close func()
}

// whole returns the store, unless it holds a key ring alone.
func (s *openedStore) whole() (authority.Store, error) {
	if s.all == nil {
		return nil, errors.New("a file: store holds a key ring alone; name the database that holds the revocations and the refresh tokens")
	}
	return s.all, nil
}

const urlForms = "it must be sqlite:path, postgres://user@host/database, redis://host:6379/0, rediss://host:6379/0 or file:path"

// openStore opens the store at a URL and has it answer once. It creates no
// file, no database and no table, and changes nothing. An error is one sentence
// with the remedy, and holds no password. Warnings are written to warnings.
func openStore(ctx context.Context, at string, warnings io.Writer) (s *openedStore, err error) {
	scheme, rest, _ := strings.Cut(at, ":")
	switch scheme {
	case "sqlite":
		s, err = openSQLite(ctx, rest)
	case "postgres", "postgresql":
		s, err = openPostgres(at)
	case "redis", "rediss":
		s, err = openRedis(at, warnings)
	case "file":
		s, err = openFile(rest)
	default:
		return nil, usageError{"the URL of the store is not one; " + urlForms}
	}
	if err != nil {
		return nil, err
	}
	if s.all != nil {
		if _, _, err := s.all.Revisions(ctx); err != nil {
			s.close()
			return nil, remedied(err)
		}
	}
	return s, nil
}

// remedied adds the remedy to an error of a store that did not answer in time.
// The stores add that of their other errors.
func remedied(err error) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("the store has not answered in time: check that its server runs, that it can be reached from here, and that nothing holds its locks, or raise --timeout: %w", err)
	}
	return err
}

func openSQLite(ctx context.Context, path string) (*openedStore, error) {
	if path == "" || path == ":memory:" {
		return nil, usageError{"the URL of the store names no file; it must be sqlite:path"}
	}
	if err := checkSQLite(ctx, path); err != nil {
		return nil, err
	}
	db, err := sqlite.DB(path)
	if err != nil {
		return nil, err
	}
	s, err := openSQL(db, sqlstore.SQLite)
	if err == nil {
		s.path = path
	}
	return s, err
}

// checkSQLite returns an error unless path is a SQLite database that its owner
// alone may read. Opening a file as a store makes it private and gives it a
// write-ahead log, which must not happen to a file that is no store.
func checkSQLite(ctx context.Context, path string) error {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s: check the path; the program that issues the tokens creates it", path)
	case err != nil:
		return fmt.Errorf("the store's file cannot be opened: run this as its owner: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("the store's file cannot be opened: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file; check the path", path)
	}
	if err := checkPrivate(path, info); err != nil {
		return err
	}
	var header [20]byte
	if _, err := io.ReadFull(f, header[:]); err != nil || !bytes.HasPrefix(header[:], []byte("SQLite format 3\x00")) {
		return fmt.Errorf("%s is not a SQLite database; check the path", path)
	}
	if header[18] == 2 && header[19] == 2 { // it has a write-ahead log
		return nil
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "mode=ro"}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return err
	}
	defer db.Close()
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sessiontoken_schema").Scan(&n); err != nil {
		return fmt.Errorf("%s has no tables of a store: check the path; the program that issues the tokens creates them: %w", path, err)
	}
	return nil
}

func openPostgres(at string) (*openedStore, error) {
	u, err := url.Parse(at)
	if err != nil || u.Opaque != "" {
		return nil, usageError{"the URL of the store cannot be read; it must be like postgres://user@host:5432/database?sslmode=verify-full"}
	}
	db, err := postgres.DB(at)
	if err != nil {
		return nil, err // it does not quote the URL
	}
	return openSQL(db, sqlstore.Postgres)
}

func openSQL(db *sql.DB, dialect sqlstore.Dialect) (*openedStore, error) {
	s, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: dialect})
	if err != nil {
		return nil, err
	}
	return &openedStore{kind: string(dialect), ring: s, all: s, db: db, sql: s, close: func() { _ = s.Close() }}, nil
}

func openFile(path string) (*openedStore, error) {
	if path == "" {
		return nil, usageError{"the URL of the store names no file; it must be file:path"}
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("there is no folder %s: check the path", filepath.Dir(path))
	}
	s, err := keys.NewFileStore(path)
	if err != nil {
		return nil, err
	}
	return &openedStore{kind: "file", ring: s, path: path, close: func() {}}, nil
}

// redisParams are the parameters of a redis URL that are this command's own.
type redisParams struct {
	prefix   string
	replicas int
}

// keepFor is the KeepFor of the command. It is shorter than a millisecond, so
// that Redis keeps each entry until its Until, and drops nothing by its age. With
// a longer one, an entry could go where the program, whose KeepFor is not known
// here, drops it too early, or the command could drop entries of the program.
const keepFor = time.Nanosecond

func openRedis(at string, warnings io.Writer) (*openedStore, error) {
	client, params, err := redisClient(at)
	if err != nil {
		return nil, err
	}
	s, err := redisstore.New(redisstore.Config{
		Client: client, Prefix: params.prefix, WaitReplicas: params.replicas, KeepFor: keepFor, Logger: warningLog(warnings),
	})
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return &openedStore{kind: "redis", ring: s, all: s, redis: s, close: func() { _ = client.Close() }}, nil
}

// redisClient returns the client for a URL: of one server, or of a Cluster if
// the URL has addr parameters, or of Sentinels if it has a master_name.
func redisClient(at string) (client redis.UniversalClient, params redisParams, err error) {
	unreadable := usageError{"the URL of the store cannot be read; it must be like redis://user@host:6379/0, with the parameters that go-redis knows, and prefix and wait_replicas"}
	u, err := url.Parse(at)
	if err != nil || u.Opaque != "" || u.Host == "" {
		return nil, params, unreadable // err quotes the URL
	}
	query := u.Query()
	params.prefix = query.Get("prefix")
	if n := query.Get("wait_replicas"); n != "" {
		if params.replicas, err = strconv.Atoi(n); err != nil || params.replicas < 0 {
			return nil, params, unreadable
		}
	}
	query.Del("prefix")
	query.Del("wait_replicas")
	u.RawQuery = query.Encode()
	redis.SetLogger(quiet{})
	switch {
	case query.Has("addr") && !query.Has("master_name"):
		o, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, params, unreadable
		}
		o.ContextTimeoutEnabled = true
		return redis.NewClusterClient(o), params, nil
	case query.Has("master_name"):
		o, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, params, unreadable
		}
		o.ContextTimeoutEnabled = true
		return redis.NewFailoverClient(o), params, nil
	}
	o, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, params, unreadable
	}
	o.ContextTimeoutEnabled, o.MaxRetries, o.DialerRetries = true, 1, 1
	return redis.NewClient(o), params, nil
}

// quiet drops what go-redis logs, which the errors say too.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// warningLog returns a log whose warnings are written to w, each as one line.
func warningLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// checkPrivate returns an error for a file that its group or others can read or
// change.
func checkPrivate(path string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && info.Mode().IsRegular() && perm&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, which lets others read it: run chmod 600 on it, and replace what it holds if they may have done so", path, perm)
	}
	return nil
}
