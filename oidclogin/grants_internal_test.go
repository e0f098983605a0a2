package oidclogin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
)

// chain is a provider in memory that knows one grant. Unless it keeps refresh
// tokens, it replaces one at each use, and a second use of one ends all.
type chain struct {
	mu      sync.Mutex
	keeps   bool
	life    time.Duration // of its access tokens
	current string        // the refresh token that can be used; empty: the grant is over
	used    map[string]bool
	n       int
	twice   int // uses of a used token
	asked   int // calls of refresh
	revoked []string

	before  func() error             // called before a token is used; an error is the answer
	after   func(*tokenAnswer) error // called after; an error loses the answer
	checked func() error             // the outcome of verify
}

func newChain() *chain {
	return &chain{life: time.Hour, current: "refresh-0", used: map[string]bool{}}
}

func (c *chain) refresh(_ context.Context, token string) (*tokenAnswer, error) {
	c.mu.Lock()
	c.asked++
	before := c.before
	c.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.used[token]:
		c.twice++
		c.current = ""
		return nil, errInvalidGrant
	case token != c.current:
		return nil, errInvalidGrant
	}
	c.n++
	a := &tokenAnswer{access: fmt.Sprint("access-", c.n), kind: "Bearer", lasts: c.life}
	if !c.keeps {
		c.used[token] = true
		c.current = fmt.Sprint("refresh-", c.n)
		a.refresh = c.current
	}
	if c.after != nil {
		if err := c.after(a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (c *chain) verify(context.Context, *tokenAnswer, *grant) error {
	if c.checked == nil {
		return nil
	}
	return c.checked()
}

func (c *chain) revoke(_ context.Context, token string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoked = append(c.revoked, token)
	return nil
}

// count returns how often it was asked, and how often a used token came.
func (c *chain) count() (asked, twice int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked, c.twice
}

const (
	testIssuer = "https://op.example"
	ada        = "ada@op"
)

var testSecret = bytes.Repeat([]byte{7}, 32)

func grantsConfig(store GrantStore, secrets ...[]byte) GrantsConfig {
	if secrets == nil {
		secrets = [][]byte{testSecret}
	}
	return GrantsConfig{Store: store, Secrets: secrets, Issuer: testIssuer, ClientID: "app", ClientSecret: "secret", Logger: slog.New(slog.DiscardHandler)}
}

// grantsOf returns grants over a store and a provider.
func grantsOf(t *testing.T, store GrantStore, c tokenEndpoint, secrets ...[]byte) *Grants {
	t.Helper()
	g, err := NewGrants(grantsConfig(store, secrets...))
	require.NoError(t, err)
	g.endpoint = c
	return g
}

func memoryStore() GrantStore { return authority.Memory().(GrantStore) }

// atLogin is a login whose access token expires at once.
func atLogin(refresh string) *Login {
	return &Login{Issuer: testIssuer, Subject: ada, Token: &oauth2.Token{AccessToken: "access-0", RefreshToken: refresh, Expiry: clock.Here().Now()}}
}

func begin(t *testing.T, g *Grants) {
	t.Helper()
	require.NoError(t, g.Save(t.Context(), atLogin("refresh-0")))
}

func accessOf(t *testing.T, g *Grants) string {
	t.Helper()
	token, err := g.Token(t.Context(), ada)
	require.NoError(t, err)
	require.Empty(t, token.RefreshToken)
	require.True(t, token.Valid())
	return token.AccessToken
}

func TestNewGrantsNamesTheField(t *testing.T) {
	for _, row := range []struct {
		field  string
		change func(*GrantsConfig)
	}{
		{"Store", func(c *GrantsConfig) { c.Store = nil }},
		{"Store", func(c *GrantsConfig) { c.Store = (*faulty)(nil) }},
		{"Namespace", func(c *GrantsConfig) { c.Namespace = strings.Repeat("n", 257) }},
		{"Namespace", func(c *GrantsConfig) { c.Namespace = "a\x00b" }},
		{"Secrets", func(c *GrantsConfig) { c.Secrets = nil }},
		{"Secrets[1]", func(c *GrantsConfig) { c.Secrets = [][]byte{testSecret, []byte("hunter2")} }},
		{"Issuer", func(c *GrantsConfig) { c.Issuer = "" }},
		{"Issuer", func(c *GrantsConfig) { c.Issuer = "http://op.example" }},
		{"ClientID", func(c *GrantsConfig) { c.ClientID = "" }},
		{"ClientSecret", func(c *GrantsConfig) { c.ClientSecret = "" }},
		{"ClientKey", func(c *GrantsConfig) { c.ClientKey = new(keys.SigningKey) }},
		{"InsecureDiscoveryURL", func(c *GrantsConfig) { c.InsecureDiscoveryURL = "x" }},
		{"InsecureTokenEndpointAudience", func(c *GrantsConfig) { c.InsecureTokenEndpointAudience = true }},
	} {
		cfg := grantsConfig(memoryStore())
		row.change(&cfg)
		_, err := NewGrants(cfg)
		require.ErrorContains(t, err, "GrantsConfig."+row.field)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// TestGrantLife: a token is handed out until it expires soon, and then
// refreshed; the provider's end of the grant is its end.
func TestGrantLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain()
		g := grantsOf(t, memoryStore(), c)
		_, err := g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
		begin(t, g)
		require.Equal(t, "access-1", accessOf(t, g))
		time.Sleep(c.life - margin - time.Second)
		require.Equal(t, "access-1", accessOf(t, g))
		time.Sleep(2 * time.Second)
		require.Equal(t, "access-2", accessOf(t, g))
		_, err = g.Token(t.Context(), "eve@op")
		require.ErrorIs(t, err, ErrNoGrant)
		c.current = ""
		time.Sleep(c.life)
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
		asked, _ := c.count()
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
		again, twice := c.count()
		require.Equal(t, asked, again, "the provider is not asked again")
		require.Zero(t, twice)
	})
}

// TestGrantSave: a login replaces a grant, also one whose refresh is under way,
// and one without a refresh token leaves it.
func TestGrantSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain()
		g := grantsOf(t, memoryStore(), c)
		require.ErrorIs(t, g.Save(t.Context(), atLogin("")), ErrNoGrant)
		other := atLogin("x")
		other.Issuer = "https://other.example"
		require.ErrorContains(t, g.Save(t.Context(), other), "Issuer")
		long := atLogin(strings.Repeat("x", 70<<10))
		err := g.Save(t.Context(), long)
		require.ErrorContains(t, err, "too long")
		require.NotContains(t, err.Error(), "xxx")
		begin(t, g)
		require.NoError(t, g.Save(t.Context(), atLogin("")))
		require.Equal(t, "access-1", accessOf(t, g))

		time.Sleep(c.life)
		c.before = func() error {
			c.before = nil
			c.current = "of the second login"
			return g.Save(t.Context(), atLogin("of the second login"))
		}
		c.used = map[string]bool{}
		require.Equal(t, "access-2", accessOf(t, g), "of the second login's chain")
		require.Empty(t, c.revoked)
		_, twice := c.count()
		require.Zero(t, twice)
	})
}

