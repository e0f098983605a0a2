package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

const issuer = "https://site.example"

var theSecret = bytes.Repeat([]byte("secret!?"), 5)

// program is an issuing program with a store.
type program struct {
	*authority.Authority[struct{}]
	path  string
	store *sqlstore.Store
}

// newProgram returns a program whose ring and list are in a new SQLite file.
func newProgram(t *testing.T, secrets ...[]byte) *program {
	t.Helper()
	if len(secrets) == 0 {
		secrets = [][]byte{theSecret}
	}
	path := filepath.Join(t.TempDir(), "sessions.db")
	store, err := sqlite.Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	p := &program{replica(t, store, secrets...), path, store}
	_, err = p.Ring().SigningKey(t.Context())
	require.NoError(t, err)
	_, err = p.Revocations().Begin(t.Context(), revoke.Question{Subject: "ada"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		page, err := store.Since(t.Context(), "")
		return err == nil && len(page.Entries) > 0
	}, time.Minute, time.Millisecond) // the birth mark
	return p
}

func replica(t *testing.T, store authority.Store, secrets ...[]byte) *authority.Authority[struct{}] {
	t.Helper()
	a, err := authority.New(authority.Config[struct{}]{
		Issuer: issuer, Audience: []string{"site"}, Store: store, Secrets: secrets, Logger: discard,
		Load: func(context.Context, *authorityClaims) (struct{}, error) { return struct{}{}, nil },
	})
	require.NoError(t, err)
	return a
}

// signIn begins a session with a refresh token.
func signIn(t *testing.T, a *authority.Authority[struct{}], subject string) (token, refreshToken string, c *authorityClaims) {
	t.Helper()
	token, c, err := a.Issuer().Begin(t.Context(), sessiontoken.Start{Subject: subject}, struct{}{})
	require.NoError(t, err)
	refreshToken, _, err = a.Refresh().Start(t.Context(), refresh.Family{Subject: subject, SessionID: c.SessionID, Began: c.Began, Label: "Firefox on Linux"}, "")
	require.NoError(t, err)
	return token, refreshToken, c
}

// exchange presents a refresh token.
func exchange(t *testing.T, a *authority.Authority[struct{}], token string) (string, error) {
	t.Helper()
	next, _, err := a.Refresh().Exchange(t.Context(), refresh.Presented{Token: token}, func(context.Context, refresh.Family) error { return nil })
	return next, err
}

// env is the environment of a command.
type env map[string]string

// with returns env with further variables.
func (e env) with(names ...string) env {
	all := env{}
	for k, v := range e {
		all[k] = v
	}
	for i := 0; i < len(names); i += 2 {
		all[names[i]] = names[i+1]
	}
	return all
}

func (p *program) env() env {
	return env{"SESSIONTOKEN_STORE": "sqlite:" + p.path, issuerEnv: issuer, secretsEnv: base64.StdEncoding.EncodeToString(theSecret)}
}

// ran is what a command has printed, and its exit code.
type ran struct {
	out, err string
	code     int
}

// command runs the command in this process.
func (e env) run(t *testing.T, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, &call{stdin: strings.NewReader(""), out: &out, err: &errs, getenv: func(name string) string { return e[name] }})
	r := ran{out.String(), errs.String(), code}
	noSecrets(t, e, r)
	return r
}

// noSecrets checks that what a command has printed holds no secret of its
// environment.
func noSecrets(t *testing.T, e env, r ran) {
	t.Helper()
	all := r.out + r.err
	for _, s := range append([]string{string(theSecret)}, strings.Split(e[secretsEnv], ",")...) {
		if s != "" {
			require.NotContains(t, all, strings.TrimRight(s, "="))
		}
	}
	require.NotContains(t, all, thePassword)
}

const thePassword = "pa55-of-the-store"

// must runs the command, which must succeed.
func (e env) must(t *testing.T, args ...string) string {
	t.Helper()
	r := e.run(t, args...)
	require.Equal(t, exitDone, r.code, "%v: %s%s", args, r.out, r.err)
	require.Empty(t, r.err)
	return r.out
}

// decode runs the command with --json.
func (e env) decode(t *testing.T, into any, command string, args ...string) {
	t.Helper()
	out := e.must(t, append(append(strings.Fields(command), "--json"), args...)...)
	require.NoError(t, json.Unmarshal([]byte(out), into), out)
}

// privateFile returns the path of a file that its owner alone may read.
func privateFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "private")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func question(c *authorityClaims) *revoke.Question {
	q := revoke.Question{SessionID: c.SessionID, Subject: c.Subject, KeyID: c.KeyID, Began: c.Began}.Prepared()
	return &q
}

// checkSoon returns the answer of a list that has read the store.
func checkSoon(t *testing.T, a *authority.Authority[struct{}], c *authorityClaims) error {
	t.Helper()
	require.NoError(t, a.Revocations().Sync(t.Context()))
	return a.Revocations().Check(t.Context(), question(c))
}

// bubble returns a test that runs with a clock of its own.
func bubble(f func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { synctest.Test(t, f) }
}
