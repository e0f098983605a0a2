package remote_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	issuing "github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const feedToken = "0123456789abcdef0123456789abcdef"

// engine is a store with a server of its own, which can lose its revocations,
// fail and be slow.
type engine struct {
	issuing.Store
	log     atomic.Pointer[engineLog]
	fails   atomic.Bool
	slow    atomic.Int64 // how long a reading takes before and after it is made
	started atomic.Int64 // Unix nanoseconds: start of the last reading
	reads   atomic.Int64
}

type engineLog struct {
	revoke.MemStore
	epoch string
}

func newEngine() *engine {
	e := &engine{Store: issuing.Memory()}
	e.lose()
	return e
}

// lose loses all revocations.
func (e *engine) lose() { e.log.Store(&engineLog{epoch: fmt.Sprint(rand.Uint64())}) }

func (e *engine) Append(ctx context.Context, entries ...revoke.Entry) error {
	if e.fails.Load() {
		return errDown
	}
	return e.log.Load().Append(ctx, entries...)
}

func (e *engine) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	e.reads.Add(1)
	if e.fails.Load() {
		return revoke.Page{}, errDown
	}
	slow := time.Duration(e.slow.Load())
	e.started.Store(time.Now().UnixNano())
	if err := sleep(ctx, slow); err != nil {
		return revoke.Page{}, err
	}
	log := e.log.Load()
	number, known := strings.CutPrefix(cursor, log.epoch+".")
	if !known {
		number = ""
	}
	p, err := log.MemStore.Since(ctx, number)
	p.Next, p.Reset = log.epoch+"."+p.Next, p.Reset || cursor != "" && !known
	return p, errors.Join(err, sleep(ctx, slow))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *engine) Wait(ctx context.Context, cursor string) error {
	log := e.log.Load()
	number, known := strings.CutPrefix(cursor, log.epoch+".")
	if !known {
		return nil
	}
	return log.Wait(ctx, number)
}

// site is an authority behind a balancer.
type site struct {
	store    issuing.Store
	mode     atomic.Int32
	next     atomic.Uint64
	mu       sync.Mutex
	replicas []*replica
	requests []*http.Request // to the feed
	old      []byte          // the first page of the feed that was served
}

type replica struct {
	*issuing.Authority[state]
	stop func()
}

const (
	healthy int32 = iota
	refused
	silent    // accepts, and never answers
	replaying // answers each request for a page with the first one
)

func newSite(t testing.TB, store issuing.Store, replicas int) *site {
	s := &site{store: store}
	for range replicas {
		s.replicas = append(s.replicas, s.start(t))
	}
	t.Cleanup(func() {
		for _, r := range s.all() {
			r.stop()
		}
		time.Sleep(time.Minute) // what is shared by requests ends
	})
	return s
}

// start starts a replica that is not behind the balancer.
func (s *site) start(t testing.TB, change ...func(*issuing.Config[state])) *replica {
	t.Helper()
	config := issuing.Config[state]{
		Issuer: testIssuer, Audience: []string{"orders"}, Store: s.store, Algorithm: keys.EdDSA,
		Logger: slog.New(slog.DiscardHandler), FeedTokens: []string{feedToken},
		Load:   func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{Name: "Ada"}, nil },
		Limits: issuing.Limits{TTL: time.Hour},
	}
	if _, ok := s.store.(*engine); ok {
		config.Secrets = [][]byte{bytes.Repeat([]byte{1}, 32)}
	}
	for _, c := range change {
		c(&config)
	}
	a, err := issuing.New(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.Run(ctx)
	}()
	return &replica{a, sync.OnceFunc(func() { cancel(); <-ended })}
}

func (s *site) all() []*replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.replicas)
}

// replace stops a replica and has another one in its place.
func (s *site) replace(i int, by *replica) {
	s.mu.Lock()
	old := s.replicas[i]
	s.replicas[i] = by
	s.mu.Unlock()
	old.stop()
}

func (s *site) any() *replica {
	all := s.all()
	return all[int(s.next.Add(1))%len(all)]
}

