package authority_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
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
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// release is one server of a release whose sessions have states of one type.
type release struct {
	mux   *http.ServeMux
	loads atomic.Int64
	run   func(context.Context) error

	refused atomic.Pointer[error] // the last reason
}

func (r *release) do(req *http.Request) *http.Response {
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	return w.Result()
}

// newRelease makes a release whose Load returns current. GET /page answers with
// the state.
func newRelease[T any](t testing.TB, store authority.Store, current T) *release {
	t.Helper()
	r := &release{mux: http.NewServeMux()}
	a, err := authority.New(authority.Config[T]{
		Issuer: issuer, Audience: []string{"site"}, Store: store, Algorithm: keys.EdDSA, Logger: quiet,
		HTTP: sessionhttp.Config[T]{RefreshPath: "/session/", OnRefused: func(_ *http.Request, err error) { r.refused.Store(&err) }},
		Load: func(context.Context, *sessiontoken.Claims[T]) (T, error) {
			r.loads.Add(1)
			return current, nil
		},
	})
	require.NoError(t, err)
	r.run = a.Run
	s := a.Sessions()
	post := func(path string, f func(http.ResponseWriter, *http.Request) error) {
		r.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, req *http.Request) {
			if err := f(w, req); err != nil {
				s.Refuse(w, req, err)
			}
		})
	}
	post("/sign-in", func(w http.ResponseWriter, req *http.Request) error {
		_, err := s.SignIn(w, req, sessiontoken.Start{Subject: "ada" + req.URL.RawQuery}, current)
		return err
	})
	post("/native", func(w http.ResponseWriter, req *http.Request) error {
		tokens, err := s.SignInNative(req, sessionhttp.Device{ClientID: "app"}, sessiontoken.Start{Subject: "ada"}, current)
		if err == nil {
			err = json.MarshalWrite(w, tokens)
		}
		return err
	})
	post("/renew", func(w http.ResponseWriter, req *http.Request) error {
		_, err := s.Renew(w, req)
		return err
	})
	post("/session/sign-out", s.SignOut)
	r.mux.Handle("POST /session/refresh", s.RefreshHandler())
	r.mux.Handle("GET /page", s.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := s.FromContext(req.Context())
		_ = json.MarshalWrite(w, c.State)
	})))
	return r
}

// deploy is a change of a state's type: what both releases show of one user.
type deploy struct {
	name     string
	old, new func(testing.TB, authority.Store) *release
	oldState string
	newState string
}

func deployOf[A, B any](name string, a A, b B) deploy {
	text := func(state any) string {
		raw, err := json.Marshal(state)
		if err != nil {
			panic(err)
		}
		return string(raw)
	}
	return deploy{
		name, func(t testing.TB, s authority.Store) *release { return newRelease(t, s, a) },
		func(t testing.TB, s authority.Store) *release { return newRelease(t, s, b) }, text(a), text(b),
	}
}

// The states of the releases. Each has the methods of Versioned by v1 or v2.
type (
	nameOnly struct {
		Name string `json:"name"`
	}
	nameAndTeam struct {
		Name string `json:"name"`
		Team string `json:"team"`
	}
	otherName struct {
		FullName string `json:"full_name"`
	}
	otherCase struct {
		Name string `json:"Name"`
	}
	levelText struct {
		Level string `json:"level"`
	}
	levelNumber struct {
		Level int `json:"level"`
	}
	wide struct {
		N int64 `json:"n"`
	}
	narrow struct {
		N int8 `json:"n"`
	}
	roleOfTwo   string
	roleOfThree string
	twoRoles    struct {
		Role roleOfTwo `json:"role"`
	}
	threeRoles struct {
		Role roleOfThree `json:"role"`
	}
)

func (r roleOfTwo) MarshalText() ([]byte, error) { return []byte(r), nil }
func (r *roleOfTwo) UnmarshalText(text []byte) error {
	if *r = roleOfTwo(text); *r != "guest" && *r != "admin" && *r != "" {
		return errors.New("no such role")
	}
	return nil
}

