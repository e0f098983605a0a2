package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// plantedSite is a healthy site, in which a test plants faults.
type plantedSite struct {
	store  string // path
	issuer string
	ca     string // path
	secret string // path
	args   []string
	// answer answers instead of the authority, if it is set and returns true.
	answer atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	server *httptest.Server
}

// newPlantedSite starts a site: an authority has run over a SQLite store, and is
// served by https. cert is its certificate, or nil for a valid one.
func newPlantedSite(t *testing.T, cert *tls.Certificate) *plantedSite {
	t.Helper()
	s := &plantedSite{store: filepath.Join(t.TempDir(), "site.db")}
	var handler http.Handler = http.NotFoundHandler()
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer := s.answer.Load(); answer != nil && (*answer)(w, r) {
			return
		}
		handler.ServeHTTP(w, r)
	}))
	s.server.Config.ErrorLog = quietLog
	if cert != nil {
		s.server.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
	}
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.issuer = s.server.URL
	s.ca = writeFile(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}))

	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	s.secret = writeFile(t, "secret", []byte(base64.StdEncoding.EncodeToString(secret)))
	store, err := sqlite.Open(t.Context(), s.store)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	a, err := authority.New(authority.Config[struct{}]{
		Issuer: s.issuer, Audience: []string{"site"}, Store: store, Secrets: [][]byte{secret}, Logger: discard,
		Load: func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil },
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	require.Eventually(t, func() bool {
		_, err := a.Ring().KeySet(t.Context(), "")
		_, listErr := a.Revocations().Now(t.Context())
		return err == nil && listErr == nil && len(a.Ring().Status().Keys) == 2
	}, 60*time.Second, 20*time.Millisecond)
	stop()
	<-ended
	handler = a.WellKnown()
	s.args = []string{"doctor", "--store", "sqlite:" + s.store, "--issuer", s.issuer, "--secret-file", s.secret, "--ca", s.ca}
	return s
}

// doctor runs the command. Temporary folders may be in memory here.
func (s *plantedSite) doctor(t *testing.T, more ...string) printed {
	t.Helper()
	return runDoctor(t, "", append(s.args, more...)...)
}

func runDoctor(t *testing.T, stdin string, args ...string) printed {
	t.Helper()
	old := inMemoryHere
	inMemoryHere = func(string) bool { return false }
	defer func() { inMemoryHere = old }()
	return runWith(t, stdin, args...)
}

// exec changes the database.
func (s *plantedSite) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	s.withDB(t, func(db *sql.DB) {
		_, err := db.Exec(statement, args...)
		require.NoError(t, err)
	})
}

func (s *plantedSite) withDB(t *testing.T, do func(db *sql.DB)) {
	t.Helper()
	db, err := sqlite.DB(s.store)
	require.NoError(t, err)
	defer db.Close()
	do(db)
}

// changeRing changes the document of the ring.
func (s *plantedSite) changeRing(t *testing.T, change func(doc map[string]any)) {
	t.Helper()
	s.withDB(t, func(db *sql.DB) {
		var raw []byte
		require.NoError(t, db.QueryRow("SELECT doc FROM sessiontoken_rings").Scan(&raw))
		var doc map[string]any
		require.NoError(t, json.Unmarshal(raw, &doc))
		change(doc)
		raw, err := json.Marshal(doc)
		require.NoError(t, err)
		_, err = db.Exec("UPDATE sessiontoken_rings SET doc = ?", raw)
		require.NoError(t, err)
	})
}

// aged returns a JSON value in which each time is earlier.
func aged(v any, by time.Duration) any {
	switch v := v.(type) {
	case string:
		if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return at.Add(-by).Format(time.RFC3339Nano)
		}
	case []any:
		for i := range v {
			v[i] = aged(v[i], by)
		}
	case map[string]any:
		for name := range v {
			v[name] = aged(v[name], by)
		}
	}
	return v
}

// answerWith makes the server answer itself under paths with a suffix.
func (s *plantedSite) answerWith(suffix string, answer http.HandlerFunc) {
	f := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		answer(w, r)
		return true
	}
	s.answer.Store(&f)
}