func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	isFeed := strings.HasSuffix(r.URL.Path, "/session-revocations")
	s.mu.Lock()
	if isFeed {
		s.requests = append(s.requests, r)
	}
	old := s.old
	s.mu.Unlock()
	isPage := isFeed && r.URL.Query().Has("cursor") && !r.URL.Query().Has("wait")
	switch s.mode.Load() {
	case refused:
		return nil, errDown
	case silent:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case replaying:
		if isPage && old != nil {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(old))}, nil
		}
	}
	in := r.Clone(r.Context())
	in.TLS, in.Host = new(tls.ConnectionState), r.URL.Host
	rec := httptest.NewRecorder()
	s.any().WellKnown().ServeHTTP(rec, in)
	if isPage && rec.Code == 200 {
		s.mu.Lock()
		if s.old == nil {
			s.old = bytes.Clone(rec.Body.Bytes())
		}
		s.mu.Unlock()
	}
	if r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	return rec.Result(), nil
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// api starts an API that follows the site.
func (s *site) api(t testing.TB, change ...func(*remote.Config)) *remote.Remote[state] {
	t.Helper()
	r := newReader(t, s, append([]func(*remote.Config){func(c *remote.Config) {
		c.FeedToken = func(context.Context) (string, error) { return feedToken, nil }
	}}, change...)...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	return r
}

// signIn begins a session at any replica.
func (s *site) signIn(t testing.TB, start sessiontoken.Start) (string, *sessiontoken.Claims[state]) {
	t.Helper()
	token, claims, err := s.any().Issuer().Begin(t.Context(), start, state{Name: "Ada"})
	require.NoError(t, err)
	return token, claims
}

// verify returns the error of a token at an API.
func verify(t testing.TB, r *remote.Remote[state], token string) error {
	t.Helper()
	_, err := r.Verifier().Verify(t.Context(), token)
	return err
}

// settle lets requests that are under way end.
func settle() { time.Sleep(100 * time.Millisecond) }

// stores are what an authority can have.
var stores = map[string]func() issuing.Store{
	"memory": issuing.Memory,
	"engine": func() issuing.Store { return newEngine() },
}

// TestFeed: all that is revoked or changed at an authority is known at an API
// that has its URL and a credential, and nothing else is refused there.
func TestFeed(t *testing.T) {
	for name, store := range stores {
		for _, replicas := range []int{1, 2} {
			t.Run(fmt.Sprint(name, " with ", replicas), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t, store(), replicas)
					settle()
					r := s.api(t)
					settle()
					status, body := ready(t, r)
					require.Equal(t, 200, status, body)
					require.Equal(t, "{}", body)

					group := sessiontoken.GroupOf("provider", "https://login.example", "1")
					one, oneClaims := s.signIn(t, sessiontoken.Start{Subject: "one"})
					begun := time.Now()
					two, twoClaims := s.signIn(t, sessiontoken.Start{Subject: "two"})
					twoElse, _ := s.signIn(t, sessiontoken.Start{Subject: "two"})
					three, _ := s.signIn(t, sessiontoken.Start{Subject: "three", Groups: []sessiontoken.Group{group}})
					four, _ := s.signIn(t, sessiontoken.Start{Subject: "four"})
					all := []string{one, two, twoElse, three, four}
					live := func(tokens ...string) {
						t.Helper()
						for _, token := range all {
							err := verify(t, r, token)
							if slices.Contains(tokens, token) {
								require.NoError(t, err)
							} else {
								require.ErrorIs(t, err, sessiontoken.ErrRevoked)
							}
						}
					}
					live(all...)
					list := s.any().Revocations()
					require.NoError(t, list.RevokeSession(t.Context(), oneClaims.SessionID))
					settle()
					live(two, twoElse, three, four)
					code, _ := get(t, r, one)
					require.Equal(t, 401, code)
					require.NoError(t, list.RevokeOthers(t.Context(), "two", twoClaims.SessionID))
					settle()
					live(two, three, four)
					require.NoError(t, s.any().Revocations().RevokeGroup(t.Context(), string(group)))
					settle()
					live(two, four)
					require.NoError(t, s.any().Revocations().RevokeSubject(t.Context(), "two"))
					settle()
					live(four)
					time.Sleep(time.Second)
					require.NoError(t, s.any().Revocations().Changed(t.Context(), "four"))
					settle()
					require.ErrorIs(t, verify(t, r, four), sessiontoken.ErrChanged)
					time.Sleep(time.Second)
					renewed, _ := s.signIn(t, sessiontoken.Start{Subject: "four"})
					require.NoError(t, verify(t, r, renewed))
					require.NoError(t, s.any().Revocations().RevokeAll(t.Context(), begun))
					settle()
					require.ErrorIs(t, verify(t, r, one), sessiontoken.ErrRevoked)
					require.NoError(t, verify(t, r, renewed))
					require.NoError(t, s.any().RevokeKeys(t.Context(), s.any().Ring().Status().Keys[0].KeyID))
					settle()
					require.Error(t, verify(t, r, renewed))
				})
			})
		}
	}
}

