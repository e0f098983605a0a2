package sessionhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// fleet is a number of machines, each with a clock of its own, that share one
// store whose clock is right.
type fleet struct {
	ring     keys.MemStore
	log      revoke.MemStore
	families refresh.MemStore
	machines []*machine
}

// machine is a replica. Its clock is ahead of the store's, or behind.
type machine struct {
	clock    *clock.Clock
	ahead    time.Duration
	sessions *sessionhttp.Sessions[string]
	list     *revoke.List
	keys     *keys.Ring
	saves    atomic.Int64 // changes of the key ring that it made
	mux      *http.ServeMux
	refused  atomic.Pointer[error] // the last reason
}

// newFleet returns a fleet without machines. At the test's end its machines stop,
// and what is on its way to the store arrives.
func newFleet(t *testing.T) *fleet {
	t.Cleanup(func() { time.Sleep(time.Minute) })
	return new(fleet)
}

// way is the way to the store: a few milliseconds, both ways.
func way() { time.Sleep(time.Duration(1+rand.IntN(10)) * time.Millisecond) }

type fleetRing struct {
	store *keys.MemStore
	saves *atomic.Int64
}

func (s fleetRing) Load(ctx context.Context, name string) (keys.Stored, error) {
	way()
	stored, err := s.store.Load(ctx, name)
	stored.Time = time.Now().UTC()
	way()
	return stored, err
}

func (s fleetRing) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	way()
	next, err := s.store.Save(ctx, name, doc, rev)
	if err == nil {
		s.saves.Add(1)
	}
	way()
	return next, err
}

type fleetLog struct{ store *revoke.MemStore }

func (s fleetLog) Append(ctx context.Context, entries ...revoke.Entry) error {
	way()
	err := s.store.Append(ctx, entries...)
	way()
	return err
}

func (s fleetLog) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	way()
	page, err := s.store.Since(ctx, cursor)
	page.Time = time.Now().UTC()
	way()
	return page, err
}

func (fleetLog) Wait(context.Context, string) error { return errors.ErrUnsupported }

// The times of the fleet: a key signs for half a day.
const (
	fleetIssuer   = "https://a.example"
	fleetDay      = 24 * time.Hour
	fleetRotation = 12 * time.Hour
	fleetBound    = 2 * time.Minute // by when a sign-out is known
)

func (f *fleet) start(t *testing.T, ahead time.Duration) *machine {
	t.Helper()
	m := &machine{clock: new(clock.Clock), ahead: ahead}
	m.clock.SetAhead(ahead)
	quiet := slog.New(slog.DiscardHandler)
	clock.As(m.clock, func() {
		var err error
		m.list, err = revoke.NewList(revoke.Config{Store: fleetLog{&f.log}, MaxSession: fleetDay, SyncEvery: 30 * time.Second, MaxStale: 5 * time.Minute, Logger: quiet})
		require.NoError(t, err)
		m.keys, err = keys.NewRing(keys.RingConfig{
			Store: fleetRing{&f.ring, &m.saves}, InsecureUnsealed: true, Revoked: m.list.KeyRevoked,
			RotateEvery: fleetRotation, PublishBefore: 4 * time.Hour, SyncEvery: 10 * time.Minute, MaxStale: time.Hour, ClientRefresh: time.Hour, Logger: quiet,
		})
		require.NoError(t, err)
		verifier, err := sessiontoken.NewVerifier[string](sessiontoken.VerifierConfig{Issuer: fleetIssuer, Audience: "web", Keys: m.keys, Revocations: m.list})
		require.NoError(t, err)
		issuer, err := sessiontoken.NewIssuer[string](sessiontoken.IssuerConfig{Issuer: fleetIssuer, Audience: []string{"web"}, Keys: m.keys, Revocations: m.list})
		require.NoError(t, err)
		manager, err := refresh.NewManager(refresh.Config{Store: &f.families, Secrets: [][]byte{bytes.Repeat([]byte{7}, 32)}, Revocations: m.list, IdleTimeout: 6 * time.Hour, Logger: quiet})
		require.NoError(t, err)
		m.sessions, err = sessionhttp.New(sessionhttp.Config[string]{
			Verifier: verifier, Issuer: issuer, Revocations: m.list, Refresh: manager, Logger: quiet,
			OnRefused: func(_ *http.Request, err error) { m.refused.Store(&err) },
			Load: func(_ context.Context, old *sessiontoken.Claims[string]) (string, error) {
				return "of " + old.Subject, nil
			},
		})
		require.NoError(t, err)
	})
	m.mux = http.NewServeMux()
	m.mux.Handle("GET /who", m.sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := m.sessions.FromContext(r.Context())
		_, _ = fmt.Fprint(w, c.Subject)
	})))
	m.mux.HandleFunc("POST /in/{user}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := m.sessions.SignIn(w, r, sessiontoken.Start{Subject: r.PathValue("user")}, ""); err != nil {
			m.sessions.Refuse(w, r, err)
		}
	})
	m.mux.HandleFunc("POST /native/{user}", func(w http.ResponseWriter, r *http.Request) {
		tokens, err := m.sessions.SignInNative(r, sessionhttp.Device{ClientID: "app"}, sessiontoken.Start{Subject: r.PathValue("user")}, "")
		if err != nil {
			m.sessions.Refuse(w, r, err)
			return
		}
		_ = json.NewEncoder(w).Encode(tokens)
	})
	m.mux.Handle("POST /token", m.sessions.RefreshHandler())
	for _, tt := range []struct {
		path string
		out  func(http.ResponseWriter, *http.Request) error
	}{
		{"/out", m.sessions.SignOut}, {"/others", m.sessions.SignOutOthers}, {"/everywhere", m.sessions.SignOutEverywhere},
	} {
		m.mux.HandleFunc("POST "+tt.path, func(w http.ResponseWriter, r *http.Request) {
			if err := tt.out(w, r); err != nil {
				m.sessions.Refuse(w, r, err)
			}
		})
	}
	go func() { _ = m.list.Run(t.Context()) }()
	go func() { _ = m.keys.Run(t.Context()) }()
	f.machines = append(f.machines, m)
	return m
}

