//go:build unix

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/oidclogin"
)

// rotating is an OpenID provider on loopback that replaces a refresh token at
// each use. A second use of one ends the chain.
type rotating struct {
	*httptest.Server

	mu      sync.Mutex
	n       int
	current string // empty: the chain is over
	used    map[string]bool
	twice   int
	uses    int
	before  func() // called once, before the next use, and after it
	after   func()
}

func newRotating(t *testing.T) *rotating {
	p := &rotating{used: map[string]bool{}}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

// login begins a chain, and returns its first refresh token.
func (p *rotating) login() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next()
}

func (p *rotating) next() string {
	p.n++
	p.current = fmt.Sprint("refresh-", p.n)
	return p.current
}

func (p *rotating) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != "/token" {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/jwks",
		})
		return
	}
	token := r.PostFormValue("refresh_token")
	p.mu.Lock()
	defer p.mu.Unlock()
	before, after := p.before, p.after
	p.before, p.after = nil, nil
	if before != nil {
		before()
	}
	p.uses++
	if p.used[token] || token != p.current {
		if p.used[token] {
			p.twice++
			p.current = ""
		}
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_grant"})
		return
	}
	p.used[token] = true
	next := p.next()
	if after != nil {
		after()
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "access of " + next, "token_type": "Bearer", "expires_in": 3600, "refresh_token": next})
}

// grantStep is a place in a refresh at which a process is killed.
type grantStep int

const (
	nowhere grantStep = iota
	beforeRecord
	afterRecord
	beforeUse
	afterUse
	beforeStore
	afterStore
	grantSteps
)

func (s grantStep) String() string {
	return [...]string{"nowhere", "before the record of the use", "after the record", "before the provider uses the token", "after the provider has", "before the new token is stored", "after it is stored"}[s]
}

// lethal is a store that kills its process before or after a write.
type lethal struct {
	oidclogin.GrantStore
	at    atomic.Int64 // a grantStep
	saves atomic.Int64 // since at was set
}

func (s *lethal) set(at grantStep) {
	s.at.Store(int64(at))
	s.saves.Store(0)
}

func (s *lethal) SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (string, error) {
	at, n := grantStep(s.at.Load()), s.saves.Add(1)
	if n == 1 && at == beforeRecord || n == 2 && at == beforeStore {
		die()
	}
	next, err := s.GrantStore.SaveGrant(ctx, namespace, key, sealed, rev)
	if n == 1 && at == afterRecord || n == 2 && at == afterStore {
		die()
	}
	return next, err
}

// die is what kill -9 does.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// jobs is what a process does that acts for users at a provider.
type jobs struct {
	grants *oidclogin.Grants
	store  *lethal
	clock  *clock.Clock
	issuer string
}

func newJobs(issuer string, store Store) (*jobs, error) {
	grants, ok := store.(oidclogin.GrantStore)
	if !ok {
		return nil, errors.New("the store keeps no grants")
	}
	slog.SetDefault(quiet) // a Redis in tests keeps nothing on disk
	j := &jobs{store: &lethal{GrantStore: grants}, clock: new(clock.Clock), issuer: issuer}
	var err error
	clock.As(j.clock, func() {
		j.grants, err = oidclogin.NewGrants(oidclogin.GrantsConfig{
			Store: j.store, Secrets: [][]byte{bytes.Repeat([]byte{3}, 32)}, Issuer: issuer, ClientID: clientID, ClientSecret: "secret", Logger: quiet,
		})
	})
	return j, err
}

// overVerdict is the verdict of a grant that is over.
const overVerdict = "over"

// do begins a grant or returns its access token, with a clock that is r.Ahead
// ahead.
func (j *jobs) do(r request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	j.clock.SetAhead(r.Ahead)
	switch r.Op {
	case "save":
		return a, j.grants.Save(ctx, &oidclogin.Login{Issuer: j.issuer, Subject: r.Subject, Token: &oauth2.Token{RefreshToken: r.Token, AccessToken: "x", Expiry: time.Unix(1, 0)}})
	case "token":
		j.store.set(grantStep(r.N))
		token, err := j.grants.Token(ctx, r.Subject)
		switch {
		case errors.Is(err, oidclogin.ErrNoGrant):
			return answer{Verdict: overVerdict}, nil
		case err != nil:
			return a, err
		}
		return answer{Token: token.AccessToken}, nil
	}
	return a, fmt.Errorf("no operation %q", r.Op)
}

// GrantsKilled kills a process with kill -9 during a refresh, at each of its
// steps in turn, 18 times or as often as SESSIONTOKEN_TRIALS says. Another
// process then goes on. The provider replaces refresh tokens: none is used
// twice, and a grant survives or is over.
func GrantsKilled(t *testing.T, place string) {
	p := newRotating(t)
	role := Role{Place: place, Grants: p.URL}
	survivor := Start(t, role)
	victim := Start(t, role)
	kills := trials(3 * int(grantSteps-1))
	ahead := time.Duration(0)
	survived, over := 0, 0
	token := func(w *Process) answer {
		// A refresh that failed has a pause of 1 s, and more on a busy
		// machine.
		for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			a := w.call(request{Op: "token", Subject: "ada", Ahead: ahead})
			if a.Error == "" {
				return a
			}
			if time.Since(began) > time.Minute {
				t.Fatal(a.Error)
			}
		}
	}
	login := func() { survivor.must(t, request{Op: "save", Subject: "ada", Token: p.login(), Ahead: ahead}) }
	login()
	for i := range kills {
		at := grantStep(i%int(grantSteps-1) + 1)
		ahead += 2 * time.Hour // the access token has expired
		p.mu.Lock()
		switch at {
		case beforeUse:
			p.before = victim.killAndWait
		case afterUse:
			p.after = victim.killAndWait
		}
		uses := p.uses
		p.mu.Unlock()
		require.NotEmpty(t, victim.call(request{Op: "token", Subject: "ada", Ahead: ahead, N: int(at)}).Error, "%v: it was killed", at)
		<-victim.done
		victim = Start(t, role)

		ahead += 2 * time.Minute // past the lease
		a := token(survivor)
		p.mu.Lock()
		used := p.uses - uses
		p.mu.Unlock()
		if a.Verdict == overVerdict {
			over++
			require.True(t, afterRecord <= at && at <= beforeStore, "%v: the grant could go on", at)
			login()
			a = token(survivor)
		} else {
			survived++
			require.True(t, at == beforeRecord || at == afterStore, "%v: nothing was known of the token", at)
			require.Equal(t, 1, used, "%v: the process that was killed stored what it got", at)
		}
		require.NotEmpty(t, a.Token)
		require.Equal(t, a.Token, token(victim).Token, "%v: both processes have one token", at)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Zero(t, p.twice, "a used refresh token came again")
	t.Logf("%s: %d times kill -9: %d grants survived, %d were over, none used a token twice", t.Name(), kills, survived, over)
}
