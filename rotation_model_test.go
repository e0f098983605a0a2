package sessiontoken_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
)

// The model: five replicas that issue, verify and publish with one shared
// store, and two verifiers elsewhere, over simulated months in which the store
// is slow, fails, applies writes that it reports as failed, and is cut off from
// single replicas; replicas crash and start again; keys are rotated and revoked
// by hand. Clocks that differ are modelled in keys/schedule_internal_test.go,
// since all of this runs by one.
const (
	modelReplicas = 5
	modelClients  = 2

	modelSync    = 20 * time.Minute
	modelStale   = 2 * time.Hour
	modelRefresh = 10 * time.Minute // of the clients
	modelTTL     = time.Hour
	modelIdle    = 2 * time.Hour
)

func modelRing(store keys.Store) keys.RingConfig {
	return keys.RingConfig{
		Store: store, InsecureUnsealed: true, Algorithm: keys.EdDSA,
		RotateEvery: 8 * time.Hour, PublishBefore: 6 * time.Hour, RetainFor: 3 * time.Hour,
		SyncEvery: modelSync, MaxStale: modelStale, ClientRefresh: time.Hour, MaxSkew: time.Minute,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// modelDocument is what the model looks at in the stored document.
type modelDocument struct {
	Keys []struct {
		JWK struct {
			Kid string `json:"kid"`
		} `json:"jwk"`
		Private    []byte    `json:"private"`
		SignsFrom  time.Time `json:"signs_from"`
		SignsUntil time.Time `json:"signs_until"`
	} `json:"keys"`
}

// modelStore is the shared store, and what it knows of the keys' history.
type modelStore struct {
	mu        sync.Mutex
	doc       []byte
	rev       int
	firstSeen map[string]time.Time
	lostRaces int
	writes    int
}

// link is a replica's way to the store.
type link struct {
	*modelStore
	rng   *rand.Rand
	mu2   sync.Mutex
	cut   atomic.Bool
	flaky float64
}

var errLink = errors.New("the store does not answer")

func (l *link) chance(p float64) bool {
	l.mu2.Lock()
	defer l.mu2.Unlock()
	return l.rng.Float64() < p
}

func (l *link) wait(ctx context.Context) error {
	l.mu2.Lock()
	d := time.Duration(l.rng.Int64N(int64(2 * time.Second)))
	if l.rng.Float64() < 0.01 {
		d = 15 * time.Second // longer than a ring waits
	}
	l.mu2.Unlock()
	if l.cut.Load() {
		d = time.Hour // a black hole
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (l *link) Load(ctx context.Context, _ string) (keys.Stored, error) {
	if err := l.wait(ctx); err != nil {
		return keys.Stored{}, err
	}
	if l.chance(l.flaky) {
		return keys.Stored{}, errLink
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doc == nil {
		return keys.Stored{Time: time.Now()}, nil
	}
	return keys.Stored{Doc: append([]byte(nil), l.doc...), Rev: strconv.Itoa(l.rev), Time: time.Now()}, nil
}

func (l *link) Save(ctx context.Context, _ string, doc []byte, rev string) (string, error) {
	if err := l.wait(ctx); err != nil {
		return "", err
	}
	if l.chance(l.flaky) {
		return "", errLink // not applied
	}
	newRev, err := l.swap(doc, rev)
	if err == nil && l.chance(l.flaky) {
		return "", errLink // applied
	}
	return newRev, err
}

func (s *modelStore) swap(doc []byte, rev string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doc == nil && rev != "" || s.doc != nil && rev != strconv.Itoa(s.rev) {
		s.lostRaces++
		return "", keys.ErrConflict
	}
	s.doc = append([]byte(nil), doc...)
	s.rev++
	s.writes++
	for _, k := range s.parsed().Keys {
		if _, ok := s.firstSeen[k.JWK.Kid]; !ok {
			s.firstSeen[k.JWK.Kid] = time.Now()
		}
	}
	return strconv.Itoa(s.rev), nil
}

func (s *modelStore) seen(kid string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.firstSeen[kid]
	return t, ok
}

func (s *modelStore) counts() (writes, lostRaces int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes, s.lostRaces
}

func (s *modelStore) parsed() (d modelDocument) {
	if err := json.Unmarshal(s.doc, &d); err != nil {
		panic("the stored document is not JSON")
	}
	return d
}

type modelReplica struct {
	link     *link
	ring     *keys.Ring
	issuer   *sessiontoken.Issuer[attackState]
	verifier *sessiontoken.Verifier[attackState]
	handler  http.Handler
	crash    context.CancelFunc
	done     chan struct{}
	cutSince time.Time
	backAt   time.Time
}

type modelToken struct {
	text, kid string
	expires   time.Time
	renewable time.Time
}

type model struct {
	t         *testing.T
	rng       *rand.Rand
	store     *modelStore
	mu        sync.Mutex      // of replicas, which the clients' fetches read
	replicas  []*modelReplica // nil: crashed
	links     []*link
	down      []time.Time // when a crashed one starts again
	clients   []*sessiontoken.Verifier[attackState]
	tokens    []modelToken
	emergency map[string]time.Time // keys that signed without having been published
	revoked   map[string]time.Time
	signed    map[string]bool // keys that ever signed
	unserved  time.Time       // when a client's fetch failed last; under mu

	issued, verified, renewed, excused, revocations, rotations int
}

func TestRotationModel(t *testing.T) {
	seeds, days := 4, 92
	if raced || !isLong() {
		seeds, days = 2, 4
	}
	var total, lostRaces, revocations atomic.Int64
	t.Cleanup(func() {
		if !raced && isLong() && !t.Failed() { // long enough for the rare to happen
			require.GreaterOrEqual(t, total.Load(), int64(1000), "rotations over all seeds")
			require.NotZero(t, lostRaces.Load())
			require.NotZero(t, revocations.Load())
		}
	})
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, uint64(seed))
				m.run(time.Duration(days) * 24 * time.Hour)
				m.stop()
				total.Add(int64(len(m.signed)))
				writes, lost := m.store.counts()
				lostRaces.Add(int64(lost))
				revocations.Add(int64(m.revocations))
				t.Logf("%d days: %d keys signed, %d rotated and %d revoked by hand, %d writes, %d lost races; %d tokens issued, %d renewed, %d verifications, %d excused",
					days, len(m.signed), m.rotations, m.revocations, writes, lost, m.issued, m.renewed, m.verified, m.excused)
				require.NotZero(t, m.renewed)
				if days > 30 {
					require.Greater(t, m.verified, 50*m.excused, "the model excuses too much")
				}
			})
		})
	}
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)),
		store:     &modelStore{firstSeen: map[string]time.Time{}},
		replicas:  make([]*modelReplica, modelReplicas),
		down:      make([]time.Time, modelReplicas),
		emergency: map[string]time.Time{}, revoked: map[string]time.Time{}, signed: map[string]bool{},
	}
	for i := range modelReplicas {
		m.links = append(m.links, &link{modelStore: m.store, rng: rand.New(rand.NewPCG(seed, uint64(i)+2)), flaky: 0.02})
	}
	for i := range m.replicas { // all at once, with an empty store
		m.start(i)
	}
	for range modelClients {
		source, err := remote.NewKeys(remote.KeysConfig{
			URL: "https://auth.example/.well-known/jwks.json", Client: &http.Client{Transport: m}, RefreshEvery: modelRefresh,
			Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		v, err := sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{Issuer: "https://issuer.example", Audience: "api", Keys: source})
		require.NoError(t, err)
		m.clients = append(m.clients, v)
	}
	time.Sleep(10 * time.Minute)
	for _, k := range m.replicas[0].ring.Status().Keys {
		if k.Phase == "current" {
			m.emergency[k.KeyID] = time.Now() // the very first key
		}
	}
	return m
}