// device is a browser (cookie) or a native client (access and refresh).
type device struct {
	user            string
	cookie          string
	access, refresh string
	began           time.Time
}

// gone is a device whose session was revoked, with the moment of the answer.
type gone struct {
	device
	at time.Time
}

func (m *machine) do(method, path, body string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "https://a.example"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	m.mux.ServeHTTP(w, r)
	return w.Result()
}

// why is the last reason for which the machine refused a request.
func (m *machine) why() error {
	if err := m.refused.Load(); err != nil {
		return *err
	}
	return nil
}

// visit asks who the device is, as browsers and native clients do, and returns
// the last status.
func (m *machine) visit(d *device) int {
	if d.cookie != "" {
		resp := m.do("GET", "/who", "", "Cookie", "__Host-session="+d.cookie)
		for _, c := range resp.Cookies() {
			if c.Name == "__Host-session" && c.MaxAge >= 0 {
				d.cookie = c.Value
			}
		}
		return resp.StatusCode
	}
	resp := m.do("POST", "/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {d.refresh}}.Encode())
	if resp.StatusCode != 200 {
		return resp.StatusCode
	}
	var tokens sessionhttp.Tokens
	if json.NewDecoder(resp.Body).Decode(&tokens) != nil {
		return 0
	}
	d.access, d.refresh = tokens.AccessToken, tokens.RefreshToken
	return m.do("GET", "/who", "", "Authorization", "Bearer "+d.access).StatusCode
}

// leave signs the device out by a path.
func (m *machine) leave(d *device, path string) int {
	if d.cookie != "" {
		return m.do("POST", path, "", "Cookie", "__Host-session="+d.cookie).StatusCode
	}
	return m.do("POST", path, "", "Authorization", "Bearer "+d.access).StatusCode
}

func (m *machine) enter(t *testing.T, user string, native bool) *device {
	t.Helper()
	if native {
		resp := m.do("POST", "/native/"+user, "")
		require.Equal(t, 200, resp.StatusCode, "a native sign-in at a machine that is %v ahead: %v", m.ahead, m.why())
		var tokens sessionhttp.Tokens
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&tokens))
		return &device{user: user, began: time.Now(), access: tokens.AccessToken, refresh: tokens.RefreshToken}
	}
	resp := m.do("POST", "/in/"+user, "")
	require.Equal(t, 200, resp.StatusCode, "a sign-in at a machine that is %v ahead: %v", m.ahead, m.why())
	for _, c := range resp.Cookies() {
		if c.Name == "__Host-session" {
			return &device{user: user, began: time.Now(), cookie: c.Value}
		}
	}
	require.Fail(t, "no cookie")
	return nil
}

// fleetLife is how long a fleet lives: a day or a month, if there is the time.
func fleetLife() time.Duration {
	switch {
	case os.Getenv("SESSIONTOKEN_FULL") != "":
		return 30 * fleetDay
	case os.Getenv("SESSIONTOKEN_LONG") != "":
		return fleetDay
	}
	return 6 * time.Hour
}