// through passes the authority's answer under paths with a suffix on, changed.
func (s *plantedSite) through(t *testing.T, suffix string, change func(header http.Header, body []byte) []byte) {
	t.Helper()
	s.answer.Store(nil)
	inner := s.server.Config.Handler
	s.answerWith(suffix, func(w http.ResponseWriter, r *http.Request) {
		saved := s.answer.Swap(nil)
		recorder := httptest.NewRecorder()
		inner.ServeHTTP(recorder, r)
		s.answer.Store(saved)
		body := change(recorder.Header(), recorder.Body.Bytes())
		recorder.Header().Del("Content-Length")
		for name, values := range recorder.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(body)
	})
}

func header(name, value string) func(http.Header, []byte) []byte {
	return func(h http.Header, body []byte) []byte {
		h.Set(name, value)
		return body
	}
}

func replaced(old, new string) func(http.Header, []byte) []byte {
	return func(_ http.Header, body []byte) []byte { return []byte(strings.ReplaceAll(string(body), old, new)) }
}

const (
	discoverySuffix = "openid-configuration"
	jwksSuffix      = "jwks.json"
)

func TestDoctorFindsNothingOnTheDefaults(t *testing.T) {
	s := newPlantedSite(t, nil)
	before, err := os.ReadFile(s.store)
	require.NoError(t, err)
	r := s.doctor(t)
	require.Equal(t, exitDone, r.code, r.out+r.err)
	require.Contains(t, r.out, "0 found")
	require.NotContains(t, r.out, "FOUND")
	for _, check := range []string{"store", "schema", "persistence", "permissions", "ring", "sealing", "revocations", "tls", "clock", "discovery", "jwks", "cookie size", "feed"} {
		if check == "feed" {
			continue // not served by default
		}
		require.Contains(t, r.out, "ok      "+check, r.out)
	}
	after, err := os.ReadFile(s.store)
	require.NoError(t, err)
	require.Equal(t, before, after, "doctor has changed the store")

	r = s.doctor(t, "--json")
	require.Equal(t, exitDone, r.code)
	var got struct {
		Found  int
		Checks []checked
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &got))
	require.Zero(t, got.Found)
	require.Greater(t, len(got.Checks), 10)
}

// planted is a fault, what doctor names it, and a word of its text.
type planted struct {
	name  string
	plant func(t *testing.T, s *plantedSite) (more []string)
	check string
	says  string
}