func (m *model) start(i int) {
	r := &modelReplica{link: m.links[i], done: make(chan struct{})}
	var err error
	r.ring, err = keys.NewRing(modelRing(r.link))
	require.NoError(m.t, err)
	r.issuer, err = sessiontoken.NewIssuer[attackState](sessiontoken.IssuerConfig{
		Issuer: "https://issuer.example", Audience: []string{"api"}, Keys: r.ring, TTL: modelTTL, IdleTimeout: modelIdle,
	})
	require.NoError(m.t, err)
	r.verifier, err = sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{Issuer: "https://issuer.example", Audience: "api", Keys: r.ring})
	require.NoError(m.t, err)
	r.handler, err = sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: r.ring})
	require.NoError(m.t, err)
	ctx, cancel := context.WithCancel(m.t.Context())
	r.crash = cancel
	go func() {
		defer close(r.done)
		_ = r.ring.Run(ctx)
	}()
	m.set(i, r)
}

// set puts a replica into its place, or takes it out.
func (m *model) set(i int, r *modelReplica) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replicas[i] = r
}

func (m *model) stop() {
	for _, r := range m.replicas {
		if r != nil {
			r.link.cut.Store(false)
			r.crash()
			<-r.done
		}
	}
	time.Sleep(time.Hour) // runs under way end
}

