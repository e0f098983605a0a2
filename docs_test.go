package sessiontoken_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// snake is a name of several words in backticks, as reasons and metrics have.
var snake = regexp.MustCompile("`([a-z]+(?:_[a-z0-9]+)+)`")

// TestReasonsAreDocumented: the table of log lines in OPERATING.md has each
// reason that the code gives, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	require.ElementsMatch(t, reasonsInCode(t), reasonsInTable(t))
}

// TestMetricsOfTheDocumentsExist: what README.md, OPERATING.md and the alerts
// call a metric is one. A name of several words that is neither a metric nor a
// reason must be among those that belong to others.
func TestMetricsOfTheDocumentsExist(t *testing.T) {
	known := metricNames(t)
	require.Greater(t, len(known), 50)
	reasons := reasonsInCode(t)
	others := []string{"auth_time", "proxy_cache", "proxy_cache_valid", "search_path", "default_query_exec_mode", "max_connections", "synchronous_standby_names", "sessiontoken_grants", "refresh_token", "acr_values", "max_age", "private_key_jwt", "client_secret_post", "client_secret_basic", "auth_request", "ext_authz"}
	others = append(others, readyNames(t)...)
	for _, m := range snake.FindAllStringSubmatch(strings.ReplaceAll(document(t, "event/event.go"), `"`, "`"), -1) { // kinds and reasons of events
		others = append(others, m[1])
	}
	for _, name := range []string{"README.md", "OPERATING.md", "SECURITY.md", "CHANGELOG.md"} {
		for _, m := range snake.FindAllStringSubmatch(document(t, name), -1) {
			ok := slices.Contains(known, m[1]) || slices.Contains(reasons, m[1]) || slices.Contains(others, m[1])
			require.True(t, ok, "%s names %s, which is no metric and no reason", name, m[1])
		}
	}
	_, watch, ok := strings.Cut(document(t, "OPERATING.md"), "## What to watch\n")
	require.True(t, ok)
	watch, _, _ = strings.Cut(watch, "\n## ")
	rows := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(watch, -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			name = strings.Trim(name, "`")
			rows++
			before, after, all := strings.Cut(name, "…")
			require.True(t, slices.ContainsFunc(known, func(k string) bool {
				return k == name || all && strings.HasPrefix(k, before) && strings.HasSuffix(k, after)
			}), "%s does not exist", name)
		}
	}
	require.Greater(t, rows, 10)
	alerts := regexp.MustCompile(`sessiontoken_(\w+)`).FindAllStringSubmatch(document(t, "examples/apps/prometheus/alerts.yml"), -1)
	require.NotEmpty(t, alerts)
	for _, m := range alerts {
		require.Contains(t, known, m[1], "alerts.yml")
	}
}

// TestReadyIsDocumented: OPERATING.md has each reason and warning of Ready.
func TestReadyIsDocumented(t *testing.T) {
	text := document(t, "OPERATING.md")
	for _, name := range readyNames(t) {
		require.Contains(t, text, "`"+name+"`")
	}
}

// readyNames are what Ready of an authority answers, by its code.
func readyNames(t *testing.T) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`"((?:keys|no|not|revocations)_[a-z_]+)"`).FindAllStringSubmatch(document(t, "authority/ready.go"), -1) {
		names = append(names, m[1])
	}
	require.Len(t, names, 14)
	return names
}

// TestRedisRightsOfTheRunbook: OPERATING.md has the rules of redisstore's package
// comment, which tests of that module hold to a real server.
func TestRedisRightsOfTheRunbook(t *testing.T) {
	rules := func(name string) (all []string) {
		for line := range strings.Lines(document(t, name)) {
			if strings.Contains(line, "ACL SETUSER") {
				all = append(all, regexp.MustCompile(`\+[a-z|]+`).FindAllString(line, -1)...)
			}
		}
		return all
	}
	require.NotEmpty(t, rules("OPERATING.md"))
	require.Equal(t, rules("redisstore/redisstore.go"), rules("OPERATING.md"))
}

// TestTestsOfTheDocumentsExist: each attack of SECURITY.md has a test, and every test
// that the documents name is there.
func TestTestsOfTheDocumentsExist(t *testing.T) {
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		name := filepath.Base(filepath.Dir(path)) + "."
		if name == ".." {
			name = ""
		}
		for _, m := range declared.FindAllStringSubmatch(document(t, path), -1) {
			there[name+m[1]] = true
		}
		return nil
	})
	require.NoError(t, err)
	test := regexp.MustCompile("`((?:\\w+\\.)?Test[A-Z]\\w+)`")
	for _, name := range []string{"README.md", "OPERATING.md", "SECURITY.md", "cmd/sessiontoken/README.md"} {
		for _, m := range test.FindAllStringSubmatch(document(t, name), -1) {
			require.True(t, there[m[1]], "%s names %s, which does not exist", name, m[1])
		}
	}
	_, table, ok := strings.Cut(document(t, "SECURITY.md"), "| attack | what stops it | test |\n| --- | --- | --- |\n")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	rows := 0
	for row := range strings.Lines(table) {
		rows++
		require.Regexp(t, test, strings.Split(row, "|")[3], row)
	}
	require.Greater(t, rows, 30)
}