// TestFeedWithoutRun: a revocation is known after 30 s, by calls alone.
func TestFeedWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newEngine(), 1)
		settle()
		r := newReader(t, s, func(c *remote.Config) {
			c.FeedToken = func(context.Context) (string, error) { return feedToken, nil }
		})
		token, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
		require.NoError(t, verify(t, r, token))
		require.NoError(t, s.any().Revocations().RevokeSession(t.Context(), claims.SessionID))
		time.Sleep(31 * time.Second)
		require.ErrorIs(t, verify(t, r, token), sessiontoken.ErrRevoked)
	})
}

// TestFeedWithoutFeedToken: nothing is asked of the feed, and nothing is known.
func TestFeedWithoutFeedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newEngine(), 1)
		settle()
		r := s.api(t, func(c *remote.Config) { c.FeedToken = nil })
		require.Nil(t, r.Revocations())
		token, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
		require.NoError(t, s.any().Revocations().RevokeSession(t.Context(), claims.SessionID))
		time.Sleep(time.Minute)
		require.NoError(t, verify(t, r, token))
		require.Zero(t, s.count())
	})
}

// TestFeedListOnlyReads: a revocation at an API fails at once, and leaves
// nothing behind.
func TestFeedListOnlyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newEngine(), 1)
		settle()
		r := s.api(t)
		settle()
		token, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
		l := r.Revocations()
		for _, err := range []error{
			l.RevokeSession(t.Context(), claims.SessionID), l.RevokeSubject(t.Context(), "ada"),
			l.RevokeOthers(t.Context(), "ada", "other"), l.RevokeKey(t.Context(), claims.KeyID, time.Time{}),
			l.RevokeAll(t.Context(), time.Now()), l.Changed(t.Context(), "ada"),
		} {
			require.ErrorIs(t, err, errors.ErrUnsupported)
		}
		require.Zero(t, l.Status().Owed)
		require.NoError(t, verify(t, r, token))
		require.Zero(t, r.Metrics()["revocation_write_failures_total"])
		began, err := l.Begin(t.Context(), revoke.Question{Subject: "ada"})
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), began, time.Second)
	})
}

// TestFeedWhileTheAuthorityFails: tokens are accepted for 30 s, then none is,
// and what was revoked meanwhile is known when the fault is over.
func TestFeedWhileTheAuthorityFails(t *testing.T) {
	for _, tt := range []struct {
		name       string
		begin, end func(*site)
	}{
		{"refused", func(s *site) { s.mode.Store(refused) }, func(s *site) { s.mode.Store(healthy) }},
		{"silent", func(s *site) { s.mode.Store(silent) }, func(s *site) { s.mode.Store(healthy) }},
		{"its old page is replayed", func(s *site) { s.mode.Store(replaying) }, func(s *site) { s.mode.Store(healthy) }},
		{"its store fails", func(s *site) { s.store.(*engine).fails.Store(true) }, func(s *site) { s.store.(*engine).fails.Store(false) }},
		{"its store is slow", func(s *site) { s.store.(*engine).slow.Store(int64(time.Hour)) }, func(s *site) { s.store.(*engine).slow.Store(0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newEngine(), 2)
				settle()
				r := s.api(t)
				settle()
				live, _ := s.signIn(t, sessiontoken.Start{Subject: "ada"})
				dead, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
				require.NoError(t, verify(t, r, live))
				require.NoError(t, verify(t, r, dead))
				tt.begin(s)
				acknowledged := s.any().Revocations().RevokeSession(t.Context(), claims.SessionID) == nil
				time.Sleep(20 * time.Second)
				require.NoError(t, verify(t, r, live), "the last reading is fresh")
				status, body := ready(t, r)
				require.Equal(t, 200, status)
				require.Contains(t, body, `"feed":`)
				time.Sleep(15 * time.Second)
				for range 5 {
					began := time.Now()
					err := verify(t, r, live)
					require.Error(t, err)
					require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
					require.LessOrEqual(t, time.Since(began), 2*time.Second)
					require.Error(t, verify(t, r, dead))
					time.Sleep(time.Second)
				}
				status, body = ready(t, r)
				require.Equal(t, 503, status)
				require.Contains(t, body, `"revocations":`)
				require.NotContains(t, body, feedToken)
				tt.end(s)
				time.Sleep(15 * time.Second)
				require.NoError(t, verify(t, r, live))
				if acknowledged {
					require.ErrorIs(t, verify(t, r, dead), sessiontoken.ErrRevoked)
				}
				status, body = ready(t, r)
				require.Equal(t, 200, status, body)
				require.Equal(t, "{}", body)
			})
		})
	}
}

