//go:build unix

package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Main is what a TestMain calls first: in a process of these tests, it does what
// the test asks for, with the store that open returns for its place, and returns
// true when that is over.
func Main(open func(place string) (Store, error)) bool {
	encoded, ok := os.LookupEnv(variable)
	if !ok {
		return false
	}
	var r Role
	if err := json.Unmarshal([]byte(encoded), &r); err != nil {
		panic(err)
	}
	w, err := newWorker(r, open)
	if err != nil {
		panic(err)
	}
	w.serve()
	return true
}

// state is what tokens carry here.
type state struct {
	Name string
	Role int
}

const (
	issuerName = "https://auth.example"
	audience   = "api"
	clientID   = "app"
)

type worker struct {
	issuer   *sessiontoken.Issuer[state]
	verifier *sessiontoken.Verifier[state]
	list     *revoke.List
	ring     *keys.Ring
	manager  *refresh.Manager
	store    Store
	site     *site  // if the role is to serve one
	holder   holder // of live connections
	jobs     *jobs  // if it acts for users at a provider
	url      string // of its JWKS
	out      *json.Encoder
	outMu    sync.Mutex
}

func newWorker(r Role, open func(place string) (Store, error)) (*worker, error) {
	w := &worker{out: json.NewEncoder(os.Stdout)}
	if r.Follows != "" && r.Listens == "" {
		return w, newFollower(w, r)
	}
	store, err := open(r.Place)
	if err != nil {
		return nil, err
	}
	w.store = store
	if r.Grants != "" {
		w.jobs, err = newJobs(r.Grants, store)
		return w, err
	}
	if r.Listens != "" {
		return w, newAuthority(w, r, store)
	}
	ctx := context.Background()
	if w.list, err = revoke.NewList(revoke.Config{Store: store, SyncEvery: r.SyncEvery, MaxStale: r.MaxStale, Logger: quiet}); err != nil {
		return nil, err
	}
	go w.list.Run(ctx)
	if w.ring, err = keys.NewRing(ringConfig(r, store)); err != nil {
		return nil, err
	}
	var source sessiontoken.KeySource = w.ring
	if r.KeysFrom != "" {
		fetched, err := remote.NewKeys(remote.KeysConfig{URL: r.KeysFrom, RefreshEvery: 2 * time.Second, MaxStale: 10 * time.Second, Logger: quiet})
		if err != nil {
			return nil, err
		}
		go fetched.Run(ctx)
		source = fetched
	} else {
		go w.ring.Run(ctx)
	}
	if w.verifier, err = sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: issuerName, Audience: audience, Keys: source, Revocations: w.list}); err != nil {
		return nil, err
	}
	if r.Verifies {
		return w, nil
	}
	cfg := sessiontoken.IssuerConfig{Issuer: issuerName, Audience: []string{audience}, Keys: w.ring, TTL: r.TTL, Revocations: w.list}
	if r.Rotates {
		cfg.IdleTimeout = 20 * time.Second
	}
	if w.issuer, err = sessiontoken.NewIssuer[state](cfg); err != nil {
		return nil, err
	}
	w.manager, err = refresh.NewManager(refresh.Config{Store: store, Secrets: [][]byte{bytes.Repeat([]byte{1}, 32)}, Revocations: w.list, Logger: quiet})
	if err != nil {
		return nil, err
	}
	if r.Serves != "" {
		if err := w.serveSite(r.Serves); err != nil {
			return nil, err
		}
	}
	return w, w.publish(w.ring)
}

// ringConfig is that of a ring that rotates every 10 s, with all other times as
// short as that asks for.
func ringConfig(r Role, store keys.Store) keys.RingConfig {
	cfg := keys.RingConfig{Store: keys.Sealed(store, aead()), Logger: quiet}
	if r.Verifies {
		cfg.Store, cfg.VerifyOnly = store, true
	}
	if r.Rotates {
		cfg.RotateEvery, cfg.PublishBefore, cfg.RetainFor = 10*time.Second, 8*time.Second, 90*time.Second
		cfg.SyncEvery, cfg.MaxStale = 500*time.Millisecond, 3*time.Second
		cfg.ClientRefresh, cfg.MaxSkew = 2*time.Second, time.Second
	}
	return cfg
}

