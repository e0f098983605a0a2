//go:build unix

package doctor_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
)

var quietly = slog.New(slog.DiscardHandler)

var secret = bytes.Repeat([]byte("a secret of 32 B"), 2)

// binary builds the command once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sessiontoken-command-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sessiontoken")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = "../../cmd/sessiontoken"
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(err.Error() + ": " + string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// running returns a server, or skips the test if it is not installed.
func running(t *testing.T, s *servers.Server, err error) *servers.Server {
	t.Helper()
	if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: ", err)
	}
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

// prepare runs an authority over a store until its ring is there.
func prepare(t *testing.T, store authority.Store) {
	t.Helper()
	a, err := authority.New(authority.Config[struct{}]{
		Issuer: "https://auth.example", Namespace: "site", Audience: []string{"site"}, Store: store, Secrets: [][]byte{secret}, Logger: quietly,
		Load: func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil },
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	require.Eventually(t, func() bool {
		_, err := a.Revocations().Now(t.Context())
		return err == nil && len(a.Ring().Status().Keys) == 2
	}, 2*time.Minute, 50*time.Millisecond)
	stop()
	<-ended
}

// result is what the command has printed with --json.
type result struct {
	code   int
	text   string
	Checks []struct{ Check, State, Text, Remedy string }
}

// doctor runs the command with the URL of a store in the environment.
func doctor(t *testing.T, at string) result {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	cmd := exec.Command(path, "doctor", "--namespace", "site", "--timeout", "60s", "--json")
	cmd.Env = append(os.Environ(), "SESSIONTOKEN_STORE="+at)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	r := result{code: cmd.ProcessState.ExitCode(), text: out.String() + errs.String()}
	require.NoError(t, json.Unmarshal(out.Bytes(), &r), r.text)
	require.NotContains(t, r.text, "right", "a password is printed")
	return r
}

func requireFinding(t *testing.T, r result, check, says string) {
	t.Helper()
	require.Equal(t, 1, r.code, r.text)
	for _, c := range r.Checks {
		if c.State == "found" {
			require.NotEmpty(t, c.Remedy)
		}
	}
	for _, c := range r.Checks {
		if c.State == "found" && c.Check == check && strings.Contains(c.Text, says) {
			return
		}
	}
	require.Fail(t, "not found", "%s: %s in %s", check, says, r.text)
}

// TestDoctorRedis: each planted fault of a Redis server is found and named, and
// nothing on a server as the documentation wants it.
func TestDoctorRedis(t *testing.T) {
	server, err := servers.StartRedis(servers.Durable...)
	server = running(t, server, err)
	admin := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = admin.Close() })
	do := func(t *testing.T, args ...any) {
		t.Helper()
		require.NoError(t, admin.Do(context.Background(), args...).Err())
	}
	store, err := redisstore.New(redisstore.Config{Client: admin, Logger: quietly})
	require.NoError(t, err)
	prepare(t, store)
	at := "redis://" + server.Addr + "/0"

	before, err := admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	r := doctor(t, at)
	require.Equal(t, 0, r.code, r.text)
	after, err := admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.Equal(t, before, after, "doctor has changed the store")

	for _, tt := range []struct {
		name, setting, bad, good string
	}{
		{"not on disk", "appendonly", "no", "yes"},
		{"not at once", "appendfsync", "everysec", "always"},
		{"evicts", "maxmemory-policy", "allkeys-lru", "noeviction"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			do(t, "CONFIG", "SET", tt.setting, tt.bad)
			defer do(t, "CONFIG", "SET", tt.setting, tt.good)
			requireFinding(t, doctor(t, at), "persistence", tt.setting+" is \""+tt.bad+"\"")
		})
	}

	// The rights that package redisstore documents, with config|get.
	rights := []any{"+del", "+eval", "+evalsha", "+exists", "+get", "+hget", "+hmget", "+hset", "+pexpireat", "+pttl", "+set", "+time", "+xadd", "+xdel",
		"+xrange", "+xread", "+xrevrange", "+zadd", "+zrange", "+zrangebyscore", "+zrem", "+zremrangebyscore", "+config|get"}
	user := func(name string, lacks ...any) string {
		do(t, append(append([]any{"ACL", "SETUSER", name, "reset", "on", ">right", "~{sessiontoken}:*"}, rights...), lacks...)...)
		return "redis://" + name + ":right@" + server.Addr + "/0"
	}
	t.Run("the documented rights", func(t *testing.T) {
		r := doctor(t, user("enough"))
		require.Equal(t, 0, r.code, r.text)
	})
	t.Run("without a right", func(t *testing.T) {
		r := doctor(t, user("fewer", "-xadd", "-zrem"))
		requireFinding(t, r, "permissions", "may not run 2 of the commands")
		require.Contains(t, r.text, "+xadd +zrem")
	})
	t.Run("settings that cannot be read", func(t *testing.T) {
		requireFinding(t, doctor(t, user("blind", "-config")), "persistence", "cannot be read")
	})
	t.Run("a wrong password", func(t *testing.T) {
		user("locked")
		requireFinding(t, doctor(t, "redis://locked:wrong@"+server.Addr+"/0"), "permissions", "")
	})
	t.Run("fewer replicas than writes wait for", func(t *testing.T) {
		requireFinding(t, doctor(t, at+"?wait_replicas=1"), "lag", "0 replicas are connected")
	})
	t.Run("another namespace", func(t *testing.T) {
		requireFinding(t, doctor(t, at+"?prefix=other"), "ring", "no key ring")
	})
	t.Run("a replica", func(t *testing.T) {
		host, port := servers.Split(server.Addr)
		copied, err := servers.StartRedis("--replicaof", host+" "+port)
		copied = running(t, copied, err)
		c := redis.NewClient(&redis.Options{Addr: copied.Addr})
		defer c.Close()
		require.Eventually(t, func() bool {
			info, err := c.Info(context.Background(), "replication").Result()
			return err == nil && strings.Contains(info, "master_link_status:up")
		}, 2*time.Minute, 100*time.Millisecond)
		requireFinding(t, doctor(t, "redis://"+copied.Addr+"/0"), "standby", "")
	})
	t.Run("gone", func(t *testing.T) {
		server.Kill()
		requireFinding(t, doctor(t, at), "store", "")
	})
}

