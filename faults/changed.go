//go:build unix

package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// visitor is a client of a site: a browser with a cookie, or a native one with
// tokens.
type visitor struct {
	http      *http.Client
	site      string
	sessionID string
	cookie    string
	tokens    sessionhttp.Tokens
	refreshes int
}

const cookieName = "__Host-session"

// errSignedOut means that an answer removed the cookie.
var errSignedOut = errors.New("signed out")

// signIn has a user sign in at a site.
func signIn(t *testing.T, site, subject string, native bool) *visitor {
	t.Helper()
	v, err := signedIn(t, site, subject, native)
	if err != nil {
		t.Fatalf("%s cannot sign in: %v", subject, err)
	}
	return v
}

func signedIn(t *testing.T, site, subject string, native bool) (*visitor, error) {
	v := &visitor{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}, Timeout: 10 * time.Second}, site: site}
	t.Cleanup(v.http.CloseIdleConnections)
	path := "/sign-in"
	if native {
		path = "/native"
	}
	resp, body, err := v.send(site, "POST", path, url.Values{"subject": {subject}})
	if err == nil && resp.StatusCode == http.StatusOK && native {
		err = json.Unmarshal(body, &v.tokens)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, errors.Join(err, statusError(resp, body))
	}
	_, err = v.ask(site)
	return v, err
}

// send sends a request with what the visitor has, and takes the cookie of the
// answer.
func (v *visitor) send(site, method, path string, form url.Values) (*http.Response, []byte, error) {
	req, err := http.NewRequest(method, site+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	switch {
	case v.cookie != "":
		req.Header.Set("Cookie", cookieName+"="+v.cookie)
	case v.tokens.AccessToken != "" && form == nil:
		req.Header.Set("Authorization", "Bearer "+v.tokens.AccessToken)
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == cookieName {
			if c.Value == "" || c.MaxAge < 0 {
				return nil, nil, errSignedOut
			}
			v.cookie = c.Value
		}
	}
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func statusError(resp *http.Response, body []byte) error {
	if resp == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %s", resp.Status, resp.Header.Get("WWW-Authenticate"), body)
}

const stateChanged = `Bearer error="invalid_token", error_description="state changed"`

// ask returns the role by which a site serves the visitor. A native one
// refreshes when it is told that the state has changed, which may happen again
// until the marks pause. Any other refusal, and another session than before, is
// an error.
func (v *visitor) ask(site string) (role int, err error) {
	for try := 0; ; try++ {
		resp, body, err := v.send(site, "GET", "/me", nil)
		switch {
		case err != nil:
			return 0, err
		case resp.StatusCode == http.StatusUnauthorized && v.cookie == "" && try < 50 && resp.Header.Get("WWW-Authenticate") == stateChanged:
			if err := v.refresh(site); err != nil {
				return 0, err
			}
			continue
		case resp.StatusCode != http.StatusOK:
			return 0, statusError(resp, body)
		}
		var p page
		if err := json.Unmarshal(body, &p); err != nil {
			return 0, err
		}
		if v.sessionID == "" {
			v.sessionID = p.SessionID
		}
		if p.SessionID != v.sessionID {
			return 0, errors.New("another session")
		}
		return p.Role, nil
	}
}

func (v *visitor) refresh(site string) error {
	v.refreshes++
	resp, body, err := v.send(site, "POST", "/refresh", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {v.tokens.RefreshToken}, "client_id": {clientID}})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return statusError(resp, body)
	}
	return json.Unmarshal(body, &v.tokens)
}

// token returns the visitor's session token.
func (v *visitor) token() string {
	if v.cookie != "" {
		return v.cookie
	}
	return v.tokens.AccessToken
}

// checkIssuedAt checks that a verifier without leeway accepts the iat of the
// visitor's token.
func (v *visitor) checkIssuedAt() error {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(v.token(), &claims); err != nil {
		return err
	}
	return jwt.NewValidator(jwt.WithIssuedAt()).Validate(claims)
}

// spread is how long something took, sorted.
type spread []time.Duration

func (s spread) p50() time.Duration { return s[len(s)/2] }
func (s spread) p99() time.Duration { return s[len(s)*99/100] }

// times is a duration in multiples of a round trip.
func times(d, trip time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(trip)) }