// TestGrantRaces: of two replicas one refreshes, 200 times.
func TestGrantRaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, store := newChain(), memoryStore()
		c.before = func() error { time.Sleep(time.Second); return nil }
		replicas := []*Grants{grantsOf(t, store, c), grantsOf(t, store, c)}
		begin(t, replicas[0])
		for round := range 200 {
			var got [8]string
			var wg sync.WaitGroup
			for i := range got {
				wg.Go(func() { got[i] = accessOf(t, replicas[i%2]) })
			}
			wg.Wait()
			for _, access := range got {
				require.Equal(t, fmt.Sprint("access-", round+1), access)
			}
			time.Sleep(c.life)
		}
		asked, twice := c.count()
		require.Equal(t, 200, asked)
		require.Zero(t, twice)
	})
}

// TestGrantSealed: another secret's grant is an error of its own and no
// absence, and it is left as it is. Nor does a grant open under another name.
func TestGrantSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, store := newChain(), memoryStore()
		g := grantsOf(t, store, c)
		begin(t, g)
		otherSecret := bytes.Repeat([]byte{8}, 32)
		other := grantsOf(t, store, c, otherSecret)
		_, err := other.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrGrantSealed)
		require.NotErrorIs(t, err, ErrNoGrant)
		require.ErrorIs(t, other.Save(t.Context(), atLogin("")), ErrGrantSealed)
		require.Equal(t, "access-1", accessOf(t, g))

		// The secret is replaced: all open, the first seals.
		both := grantsOf(t, store, c, otherSecret, testSecret)
		require.Equal(t, "access-1", accessOf(t, both))
		time.Sleep(c.life)
		require.Equal(t, "access-2", accessOf(t, both))
		require.Equal(t, "access-2", accessOf(t, other))
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrGrantSealed)

		// A process that can write to the store moves it.
		sealed, rev, err := store.LoadGrant(t.Context(), "", both.key(ada))
		require.NoError(t, err)
		_, err = store.SaveGrant(t.Context(), "", both.key("eve@op"), sealed, "")
		require.NoError(t, err)
		_, err = both.Token(t.Context(), "eve@op")
		require.ErrorIs(t, err, ErrGrantSealed)
		_, err = store.SaveGrant(t.Context(), "other", both.key(ada), sealed, "")
		require.NoError(t, err)
		cfg := grantsConfig(store, otherSecret)
		cfg.Namespace = "other"
		elsewhere, err := NewGrants(cfg)
		require.NoError(t, err)
		_, err = elsewhere.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrGrantSealed)
		sealed[len(sealed)-1] ^= 1
		_, err = store.SaveGrant(t.Context(), "", both.key(ada), sealed, rev)
		require.NoError(t, err)
		_, err = both.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrGrantSealed)

		// A login and Revoke end it all the same.
		require.NoError(t, both.Save(t.Context(), atLogin("refresh-2")))
		require.Equal(t, "access-3", accessOf(t, both))
		require.ErrorIs(t, g.Revoke(t.Context(), ada), ErrGrantSealed)
		_, err = both.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
	})
}