// TestErrorsOfTheRunbookExist: what OPERATING.md says that an error says is in
// the text of one.
func TestErrorsOfTheRunbookExist(t *testing.T) {
	_, text, ok := strings.Cut(document(t, "OPERATING.md"), "| the error says | then |\n| --- | --- |\n")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "\n\n")
	var code strings.Builder
	for _, file := range shipped(t, "keys", "revoke", "redisstore", "sqlstore") {
		code.WriteString(document(t, file))
	}
	rows := 0
	for line := range strings.Lines(text) {
		said, _, _ := strings.Cut(strings.Split(line, "|")[1], " (")
		for phrase := range strings.SplitSeq(strings.TrimSpace(said), "; ") {
			rows++
			require.True(t, strings.Contains(code.String(), phrase), phrase)
		}
	}
	require.Greater(t, rows, 10)
}

// TestDefaultsOfTheReadme: the constructors give what the README's table of
// limits and defaults says.
func TestDefaultsOfTheReadme(t *testing.T) {
	parts := newParts(t)
	issuer, verifier, manager := parts.issuer.Config(), parts.verifier.Config(), parts.manager.Config()
	healthy, stale := parts.list.Staleness()
	require.Equal(t, "1 s", words(healthy-5*time.Second), "one reading takes 5 s at most")
	got := map[string]string{
		"Limits.TTL`, `IssuerConfig.TTL":                   words(issuer.TTL),
		"Limits.IdleTimeout`, `IssuerConfig.IdleTimeout":   words(issuer.IdleTimeout),
		"Limits.RefreshIdle`, `refresh.Config.IdleTimeout": words(manager.IdleTimeout),
		"IssuerConfig.MaxBytes":                            strconv.Itoa(issuer.MaxBytes) + " B",
		"VerifierConfig.MaxBytes":                          strconv.Itoa(verifier.MaxBytes) + " B",
		"VerifierConfig.CacheBytes":                        strconv.Itoa(verifier.CacheBytes>>20) + " MiB",
		"VerifierConfig.MaxTTL":                            words(verifier.MaxTTL),
		"VerifierConfig.Leeway":                            strconv.Itoa(int(verifier.Leeway)) + ", at most 60 s",
		"revoke.Config.SyncEvery`, `MaxStale":              words(healthy-5*time.Second) + ", " + words(stale),
		"refresh.Config.RetryWindow":                       words(manager.RetryWindow),
		"refresh.Config.MaxPerSubject":                     strconv.Itoa(manager.MaxPerSubject),
	}
	synctest.Test(t, func(t *testing.T) {
		ring := newParts(t).ring
		_, err := ring.KeySet(t.Context(), "")
		require.NoError(t, err)
		time.Sleep(29*24*time.Hour + time.Hour)
		_, err = ring.KeySet(t.Context(), "")
		require.NoError(t, err)
		next := ring.Status().Keys[1]
		got["RingConfig.RotateEvery"] = words(next.SignsUntil.Sub(next.SignsFrom))
		require.False(t, next.Published.After(next.SignsFrom.Add(-24*time.Hour)))
		got["RingConfig.RetainFor"] = words(ring.RetainFor())
		jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring})
		require.NoError(t, err)
		answer := httptest.NewRecorder()
		jwks.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "https://auth.example/jwks.json", nil))
		age := regexp.MustCompile(`max-age=(\d+)`).FindStringSubmatch(answer.Header().Get("Cache-Control"))
		require.NotNil(t, age)
		seconds, _ := strconv.Atoi(age[1])
		got["JWKSConfig.MaxAge"] = words(time.Duration(seconds) * time.Second)
	})
	synctest.Test(t, func(t *testing.T) {
		store := new(failingRing)
		ring, err := keys.NewRing(keys.RingConfig{Store: store, InsecureUnsealed: true, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		_, err = ring.KeySet(t.Context(), "")
		require.NoError(t, err)
		synctest.Wait()
		read := time.Now()
		before := store.reads.Load()
		for store.reads.Load() == before {
			time.Sleep(time.Second)
			_, err = ring.KeySet(t.Context(), "")
			require.NoError(t, err)
			synctest.Wait()
		}
		require.LessOrEqual(t, time.Since(read), time.Minute, "SyncEvery")
		require.Greater(t, time.Since(read), time.Minute/2)
		got["RingConfig.SyncEvery"] = "1 min"
		store.down.Store(true)
		began := time.Now()
		for err == nil {
			time.Sleep(time.Minute)
			_, err = ring.KeySet(t.Context(), "")
		}
		got["RingConfig.MaxStale"] = words(time.Since(began))
	})
	table := defaultsTable(t)
	for name, value := range got {
		require.Equal(t, table[name], value, name)
	}
	for _, value := range []time.Duration{issuer.MaxSession, manager.MaxSession, parts.list.RetainFor()} {
		require.Equal(t, table["Limits.MaxSession`, `IssuerConfig.MaxSession"], words(value))
	}
	for _, l := range []authority.Limits{{}, {MaxSession: issuer.MaxSession, IdleTimeout: issuer.IdleTimeout, TTL: issuer.TTL, RefreshIdle: manager.IdleTimeout}} {
		got := newAuthority(t, l).Issuer().Config()
		require.Equal(t, []time.Duration{issuer.TTL, issuer.IdleTimeout, issuer.MaxSession}, []time.Duration{got.TTL, got.IdleTimeout, got.MaxSession})
	}

	_, err := sessiontoken.NewVerifier[struct{}](sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: parts.ring, Leeway: 61 * time.Second})
	require.Error(t, err)
}