func plantedFaults() []planted {
	exec := func(statement string) func(*testing.T, *plantedSite) []string {
		return func(t *testing.T, s *plantedSite) []string { s.exec(t, statement); return nil }
	}
	through := func(suffix string, change func(http.Header, []byte) []byte) func(*testing.T, *plantedSite) []string {
		return func(t *testing.T, s *plantedSite) []string { s.through(t, suffix, change); return nil }
	}
	answers := func(suffix string, code int, body string) func(*testing.T, *plantedSite) []string {
		return func(_ *testing.T, s *plantedSite) []string {
			s.answerWith(suffix, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Cache-Control", "max-age=600, s-maxage=1")
				w.WriteHeader(code)
				_, _ = w.Write([]byte(body))
			})
			return nil
		}
	}
	return []planted{
		{"no file", func(t *testing.T, s *plantedSite) []string {
			return []string{"--store", "sqlite:" + filepath.Join(t.TempDir(), "none.db")}
		}, "store", "no file"},
		{"another file", func(t *testing.T, s *plantedSite) []string {
			return []string{"--store", "sqlite:" + writeFile(t, "a.db", []byte("hello, this is not a database"))}
		}, "store", "not a SQLite database"},
		{"others read the file", func(t *testing.T, s *plantedSite) []string {
			require.NoError(t, os.Chmod(s.store, 0o644))
			return nil
		}, "permissions", "mode 0644"},
		{"others write the folder", func(t *testing.T, s *plantedSite) []string {
			require.NoError(t, os.Chmod(filepath.Dir(s.store), 0o777))
			return nil
		}, "permissions", "replace the store's file"},
		{"others read a secret", func(t *testing.T, s *plantedSite) []string {
			require.NoError(t, os.Chmod(s.secret, 0o640))
			return nil
		}, "permissions", "mode 0640"},
		{"another version", exec("UPDATE sessiontoken_schema SET version = 99"), "schema", "version 99"},
		{"a table is missing", exec("DROP TABLE sessiontoken_grants"), "schema", "sessiontoken_grants"},
		{"damaged", func(t *testing.T, s *plantedSite) []string {
			s.exec(t, "PRAGMA writable_schema = ON")
			s.withDB(t, func(db *sql.DB) {
				db.SetMaxOpenConns(1)
				_, err := db.Exec("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'sessiontoken_families_until'")
				require.NoError(t, err)
			})
			return nil
		}, "persistence", "damaged"},
		{"another secret", func(t *testing.T, s *plantedSite) []string {
			s.args = []string{"doctor", "--store", "sqlite:" + s.store, "--issuer", s.issuer, "--ca", s.ca}
			return []string{"--secret-file", writeFile(t, "other", []byte(base64.StdEncoding.EncodeToString(make([]byte, 33))))}
		}, "sealing", "do not unseal these keys: current"},
		{"a key that is sealed otherwise", func(t *testing.T, s *plantedSite) []string {
			s.changeRing(t, func(doc map[string]any) {
				list := doc["keys"].([]any)
				first, last := list[0].(map[string]any), list[len(list)-1].(map[string]any)
				last["private"] = first["private"]
			})
			return nil
		}, "sealing", "a private key does not unseal"},
		{"keys in the clear", func(t *testing.T, s *plantedSite) []string {
			s.exec(t, "DELETE FROM sessiontoken_rings")
			s.withDB(t, func(db *sql.DB) {
				store, err := sqlite.Open(t.Context(), s.store)
				require.NoError(t, err)
				defer store.Close()
				ring, err := keys.NewRing(keys.RingConfig{Store: store, Name: s.issuer, InsecureUnsealed: true, Logger: discard})
				require.NoError(t, err)
				require.NoError(t, ring.Sync(t.Context()))
			})
			return nil
		}, "sealing", "in the clear"},
		{"no ring of that name", func(t *testing.T, s *plantedSite) []string { return []string{"--namespace", "other"} }, "ring", "no key ring of the name"},
		{"no next key", func(t *testing.T, s *plantedSite) []string {
			s.changeRing(t, func(doc map[string]any) { doc["keys"] = doc["keys"].([]any)[:1] })
			return nil
		}, "ring", "no next key"},
		{"no key may sign", func(t *testing.T, s *plantedSite) []string {
			s.changeRing(t, func(doc map[string]any) { doc["keys"] = aged(doc["keys"], 400*24*time.Hour) })
			return nil
		}, "ring", "no key of the ring may sign"},
		{"no revocations", exec("DELETE FROM sessiontoken_revocations"), "revocations", "has used this store"},
		{"the server's clock", through(discoverySuffix, func(h http.Header, body []byte) []byte {
			h.Set("Date", time.Now().Add(-5*time.Minute).UTC().Format(http.TimeFormat))
			return body
		}), "clock", "behind"},
		{"no discovery", answers(discoverySuffix, http.StatusNotFound, ""), "discovery", "answers 404"},
		{"a page instead of discovery", answers(discoverySuffix, http.StatusOK, "<html>"), "discovery", "not a discovery document"},
		{"one path of discovery", func(t *testing.T, s *plantedSite) []string {
			return answers("oauth-authorization-server", http.StatusNotFound, "")(t, s)
		}, "discovery", "oauth-authorization-server answers 404"},
		{"another issuer", func(t *testing.T, s *plantedSite) []string {
			return through(discoverySuffix, replaced(`"issuer":"`+s.issuer+`"`, `"issuer":"`+s.issuer+`/"`))(t, s)
		}, "discovery", "names the issuer"},
		{"jwks_uri by http", func(t *testing.T, s *plantedSite) []string {
			return through(discoverySuffix, replaced(`"jwks_uri":"https:`, `"jwks_uri":"http:`))(t, s)
		}, "discovery", "not https"},
		{"no jwks_uri", through(discoverySuffix, replaced(`"jwks_uri"`, `"jwks"`)), "discovery", "no jwks_uri"},
		{"a feed elsewhere", through(discoverySuffix, replaced(`"jwks_uri"`, `"session_revocation_feed":"https://other.example/feed","jwks_uri"`)), "feed", "another origin"},
		{"discovery as a page", through(discoverySuffix, header("Content-Type", "text/html")), "discovery", "text/html"},
		{"the key set as text", through(jwksSuffix, header("Content-Type", "text/plain")), "jwks", "text/plain"},
		{"no Cache-Control", through(jwksSuffix, func(h http.Header, body []byte) []byte { h.Del("Cache-Control"); return body }), "jwks", "no max-age"},
		{"a long max-age", through(jwksSuffix, header("Cache-Control", "max-age=604800, s-maxage=1")), "jwks", "max-age is 7 d"},
		{"a shared cache may keep it", through(jwksSuffix, header("Cache-Control", "max-age=600")), "jwks", "shared cache may keep the key set for 10 min"},
		{"not kept at all", through(jwksSuffix, header("Cache-Control", "no-store")), "jwks", "no-store"},
		{"a cache that ignores it", through(jwksSuffix, header("Age", "3000")), "jwks", "50 min old"},
		{"no key set", answers(jwksSuffix, http.StatusServiceUnavailable, ""), "jwks", "answers 503"},
		{"a private key", answers(jwksSuffix, http.StatusOK, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]}`), "jwks", "private or secret key"},
		{"keys that are skipped", through(jwksSuffix, replaced(`{"keys":[`, `{"keys":[{"kty":"EC","kid":"weak","crv":"P-521"},`)), "jwks", "skip 1 keys"},
		{"an old key set", func(t *testing.T, s *plantedSite) []string {
			_, other := issueToken(t, s.issuer)
			return answers(jwksSuffix, http.StatusOK, string(other))(t, s)
		}, "lag", "lacks keys of the ring: current"},
		{"a revoked key is published", func(t *testing.T, s *plantedSite) []string {
			s.changeRing(t, func(doc map[string]any) { doc["keys"] = doc["keys"].([]any)[:1] })
			return nil
		}, "lag", "or no longer"},
		{"another authority of certificates", func(t *testing.T, s *plantedSite) []string {
			s.args = []string{"doctor", "--store", "sqlite:" + s.store, "--issuer", s.issuer, "--secret-file", s.secret}
			return nil
		}, "tls", "not trusted"},
		{"http", func(t *testing.T, s *plantedSite) []string {
			return []string{"--issuer", "http://" + strings.TrimPrefix(s.issuer, "https://")}
		}, "tls", "not an https URL"},
		{"nothing listens", func(t *testing.T, s *plantedSite) []string { s.server.Close(); return nil }, "discovery", "cannot be reached"},
		{"a budget over the cookie's", func(*testing.T, *plantedSite) []string { return []string{"--max-bytes", "5000"} }, "cookie size", "drop one of more than 4096"},
		{"a large cookie", func(t *testing.T, s *plantedSite) []string {
			return []string{"--cookie", writeFile(t, "cookie", []byte("Cookie: a=b; __Host-session="+strings.Repeat("x", 4090)))}
		}, "cookie size", "has 4104 bytes"},
		{"a large header", func(t *testing.T, s *plantedSite) []string {
			return []string{"--cookie", writeFile(t, "cookie", []byte("__Host-session=x; tracking="+strings.Repeat("x", 8200)))}
		}, "cookie size", "more than 8 KiB"},
		{"two cookies", func(t *testing.T, s *plantedSite) []string {
			return []string{"--cookie", writeFile(t, "cookie", []byte("__Host-session=x; __Host-session=y"))}
		}, "cookie size", "more than once"},
	}
}

// TestDoctorFindsEachPlantedFault: each is found and named, with a remedy.
func TestDoctorFindsEachPlantedFault(t *testing.T) {
	all := plantedFaults()
	require.GreaterOrEqual(t, len(all), 24)
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			s := newPlantedSite(t, nil)
			more := tt.plant(t, s)
			r := s.doctor(t, append(more, "--json")...)
			require.Equal(t, exitNot, r.code, r.out+r.err)
			requireFinding(t, r, tt.check, tt.says)
			r = s.doctor(t, more...)
			require.Equal(t, exitNot, r.code)
			require.Contains(t, r.out, "FOUND   "+tt.check)
			require.Contains(t, r.out, "remedy: ")
			requireNoSecret(t, s, r)
		})
	}
}

func requireFinding(t *testing.T, r printed, check, says string) {
	t.Helper()
	var got struct{ Checks []checked }
	require.NoError(t, json.Unmarshal([]byte(r.out), &got), r.out)
	for _, c := range got.Checks {
		if c.State == stateFound {
			require.NotEmpty(t, c.Remedy, c.Text)
		}
	}
	for _, c := range got.Checks {
		if c.State == stateFound && c.Check == check && strings.Contains(c.Text, says) {
			return
		}
	}
	require.Fail(t, "not found", "%s: %s in\n%s", check, says, r.out)
}

func requireNoSecret(t *testing.T, s *plantedSite, r printed) {
	t.Helper()
	secret, err := os.ReadFile(s.secret)
	require.NoError(t, err)
	require.NotContains(t, r.out+r.err, string(secret))
}

// newCertificate returns a certificate for a host, signed by itself.
func newCertificate(t *testing.T, host string, from, until time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: until,
		DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if host == "" {
		template.DNSNames, template.IPAddresses = nil, loopback
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func TestDoctorFindsFaultsOfCertificates(t *testing.T) {
	day, now := 24*time.Hour, time.Now()
	for _, tt := range []struct {
		name        string
		host        string
		from, until time.Time
		says        string
	}{
		{"good", "", now.Add(-day), now.Add(80 * day), ""},
		{"a short life, and new", "", now.Add(-time.Hour), now.Add(6 * day), ""},
		{"expired", "", now.Add(-80 * day), now.Add(-day), "expired"},
		{"not valid yet", "", now.Add(day), now.Add(80 * day), "expired or not valid yet"},
		{"ends soon", "", now.Add(-80 * day), now.Add(3*day + time.Hour), "ends in 3 d"},
		{"for another host", "other.example", now.Add(-day), now.Add(80 * day), "another host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newPlantedSite(t, newCertificate(t, tt.host, tt.from, tt.until))
			r := s.doctor(t, "--json")
			if tt.says == "" {
				require.Equal(t, exitDone, r.code, r.out)
				return
			}
			require.Equal(t, exitNot, r.code, r.out)
			requireFinding(t, r, "tls", tt.says)
		})
	}
}

func TestDoctorComparesTheStoresClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		name      string
		at        time.Time
		sent, got time.Time
		says      string
	}{
		{"the same", now, now, now.Add(time.Millisecond), ""},
		{"a slow answer proves nothing", now, now.Add(-20 * time.Second), now.Add(20 * time.Second), ""},
		{"a little", now.Add(20 * time.Second), now, now, ""},
		{"ahead", now.Add(-time.Minute), now, now, "1 min ahead"},
		{"behind", now.Add(time.Hour), now, now, "1 h behind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var u checkup
			compareClocks(tt.at, tt.sent, tt.got, &u)
			require.Len(t, u.all, 1)
			if tt.says == "" {
				require.Equal(t, stateOK, u.all[0].State)
				return
			}
			require.Equal(t, stateFound, u.all[0].State)
			require.Contains(t, u.all[0].Text, tt.says)
		})
	}
}

func TestDoctorReadsTheLagOfReplicas(t *testing.T) {
	for _, tt := range []struct {
		name string
		info map[string]string
		want time.Duration
	}{
		{"none", map[string]string{"role": "master", "connected_slaves": "0"}, 0},
		{"two", map[string]string{"slave0": "ip=10.0.0.1,port=6379,state=online,offset=1,lag=1", "slave1": "ip=10.0.0.2,port=6379,state=online,offset=1,lag=40", "slave_repl_offset": "3"}, 40 * time.Second},
		{"not a number", map[string]string{"slave0": "lag=x"}, 0},
	} {
		require.Equal(t, tt.want, replicaLag(tt.info), tt.name)
	}
}

func TestDoctorFindsAStoreInMemory(t *testing.T) {
	s := newPlantedSite(t, nil)
	old := inMemoryHere
	inMemoryHere = func(string) bool { return true }
	defer func() { inMemoryHere = old }()
	r := runWith(t, "", append(s.args, "--json")...)
	require.Equal(t, exitNot, r.code)
	requireFinding(t, r, "persistence", "in memory")
}

func TestDoctorWantsSomethingToLookAt(t *testing.T) {
	for _, args := range [][]string{{}, {"now"}, {"--store", "nosuch:x", "--issuer", "https://a.example"}, {"--store", "sqlite:a"}} {
		r := runDoctor(t, "", append([]string{"doctor"}, args...)...)
		require.Equal(t, exitUsage, r.code, "%v: %s", args, r.out+r.err)
	}
	r := runDoctor(t, "a=b", "doctor", "--cookie", "-")
	require.Equal(t, exitDone, r.code, r.out+r.err)
	r = runDoctor(t, "", "doctor", "--cookie", "none")
	require.Equal(t, exitFailed, r.code)
}

// TestDoctorChecksAFileOfKeys: a file: store has a ring alone.
func TestDoctorChecksAFileOfKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring.json")
	store, err := keys.NewFileStore(path)
	require.NoError(t, err)
	ring, err := keys.NewRing(keys.RingConfig{Store: store, Name: "https://auth.example", Logger: discard})
	require.NoError(t, err)
	require.NoError(t, ring.Sync(t.Context()))
	r := runDoctor(t, "", "doctor", "--store", "file:"+path, "--namespace", "https://auth.example")
	require.Equal(t, exitDone, r.code, r.out+r.err)
	files := beginningWith(path)
	require.NotEmpty(t, files)
	require.NoError(t, os.Chmod(files[0], 0o644))
	r = runDoctor(t, "", "doctor", "--store", "file:"+path, "--namespace", "https://auth.example")
	require.Equal(t, exitNot, r.code, r.out+r.err)
	require.Contains(t, r.out, "permissions")
}

// FuzzDoctor: whatever an issuer answers, nothing is printed that a terminal
// obeys, and a finding has a remedy.
func FuzzDoctor(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://auth.example","jwks_uri":"https://auth.example/jwks"}`), "max-age=600, s-maxage=1", "application/json", []byte(`{"keys":[]}`))
	f.Add([]byte("{\"issuer\":\"\u001b[2J\",\"jwks_uri\":\"https://\u001b[2J.example/\"}"), "max-age=-1,,s-maxage", "\x1b", []byte(`{"keys":[{"kid":"\u001b","d":""}]}`))
	f.Add([]byte(`[]`), "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, document []byte, caching, kind string, set []byte) {
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body := document
			if !strings.Contains(r.URL.Path, ".well-known") {
				body = set
			}
			return &http.Response{StatusCode: 200, Header: http.Header{"Cache-Control": {caching}, "Content-Type": {kind}, "Age": {caching}, "Date": {kind}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
		})}
		var u checkup
		checkIssuer(t.Context(), client, "https://auth.example", &keys.Status{Keys: []keys.KeyStatus{{KeyID: "a", Phase: "current"}}}, &u)
		require.NotEmpty(t, u.all)
		var out bytes.Buffer
		_ = printCheckup(&call{out: &out}, &u)
		for _, r := range out.String() {
			if r != '\n' && !strconv.IsPrint(r) {
				t.Fatalf("%q is printed", r)
			}
		}
		for _, c := range u.all {
			require.Equal(t, c.State == stateFound, c.Remedy != "")
		}
	})
}

// FuzzCookieHeader: whatever the header is, its values are not printed.
func FuzzCookieHeader(f *testing.F) {
	f.Add("Cookie: a=b; __Host-session=eyJhbGciOiJFUzI1NiJ9.x.y")
	f.Add("__Host-session;;==;\x1b[2J=1")
	f.Fuzz(func(t *testing.T, header string) {
		var u checkup
		d := &doctorConfig{maxBytes: issueBytes, cookieName: "__Host-session", cookie: "-"}
		require.NoError(t, d.checkCookie(&call{stdin: strings.NewReader(header)}, &u))
		var out bytes.Buffer
		_ = printCheckup(&call{out: &out}, &u)
		if len(header) > 80 {
			require.NotContains(t, out.String(), header)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestSplitErrors(t *testing.T) {
	text, remedy := split(errors.New("it is off: check the path"))
	require.Equal(t, "it is off", text)
	require.Equal(t, "check the path", remedy)
	_, remedy = split(errors.New("it is off"))
	require.NotEmpty(t, remedy)
}

var (
	quietLog = log.New(io.Discard, "", 0)
	loopback = []net.IP{net.IPv4(127, 0, 0, 1)}
)