// TestClocksThatDiffer: machines whose clocks differ by a minute, and one whose
// clock is wrong by days, serve the same users for days: nobody who may be there
// is refused, nothing that was revoked is accepted past the bound, and the wrong
// machine changes no key.
func TestClocksThatDiffer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wrong time.Duration
	}{
		{"one is 32 days ahead", 32 * fleetDay},
		{"one is a day behind", -fleetDay},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				for _, ahead := range []time.Duration{-time.Minute, -10 * time.Second, 0, time.Minute, tt.wrong} {
					f.start(t, ahead)
				}
				f.live(t, fleetLife())
				require.Zero(t, f.machines[4].saves.Load(), "the wrong machine changed the keys")
				rotations := int64(0)
				for _, m := range f.machines {
					rotations += m.saves.Load()
				}
				require.GreaterOrEqual(t, rotations, max(1, 2*int64(fleetLife()/fleetDay)), "the first key, and rotations")
			})
		})
	}
}

// TestClocksThatJump: the wall clocks of two of three machines jump by days, forth and
// back, and that moves nothing.
func TestClocksThatJump(t *testing.T) {
	if os.Getenv("SESSIONTOKEN_LONG") == "" && os.Getenv("SESSIONTOKEN_FULL") == "" {
		t.Skip("it takes long; SESSIONTOKEN_LONG=1 runs it")
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for range 3 {
			f.start(t, 0)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for ctx.Err() == nil {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(rand.Int64N(int64(2 * time.Hour)))):
				}
				f.machines[1+rand.IntN(2)].clock.SetAhead(time.Duration(rand.Int64N(int64(64*fleetDay))) - 32*fleetDay)
			}
		}()
		f.live(t, fleetLife())
	})
}

// live lets users come, stay and go, at any machine each time.
func (f *fleet) live(t *testing.T, long time.Duration) {
	t.Helper()
	// The first key is made by a machine whose clock is right; the others have read
	// it after a pause.
	time.Sleep(3 * time.Second)
	any := func() *machine { return f.machines[rand.IntN(len(f.machines))] }
	here := map[string][]*device{}
	var left []gone
	began := time.Now()
	sessions, outs := 0, 0
	for time.Since(began) < long {
		for u := range 6 {
			user := fmt.Sprint("user-", u)
			if len(here[user]) == 0 || rand.IntN(20) == 0 && len(here[user]) < 4 {
				here[user] = append(here[user], any().enter(t, user, rand.IntN(2) == 0))
				sessions++
			}
			for i, d := range here[user] {
				m := any()
				code := m.visit(d)
				if code == 401 || code == 400 { // its absolute end, and nothing else
					require.GreaterOrEqual(t, time.Since(d.began), fleetDay-time.Second, "user %s is refused with %d at a machine that is %v ahead", user, code, m.ahead)
					here[user] = append(here[user][:i:i], here[user][i+1:]...)
					break
				}
				require.Equal(t, 200, code, "at a machine that is %v ahead: %v", m.ahead, m.why())
			}
			if n := len(here[user]); n > 0 && rand.IntN(12) == 0 {
				i := rand.IntN(n)
				d, m := here[user][i], any()
				var ends []*device
				path := []string{"/out", "/others", "/everywhere"}[rand.IntN(3)]
				switch path {
				case "/out":
					ends = []*device{d}
					here[user] = append(here[user][:i:i], here[user][i+1:]...)
				case "/others":
					ends = append(here[user][:i:i], here[user][i+1:]...)
					here[user] = []*device{d}
				case "/everywhere":
					ends, here[user] = here[user], nil
				}
				code := m.leave(d, path)
				require.Equal(t, 200, code, "%s at a machine that is %v ahead", path, m.ahead)
				outs++
				for _, e := range ends {
					left = append(left, gone{*e, time.Now()})
				}
				if path == "/everywhere" { // and back at once, at another machine
					here[user] = append(here[user], any().enter(t, user, false))
				}
			}
		}
		time.Sleep(4*time.Minute + time.Duration(rand.Int64N(int64(time.Minute))))
		for i := 0; i < len(left); i++ {
			g := &left[i]
			if time.Since(g.at) < fleetBound {
				continue
			}
			m, d := any(), g.device
			code := m.visit(&d)
			require.Contains(t, []int{400, 401}, code, "revoked, and accepted by a machine that is %v ahead", m.ahead)
			if time.Since(g.at) > 8*time.Hour {
				left = append(left[:i], left[i+1:]...)
				i--
			}
		}
	}
	t.Logf("%d sessions, %d sign-outs", sessions, outs)
}