// HowSoonChanged measures how long it takes, from the acknowledgement of
// Changed in one process, until a whole request in another is served with the
// new role: with a cookie, and by a client with a Bearer token that refreshes.
// Each is measured n times, in full size 1,000 times, or as often as
// SESSIONTOKEN_TRIALS says.
//
// In the same run it measures how long a revoked session is still served, and
// what one renewal takes: the sum is the bar, and ten times that is asserted.
// No client may be signed out, and each mark may cost one Load a client.
func HowSoonChanged(t *testing.T, place string, every time.Duration, n int) {
	n = trials(sized(n, 1000))
	role := Role{Place: place, SyncEvery: every, MaxStale: 30 * time.Second, Serves: t.TempDir()}
	a, b := Start(t, role), Start(t, role)
	trip := b.must(t, request{Op: "roundTrip"}).Took
	site := b.must(t, request{Op: "status"}).Site
	loads := func(p *Process) int64 { return p.must(t, request{Op: "status"}).Loads }

	leavers := make([]*visitor, n)
	var signingIn sync.WaitGroup
	for first := range 10 { // at once: they share readings
		signingIn.Go(func() {
			for i := first; i < n; i += 10 {
				var err error
				if leavers[i], err = signedIn(t, site, "leaver", false); err != nil {
					t.Errorf("leaver %d cannot sign in: %v", i, err)
				}
			}
		})
	}
	signingIn.Wait()
	if t.Failed() {
		return
	}
	visitors := map[string]*visitor{"cookie": signIn(t, site, "cookie", false), "bearer": signIn(t, site, "bearer", true)}

	renewals := map[string]spread{}
	for range max(20, n/5) { // at rest
		begin := time.Now()
		resp, body, err := visitors["cookie"].send(site, "POST", "/renew", nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(errors.Join(err, statusError(resp, body)))
		}
		renewals["cookie"] = append(renewals["cookie"], time.Since(begin))
		begin = time.Now()
		if err := visitors["bearer"].refresh(site); err != nil {
			t.Fatal(err)
		}
		renewals["bearer"] = append(renewals["bearer"], time.Since(begin))
	}

	visitors["bearer"].refreshes = 0
	pause := 200 * time.Microsecond // between two requests of a poll
	if every < 100*time.Millisecond {
		pause = every / 40
	}
	soon := map[string]spread{}
	// measure begins to poll, makes a change, and waits until the poll has seen
	// it.
	measure := func(name string, change request, poll func() (seen bool, err error)) {
		if every < 100*time.Millisecond {
			time.Sleep(rand.N(every)) // the next reading is at any distance
		}
		begin, seen, failed := time.Now(), make(chan time.Time, 1), make(chan error, 1)
		go func() {
			for {
				ok, err := poll()
				switch {
				case err != nil:
					failed <- err
					return
				case ok:
					seen <- time.Now()
					return
				case time.Since(begin) > 10*time.Second:
					failed <- errors.New("it never came")
					return
				}
				time.Sleep(pause)
			}
		}()
		acknowledged := time.Unix(0, a.must(t, change).At)
		select {
		case err := <-failed:
			t.Fatalf("%s: %v", name, err)
		case at := <-seen:
			soon[name] = append(soon[name], max(0, at.Sub(acknowledged)))
		}
	}
	for i := range n {
		leaver := leavers[i]
		measure("revoked", request{Op: "revoke", Sess: leaver.sessionID}, func() (bool, error) {
			resp, body, err := leaver.send(site, "GET", "/me", nil)
			if errors.Is(err, errSignedOut) || err == nil && resp.StatusCode == http.StatusUnauthorized {
				return true, nil
			}
			if err == nil && resp.StatusCode != http.StatusOK {
				err = statusError(resp, body)
			}
			return false, err
		})
		for name, v := range visitors {
			before, old := loads(b), v.cookie
			measure(name, request{Op: "promote", Subject: name, Role: i + 1}, func() (bool, error) {
				role, err := v.ask(site)
				if err == nil && role != i && role != i+1 {
					err = fmt.Errorf("role %d of %d", role, i+1)
				}
				return role == i+1, err
			})
			underWay := *v
			underWay.cookie = old // a request that was sent before the new cookie came
			for _, late := range []*visitor{v, &underWay, v} {
				if role, err := late.ask(site); err != nil || role != i+1 {
					t.Fatalf("%s: role %d of %d: %v", name, role, i+1, err)
				}
			}
			if got := loads(b) - before; got != 1 {
				t.Fatalf("%s: %d loads for one mark", name, got)
			}
			if err := v.checkIssuedAt(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if got := visitors["bearer"].refreshes; got != n {
		t.Errorf("%d refreshes for %d marks", got, n)
	}
	if got := loads(a); got != 0 {
		t.Errorf("%d loads where no request came", got)
	}

	for _, all := range []map[string]spread{soon, renewals} {
		for _, s := range all {
			slices.Sort(s)
		}
	}
	t.Logf("%s: one round trip to the store takes %v; lists read every %v; %d trials over two processes; 0 sign-outs, one Load a mark and client", t.Name(), trip.Round(time.Microsecond), every, n)
	line := func(what string, s spread) {
		t.Logf("%s: %s: p50 %v, p99 %v; in round trips p50 %s, p99 %s", t.Name(), what,
			s.p50().Round(10*time.Microsecond), s.p99().Round(10*time.Microsecond), times(s.p50(), trip), times(s.p99(), trip))
	}
	line("revoked, until a request is refused", soon["revoked"])
	for _, name := range []string{"cookie", "bearer"} {
		line("one renewal with a "+name, renewals[name])
		line("changed, until a request with a "+name+" has the new role", soon[name])
		for _, q := range []struct {
			name string
			of   func(spread) time.Duration
		}{{"p50", spread.p50}, {"p99", spread.p99}} {
			if bar := q.of(soon["revoked"]) + q.of(renewals[name]); q.of(soon[name]) > 10*bar {
				t.Errorf("%s: the %s of %v is more than ten times that of a revocation and a renewal, %v", name, q.name, q.of(soon[name]), bar)
			}
		}
	}
}

// ChangedOften marks one subject 200 times a second, at two replicas, while
// visitors with cookies and with Bearer tokens go from one to the other. Each
// request must be served, with a role that is not older than the last mark
// that its replica had acknowledged when the request came; each visitor must
// have the last role in the end, without a further renewal; and no token's iat
// may lie in the future.
func ChangedOften(t *testing.T, place string, every time.Duration) {
	marks := sized(100, 4000)
	role := Role{Place: place, SyncEvery: every, MaxStale: 30 * time.Second, Serves: t.TempDir()}
	replicas := []*Process{Start(t, role), Start(t, role)}
	var sites [2]string
	for i, p := range replicas {
		sites[i] = p.must(t, request{Op: "status"}).Site
	}
	visitors := make([]*visitor, 6)
	for i := range visitors {
		visitors[i] = signIn(t, sites[i%2], "ada", i >= 4)
	}
	loads := func() (n int64) {
		for _, p := range replicas {
			n += p.must(t, request{Op: "status"}).Loads
		}
		return n
	}

	var acknowledged [2]atomic.Int64 // the newest role, by replica
	var over atomic.Bool
	var marking, visiting sync.WaitGroup
	var requests, wrong atomic.Int64
	fail := func(format string, args ...any) {
		if wrong.Add(1) < 10 {
			t.Errorf(format, args...)
		}
	}
	begin := time.Now()
	marking.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 1; i <= marks; i++ {
			<-tick.C
			at := rand.IntN(2)
			if a := replicas[at].call(request{Op: "promote", Subject: "ada", Role: i}); a.Error != "" {
				fail("mark %d: %s", i, a.Error)
				return
			}
			acknowledged[at].Store(int64(i))
		}
	})
	for _, v := range visitors {
		visiting.Go(func() {
			for !over.Load() {
				at := rand.IntN(2)
				least := acknowledged[at].Load()
				role, err := v.ask(sites[at])
				if err == nil {
					err = v.checkIssuedAt()
				}
				if err != nil || int64(role) < least {
					fail("role %d, of at least %d: %v", role, least, err)
					return
				}
				requests.Add(1)
				time.Sleep(rand.N(10 * time.Millisecond))
			}
		})
	}
	marking.Wait()
	took := time.Since(begin)
	over.Store(true)
	visiting.Wait()
	if t.Failed() {
		return
	}
	most := loads()
	if limit := int64(2 * marks * len(visitors)); most > limit {
		t.Errorf("%d loads for %d marks and %d visitors", most, marks, len(visitors))
	}
	for _, v := range visitors {
		for _, site := range sites {
			until(t, 10*time.Second, "the last role", func() bool {
				role, err := v.ask(site)
				if err != nil {
					t.Fatal(err)
				}
				return role == marks
			})
		}
	}
	rest := loads()
	for range 10 {
		for _, v := range visitors {
			for _, site := range sites {
				if role, err := v.ask(site); err != nil || role != marks {
					t.Fatalf("role %d of %d: %v", role, marks, err)
				}
			}
		}
	}
	if got := loads(); got != rest {
		t.Errorf("%d loads after the last mark was known: a loop", got-rest)
	}
	t.Logf("%s: %d marks in %v, %d requests, %d loads, 0 sign-outs", t.Name(), marks, took.Round(time.Millisecond), requests.Load(), most)
}