// RoundTrip is the load balancer in front of the replicas' JWKS endpoints.
func (m *model) RoundTrip(req *http.Request) (*http.Response, error) {
	var up []*modelReplica
	m.mu.Lock()
	for _, r := range m.replicas {
		if r != nil {
			up = append(up, r)
		}
	}
	m.mu.Unlock()
	if len(up) == 0 || m.links[0].chance(0.02) {
		m.failed()
		return nil, errLink
	}
	m.links[0].mu2.Lock()
	r := up[m.links[0].rng.IntN(len(up))]
	m.links[0].mu2.Unlock()
	in := req.Clone(req.Context())
	in.TLS = &tls.ConnectionState{}
	rec := httptest.NewRecorder()
	r.handler.ServeHTTP(rec, in)
	if rec.Code != http.StatusOK {
		m.failed()
	}
	return rec.Result(), nil
}

func (m *model) failed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unserved = time.Now()
}

// fetchFailed reports whether a client's fetch failed, no longer ago than that.
func (m *model) fetchFailed(within time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.unserved.IsZero() && time.Since(m.unserved) < within
}

func (m *model) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(m.rng.Int64N(int64(40 * time.Minute))))
		m.happen()
		m.issue()
		m.renew()
		m.check()
	}
}

// happen is what befalls the replicas.
func (m *model) happen() {
	now := time.Now()
	for i, r := range m.replicas {
		switch {
		case r == nil:
			if now.After(m.down[i]) {
				m.start(i)
				time.Sleep(time.Minute)
			}
		case !r.cutSince.IsZero():
			if now.After(r.backAt) {
				r.link.cut.Store(false)
				r.cutSince, r.backAt = time.Time{}, now.Add(2*modelSync) // some time to catch up
			}
		case i > 1 && m.rng.Float64() < 0.01: // up to twice MaxStale
			r.cutSince, r.backAt = now, now.Add(time.Duration(m.rng.Int64N(int64(2*modelStale))))
			r.link.cut.Store(true)
		case i > 0 && m.rng.Float64() < 0.01:
			r.crash()
			<-r.done
			m.set(i, nil)
			m.down[i] = now.Add(time.Duration(m.rng.Int64N(int64(3 * time.Hour))))
		}
	}
	healthy := m.replicas[0]
	if m.rng.Float64() < 0.005 {
		if _, err := healthy.ring.Rotate(m.t.Context()); err == nil {
			m.rotations++
		}
	}
	if m.rng.Float64() < 0.003 {
		m.revoke(healthy)
	}
}

func (m *model) revoke(r *modelReplica) {
	list := r.ring.Status().Keys
	if len(list) == 0 {
		return
	}
	victim := list[m.rng.IntN(len(list))]
	before := map[string]bool{}
	for _, k := range list {
		before[k.KeyID] = true
	}
	err := r.ring.Revoke(m.t.Context(), victim.KeyID)
	for tries := 0; err != nil && !errors.Is(err, keys.ErrUnknownKey) && tries < 50; tries++ {
		time.Sleep(30 * time.Second) // it may have been applied: repeating is safe
		err = r.ring.Revoke(m.t.Context(), victim.KeyID)
	}
	if errors.Is(err, keys.ErrUnknownKey) {
		require.Equal(m.t, "retired", victim.Phase, "its time was over before it could be revoked")
		return
	}
	require.NoError(m.t, err)
	m.revocations++
	m.revoked[victim.KeyID] = time.Now()
	for _, k := range r.ring.Status().Keys {
		if k.Phase == "current" && !before[k.KeyID] {
			m.emergency[k.KeyID] = time.Now()
		}
	}
	_, err = r.verifier.Verify(m.t.Context(), m.tokenOf(victim.KeyID))
	require.Error(m.t, err)
}

// tokenOf is a token of a key, or no token at all.
func (m *model) tokenOf(kid string) string {
	for _, x := range m.tokens {
		if x.kid == kid {
			return x.text
		}
	}
	return ""
}

func kidOf(t *testing.T, token string) string {
	raw, err := jws.Decode(token[:strings.IndexByte(token, '.')])
	require.NoError(t, err)
	h, err := jws.ParseHeader(raw)
	require.NoError(t, err)
	return h.KeyID
}

// inStep reports whether a replica has to work without an excuse.
func (r *modelReplica) inStep() bool {
	return r.cutSince.IsZero() && time.Now().After(r.backAt) && time.Since(r.ring.Status().Synced) < modelStale
}

func (m *model) issue() {
	i := m.rng.IntN(modelReplicas)
	r := m.replicas[i]
	if r == nil {
		return
	}
	token, claims, err := r.issuer.Issue(m.t.Context(), "user-1", attackState{Name: "Ada"})
	if err != nil {
		require.False(m.t, r.inStep(), "replica %d cannot issue: %v", i, err)
		m.excused++
		return
	}
	m.record(token, claims)
}

