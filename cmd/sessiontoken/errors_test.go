package main

import (
	"database/sql"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// commandLine is a command with the arguments that it needs.
type commandLine struct {
	words   string
	args    []string
	secrets bool // it needs secrets
	writes  bool
}

// commandLines returns each command that uses a store, for the keys and the
// session of a program.
func commandLines(kid, sessionID, device string) []commandLine {
	return []commandLine{
		{"keys status", nil, false, false},
		{"keys rotate", nil, true, true},
		{"keys revoke", []string{"--no-wait", "--", kid}, true, true},
		{"keys reseal", nil, true, true},
		{"sessions revoke", []string{"--", sessionID}, false, true},
		{"sessions revoke-subject", []string{"ada"}, false, true},
		{"sessions revoke-group", []string{"AAAAAAAAAAAAAAAA"}, false, true},
		{"sessions revoke-all", []string{"--yes"}, false, true},
		{"sessions changed", []string{"ada"}, false, true},
		{"devices list", []string{"ada"}, true, false},
		{"devices revoke", []string{"--", "ada", device}, true, true},
		{"copy", nil, false, true},
	}
}

func (l commandLine) with(flags ...string) []string {
	return append(append(strings.Fields(l.words), flags...), l.args...)
}

// Each command whose store, secret or name is wrong prints one sentence with the
// remedy, has exit code 2 or 3, prints no secret, and changes nothing.
func TestErrors(t *testing.T) {
	p := newProgram(t)
	_, _, c := signIn(t, p.Authority, "ada")
	families, err := p.Refresh().List(t.Context(), "ada")
	require.NoError(t, err)
	lines := commandLines(p.Ring().Status().Keys[0].KeyID, c.SessionID, families[0].ID)
	all := 0
	for _, cmd := range commands {
		for _, l := range lines {
			if l.words == cmd.name {
				all++
			}
		}
	}
	require.Equal(t, len(lines), all)

	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), mode))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	changed := func(name, statement string) string {
		path := filepath.Join(dir, name)
		s, err := sqlite.Open(t.Context(), path)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		db, err := sqlite.DB(path)
		require.NoError(t, err)
		defer db.Close()
		_, err = db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
		return "sqlite:" + path
	}
	plain := filepath.Join(dir, "plain.db")
	require.NoError(t, os.WriteFile(plain, nil, 0o600))
	db, err := sql.Open("sqlite", plain)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "CREATE TABLE theirs (x)")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	plainBefore, err := os.ReadFile(plain)
	require.NoError(t, err)

	before := dump(t, p)
	t.Run("urls", func(t *testing.T) {
		for _, row := range []struct {
			name, url, want string
			code            int
			argument        bool // as --store, not in the environment
		}{
			{"no file", "sqlite:" + filepath.Join(dir, "none.db"), "check the path; the program that issues the tokens creates it", exitFailed, false},
			{"no folder", "sqlite:" + filepath.Join(dir, "none", "x.db"), "check the path", exitFailed, false},
			{"another file", "sqlite:" + file("text", "a text that is no database at all", 0o600), "is not a SQLite database; check the path", exitFailed, false},
			{"an empty file", "sqlite:" + file("empty", "", 0o600), "is not a SQLite database; check the path", exitFailed, false},
			{"another database", "sqlite:" + plain, "has no tables of a store: check the path", exitFailed, false},
			{"a folder", "sqlite:" + dir, "is not a file; check the path", exitFailed, false},
			{"a file for others", "sqlite:" + file("open.db", "SQLite format 3\x00", 0o644), "run chmod 600 on it", exitFailed, false},
			{"tables of another version", changed("version.db", "UPDATE sessiontoken_schema SET version = 9"), "use a release that reads them, or another database", exitFailed, false},
			{"tables that are not complete", changed("half.db", "DELETE FROM sessiontoken_schema"), "call CreateSchema, or run all of Schema in a migration", exitFailed, false},
			{"no tables", changed("tables.db", "DROP TABLE sessiontoken_schema"), "call CreateSchema, or run Schema in a migration", exitFailed, false},
			{"no Redis", "redis://user:" + thePassword + "@127.0.0.1:1/0", "the server cannot be reached; check that it runs, and its address", exitFailed, false},
			{"no PostgreSQL", "postgres://user:" + thePassword + "@127.0.0.1:1/db", "the database cannot be reached; check that it runs, and its address", exitFailed, false},
			{"another engine", "mysql://user:" + thePassword + "@127.0.0.1:1/db", "it must be sqlite:path, postgres://", exitUsage, false},
			{"no URL", thePassword, "it must be sqlite:path, postgres://", exitUsage, false},
			{"a bad port", "redis://user:" + thePassword + "@127.0.0.1:x/0", "cannot be read; it must be like redis://", exitUsage, false},
			{"a bad parameter", "redis://user:" + thePassword + "@127.0.0.1:1/0?prefx=x", "cannot be read; it must be like redis://", exitUsage, false},
			{"a bad PostgreSQL URL", "postgres://user:" + thePassword + "@127.0.0.1:x/db", "cannot be read; it must be like postgres://", exitUsage, false},
			{"a password in an argument", "redis://user:" + thePassword + "@127.0.0.1:1/0", "has a password in it", exitUsage, true},
			{"a password in a parameter", "postgres://u@127.0.0.1:1/db?password=" + thePassword, "has a password in it", exitUsage, true},
			{"a password in what is no URL", "redis://u:" + thePassword + "@127.0.0.1:x/0", "has a password in it", exitUsage, true},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				for _, l := range lines {
					e, flags := p.env().with("SESSIONTOKEN_STORE", row.url, "SESSIONTOKEN_FROM", "sqlite:"+p.path, "SESSIONTOKEN_TO", row.url), []string(nil)
					if row.argument {
						e, flags = p.env().with("SESSIONTOKEN_TO", "sqlite:"+p.path), []string{"--store", row.url}
						if l.words == "copy" {
							flags = []string{"--from", row.url}
						}
					}
					r := e.run(t, l.with(flags...)...)
					require.Equal(t, row.code, r.code, "%s: %s", l.words, r.err)
					require.Contains(t, r.err, row.want, l.words)
					require.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
					require.Empty(t, r.out)
				}
				require.Equal(t, before, dump(t, p))
			})
		}
	})
	require.NoFileExists(t, filepath.Join(dir, "none.db"))
	plainAfter, err := os.ReadFile(plain)
	require.NoError(t, err)
	require.Equal(t, plainBefore, plainAfter)

	t.Run("another secret", func(t *testing.T) {
		for _, l := range lines {
			r := p.env().with(secretsEnv, base64.StdEncoding.EncodeToString(make([]byte, 32))).run(t, l.with()...)
			if !l.secrets {
				continue // below
			}
			require.Equal(t, exitFailed, r.code, l.words)
			require.Contains(t, r.err, "name the secrets and the --issuer of the program", l.words)
			require.Empty(t, r.out)
		}
	})
}