// TestGrantStoreHoldsNoName: neither the key nor the bytes hold the subject or
// a token.
func TestGrantStoreHoldsNoName(t *testing.T) {
	store := &faulty{GrantStore: memoryStore()}
	var seen bytes.Buffer
	store.fault = func(op string, key string, sealed []byte, do func() error) error {
		fmt.Fprintf(&seen, "%s %s %s\n", op, key, sealed)
		return do()
	}
	g := grantsOf(t, store, newChain())
	begin(t, g)
	accessOf(t, g)
	require.Contains(t, seen.String(), "save "+g.key(ada))
	for _, not := range []string{ada, "ada", "refresh-", "access-", "op.example"} {
		require.NotContains(t, seen.String(), not)
	}
	require.NotContains(t, fmt.Sprintf("%+v", g), string(testSecret))
}

// TestGrantRevoke: the grant is over, and the provider is told, also of a token
// that a refresh brings meanwhile.
func TestGrantRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, store := newChain(), memoryStore()
		g := grantsOf(t, store, c)
		require.NoError(t, g.Revoke(t.Context(), ada))
		begin(t, g)
		accessOf(t, g)
		require.NoError(t, g.Revoke(t.Context(), ada))
		require.Equal(t, []string{"refresh-1"}, c.revoked)
		_, err := g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)

		c.revoked = nil
		require.NoError(t, g.Save(t.Context(), atLogin("refresh-1")))
		c.after = func(*tokenAnswer) error {
			_, rev, err := store.LoadGrant(t.Context(), "", g.key(ada))
			require.NoError(t, err)
			_, err = store.SaveGrant(t.Context(), "", g.key(ada), nil, rev)
			return err
		}
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
		require.Equal(t, []string{"refresh-2"}, c.revoked)
	})
}

// TestGrantAnswers: what each kind of failure does to the grant.
func TestGrantAnswers(t *testing.T) {
	lost := errors.New("no answer")
	for _, row := range []struct {
		name          string
		keeps, rotate bool // of the provider; GrantsConfig.Rotates
		before, after error
		over          bool
	}{
		{name: "not used", before: errNotUsed},
		{name: "lost before the provider used it", before: lost, over: true},
		{name: "lost after the provider used it", after: lost, over: true},
		{name: "invalid_grant", before: errInvalidGrant, over: true},
		{name: "kept, not used", keeps: true, before: errNotUsed},
		{name: "kept, lost before", keeps: true, before: lost},
		{name: "kept, lost after", keeps: true, after: lost},
		{name: "kept, invalid_grant", keeps: true, before: errInvalidGrant, over: true},
		{name: "kept so far, lost before", keeps: true, rotate: true, before: lost, over: true},
		{name: "kept so far, lost after", keeps: true, rotate: true, after: lost, over: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newChain()
				c.keeps = row.keeps
				g := grantsOf(t, memoryStore(), c)
				g.rotates = row.rotate
				begin(t, g)
				accessOf(t, g) // by which it is known whether the provider keeps them
				time.Sleep(c.life)
				failing := true
				c.before = func() error {
					if failing {
						return row.before
					}
					return nil
				}
				c.after = func(*tokenAnswer) error {
					if failing {
						return row.after
					}
					return nil
				}
				_, err := g.Token(t.Context(), ada)
				require.Equal(t, row.over, errors.Is(err, ErrNoGrant), "%v", err)
				require.Error(t, err)
				failing = false
				time.Sleep(time.Minute)
				_, err = g.Token(t.Context(), ada)
				if row.over {
					require.ErrorIs(t, err, ErrNoGrant)
				} else {
					require.NoError(t, err)
				}
				_, twice := c.count()
				require.Zero(t, twice)
			})
		})
	}
}

