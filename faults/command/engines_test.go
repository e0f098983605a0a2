//go:build unix

// Package command tests the command on real engines, as an operator runs it.
package command

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

const (
	issuer   = "https://site.example"
	password = "pa55-of-the-store"
)

var (
	secret = bytes.Repeat([]byte("secret!?"), 5)
	sealed = base64.StdEncoding.EncodeToString(secret)
	quiet  = slog.New(slog.DiscardHandler)
	binary string
	stops  []func()
	number atomic.Int64
)

func TestMain(m *testing.M) { os.Exit(tests(m)) }

func tests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sessiontoken-command-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "sessiontoken")
	build := exec.Command("go", "-C", "../../cmd/sessiontoken", "build", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "the command cannot be built: %v\n%s", err, out)
		return 1
	}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	return m.Run()
}

// engines are the engines, by the name that the test has for each.
var engines = map[string]func(t *testing.T) *place{"sqlite": newSQLite, "postgres": newPostgres, "redis": newRedis}

// place is an empty store of an engine.
type place struct {
	kind  string
	url   string                             // for the command, with a password
	addr  string                             // of the server
	open  func(t *testing.T) authority.Store // as a program opens it
	poor  func(t *testing.T) string          // the URL of a user who may only read
	other func(t *testing.T)                 // makes the tables those of another version
	at    func(addr string) (url string)     // the URL through a proxy
}

func newSQLite(t *testing.T) *place {
	path := filepath.Join(t.TempDir(), "sessions.db")
	p := &place{kind: "sqlite", url: "sqlite:" + path}
	p.open = func(t *testing.T) authority.Store {
		s, err := sqlite.Open(t.Context(), path)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	return p
}

// started starts a server once.
func started(start func(...string) (*servers.Server, error), options ...string) func(t *testing.T) *servers.Server {
	var once sync.Once
	var s *servers.Server
	var err error
	return func(t *testing.T) *servers.Server {
		t.Helper()
		once.Do(func() {
			if s, err = start(options...); err == nil {
				stops = append(stops, s.Stop)
			}
		})
		if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
			t.Skip("NOT RUN:", err)
		}
		require.NoError(t, err)
		return s
	}
}

var (
	redisServer    = started(servers.StartRedis, servers.Durable...)
	postgresServer = started(servers.StartPostgres)
)

func newPostgres(t *testing.T) *place {
	s := postgresServer(t)
	admin, err := postgres.DB(servers.PostgresDSN(s.Addr))
	require.NoError(t, err)
	defer admin.Close()
	exec := func(statement string) {
		t.Helper()
		_, err := admin.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	roles.Do(func() { exec("CREATE ROLE locked LOGIN PASSWORD '" + password + "'; CREATE ROLE poor LOGIN") })
	name := fmt.Sprint("site", number.Add(1))
	exec("CREATE DATABASE " + name)
	inside := strings.Replace(servers.PostgresDSN(s.Addr), "/postgres?", "/"+name+"?", 1)
	db, err := postgres.DB(inside)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	tables := "sessiontoken_schema, sessiontoken_rings, sessiontoken_revocations, sessiontoken_families, sessiontoken_grants"
	_, err = db.ExecContext(t.Context(), sqlstore.Schema(sqlstore.Postgres)+"GRANT SELECT, INSERT, UPDATE, DELETE ON "+tables+" TO locked; GRANT SELECT ON "+tables+" TO poor")
	require.NoError(t, err)
	p := &place{kind: "postgres", addr: s.Addr}
	p.at = func(addr string) string {
		return "postgres://locked:" + password + "@" + addr + "/" + name + "?sslmode=disable"
	}
	p.url = p.at(s.Addr)
	p.open = func(t *testing.T) authority.Store {
		s, err := postgres.Open(t.Context(), inside)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	p.poor = func(*testing.T) string {
		return "postgres://poor:" + password + "@" + s.Addr + "/" + name + "?sslmode=disable"
	}
	p.other = func(t *testing.T) {
		_, err := db.ExecContext(t.Context(), "UPDATE sessiontoken_schema SET version = 9")
		require.NoError(t, err)
	}
	return p
}

var (
	roles sync.Once
	rule  = regexp.MustCompile(`\+[a-z|]+`)
)

// redisRules are the rights that the documentation lists, with that of copy.
func redisRules(t *testing.T) (rules []any) {
	source, err := os.ReadFile("../../redisstore/redisstore.go")
	require.NoError(t, err)
	for line := range strings.Lines(string(source)) {
		if strings.HasPrefix(line, "//\tACL SETUSER") {
			for _, r := range rule.FindAllString(line, -1) {
				rules = append(rules, r)
			}
		}
	}
	require.Greater(t, len(rules), 15)
	return append(rules, "+config|get", "+scan")
}

func newRedis(t *testing.T) *place {
	s := redisServer(t)
	admin := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { _ = admin.Close() })
	prefix := fmt.Sprint("site", number.Add(1))
	user := func(name string, rules ...any) {
		set := append([]any{"ACL", "SETUSER", name, "reset", "on", ">" + password, "~{" + prefix + "}:*"}, rules...)
		require.NoError(t, admin.Do(t.Context(), set...).Err())
	}
	user(prefix, redisRules(t)...)
	user(prefix+"-poor", "+get", "+hget", "+hmget", "+time", "+xrange", "+xrevrange", "+zrange", "+scan", "+config|get")
	p := &place{kind: "redis", addr: s.Addr}
	p.at = func(addr string) string {
		return "redis://" + prefix + ":" + password + "@" + addr + "/0?prefix=" + prefix
	}
	p.url = p.at(s.Addr)
	p.open = func(t *testing.T) authority.Store {
		client := redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = client.Close() })
		s, err := redisstore.New(redisstore.Config{Client: client, Prefix: prefix, Logger: quiet})
		require.NoError(t, err)
		return s
	}
	p.poor = func(*testing.T) string {
		return "redis://" + prefix + "-poor:" + password + "@" + s.Addr + "/0?prefix=" + prefix
	}
	p.other = func(t *testing.T) {
		require.NoError(t, admin.Set(t.Context(), "{"+prefix+"}:version", "9", 0).Err())
	}
	return p
}