// A name that no program of the store has is an error of each command.
func TestErrorsOfNames(t *testing.T) {
	p := newProgram(t)
	_, _, c := signIn(t, p.Authority, "ada")
	to, _ := emptyStore(t)
	before := dump(t, p)
	for _, l := range commandLines(p.Ring().Status().Keys[0].KeyID, c.SessionID, "device") {
		e := p.env().with(issuerEnv, "https://other.example", "SESSIONTOKEN_FROM", "sqlite:"+p.path, "SESSIONTOKEN_TO", "sqlite:"+to)
		r := e.run(t, l.with()...)
		require.Equal(t, exitFailed, r.code, "%s: %s", l.words, r.err)
		require.Contains(t, r.err, "check --issuer and --namespace", l.words)
		r = e.with(issuerEnv, "").run(t, l.with()...)
		require.Equal(t, exitUsage, r.code, "%s: %s", l.words, r.err)
		require.Contains(t, r.err, "set --issuer or SESSIONTOKEN_ISSUER", l.words)
		require.Equal(t, before, dump(t, p), l.words)
	}
}

// While another process holds the lock of the store, a command that writes ends
// in time, and nothing is half done.
func TestErrorsOfLocks(t *testing.T) {
	p := newProgram(t)
	_, _, c := signIn(t, p.Authority, "ada")
	families, err := p.Refresh().List(t.Context(), "ada")
	require.NoError(t, err)
	to, store := emptyStore(t)
	for _, path := range []string{p.path, to} {
		db, err := sqlite.DB(path)
		require.NoError(t, err)
		defer db.Close()
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
	}
	before := dump(t, p)
	e := p.env().with("SESSIONTOKEN_FROM", "sqlite:"+p.path, "SESSIONTOKEN_TO", "sqlite:"+to, secretsEnv,
		base64.StdEncoding.EncodeToString([]byte(strings.Repeat("newer", 8)))+","+base64.StdEncoding.EncodeToString(theSecret))
	for _, l := range commandLines(p.Ring().Status().Keys[0].KeyID, c.SessionID, families[0].ID) {
		t.Run(l.words, func(t *testing.T) {
			r := e.run(t, l.with("--timeout", "1s")...)
			if !l.writes {
				require.Equal(t, exitDone, r.code, r.err)
				return
			}
			require.Equal(t, exitFailed, r.code, r.err)
			require.Contains(t, r.err, "that nothing holds its locks, or raise --timeout")
			require.True(t, strings.Contains(r.err, "repeat the command") || strings.Contains(r.err, "run it again"), r.err)
			require.Empty(t, r.out)
			require.Equal(t, before, dump(t, p))
		})
	}
	stored, err := store.Load(t.Context(), issuer)
	require.NoError(t, err)
	require.Empty(t, stored.Doc)
}