// TestGrantFirstRefresh: until the provider has kept a refresh token once, it
// counts as one that replaces them; and ever after it has replaced one.
func TestGrantFirstRefresh(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newChain()
			c.keeps = !replaced
			g := grantsOf(t, memoryStore(), c)
			begin(t, g)
			if replaced {
				accessOf(t, g)
				c.keeps = true
				time.Sleep(c.life)
				accessOf(t, g)
				time.Sleep(c.life)
			}
			c.before = func() error { return errors.New("no answer") }
			_, err := g.Token(t.Context(), ada)
			require.ErrorIs(t, err, ErrNoGrant)
		})
	}
}

// TestGrantIDToken: a refreshed ID token that is refused ends the grant. While
// it cannot be checked no access token is handed out, and no refresh token is
// lost.
func TestGrantIDToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain()
		c.after = func(a *tokenAnswer) error { a.idToken = "x"; return nil }
		g := grantsOf(t, memoryStore(), c)
		begin(t, g)
		c.checked = func() error { return unavailable("the keys", errors.New("down")) }
		_, err := g.Token(t.Context(), ada)
		require.ErrorIs(t, err, errUnavailable)
		c.checked = nil
		time.Sleep(time.Minute)
		require.Equal(t, "access-2", accessOf(t, g))
		time.Sleep(c.life)
		c.checked = func() error { return errOtherSubject }
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
		_, twice := c.count()
		require.Zero(t, twice)
	})
}

// TestGrantCallerGivesUp: the end of a caller's context does not end the
// refresh that it began.
func TestGrantCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain()
		c.before = func() error { time.Sleep(10 * time.Second); return nil }
		g := grantsOf(t, memoryStore(), c)
		begin(t, g)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := g.Token(ctx, ada)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "access-1", accessOf(t, g))
	})
}

// faulty is a store whose calls can fail.
type faulty struct {
	GrantStore
	// fault is called for each call, and calls do for its effect.
	fault func(op, key string, sealed []byte, do func() error) error
}

func (s *faulty) LoadGrant(ctx context.Context, namespace, key string) (sealed []byte, rev string, err error) {
	err = s.fault("load", key, nil, func() (err error) {
		sealed, rev, err = s.GrantStore.LoadGrant(ctx, namespace, key)
		return err
	})
	return sealed, rev, err
}

func (s *faulty) SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (newRev string, err error) {
	err = s.fault("save", key, sealed, func() (err error) {
		newRev, err = s.GrantStore.SaveGrant(ctx, namespace, key, sealed, rev)
		return err
	})
	return newRev, err
}

// TestGrantStoreFails: a write that failed, whether or not it took effect, is
// tried again, and a token is not used twice.
func TestGrantStoreFails(t *testing.T) {
	for round := range 2 * 4 * 12 {
		done, long, fails := round%2 == 0, round/2%4+1, round/8
		t.Run(fmt.Sprint(fails, long, done), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newChain()
				store := &faulty{GrantStore: memoryStore()}
				var calls atomic.Int64
				store.fault = func(_, _ string, _ []byte, do func() error) error {
					if n := int(calls.Add(1)); n >= fails && n < fails+long {
						if done {
							_ = do()
						}
						return errors.New("the store fails")
					}
					return do()
				}
				g := grantsOf(t, store, c)
				save := func() error { return g.Save(t.Context(), atLogin("refresh-0")) }
				for save() != nil {
					time.Sleep(time.Second)
				}
				for i := range 3 {
					var token *oauth2.Token
					var err error
					for token, err = g.Token(t.Context(), ada); err != nil; token, err = g.Token(t.Context(), ada) {
						require.NotErrorIs(t, err, ErrNoGrant)
						time.Sleep(time.Second)
					}
					require.Equal(t, fmt.Sprint("access-", i+1), token.AccessToken)
					time.Sleep(c.life)
				}
				_, twice := c.count()
				require.Zero(t, twice)
			})
		})
	}
}