// The same with versions: V1 of what was, V2 of what is.
type (
	nameOnlyV1    nameOnly
	nameOnlyV2    nameOnly
	nameAndTeamV1 nameAndTeam
	nameAndTeamV2 nameAndTeam
	otherNameV2   otherName
	otherCaseV2   otherCase
	levelTextV1   levelText
	levelNumberV2 levelNumber
	wideV1        wide
	narrowV2      narrow
	twoRolesV1    twoRoles
	threeRolesV2  threeRoles
)

func never(int, []byte) error { return errors.New("there is no older version") }

func (nameOnlyV1) StateVersion() (int, int)              { return 1, 1 }
func (nameOnlyV1) UpgradeState(v int, b []byte) error    { return never(v, b) }
func (nameAndTeamV1) StateVersion() (int, int)           { return 1, 1 }
func (nameAndTeamV1) UpgradeState(v int, b []byte) error { return never(v, b) }
func (levelTextV1) StateVersion() (int, int)             { return 1, 1 }
func (levelTextV1) UpgradeState(v int, b []byte) error   { return never(v, b) }
func (wideV1) StateVersion() (int, int)                  { return 1, 1 }
func (wideV1) UpgradeState(v int, b []byte) error        { return never(v, b) }
func (twoRolesV1) StateVersion() (int, int)              { return 1, 1 }
func (twoRolesV1) UpgradeState(v int, b []byte) error    { return never(v, b) }

func (nameAndTeamV2) StateVersion() (int, int) { return 2, 1 }
func (s *nameAndTeamV2) UpgradeState(_ int, raw []byte) error {
	s.Team = "new"
	return json.Unmarshal(raw, (*nameAndTeam)(s))
}
func (nameOnlyV2) StateVersion() (int, int) { return 2, 2 }
func (s *nameOnlyV2) UpgradeState(_ int, raw []byte) error {
	return json.Unmarshal(raw, (*nameOnly)(s))
}
func (otherNameV2) StateVersion() (int, int) { return 2, 2 }
func (s *otherNameV2) UpgradeState(_ int, raw []byte) error {
	var old nameOnly
	err := json.Unmarshal(raw, &old)
	s.FullName = old.Name
	return err
}
func (otherCaseV2) StateVersion() (int, int) { return 2, 2 }
func (s *otherCaseV2) UpgradeState(_ int, raw []byte) error {
	var old nameOnly
	err := json.Unmarshal(raw, &old)
	s.Name = old.Name
	return err
}
func (levelNumberV2) StateVersion() (int, int) { return 2, 2 }
func (s *levelNumberV2) UpgradeState(_ int, raw []byte) (err error) {
	var old levelText
	if err := json.Unmarshal(raw, &old); err != nil {
		return err
	}
	s.Level, err = strconv.Atoi(old.Level)
	return err
}
func (narrowV2) StateVersion() (int, int)                { return 2, 1 }
func (s *narrowV2) UpgradeState(_ int, raw []byte) error { return json.Unmarshal(raw, (*narrow)(s)) }
func (threeRolesV2) StateVersion() (int, int)            { return 2, 2 }
func (s *threeRolesV2) UpgradeState(_ int, raw []byte) error {
	return json.Unmarshal(raw, (*threeRoles)(s))
}