// TestDoctorPostgres: each planted fault of a PostgreSQL server is found and
// named, and nothing on a server as it comes.
func TestDoctorPostgres(t *testing.T) {
	server, err := servers.StartPostgres()
	server = running(t, server, err)
	at := servers.PostgresDSN(server.Addr)
	store, err := postgres.Open(t.Context(), at)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	db, err := postgres.DB(at)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	prepare(t, store)
	exec := func(t *testing.T, statement string) {
		t.Helper()
		_, err := db.ExecContext(context.Background(), statement)
		require.NoError(t, err)
	}

	before := changes(t, db)
	r := doctor(t, at)
	require.Equal(t, 0, r.code, r.text)
	require.Equal(t, before, changes(t, db), "doctor has changed the store")

	for _, tt := range []struct {
		name, plant, mend, check, says string
	}{
		{"not synchronous", "ALTER ROLE bench SET synchronous_commit = off", "ALTER ROLE bench RESET synchronous_commit", "persistence", "synchronous_commit is off"},
		{"only reads", "ALTER ROLE bench SET default_transaction_read_only = on", "SET default_transaction_read_only = off; ALTER ROLE bench RESET default_transaction_read_only", "persistence", "default_transaction_read_only is on"},
		{"unlogged", "ALTER TABLE sessiontoken_revocations SET UNLOGGED", "ALTER TABLE sessiontoken_revocations SET LOGGED", "persistence", "sessiontoken_revocations is unlogged"},
		{"another version", "UPDATE sessiontoken_schema SET version = 99", "UPDATE sessiontoken_schema SET version = 2", "schema", "version 99"},
		{"a table is missing", "ALTER TABLE sessiontoken_grants RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO sessiontoken_grants", "schema", "sessiontoken_grants is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exec(t, tt.plant)
			r := doctor(t, at)
			exec(t, tt.mend)
			requireFinding(t, r, tt.check, tt.says)
		})
	}
	require.Equal(t, 0, doctor(t, at).code, "not mended")

	host := strings.TrimPrefix(at, "postgres://bench@")
	t.Run("without a right", func(t *testing.T) {
		exec(t, "CREATE ROLE fewer LOGIN; GRANT SELECT ON sessiontoken_schema TO fewer; GRANT SELECT, INSERT, UPDATE, DELETE ON sessiontoken_rings, sessiontoken_families, sessiontoken_grants TO fewer; GRANT SELECT, INSERT ON sessiontoken_revocations TO fewer")
		requireFinding(t, doctor(t, "postgres://fewer@"+host), "permissions", "lacks DELETE on sessiontoken_revocations, UPDATE on sessiontoken_revocations")
	})
	t.Run("without any right", func(t *testing.T) {
		exec(t, "CREATE ROLE nothing LOGIN")
		requireFinding(t, doctor(t, "postgres://nothing@"+host), "permissions", "may not do that")
	})
	t.Run("a wrong password", func(t *testing.T) {
		exec(t, "CREATE ROLE locked LOGIN PASSWORD 'right'")
		requireFinding(t, doctor(t, "postgres://locked:wrong@"+host), "permissions", "refuses the user or the password")
	})
	t.Run("no such database", func(t *testing.T) {
		requireFinding(t, doctor(t, strings.Replace(at, "/postgres?", "/nosuch?", 1)), "store", "no such database")
	})
	t.Run("a standby", func(t *testing.T) {
		standby, err := servers.StartPostgresStandby(server)
		standby = running(t, standby, err)
		requireFinding(t, doctor(t, servers.PostgresDSN(standby.Addr)), "standby", "")
		r := doctor(t, at)
		require.Equal(t, 0, r.code, r.text)
		require.Contains(t, r.text, "1 standbys")
	})
	t.Run("no fsync", func(t *testing.T) {
		careless, err := servers.StartPostgres("fsync=off", "full_page_writes=off")
		careless = running(t, careless, err)
		at := servers.PostgresDSN(careless.Addr)
		store, err := postgres.Open(t.Context(), at)
		require.NoError(t, err)
		defer store.Close()
		prepare(t, store)
		r := doctor(t, at)
		requireFinding(t, r, "persistence", "fsync is off")
		requireFinding(t, r, "persistence", "full_page_writes is off")
	})
}

// changes counts what was ever written to the tables, as the server knows it.
func changes(t *testing.T, db *sql.DB) (all string) {
	t.Helper()
	require.NoError(t, db.QueryRow(`SELECT (SELECT string_agg(xmin::text || rev, ',') FROM sessiontoken_rings) || (SELECT count(*) || '/' || max(xid::text) FROM sessiontoken_revocations)`).Scan(&all))
	return all
}