// TestFeedAfterARestart: an API goes on from its cursor with the replicas that
// replace others.
func TestFeedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newEngine(), 2)
		settle()
		r := s.api(t)
		settle()
		live, _ := s.signIn(t, sessiontoken.Start{Subject: "ada"})
		for i := range 2 {
			s.replace(i, s.start(t))
			dead, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
			require.NoError(t, s.any().Revocations().RevokeSession(t.Context(), claims.SessionID))
			time.Sleep(6 * time.Second)
			require.ErrorIs(t, verify(t, r, dead), sessiontoken.ErrRevoked)
			require.NoError(t, verify(t, r, live))
		}
		require.Zero(t, r.Metrics()["revocation_read_failures_total"])
	})
}

// TestFeedAfterALoss: after an authority has lost its data, a session whose
// revocation may be lost is not accepted. Sessions that begin later are.
func TestFeedAfterALoss(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(t *testing.T, s *site)
		back bool // the replicas write back what was lost
	}{
		{"memory that ended", func(t *testing.T, s *site) {
			s.replicas[0].stop()
			time.Sleep(time.Second)
			s.store = issuing.Memory()
			s.replace(0, s.start(t))
		}, false},
		{"an engine and all replicas", func(t *testing.T, s *site) {
			s.replicas[0].stop()
			time.Sleep(5 * time.Second)
			s.store.(*engine).lose()
			s.replace(0, s.start(t))
		}, false},
		{"an engine alone", func(_ *testing.T, s *site) { s.store.(*engine).lose() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := stores["engine"]()
				if strings.HasPrefix(tt.name, "memory") {
					store = issuing.Memory()
				}
				s := newSite(t, store, 1)
				settle()
				r := s.api(t)
				settle()
				live, _ := s.signIn(t, sessiontoken.Start{Subject: "ada"})
				known, knownClaims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
				dead, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
				require.NoError(t, s.any().Revocations().RevokeSession(t.Context(), knownClaims.SessionID))
				time.Sleep(15 * time.Minute)
				require.NoError(t, verify(t, r, live))
				require.NoError(t, verify(t, r, dead))
				require.ErrorIs(t, verify(t, r, known), sessiontoken.ErrRevoked)

				s.mode.Store(refused)
				require.NoError(t, s.any().Revocations().RevokeSession(t.Context(), claims.SessionID))
				tt.lose(t, s)
				time.Sleep(3 * time.Second)
				var dead2 string // revoked after the loss, as the entry with the number of one before
				for range 3 {
					token, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
					require.NoError(t, s.any().Revocations().RevokeSession(t.Context(), claims.SessionID))
					if dead2 == "" {
						dead2 = token
					}
				}
				s.mode.Store(healthy)
				time.Sleep(6 * time.Second) // the reading after that
				for range 200 {
					require.Error(t, verify(t, r, dead))
					require.Error(t, verify(t, r, known))
					if !tt.back {
						err := verify(t, r, live)
						require.Error(t, err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				err := verify(t, r, dead2)
				for i := 0; errors.Is(err, sessiontoken.ErrSignature) || err != nil && !errors.Is(err, sessiontoken.ErrInvalid); i++ { // the new keys are not known here yet
					require.Less(t, i, 100)
					time.Sleep(time.Second)
					err = verify(t, r, dead2)
				}
				require.ErrorIs(t, err, sessiontoken.ErrRevoked)
				if tt.back {
					require.NoError(t, verify(t, r, live))
					require.ErrorIs(t, verify(t, r, dead), sessiontoken.ErrRevoked)
				}
				later, _ := s.signIn(t, sessiontoken.Start{Subject: "ada"})
				require.NoError(t, verify(t, r, later))
				time.Sleep(15 * time.Minute)
				require.Error(t, verify(t, r, dead))
				require.NoError(t, verify(t, r, later))
			})
		})
	}
}