func (m *model) record(token string, claims *sessiontoken.Claims[attackState]) {
	kid := kidOf(m.t, token)
	m.issued++
	if !m.signed[kid] {
		m.signed[kid] = true
		seen, ok := m.store.seen(kid)
		require.True(m.t, ok, "a key signed that was never stored")
		if _, ok := m.emergency[kid]; !ok {
			if _, ok := m.revoked[kid]; !ok {
				require.GreaterOrEqual(m.t, time.Since(seen), 6*time.Hour-modelSync, "a key signed too early")
			}
		}
	}
	m.tokens = append(m.tokens, modelToken{token, kid, claims.Expires, claims.IssuedAt.Add(modelIdle)})
}

// renew exchanges a token that may have expired, on any replica in step.
func (m *model) renew() {
	if len(m.tokens) == 0 {
		return
	}
	x := m.tokens[m.rng.IntN(len(m.tokens))]
	r := m.replicas[m.rng.IntN(modelReplicas)]
	if r == nil || !r.inStep() || !time.Now().Before(x.renewable) {
		return
	}
	if _, gone := m.revoked[x.kid]; gone {
		return
	}
	token, claims, err := r.issuer.Renew(m.t.Context(), x.text, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
		return attackState{Name: "Ada"}, nil
	})
	if !time.Now().Before(x.renewable) {
		return // waiting for a key took that long
	}
	if err != nil && (m.fresh(x.kid, modelStale) && !errors.Is(err, sessiontoken.ErrInvalid) || m.fresh(x.kid, time.Minute)) {
		m.excused++
		return
	}
	require.NoError(m.t, err)
	m.renewed++
	m.record(token, claims)
}

// fresh reports whether a key came into use unpublished, no longer ago than that.
func (m *model) fresh(kid string, within time.Duration) bool {
	at, ok := m.emergency[kid]
	return ok && time.Since(at) < within
}

func (m *model) check() {
	now := time.Now()
	kept := m.tokens[:0]
	for _, x := range m.tokens {
		if now.Before(x.renewable) {
			kept = append(kept, x)
		}
	}
	m.tokens = kept
	for _, x := range m.tokens {
		if !now.Before(x.expires) {
			continue
		}
		revokedAt, gone := m.revoked[x.kid]
		for i, r := range m.replicas {
			if r == nil {
				continue
			}
			_, err := r.verifier.Verify(m.t.Context(), x.text)
			if !time.Now().Before(x.expires) {
				break // waiting for a key took that long
			}
			m.verified++
			switch {
			case gone && err == nil:
				require.False(m.t, r.ring.Status().Synced.After(revokedAt), "replica %d has read the store since, and takes a revoked key", i)
				require.Less(m.t, time.Since(revokedAt), modelStale, "replica %d takes a revoked key", i)
				if r.ring.Status().Err == nil {
					require.Less(m.t, time.Since(revokedAt), modelSync, "replica %d takes a revoked key, and the store does not fail", i)
				}
			case gone || err == nil:
			case m.fresh(x.kid, time.Minute) && errors.Is(err, sessiontoken.ErrInvalid):
				// It read the store in the second before the key was made.
				m.excused++
			case errors.Is(err, sessiontoken.ErrInvalid):
				seen, _ := m.store.seen(x.kid)
				require.NoError(m.t, err, "replica %d refuses a good token of key %s, published %v ago, emergency %v", i, x.kid, time.Since(seen), m.emergency[x.kid])
			default: // it says that it cannot tell
				require.True(m.t, !r.inStep() || m.fresh(x.kid, modelStale), "replica %d is in step: %v", i, err)
				m.excused++
			}
		}
		for i, v := range m.clients {
			_, err := v.Verify(m.t.Context(), x.text)
			if !time.Now().Before(x.expires) {
				break
			}
			m.verified++
			switch {
			case gone && err == nil:
				// A client may be given the key set of a replica that is cut off; it
				// goes on with what it has while fetches fail.
				if m.fetchFailed(modelRefresh) {
					m.excused++
					break
				}
				require.Less(m.t, time.Since(revokedAt), modelStale+modelRefresh, "client %d takes a revoked key", i)
			case gone || err == nil:
			case m.fresh(x.kid, modelStale+modelRefresh):
				m.excused++
			default:
				require.NoError(m.t, err, "client %d refuses a good token", i)
			}
		}
	}
	m.checkDocument()
}

func (m *model) checkDocument() {
	m.store.mu.Lock()
	doc := m.store.parsed()
	m.store.mu.Unlock()
	now, current := time.Now(), 0
	for _, k := range doc.Keys {
		if !now.Before(k.SignsFrom) && now.Before(k.SignsUntil) {
			current++
			require.NotEmpty(m.t, k.Private)
		}
		if now.Sub(k.SignsUntil) > time.Minute+3*modelSync {
			require.Empty(m.t, k.Private, "a retired key has its private half")
		}
	}
	require.Equal(m.t, 1, current, "keys that are current")
}