// Secrets that are malformed are errors that do not repeat them.
func TestErrorsOfSecrets(t *testing.T) {
	p := newProgram(t)
	good := base64.StdEncoding.EncodeToString(theSecret)
	open := privateFile(t, good)
	require.NoError(t, os.Chmod(open, 0o644))
	for _, row := range []struct {
		name, want string
		env        env
		flags      []string
		code       int
	}{
		{"none", "set --secret-file or SESSIONTOKEN_SECRETS", p.env().with(secretsEnv, ""), nil, exitUsage},
		{"not base64", "secret 1 of SESSIONTOKEN_SECRETS: the secret is not in base64; it must be", p.env().with(secretsEnv, "not?base64!at-all-"+thePassword), nil, exitFailed},
		{"short", "secret 2 of SESSIONTOKEN_SECRETS: the secret has 12 bytes", p.env().with(secretsEnv, good+","+"AAAAAAAAAAAAAAAA"), nil, exitFailed},
		{"twice", "is the same secret as", p.env().with(secretsEnv, good+","+good), nil, exitFailed},
		{"no file", "there is no file", p.env(), []string{"--secret-file", "/none"}, exitFailed},
		{"a file for others", "run chmod 600", p.env(), []string{"--secret-file", open}, exitFailed},
		{"a long file", "it must hold one line", p.env(), []string{"--secret-file", privateFile(t, strings.Repeat("A", 70_000))}, exitFailed},
		{"an empty file", "the secret has 0 bytes", p.env(), []string{"--secret-file", privateFile(t, "\n")}, exitFailed},
		{"two lines", "is not in base64", p.env(), []string{"--secret-file", privateFile(t, good+"\n"+good+"\n")}, exitFailed},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := row.env.run(t, append([]string{"keys", "rotate"}, row.flags...)...)
			require.Equal(t, row.code, r.code, r.err)
			require.Contains(t, r.err, row.want)
			require.NotContains(t, r.err, strings.TrimRight(good, "="))
		})
	}
	for name, text := range map[string]string{
		"padded": good + "\n", "raw": strings.TrimRight(good, "="), "for URLs": base64.URLEncoding.EncodeToString(theSecret), "as text": asText + string(theSecret),
	} {
		t.Run(name, func(t *testing.T) {
			p.env().with(secretsEnv, "").must(t, "devices", "list", "--secret-file", privateFile(t, text), "ada")
		})
	}
}

// A URL that comes from a file may have a password.
func TestStoreFile(t *testing.T) {
	p := newProgram(t)
	e := p.env().with("SESSIONTOKEN_STORE", "")
	e.must(t, "keys", "status", "--store-file", privateFile(t, "sqlite:"+p.path+"\n"))
	e.must(t, "keys", "status", "--store", "sqlite:"+p.path)
	open := privateFile(t, "redis://:"+thePassword+"@127.0.0.1:1")
	require.NoError(t, os.Chmod(open, 0o640))
	r := e.run(t, "keys", "status", "--store-file", open)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "run chmod 600")
	r = e.run(t, "keys", "status")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.err, "set --store, --store-file or SESSIONTOKEN_STORE")
}

// Opening a store changes nothing in it.
func TestOpenChangesNothing(t *testing.T) {
	p := newProgram(t)
	require.NoError(t, p.store.Close())
	before, err := os.ReadFile(p.path)
	require.NoError(t, err)
	p.env().must(t, "keys", "status")
	after, err := os.ReadFile(p.path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func FuzzDecodeSecret(f *testing.F) {
	f.Add([]byte("c2VjcmV0IT9zZWNyZXQhP3NlY3JldCE/c2VjcmV0IT8="))
	f.Add([]byte(asText))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := decodeSecret(text)
		if err == nil && len(s) < minSecret {
			t.Fatal("a short secret")
		}
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), string(text)) && !strings.Contains(secretForm, string(text)) {
			t.Fatal("the error repeats the secret")
		}
	})
}

// The password of a URL is found however it is spelled.
func FuzzHoldsPassword(f *testing.F) {
	f.Add("redis", "user", "pass", "host")
	f.Add("postgres", "", "%41", "[::1]")
	f.Add("#", "0", "0", "0") // no URL
	f.Fuzz(func(t *testing.T, scheme, user, password, host string) {
		at := scheme + "://" + user + ":" + password + "@" + host
		if scheme == "sqlite" || scheme == "file" || strings.ContainsAny(user+password, "/?#") || strings.Contains(scheme, ":") {
			return
		}
		if !holdsPassword(at) && password != "" {
			t.Fatalf("%q has a password", at)
		}
	})
}