func (w *worker) publish(ring *keys.Ring) error {
	h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring, MaxAge: min(ring.MaxAge().Truncate(time.Second), 10*time.Minute)})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.url = "http://" + l.Addr().String() + "/.well-known/jwks.json"
	go http.Serve(l, h)
	return nil
}

// serve does what comes as lines, all at once, until there are no more.
func (w *worker) serve() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			panic(err)
		}
		go func() {
			a, err := w.do(r)
			if a.ID = r.ID; err != nil {
				a.Error = err.Error()
			}
			w.outMu.Lock()
			defer w.outMu.Unlock()
			if err := w.out.Encode(a); err != nil {
				os.Exit(1) // the test is gone
			}
		}()
	}
}

func (w *worker) do(r request) (a answer, err error) {
	if w.jobs != nil {
		return w.jobs.do(r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	switch r.Op {
	case "issue":
		var c *sessiontoken.Claims[state]
		if a.Token, c, err = w.issuer.Issue(ctx, r.Subject, state{Name: "Ada"}); err == nil {
			a.Sess, a.Subject = c.SessionID, c.Subject
		}
	case "renew":
		a.Token, _, err = w.issuer.Renew(ctx, r.Token, func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{Name: "Ada"}, nil })
		a.Verdict, err = verdictOf(err), nil
	case "revoke":
		err = w.list.RevokeSession(ctx, r.Sess)
		a.At = time.Now().UnixNano()
	case "revokeSubject":
		err = w.list.RevokeSubject(ctx, r.Subject)
		a.At = time.Now().UnixNano()
	case "revokeOthers":
		err = w.list.RevokeOthers(ctx, r.Subject, r.Sess)
		a.At = time.Now().UnixNano()
	case "revokeKey":
		err = w.list.RevokeKey(ctx, r.Key, time.Time{})
	case "revokeInRing":
		err = w.ring.Revoke(ctx, r.Key)
	case "verify":
		a.Verdict = w.verify(r.Token)
	case "watch":
		for begin := time.Now(); a.Verdict != "revoked"; a.Verdict = w.verify(r.Token) {
			if time.Since(begin) > 10*time.Second {
				return a, errors.New("it never came")
			}
			time.Sleep(100 * time.Microsecond)
		}
		a.At = time.Now().UnixNano()
	case "start":
		var began time.Time
		if began, err = w.list.Begin(ctx, revoke.Question{Subject: r.Subject}); err == nil {
			a.Token, _, err = w.manager.Start(ctx, refresh.Family{Subject: r.Subject, SessionID: r.Sess, Began: began, AuthTime: began}, "")
		}
	case "exchange":
		a.Token, _, err = w.manager.Exchange(ctx, refresh.Presented{Token: r.Token}, func(context.Context, refresh.Family) error { return nil })
	case "changed":
		err = w.list.Changed(ctx, r.Subject)
		a.At = time.Now().UnixNano()
	case "promote":
		err = w.site.promote(ctx, r.Subject, r.Role)
		a.At = time.Now().UnixNano()
	case "roundTrip":
		a.Took, err = w.roundTrip(ctx)
	case "status":
		a.Stale = w.list.Status().Err != nil
		a.URL, a.Goroutines = w.url, runtime.NumGoroutine()
		if w.site != nil {
			a.Site, a.Loads = w.site.url, w.site.loads.Load()
		}
		a.Rotations = int(w.ring.Metrics()["ring_rotations_total"])
	default:
		return w.doLive(r)
	}
	return a, err
}

// roundTrip returns the median time of 50 readings of a small row.
func (w *worker) roundTrip(ctx context.Context) (time.Duration, error) {
	var took [50]time.Duration
	for i := range took {
		begin := time.Now()
		if _, err := w.store.Load(ctx, "none"); err != nil {
			return 0, err
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took[:])
	return took[len(took)/2], nil
}

func (w *worker) verify(token string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := w.verifier.Verify(ctx, token)
	return verdictOf(err)
}

// verdictOf is "ok", "revoked", "changed", "expired", "undecided" (503), or "invalid" with the
// reason.
func verdictOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, sessiontoken.ErrRevoked):
		return "revoked"
	case errors.Is(err, sessiontoken.ErrChanged):
		return "changed"
	case errors.Is(err, sessiontoken.ErrExpired):
		return "expired"
	case errors.Is(err, sessiontoken.ErrInvalid):
		return "invalid: " + err.Error()
	}
	return "undecided"
}
