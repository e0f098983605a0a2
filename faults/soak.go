//go:build unix

package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/faults/servers"
)

// The times of a soak. They are short, so that much happens in it.
const (
	soakTTL       = 5 * time.Second
	soakSyncEvery = 500 * time.Millisecond
	soakMaxStale  = 4 * time.Second
	soakHealthy   = soakSyncEvery + soakMaxStale/2 // what a List with these times states: see Staleness
	soakUsers     = 200
)

// Soak has two processes issue and three verify, for 20 s or as long as
// SESSIONTOKEN_SOAK says, while keys rotate every 10 s, sessions are renewed and
// revoked, subjects too, and the engine is killed and started again in the middle.
// One verifier has its keys from the store, the others from the issuers' JWKS.
//
// No valid token may be refused, and no revoked one accepted past the stated bound.
// While the engine is away, and for a moment afterwards, answers may be undecided.
// At other times that is in the report with its reason: a busy disk can make an
// engine take longer than a call does. No more than one in ten may end so.
func Soak(t *testing.T, place string, engine *servers.Server) {
	lasts := time.Duration(sized(14, 20)) * time.Second
	if s := os.Getenv("SESSIONTOKEN_SOAK"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	role := Role{Place: place, SyncEvery: soakSyncEvery, MaxStale: soakMaxStale, TTL: soakTTL, Rotates: true}
	issuers := []*Process{Start(t, role), Start(t, role)}
	for _, p := range issuers {
		p.issue(t, "first") // so that there are keys
	}
	role.Verifies = true
	verifiers := []*Process{Start(t, role)}
	for _, p := range issuers {
		role.KeysFrom = p.must(t, request{Op: "status"}).URL
		verifiers = append(verifiers, Start(t, role))
	}
	first, _ := issuers[0].issue(t, "first")
	for i, p := range verifiers {
		wait(t, 10*time.Second, fmt.Sprintf("verifier %d answers", i+1), func() bool { return p.verify(first) == "ok" })
	}

	s := &soak{t: t, issuers: issuers, verifiers: verifiers, ends: time.Now().Add(lasts), slow: map[string]int{}}
	var users sync.WaitGroup
	for i := range soakUsers {
		users.Go(func() { s.user(i) })
	}
	stop := make(chan struct{})
	go s.progress(stop)
	time.Sleep(lasts / 2)
	if engine != nil {
		t.Log("the engine is killed")
		s.setAway(time.Now(), time.Time{})
		engine.Kill()
		time.Sleep(time.Second)
		if err := engine.Start(); err != nil {
			t.Fatal(err)
		}
		s.setAway(s.awayFrom, time.Now())
		t.Logf("it was away for %v", s.awayUntil.Sub(s.awayFrom).Round(time.Millisecond))
	}
	users.Wait()
	close(stop)
	s.report()
}

type soak struct {
	t         *testing.T
	issuers   []*Process
	verifiers []*Process
	ends      time.Time

	mu                  sync.Mutex
	awayFrom, awayUntil time.Time // when the engine was
	issued, renewed     int
	revoked, revokedAll int
	accepted, refused   int // verdicts on tokens that were valid, and on revoked ones
	late                int // revoked ones that were accepted, within the bound
	latest              time.Duration
	undecided, failed   int // verdicts, and calls of issuers, while the engine was away
	wrong               []string
	slow                map[string]int // calls that failed at any other time, by their error
}

func (s *soak) setAway(from, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awayFrom, s.awayUntil = from, until
}

// disturbed reports whether the engine may have been away between from and now, or
// just before: answers may be undecided for as long as it takes to notice that it
// is back.
func (s *soak) disturbed(from time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.awayFrom.IsZero() && (s.awayUntil.IsZero() || from.Before(s.awayUntil.Add(5*time.Second)))
}

func (s *soak) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *soak) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

func (s *soak) over() bool { return !time.Now().Before(s.ends) }

func pick(list []*Process) *Process { return list[rand.N(len(list))] }

// user signs in, goes on for a while, and is signed out, again and again.
func (s *soak) user(n int) {
	for round := 0; !s.over(); round++ {
		time.Sleep(rand.N(time.Second))
		s.session(fmt.Sprintf("user-%d-%d", n, round))
	}
}