// TestGrantCrashes stops a replica at each of its steps, before and after the
// step has its effect: another one then goes on, or the grant is over. A used
// token is never sent. A provider that keeps refresh tokens loses no grant.
func TestGrantCrashes(t *testing.T) {
	type row struct {
		keeps, done bool
		step        int
	}
	steps := 0
	var rows []row
	for _, keeps := range []bool{false, true} {
		for _, done := range []bool{false, true} {
			for step := range 7 {
				rows = append(rows, row{keeps, done, step})
			}
		}
	}
	overs := []string{}
	for _, r := range rows {
		synctest.Test(t, func(t *testing.T) {
			c := newChain()
			c.keeps = r.keeps
			memory := memoryStore()
			b := grantsOf(t, memory, c)
			begin(t, b)
			accessOf(t, b)
			time.Sleep(c.life)

			// A process that has crashed has no effect any more.
			var calls atomic.Int64
			crash := func(do func() error) error {
				step := int(calls.Add(1)) - 1
				if step > r.step || step == r.step && !r.done {
					return errors.New("crashed")
				}
				if err := do(); err != nil || step == r.step {
					return errors.Join(err, errors.New("crashed"))
				}
				return nil
			}
			store := &faulty{GrantStore: memory, fault: func(_, _ string, _ []byte, do func() error) error { return crash(do) }}
			a := grantsOf(t, store, crashing{c, crash})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, _ = a.Token(ctx, ada)
			steps = max(steps, min(int(calls.Load()), r.step+1))

			token, err := b.Token(t.Context(), ada)
			if errors.Is(err, ErrNoGrant) {
				overs = append(overs, fmt.Sprintf("%+v", r))
				require.False(t, r.keeps, "%+v: the grant could go on", r)
				require.NoError(t, b.Save(t.Context(), atLogin(c.current)), "a new login")
				token, err = b.Token(t.Context(), ada)
			}
			require.NoError(t, err, "%+v", r)
			require.True(t, token.Valid())
			time.Sleep(c.life)
			accessOf(t, b)
			_, twice := c.count()
			require.Zero(t, twice, "%+v", r)
		})
	}
	require.Equal(t, 5, steps, "load twice, record, refresh, store")
	require.Equal(t, []string{
		"{keeps:false done:false step:3}", "{keeps:false done:false step:4}", // recorded; used
		"{keeps:false done:true step:2}", "{keeps:false done:true step:3}",
	}, slices.Sorted(slices.Values(overs)))
}

// TestGrantCrashesTwice stops one replica at each of its steps, and then the
// one that goes on at each of its own, also in the first refresh of a grant.
func TestGrantCrashesTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, keeps := range []bool{false, true} {
			for _, first := range []bool{false, true} {
				for i := range 14 {
					for j := range 14 {
						crashTwice(t, keeps, first, i, j)
					}
				}
			}
		}
	})
}

// crashTwice stops two replicas, each at half of a step.
func crashTwice(t *testing.T, keeps, first bool, i, j int) {
	c, memory := newChain(), memoryStore()
	c.keeps = keeps
	last := grantsOf(t, memory, c)
	begin(t, last)
	if !first {
		accessOf(t, last)
		time.Sleep(c.life)
	}
	for _, half := range []int{i, j} {
		var calls atomic.Int64
		crash := func(do func() error) error {
			step := int(calls.Add(1)) - 1
			if step > half/2 || step == half/2 && half%2 == 0 {
				return errors.New("crashed")
			}
			if err := do(); err != nil || step == half/2 {
				return errors.Join(err, errors.New("crashed"))
			}
			return nil
		}
		store := &faulty{GrantStore: memory, fault: func(_, _ string, _ []byte, do func() error) error { return crash(do) }}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, _ = grantsOf(t, store, crashing{c, crash}).Token(ctx, ada)
		cancel()
		if half == i && i%3 == 0 {
			time.Sleep(2 * lease) // the next one does not wait
		}
	}
	_, err := last.Token(t.Context(), ada)
	if errors.Is(err, ErrNoGrant) {
		require.False(t, keeps && !first, "%d %d: the grant could go on", i, j)
		require.NoError(t, last.Save(t.Context(), atLogin(c.current)))
		_, err = last.Token(t.Context(), ada)
	}
	require.NoError(t, err, "%v %v %d %d", keeps, first, i, j)
	time.Sleep(c.life)
	accessOf(t, last)
	_, twice := c.count()
	require.Zero(t, twice, "%v %v %d %d", keeps, first, i, j)
}

