//go:build unix

package command

import (
	"encoding/base64"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Each command does on each engine what it says, and a program that runs sees
// it.
func TestCommands(t *testing.T) {
	for kind, open := range engines {
		t.Run(kind, func(t *testing.T) {
			place := open(t)
			p := place.begin(t)
			session := func(subject string) signedIn {
				s, err := p.signIn(t.Context(), subject)
				require.NoError(t, err)
				return s
			}
			ada, bob, eve, dan := session("ada"), session("bob"), session("eve"), session("dan")
			all := []signedIn{ada, bob, eve, dan}
			live := func(want ...signedIn) {
				t.Helper()
				for _, s := range all {
					err := check(t.Context(), p.Authority, s)
					is := false
					for _, w := range want {
						is = is || w == s
					}
					if is {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, revoke.ErrRevoked)
					}
				}
			}
			live(all...)
			text := must(t, place.env(), "keys", "status")
			require.Contains(t, text, "secret 1 of SESSIONTOKEN_SECRETS seals 2 private keys")
			must(t, place.env(), "sessions", "revoke", "--", ada.claims.SessionID)
			live(bob, eve, dan)
			must(t, place.env(), "sessions", "revoke-subject", "bob")
			live(eve, dan)
			must(t, place.env(), "sessions", "changed", "eve")
			live(eve, dan)
			ids := place.devices(t, "eve")
			require.Len(t, ids, 1)
			must(t, place.env(), "devices", "revoke", "--", "eve", ids[0])
			live(dan)
			must(t, place.env(), "keys", "rotate")
			must(t, place.env(), "keys", "reseal")
			require.NoError(t, exchange(t.Context(), p.Authority, dan.refresh))
			for _, s := range []signedIn{ada, bob, eve} {
				require.ErrorIs(t, exchange(t.Context(), p.Authority, s.refresh), refresh.ErrInvalid)
			}
			_, err := p.Verifier().Verify(t.Context(), dan.token)
			require.NoError(t, err)
			must(t, place.env(), "keys", "revoke", "--no-wait", "--", dan.claims.KeyID)
			require.NoError(t, p.Revocations().Sync(t.Context()))
			_, err = p.Verifier().Verify(t.Context(), dan.token)
			require.ErrorIs(t, err, sessiontoken.ErrInvalid)
			dan = session("dan")
			all = []signedIn{dan}
			time.Sleep(2 * time.Millisecond)
			must(t, place.env(), "sessions", "revoke-all", "--yes")
			live()
		})
	}
}

// line is a command with the arguments that it needs.
type line struct {
	words   string
	args    []string
	secrets bool
}

func (l line) with(flags ...string) []string {
	return append(append(strings.Fields(l.words), flags...), l.args...)
}

func lines(s signedIn, device string) []line {
	return []line{
		{"keys status", nil, false},
		{"devices list", []string{"ada"}, true},
		{"keys rotate", nil, true},
		{"keys reseal", nil, true},
		{"sessions changed", []string{"ada"}, false},
		{"sessions revoke-group", []string{"AAAAAAAAAAAAAAAA"}, false},
		{"sessions revoke", []string{"--", s.claims.SessionID}, false},
		{"devices revoke", []string{"--", "ada", device}, true},
		{"sessions revoke-subject", []string{"ada"}, false},
		{"sessions revoke-all", []string{"--yes"}, false},
		{"keys revoke", []string{"--no-wait", "--", s.claims.KeyID}, true},
		{"copy", nil, false},
	}
}

// A wrong secret or name, missing rights and tables of another version are one
// sentence with the remedy, and the exit code 3. Nothing is done.
func TestErrors(t *testing.T) {
	for _, kind := range []string{"postgres", "redis"} {
		t.Run(kind, func(t *testing.T) {
			place := engines[kind](t)
			p := place.begin(t)
			s, err := p.signIn(t.Context(), "ada")
			require.NoError(t, err)
			commands := lines(s, place.devices(t, "ada")[0])
			to := newSQLite(t)
			to.open(t)
			fails := func(name, want string, env []string, only func(line) bool) {
				t.Run(name, func(t *testing.T) {
					for _, l := range commands {
						if !only(l) {
							continue
						}
						r := run(t, append(env, "SESSIONTOKEN_TO="+to.url), l.with()...)
						require.Equal(t, 3, r.code, "%s: %s%s", l.words, r.out, r.err)
						require.Contains(t, r.err, want, l.words)
						require.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
						require.Empty(t, r.out)
					}
					require.NoError(t, check(t.Context(), p.Authority, s))
				})
			}
			every := func(line) bool { return true }
			withSecrets := func(l line) bool { return l.secrets }
			writes := func(l line) bool { return l.words != "keys status" && l.words != "devices list" && l.words != "copy" }
			with := func(url string, more ...string) []string {
				return append(env(url, more...), "SESSIONTOKEN_FROM="+url)
			}
			other := "SESSIONTOKEN_SECRETS=" + base64.StdEncoding.EncodeToString(make([]byte, 32))
			fails("another secret", "name the secrets and the --issuer of the program", with(place.url, other), withSecrets)
			fails("another name", "check --issuer and --namespace", with(place.url, "SESSIONTOKEN_ISSUER=https://other.example"), every)
			fails("no server", "check that it runs, and its address", with(place.at("127.0.0.1:1")), every)
			wrong := strings.Replace(place.url, password, "wrong", 1)
			fails("another password", "the user or the password", with(wrong), every)
			rights := map[string]string{"postgres": "the database's user may not do that; grant it", "redis": "the server's user may not do that; permit +"}
			newer := "SESSIONTOKEN_SECRETS=" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("newer", 8))) + "," + sealed // reseal has something to write
			fails("no right to write", rights[kind], with(place.poor(t), newer), writes)
			place.other(t)
			fails("another version", "use a release that reads", with(place.url), every)
		})
	}
}