// TestDeploys: while two releases with different states serve one site, every
// session goes on at both, with the state of the one that answers, and can be
// ended at both. A browser sees no error.
func TestDeploys(t *testing.T) {
	for _, d := range []deploy{
		deployOf("added", nameOnlyV1{"Ada"}, nameAndTeamV2{"Ada", "new"}),
		deployOf("removed", nameAndTeamV1{"Ada", "a"}, nameOnlyV2{"Ada"}),
		deployOf("renamed", nameOnlyV1{"Ada"}, otherNameV2{"Ada"}),
		deployOf("another type", levelTextV1{"3"}, levelNumberV2{3}),
		deployOf("another case", nameOnlyV1{"Ada"}, otherCaseV2{"Ada"}),
		deployOf("a narrower number", wideV1{7}, narrowV2{7}),
		deployOf("a narrower number, too large", wideV1{7000}, narrowV2{70}),
		deployOf("another name of an enum", twoRolesV1{"guest"}, threeRolesV2{"auditor"}),
		deployOf("the first version", nameOnly{"Ada"}, nameAndTeamV2{"Ada", "new"}),

		deployOf("without versions: added", nameOnly{"Ada"}, nameAndTeam{"Ada", "new"}),
		deployOf("without versions: renamed", nameOnly{"Ada"}, otherName{"Ada"}),
		deployOf("without versions: another type", levelText{"3"}, levelNumber{3}),
		deployOf("without versions: another case", nameOnly{"Ada"}, otherCase{"Ada"}),
		deployOf("without versions: a narrower number", wide{7000}, narrow{70}),
		deployOf("without versions: another name of an enum", twoRoles{"guest"}, threeRoles{"auditor"}),
	} {
		t.Run(d.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := authority.Memory()
				before, after := d.old(t, store), d.new(t, store)
				for _, way := range []struct {
					name     string
					from, to *release
					a, b     string
				}{{"deploy", before, after, d.oldState, d.newState}, {"rollback", after, before, d.newState, d.oldState}} {
					loads := way.from.loads.Load() + way.to.loads.Load()
					page := func(b browser, r *release, want ...string) {
						t.Helper()
						resp := b.ask(r, "GET", "/page")
						require.Equal(t, 200, resp.StatusCode)
						require.Contains(t, want, body(t, resp))
					}
					b := browser{}
					require.Equal(t, 200, b.status(way.from, "POST", "/sign-in"))
					page(b, way.from, way.a)
					other := b.clone()
					for range 3 { // at either, in turn
						page(b, way.to, way.b, sharedOf(d.name, way.a))
						page(b, way.from, way.a, sharedOf(d.name, way.b))
					}
					// One renewal a direction at most, however often they take turns.
					if !strings.HasPrefix(d.name, "without versions") {
						require.LessOrEqual(t, way.from.loads.Load()+way.to.loads.Load()-loads, int64(2), way.name)
					}

					require.Equal(t, 200, other.status(way.to, "POST", "/renew"), "the old cookie")
					page(other, way.to, way.b, sharedOf(d.name, way.a))
					page(other, way.from, way.a, sharedOf(d.name, way.b))
					time.Sleep(20 * time.Minute)
					require.Equal(t, 204, other.status(way.to, "POST", "/session/refresh"))
					page(other, way.to, way.b)
					require.Equal(t, 204, other.status(way.from, "POST", "/session/refresh"))
					page(other, way.from, way.a)
					require.Equal(t, 200, other.status(way.to, "POST", "/session/sign-out"))
					time.Sleep(time.Minute)
					require.Equal(t, 401, b.status(way.from, "GET", "/page"))
					require.Equal(t, 401, b.status(way.to, "GET", "/page"))

					// A native client is told to refresh, and is served then.
					tokens := tokensOf(t, way.from.do(request("POST", "/native")))
					resp := way.to.do(bearer("/page", tokens.AccessToken))
					if resp.StatusCode != 200 {
						require.Equal(t, 401, resp.StatusCode)
						require.Equal(t, `Bearer error="invalid_token", error_description="state of another version"`, resp.Header.Get("WWW-Authenticate"))
						tokens = tokensOf(t, way.to.do(refreshRequest(tokens.RefreshToken)))
						resp = way.to.do(bearer("/page", tokens.AccessToken))
					}
					require.Equal(t, 200, resp.StatusCode)
					require.Contains(t, []string{way.b, sharedOf(d.name, way.a)}, body(t, resp))
				}
			})
		})
	}
}