// TestFeedIsAsOldAsItsReading: however slow the store and the way are, the list
// never counts a page as newer than the authority's reading of its store.
func TestFeedIsAsOldAsItsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := newSite(t, e, 2)
		time.Sleep(time.Second)
		slowly := &slowWay{RoundTripper: s}
		r := s.api(t, func(c *remote.Config) { c.Client = &http.Client{Transport: slowly} })
		for range 300 {
			e.slow.Store(rand.Int64N(int64(2 * time.Second)))
			slowly.there.Store(rand.Int64N(int64(time.Second)))
			slowly.back.Store(rand.Int64N(int64(time.Second)))
			time.Sleep(time.Duration(rand.Int64N(int64(3 * time.Second))))
			if synced := r.Revocations().Status().Synced; !synced.IsZero() {
				require.LessOrEqual(t, synced.UnixNano(), e.started.Load())
			}
			if _, err := r.Revocations().Now(t.Context()); err == nil {
				began, err := r.Revocations().Begin(t.Context(), revoke.Question{Subject: "ada"})
				if err == nil {
					require.False(t, began.After(time.Now()))
				}
			}
		}
		require.Greater(t, r.Metrics()["revocation_reads_total"], 100.0)
	})
}

type slowWay struct {
	http.RoundTripper
	there, back atomic.Int64
}

func (s *slowWay) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(time.Duration(s.there.Load()))
	resp, err := s.RoundTripper.RoundTrip(r)
	time.Sleep(time.Duration(s.back.Load()))
	return resp, err
}

// TestFeedCredential: a credential can be replaced without a restart. With a
// wrong one the list closes, and says why.
func TestFeedCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newEngine(), 1)
		settle()
		var token atomic.Pointer[string]
		set := func(s string) { token.Store(&s) }
		set(feedToken)
		r := s.api(t, func(c *remote.Config) {
			c.FeedToken = func(context.Context) (string, error) { return *token.Load(), nil }
		})
		settle()
		live, _ := s.signIn(t, sessiontoken.Start{Subject: "ada"})
		require.NoError(t, verify(t, r, live))
		for _, wrong := range []string{strings.Repeat("x", 32), feedToken + "x", "", "two words", "line\nbreak"} {
			set(wrong)
			time.Sleep(40 * time.Second)
			require.Error(t, verify(t, r, live))
			err := r.Revocations().Status().Err
			require.ErrorIs(t, err, remote.ErrFeed)
			require.NotContains(t, err.Error(), feedToken)
			set(feedToken)
			time.Sleep(10 * time.Second)
			require.NoError(t, verify(t, r, live))
		}
	})
}

// TestFeedWhileSecretsAreReplaced: no step of the replacement, at one replica
// after the other, fails a reading.
func TestFeedWhileSecretsAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
		s := newSite(t, newEngine(), 2)
		settle()
		r := s.api(t)
		settle()
		live, _ := s.signIn(t, sessiontoken.Start{Subject: "ada"})
		for _, secrets := range [][][]byte{{old, next}, {next, old}, {next}} {
			for i := range 2 {
				s.replace(i, s.start(t, func(c *issuing.Config[state]) { c.Secrets = secrets }))
				if len(secrets) == 2 {
					require.NoError(t, s.all()[i].Ring().Reseal(t.Context()))
				}
				dead, claims := s.signIn(t, sessiontoken.Start{Subject: "ada"})
				require.NoError(t, s.any().Revocations().RevokeSession(t.Context(), claims.SessionID))
				time.Sleep(6 * time.Second)
				require.ErrorIs(t, verify(t, r, dead), sessiontoken.ErrRevoked)
				require.NoError(t, verify(t, r, live))
			}
		}
		require.Zero(t, r.Metrics()["revocation_read_failures_total"])
		fresh := s.api(t)
		settle()
		require.NoError(t, verify(t, fresh, live))
	})
}