func (s *soak) session(subject string) {
	begin := time.Now()
	a := pick(s.issuers).call(request{Op: "issue", Subject: subject})
	if a.Error != "" {
		s.issuerFailed("issue", begin, a.Error)
		return
	}
	s.count(&s.issued)
	token, issuedAt := a.Token, begin
	stays := time.Duration(rand.N(int64(20 * time.Second)))
	for time.Since(begin) < stays && !s.over() {
		time.Sleep(rand.N(time.Second))
		asked := time.Now()
		switch age := time.Since(issuedAt); {
		case age > soakTTL/2:
			a := pick(s.issuers).call(request{Op: "renew", Token: token})
			switch {
			case a.Error != "" || a.Verdict == "undecided":
				s.issuerFailed("renew", asked, a.Error+a.Verdict)
			case a.Verdict != "ok":
				s.fault("a session that goes on is %s when it is renewed", a.Verdict)
				return
			default:
				token, issuedAt = a.Token, asked
				s.count(&s.renewed)
			}
			if time.Since(issuedAt) > 18*time.Second {
				return // the engine was away for too long: it could not be renewed
			}
		case age < soakTTL-2*time.Second:
			// The times of tokens are whole seconds, and a verdict takes a moment.
			s.verifyValid(token, asked)
		}
	}
	s.signOut(subject, a.Sess, token, issuedAt)
}

func (s *soak) verifyValid(token string, asked time.Time) {
	switch v := pick(s.verifiers).verify(token); {
	case v == "ok":
		s.count(&s.accepted)
	case v == "undecided":
		s.undecidedAt(asked)
	default:
		s.fault("a valid token is %s", v)
	}
}

func (s *soak) undecidedAt(asked time.Time) {
	if s.disturbed(asked) {
		s.count(&s.undecided)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow["verify: undecided"]++
}

func (s *soak) issuerFailed(what string, asked time.Time, err string) {
	if s.disturbed(asked) {
		s.count(&s.failed)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow[what+": "+err]++
}

// signOut revokes the session, or all of the subject, and presents its token again to
// all of them, and for renewal, until it would have expired.
func (s *soak) signOut(subject, sess, token string, issuedAt time.Time) {
	asked := time.Now()
	op := request{Op: "revoke", Sess: sess}
	if rand.N(4) == 0 {
		op = request{Op: "revokeSubject", Subject: subject}
	}
	a := pick(s.issuers).call(op)
	if a.Error != "" {
		s.issuerFailed(op.Op, asked, a.Error)
		return // it may have happened
	}
	at := time.Unix(0, a.At)
	if op.Op == "revoke" {
		s.count(&s.revoked)
	} else {
		s.count(&s.revokedAll)
	}
	bound := soakHealthy
	for time.Since(issuedAt) < soakTTL-2*time.Second || time.Since(at) < soakHealthy {
		time.Sleep(rand.N(300 * time.Millisecond))
		asked := time.Now()
		if s.disturbed(at) || s.disturbed(asked) {
			bound = soakMaxStale + soakSyncEvery // then no list answers from before
		}
		var v string
		if rand.N(4) == 0 {
			v = pick(s.issuers).call(request{Op: "renew", Token: token}).Verdict
		} else {
			v = pick(s.verifiers).verify(token)
		}
		late := asked.Sub(at)
		switch {
		case v == "revoked" || v == "expired" && time.Since(issuedAt) > soakTTL-2*time.Second:
			s.count(&s.refused)
		case v == "ok" && late <= bound:
			s.mu.Lock()
			s.late++
			s.latest = max(s.latest, late)
			s.mu.Unlock()
		case v == "undecided":
			s.undecidedAt(asked)
		default:
			s.fault("a token that was revoked %v ago is %s", late.Round(time.Millisecond), v)
		}
	}
}

func (s *soak) line() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d issued, %d renewed, %d sessions and %d subjects revoked; valid tokens: %d accepted; revoked ones: %d refused, %d accepted up to %v afterwards (bound %v); undecided while the engine was away: %d, calls that failed then: %d",
		s.issued, s.renewed, s.revoked, s.revokedAll, s.accepted, s.refused, s.late, s.latest.Round(time.Millisecond), soakHealthy, s.undecided, s.failed)
}

func (s *soak) progress(stop chan struct{}) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			fmt.Fprintln(os.Stderr, "soak:", s.line())
		}
	}
}

func (s *soak) report() {
	s.t.Log(s.t.Name() + ": " + s.line())
	for i, p := range s.issuers {
		st := p.must(s.t, request{Op: "status"})
		s.t.Logf("issuer %d: %d rotations, %d goroutines", i+1, st.Rotations, st.Goroutines)
		if st.Rotations == 0 {
			s.t.Errorf("the keys of issuer %d did not rotate", i+1)
		}
	}
	failed := 0
	for reason, n := range s.slow {
		s.t.Logf("%d times, with the engine there: %s", n, reason)
		failed += n
	}
	if calls := s.issued + s.renewed + s.revoked + s.revokedAll; failed > calls/10 {
		s.t.Errorf("%d of %d calls failed while the engine was there", failed, calls)
	}
	for _, w := range s.wrong[:min(len(s.wrong), 20)] {
		s.t.Error(w)
	}
	s.t.Logf("%d wrong verdicts", len(s.wrong))
	if s.accepted == 0 || s.refused == 0 || s.renewed == 0 {
		s.t.Error("nothing happened")
	}
}