// TestPresetsOfTheReadme: an authority takes the limits of the levels that the
// README names.
func TestPresetsOfTheReadme(t *testing.T) {
	require.Contains(t, document(t, "README.md"), "`authority.Limits{MaxSession: 12 * time.Hour, IdleTimeout: 15 * time.Minute}`")
	newAuthority(t, authority.Limits{MaxSession: 12 * time.Hour, IdleTimeout: 15 * time.Minute})
	month := 30 * 24 * time.Hour
	newAuthority(t, authority.Limits{MaxSession: month})
	newAuthority(t, authority.Limits{MaxSession: month, IdleTimeout: month, RefreshIdle: month})
}

func newAuthority(t *testing.T, l authority.Limits) *authority.Authority[struct{}] {
	t.Helper()
	a, err := authority.New(authority.Config[struct{}]{
		Issuer: "https://auth.example", Audience: []string{"orders"}, Store: authority.Memory(), Limits: l,
		Load: func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil },
	})
	require.NoError(t, err)
	return a
}

// TestPlainWords holds what users read, and the comments of all that ships, to the
// field's words and to plain sentences.
func TestPlainWords(t *testing.T) {
	riddles := regexp.MustCompile(`(?i)\b(says? whether|whoever|nobody|somebody|everybody|anybody|of whom|lately)\b`)
	require.Regexp(t, riddles, "Whoever holds it")
	// What a stranger takes for another thing, or for a riddle.
	dialect := regexp.MustCompile(`(?i)\b(genuine|neighbours?|(can|cannot|could not|does not|do not) tell|whatever becomes of|what is over)\b`)
	require.Regexp(t, dialect, "A genuine token")
	for _, name := range []string{"README.md", "OPERATING.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "oidclogin/README.md", "oidclogin/PROVIDERS.md", "cmd/sessiontoken/README.md", "examples/apps/moving/scs/README.md", "examples/apps/moving/gorilla/README.md", "examples/apps/moving/golangjwt/README.md"} {
		require.Empty(t, riddles.FindAllString(document(t, name), -1), name)
	}
	comments := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || path == "bench" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, group := range parsed.Comments {
			comments++
			text := strings.Join(strings.Fields(group.Text()), " ")
			require.Empty(t, riddles.FindAllString(text, -1), "%s: %s", path, text)
			require.Empty(t, dialect.FindAllString(text, -1), "%s: %s", path, text)
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, comments, 1000)
}

// reasonsInCode returns the reasons of the lines that package internal/loud
// writes: literals, and the faults of sessionhttp that have a message.
func reasonsInCode(t *testing.T) (reasons []string) {
	t.Helper()
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	text := func(e ast.Expr) (string, bool) {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(lit.Value)
		require.NoError(t, err)
		return s, true
	}
	for _, file := range shipped(t, ".", "authority", "keys", "refresh", "remote", "revoke", "sessionhttp", "internal/notify", "redisstore", "sqlstore") {
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				on, _ := ast.Unparen(funX(f, ok)).(*ast.SelectorExpr)
				if !ok || f.Sel.Name != "Warn" || on == nil || on.Sel.Name != "loud" && on.Sel.Name != "log" {
					return true
				}
				reason, literal := text(n.Args[0])
				if !literal { // only the table of faults has them apart from the call
					require.Equal(t, filepath.Join("sessionhttp", "refuse.go"), file, fset.Position(n.Pos()))
				} else if word.MatchString(reason) {
					reasons = append(reasons, reason)
				}
			case *ast.CompositeLit:
				if id, ok := n.Type.(*ast.Ident); !ok || id.Name != "fault" || len(n.Elts) != 2 {
					return true
				}
				reason, ok := text(n.Elts[0])
				require.True(t, ok)
				message, ok := text(n.Elts[1])
				require.True(t, ok)
				if message != "" {
					reasons = append(reasons, reason)
				}
			}
			return true
		})
	}
	require.Greater(t, len(reasons), 20)
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