// closing is a proxy that ends all its connections for ever, once clients have
// sent a number of bytes.
func closing(t *testing.T, addr string, after int64) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var left atomic.Int64
	left.Store(after)
	var mu sync.Mutex
	var conns []net.Conn
	end := func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	}
	t.Cleanup(end)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", addr)
			if err != nil {
				_ = c.Close()
				return
			}
			mu.Lock()
			conns = append(conns, c, s)
			mu.Unlock()
			go func() { _, _ = io.Copy(c, s) }()
			go func() {
				b := make([]byte, 4096)
				for {
					n, err := c.Read(b)
					if err != nil {
						_ = s.Close()
						return
					}
					if left.Add(-int64(n)) < 0 {
						end()
						return
					}
					if _, err := s.Write(b[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// If the engine goes away half-way, at any point, a command says what to do and
// exits with 3. Repeating it does the whole.
func TestEngineGoesHalfWay(t *testing.T) {
	for _, kind := range []string{"postgres", "redis"} {
		t.Run(kind, func(t *testing.T) {
			place := engines[kind](t)
			p := place.begin(t)
			s, err := p.signIn(t.Context(), "ada")
			require.NoError(t, err)
			_, err = p.signIn(t.Context(), "bob")
			require.NoError(t, err)
			commands := lines(s, place.devices(t, "bob")[0])
			to := newSQLite(t)
			to.open(t)
			for _, l := range commands {
				if l.words == "devices revoke" {
					l.args[1] = "bob"
				}
				t.Run(l.words, func(t *testing.T) {
					failed := 0
					for after := int64(100); ; after = after * 5 / 2 {
						url := place.at(closing(t, place.addr, after))
						r := run(t, env(url, "SESSIONTOKEN_FROM="+url, "SESSIONTOKEN_TO="+to.url), l.with("--timeout", "4s")...)
						if r.code == 0 {
							require.Empty(t, r.err)
							break
						}
						if l.words == "devices revoke" && failed > 0 && strings.Contains(r.err, "or it is revoked already") {
							break // the call before has done it
						}
						failed++
						require.Equal(t, 3, r.code, r.err)
						require.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
						require.Empty(t, r.out)
						require.Less(t, after, int64(1<<20))
						// The ring is whole, whatever was done.
						require.NoError(t, p.Ring().Look(t.Context()))
					}
					require.Positive(t, failed)
				})
			}
			require.ErrorIs(t, check(t.Context(), p.Authority, s), revoke.ErrRevoked)
			require.ErrorIs(t, exchange(t.Context(), p.Authority, s.refresh), refresh.ErrInvalid)
			for _, k := range p.Ring().Status().Keys {
				require.NotEqual(t, s.claims.KeyID, k.KeyID)
			}
		})
	}
}

// An engine that hangs is an error when --timeout is over.
func TestEngineHangs(t *testing.T) {
	for _, kind := range []string{"postgres", "redis"} {
		t.Run(kind, func(t *testing.T) {
			place := engines[kind](t)
			place.begin(t)
			l, err := net.Listen("tcp", "127.0.0.1:0") // it accepts, and says nothing
			require.NoError(t, err)
			defer l.Close()
			began := time.Now()
			r := run(t, env(place.at(l.Addr().String())), "keys", "status", "--timeout", "1s")
			require.Equal(t, 3, r.code)
			require.Contains(t, r.err, "the store has not answered in time: check that its server runs")
			require.Less(t, time.Since(began), 30*time.Second)
		})
	}
}