// program is an issuing program.
type program struct {
	*authority.Authority[struct{}]
	store authority.Store
}

// begin starts a program in a place, whose ring and list are there then.
func (p *place) begin(t *testing.T) *program {
	t.Helper()
	store := p.open(t)
	a := replica(t, store)
	_, err := a.Ring().SigningKey(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.Revocations().Sync(t.Context()))
	require.Eventually(t, func() bool {
		page, err := store.Since(t.Context(), "")
		return err == nil && len(page.Entries) > 0
	}, time.Minute, time.Millisecond)
	return &program{a, store}
}

func replica(t *testing.T, store authority.Store) *authority.Authority[struct{}] {
	t.Helper()
	a, err := authority.New(authority.Config[struct{}]{
		Issuer: issuer, Audience: []string{"site"}, Store: store, Secrets: [][]byte{secret}, Logger: quiet,
		Limits: authority.Limits{TTL: 3 * time.Hour, IdleTimeout: 12 * time.Hour}, // so that nothing expires during a test
		Load:   func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil },
	})
	require.NoError(t, err)
	return a
}

// signedIn is a session.
type signedIn struct {
	token, refresh string
	claims         *sessiontoken.Claims[struct{}]
}

func (p *program) signIn(ctx context.Context, subject string) (s signedIn, err error) {
	if s.token, s.claims, err = p.Issuer().Begin(ctx, sessiontoken.Start{Subject: subject}, struct{}{}); err != nil {
		return s, err
	}
	s.refresh, _, err = p.Refresh().Start(ctx, refresh.Family{Subject: subject, SessionID: s.claims.SessionID, Began: s.claims.Began}, "")
	return s, err
}

func exchange(ctx context.Context, a *authority.Authority[struct{}], token string) error {
	_, _, err := a.Refresh().Exchange(ctx, refresh.Presented{Token: token}, func(context.Context, refresh.Family) error { return nil })
	return err
}

func check(ctx context.Context, a *authority.Authority[struct{}], s signedIn) error {
	if err := a.Revocations().Sync(ctx); err != nil {
		return err
	}
	q := revoke.Question{SessionID: s.claims.SessionID, Subject: s.claims.Subject, KeyID: s.claims.KeyID, Began: s.claims.Began}.Prepared()
	return a.Revocations().Check(ctx, &q)
}

// ran is what a process has printed, and its exit code.
type ran struct {
	out, err string
	code     int
}

// run runs the binary. No token, secret or password is in its arguments, or in
// what it prints.
func run(t *testing.T, env []string, args ...string) ran {
	t.Helper()
	cmd := command(t, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	r := ran{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	for _, s := range []string{password, string(secret), strings.TrimRight(sealed, "="), "eyJ", "panic", "goroutine"} {
		require.NotContains(t, r.out+r.err+strings.Join(args, " "), s)
	}
	for _, v := range env {
		if _, value, _ := strings.Cut(v, "="); strings.Contains(value, password) {
			require.NotContains(t, r.out+r.err, value)
		}
	}
	return r
}

func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append([]string{"HOME=" + os.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
	return cmd
}

func (p *place) env() []string { return env(p.url) }

func env(url string, more ...string) []string {
	return append([]string{"SESSIONTOKEN_STORE=" + url, "SESSIONTOKEN_ISSUER=" + issuer, "SESSIONTOKEN_SECRETS=" + sealed}, more...)
}

func must(t *testing.T, env []string, args ...string) string {
	t.Helper()
	r := run(t, env, args...)
	require.Equal(t, 0, r.code, "%v: %s%s", args, r.out, r.err)
	return r.out
}

// devices returns the ids of a subject's devices.
func (p *place) devices(t *testing.T, subject string) (ids []string) {
	t.Helper()
	var list struct{ Devices []struct{ ID string } }
	require.NoError(t, json.Unmarshal([]byte(must(t, p.env(), "devices", "list", "--json", subject)), &list))
	for _, d := range list.Devices {
		ids = append(ids, d.ID)
	}
	return ids
}

func randomDigest() (d revoke.Digest) {
	_, _ = rand.Read(d[:])
	return d
}