// sharedOf is a state of one release that the other shows too, where it can read
// it as it is.
func sharedOf(name, state string) string {
	switch {
	case name == "a narrower number, too large" && state == `{"n":70}`, strings.HasSuffix(name, "another name of an enum") && state == `{"role":"guest"}`,
		name == "without versions: a narrower number" && state == `{"n":70}`:
		return state
	}
	return ""
}

// TestRollingDeploy: two replicas of each of two releases serve a site whose
// users come at random, while a deploy goes forward and is rolled back. No request
// is refused, and no session is renewed more than once a direction.
func TestRollingDeploy(t *testing.T) {
	store := authority.Memory()
	var before, after []*release
	for range 2 {
		before = append(before, newRelease(t, store, levelTextV1{"3"}))
		after = append(after, newRelease(t, store, levelNumberV2{3}))
	}
	all := append(slices.Clone(before), after...)
	serve := func(r *release) *httptest.Server {
		go func() { _ = r.run(t.Context()) }()
		server := httptest.NewServer(r.mux)
		t.Cleanup(server.Close)
		return server
	}
	servers := []*httptest.Server{serve(before[0]), serve(before[1]), serve(after[0]), serve(after[1])}
	// In the first second of a store, a replica may not know the key of another.
	for _, r := range all {
		b := browser{}
		require.Equal(t, 200, b.status(r, "POST", "/sign-in"))
		for _, other := range all {
			require.Eventually(t, func() bool { return b.clone().status(other, "GET", "/page") == 200 }, time.Minute, 10*time.Millisecond)
		}
	}
	// The phases of a deploy and its rollback: which servers are in use.
	phases := [][]int{{0, 1}, {0, 1, 2}, {1, 2, 3}, {2, 3}, {1, 2, 3}, {0, 1, 2}, {0, 1}}
	var phase atomic.Int64
	var refused, asked, renewed, most atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	var users sync.WaitGroup
	user := func() {
		var cookie, last string
		mine := int64(0)
		for range 15 {
			in := phases[phase.Load()]
			at := in[rand.IntN(len(in))]
			server := servers[at]
			method, path := "GET", "/page"
			if cookie == "" {
				method, path = "POST", fmt.Sprint("/sign-in?", rand.Uint64()) // one user has few devices
			}
			req, err := http.NewRequest(method, server.URL+path, nil)
			if err != nil {
				refused.Add(1)
				return
			}
			req.Header.Set("Cookie", cookie)
			req.Header.Set("Origin", server.URL)
			resp, err := client.Do(req)
			if err != nil {
				refused.Add(1)
				return
			}
			resp.Body.Close()
			if asked.Add(1); resp.StatusCode != 200 {
				t.Logf("%s %s: %d, phase %d: %v", method, path, resp.StatusCode, phase.Load(), *all[at].refused.Load())
				refused.Add(1)
			}
			for _, c := range resp.Cookies() {
				if strings.HasSuffix(c.Name, "session") {
					cookie = c.Name + "=" + c.Value
				}
			}
			if last != "" && cookie != last {
				mine++
			}
			last = cookie
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		}
		renewed.Add(mine)
		for {
			m := most.Load()
			if mine <= m || most.CompareAndSwap(m, mine) {
				return
			}
		}
	}
	for i := range phases {
		phase.Store(int64(i))
		for range 50 { // a hundred a second, or what the machine can do
			users.Go(user)
			time.Sleep(10 * time.Millisecond)
		}
	}
	users.Wait()
	client.CloseIdleConnections()
	t.Logf("%d requests, %d refused, %d renewals, at most %d of one session", asked.Load(), refused.Load(), renewed.Load(), most.Load())
	require.Zero(t, refused.Load())
	require.LessOrEqual(t, most.Load(), int64(2), "one a direction")
	require.Positive(t, renewed.Load())
}