func funX(f *ast.SelectorExpr, ok bool) ast.Expr {
	if !ok {
		return &ast.BadExpr{}
	}
	return f.X
}

// reasonsInTable returns the first column of OPERATING.md's table of log lines.
func reasonsInTable(t *testing.T) (reasons []string) {
	t.Helper()
	_, text, ok := strings.Cut(document(t, "OPERATING.md"), "| reason | then |\n")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "\n\n")
	for line := range strings.Lines(text) {
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			reasons = append(reasons, m[1])
		}
	}
	slices.Sort(reasons)
	return reasons
}

// defaultsTable returns the rows of the README's table: what a setting is called,
// and its default.
func defaultsTable(t *testing.T) map[string]string {
	t.Helper()
	_, text, ok := strings.Cut(document(t, "README.md"), "## Limits and defaults\n")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "\n## ")
	table := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(.+)` \\| (.+?) \\|").FindAllStringSubmatch(text, -1) {
		table[m[1]] = m[2]
	}
	return table
}

// failingRing is a store that counts its readings, and can be down.
type failingRing struct {
	countedRing
	down atomic.Bool
}

func (f *failingRing) Load(ctx context.Context, name string) (keys.Stored, error) {
	if f.down.Load() {
		return keys.Stored{}, errors.New("the store is down")
	}
	return f.countedRing.Load(ctx, name)
}

// words puts a duration as the README does.
func words(d time.Duration) string {
	for _, unit := range []struct {
		d       time.Duration
		name    string
		atLeast int
	}{{24 * time.Hour, "days", 2}, {time.Hour, "h", 1}, {time.Minute, "min", 1}, {time.Second, "s", 0}} {
		if n := int(d / unit.d); d%unit.d == 0 && n >= unit.atLeast {
			return strconv.Itoa(n) + " " + unit.name
		}
	}
	return d.String()
}

// parts are one of each thing that has defaults and metrics.
type parts struct {
	ring     *keys.Ring
	list     *revoke.List
	manager  *refresh.Manager
	issuer   *sessiontoken.Issuer[struct{}]
	verifier *sessiontoken.Verifier[struct{}]
	remote   *remote.Keys
	sessions *sessionhttp.Sessions[struct{}]
}

func newParts(t *testing.T) (p parts) {
	t.Helper()
	var err error
	p.ring, err = keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	require.NoError(t, err)
	p.list, err = revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	require.NoError(t, err)
	p.manager, err = refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{make([]byte, 32)}, Revocations: p.list})
	require.NoError(t, err)
	p.issuer, err = sessiontoken.NewIssuer[struct{}](sessiontoken.IssuerConfig{Issuer: "https://auth.example", Audience: []string{"orders"}, Keys: p.ring, Revocations: p.list})
	require.NoError(t, err)
	p.verifier, err = sessiontoken.NewVerifier[struct{}](sessiontoken.VerifierConfig{Issuer: "https://auth.example", Audience: "orders", Keys: p.ring, Revocations: p.list})
	require.NoError(t, err)
	p.remote, err = remote.NewKeys(remote.KeysConfig{URL: "https://auth.example/jwks.json"})
	require.NoError(t, err)
	p.sessions, err = sessionhttp.New(sessionhttp.Config[struct{}]{Verifier: p.verifier})
	require.NoError(t, err)
	return p
}

func metricNames(t *testing.T) (names []string) {
	t.Helper()
	p := newParts(t)
	site, err := authority.New(authority.Config[struct{}]{
		Issuer: "https://auth.example", Audience: []string{"orders"}, Store: authority.Memory(), FeedTokens: []string{strings.Repeat("a", 43)},
		Load: func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil },
	})
	require.NoError(t, err)
	for _, s := range []interface{ Metrics() map[string]float64 }{site, p.ring, p.list, p.manager, p.issuer, p.verifier, p.remote, p.sessions} {
		for name := range s.Metrics() {
			names = append(names, name)
		}
	}
	return names
}

// shipped returns the files of packages that are in users' binaries.
func shipped(t *testing.T, dirs ...string) (files []string) {
	t.Helper()
	for _, dir := range dirs {
		all, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, all, dir)
		files = append(files, slices.DeleteFunc(all, func(f string) bool { return strings.HasSuffix(f, "_test.go") })...)
	}
	return files
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	require.NoError(t, err)
	return string(text)
}