// TestFeedElsewhere: the credential goes to the issuer's origin and to no other
// place, whatever the document and the feed say.
func TestFeedElsewhere(t *testing.T) {
	for _, tt := range []struct {
		name, feed string
		status     int
		is         error
	}{
		{"none", "", 0, remote.ErrFeed},
		{"another host", "https://evil.example/feed", 0, remote.ErrFeed},
		{"a host below", "https://a.id.example/feed", 0, remote.ErrFeed},
		{"another port", "https://id.example:8443/feed", 0, remote.ErrFeed},
		{"http", "http://id.example/feed", 0, remote.ErrFeed},
		{"a user", "https://id.example@evil.example/feed", 0, remote.ErrFeed},
		{"a query", "https://id.example/feed?to=evil", 0, remote.ErrFeed},
		{"no URL", "://", 0, remote.ErrFeed},
		{"a redirect", "https://id.example/feed", 302, nil},
		{"a redirect that keeps the method", "https://id.example/feed", 307, nil},
		{"it refuses the credential", "https://id.example/feed", 401, remote.ErrFeed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []string
				server := &memServer{answer: func(r *http.Request) (*http.Response, error) {
					if r.Header.Get("Authorization") != "" {
						sent = append(sent, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path)
						require.Equal(t, "Bearer "+feedToken, r.Header.Get("Authorization"))
						return answerWith(tt.status, "", "Location", "https://id.example/elsewhere")(r)
					}
					require.NotEqual(t, "/elsewhere", r.URL.Path)
					document := discoveryDocument(testIssuer, "https://id.example/keys")
					if tt.feed != "" {
						document = strings.Replace(document, "{", `{"session_revocation_feed":"`+tt.feed+`",`, 1)
					}
					return answerWith(200, document)(r)
				}}
				r := newReader(t, server, func(c *remote.Config) {
					c.FeedToken = func(context.Context) (string, error) { return feedToken, nil }
				})
				err := r.Revocations().Sync(t.Context())
				require.Error(t, err)
				if tt.is != nil {
					require.ErrorIs(t, err, tt.is)
				}
				require.NotContains(t, err.Error(), "evil")
				if tt.status == 0 {
					require.Empty(t, sent)
				} else {
					require.Equal(t, []string{tt.feed}, slices.Compact(sent))
				}
			})
		})
	}
}

// TestFeedModel: over random faults, no revocation that was acknowledged before
// the list's last reading is missed, and a list past 30 s refuses all.
func TestFeedModel(t *testing.T) {
	const sessions = 1200
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := newSite(t, e, 2)
		settle()
		r := s.api(t)
		settle()
		type session struct {
			token string
			id    string
			acked time.Time
		}
		var live, dead []*session
		refuse, accept := 0, 0
		for i := range sessions {
			token, claims, err := s.any().Issuer().Issue(t.Context(), fmt.Sprint("user ", i), state{})
			if err == nil {
				live = append(live, &session{token: token, id: claims.SessionID})
			}
			switch rand.IntN(20) {
			case 0:
				s.mode.Store(rand.Int32N(4))
			case 1, 2, 3:
				s.mode.Store(healthy)
			case 4:
				e.slow.Store(rand.Int64N(int64(2 * time.Second)))
			case 5, 6:
				e.slow.Store(0)
			case 7:
				s.replace(rand.IntN(2), s.start(t))
			}
			if len(live) > 0 {
				n := rand.IntN(len(live))
				it := live[n]
				if s.any().Revocations().RevokeSession(t.Context(), it.id) == nil {
					it.acked = time.Now()
					live = slices.Delete(live, n, n+1)
					dead = append(dead, it)
				}
			}
			time.Sleep(time.Duration(rand.Int64N(int64(4 * time.Second))))
			for _, it := range dead[max(0, len(dead)-30):] {
				synced := r.Revocations().Status().Synced // before the question
				switch err := verify(t, r, it.token); {
				case err != nil:
					refuse++
				case it.acked.Before(synced):
					t.Fatal("a revocation was missed")
				default:
					require.LessOrEqual(t, time.Since(synced), 31*time.Second)
					accept++
				}
			}
		}
		s.mode.Store(healthy)
		e.slow.Store(0)
		time.Sleep(time.Minute)
		for _, it := range dead {
			require.Error(t, verify(t, r, it.token))
		}
		require.NotEmpty(t, accept, "the faults had an effect")
		t.Logf("%d revocations: refused %d times, accepted %d times within the bound", len(dead), refuse, accept)
		require.Greater(t, len(dead), 1000)
	})
}