// TestGrantStoreIsDown: a store that fails after the provider's answer loses
// nothing if it is back within half a minute, and if it is not, the token that
// was used is not sent again.
func TestGrantStoreIsDown(t *testing.T) {
	for _, down := range []time.Duration{30 * time.Second, 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			c := newChain()
			var until atomic.Int64
			store := &faulty{GrantStore: memoryStore(), fault: func(_, _ string, _ []byte, do func() error) error {
				if time.Now().UnixNano() < until.Load() {
					return errors.New("the store is down")
				}
				return do()
			}}
			g := grantsOf(t, store, c)
			begin(t, g)
			c.after = func(*tokenAnswer) error {
				c.after = nil
				until.Store(time.Now().Add(down).UnixNano())
				return nil
			}
			_, err := g.Token(t.Context(), ada)
			if down < finishLimit {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, errUnavailable)
				time.Sleep(down)
				_, err = g.Token(t.Context(), ada)
				require.ErrorIs(t, err, ErrNoGrant)
			}
			_, twice := c.count()
			require.Zero(t, twice)
		})
	}
}

// TestGrantNamespaces: grants of two namespaces are apart, as are those of two
// clients and two issuers.
func TestGrantNamespaces(t *testing.T) {
	store := memoryStore()
	begin(t, grantsOf(t, store, newChain()))
	for _, change := range []func(*GrantsConfig){
		func(c *GrantsConfig) { c.Namespace = "other" },
		func(c *GrantsConfig) { c.ClientID = "other" },
		func(c *GrantsConfig) { c.Issuer = "https://other.example" },
	} {
		cfg := grantsConfig(store)
		change(&cfg)
		g, err := NewGrants(cfg)
		require.NoError(t, err)
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
	}
}

// TestGrantMetrics counts each outcome.
func TestGrantMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, store := newChain(), memoryStore()
		g := grantsOf(t, store, c)
		begin(t, g)
		accessOf(t, g)
		time.Sleep(c.life)
		c.before = func() error { return errNotUsed }
		_, err := g.Token(t.Context(), ada)
		require.ErrorIs(t, err, errUnavailable)
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, errUnavailable)
		asked, _ := c.count()
		require.Equal(t, 2, asked, "after a failure there is a pause")
		time.Sleep(time.Minute)
		c.before = func() error { return errInvalidGrant }
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrNoGrant)
		begin(t, grantsOf(t, store, c, make([]byte, 32)))
		_, err = g.Token(t.Context(), ada)
		require.ErrorIs(t, err, ErrGrantSealed)
		require.Equal(t, map[string]float64{"oidclogin_grants_refreshed_total": 1, "oidclogin_grants_failed_total": 1, "oidclogin_grants_over_total": 1, "oidclogin_grants_sealed_total": 1}, g.Metrics())
	})
}

// crashing is a provider that a process reaches until it crashes.
type crashing struct {
	tokenEndpoint
	crash func(do func() error) error
}

func (c crashing) refresh(ctx context.Context, token string) (a *tokenAnswer, err error) {
	err = c.crash(func() (err error) { a, err = c.tokenEndpoint.refresh(ctx, token); return err })
	return a, err
}

// TestGrantClocks: a use of a replica whose clock differs by 15 s is waited
// for, and one whose clock was far ahead blocks no refresh.
func TestGrantClocks(t *testing.T) {
	for _, row := range []struct {
		ahead time.Duration
		waits bool
	}{
		{15 * time.Second, true}, {-15 * time.Second, true}, {time.Hour, false}, {-time.Hour, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, memory := newChain(), memoryStore()
			wrong := new(clock.Clock)
			wrong.SetAhead(row.ahead)
			var a *Grants
			clock.As(wrong, func() { a = grantsOf(t, memory, c) })
			b := grantsOf(t, memory, c)
			begin(t, b)
			c.before = func() error { time.Sleep(19 * time.Second); return nil }
			if row.waits {
				go func() { _, _ = a.Token(t.Context(), ada) }()
				time.Sleep(time.Second)
				require.Equal(t, "access-1", accessOf(t, b))
				return
			}
			// It records a use and crashes.
			found, rev, err := a.load(t.Context(), a.key(ada))
			require.NoError(t, err)
			found.Using = a.clock.Now().UnixMilli()
			_, err = a.swap(t.Context(), a.key(ada), found, rev)
			require.NoError(t, err)
			_, err = b.Token(t.Context(), ada)
			require.ErrorIs(t, err, ErrNoGrant)
		})
	}
}
