//go:build unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const (
	// eachHas is how many connections each subject has.
	eachHas = 3
	// batch is how many sessions are in one line of a process.
	batch = 1000
	// endSpread is how long after MaxStale the last connection ends, by the
	// documentation of revoke.List.Watch.
	endSpread = time.Second
	// slack is how much later than documented a machine with other work may be.
	slack = 5 * time.Second
)

// holder holds the live connections of a process: one a session, by the place
// of its claims.
type holder struct {
	mu       sync.Mutex
	sessions *sessionhttp.Sessions[state]
	claims   []*sessiontoken.Claims[state]
	conns    []*sessionhttp.Live[state] // nil: it could not be opened
	followed *lives                     // by the last call of follow
}

// lives is what became of connections: of those that could not be opened or
// have ended, why.
type lives struct {
	Open, Revoked, Undecided, Others int
	Why                              string // of one of Others

	// Of those that have ended since they were followed: the time since the
	// start of the last successful reading of the store, for the first and the
	// last of them, and when the last ended, in Unix nanoseconds.
	Ended       int
	First, Last time.Duration
	At          int64

	// Of one connection, as they were opened.
	Bytes, Goroutines float64
}

func (l *lives) count(cause error) {
	switch {
	case cause == nil:
		l.Open++
	case errors.Is(cause, revoke.ErrRevoked) || errors.Is(cause, sessiontoken.ErrRevoked):
		l.Revoked++
	case errors.Is(cause, sessionhttp.ErrUndecided):
		l.Undecided++
	default:
		l.Others++
		l.Why = cause.Error()
	}
}

func (w *worker) doLive(r request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	h := &w.holder
	switch r.Op {
	case "begin":
		a.Tokens, err = w.begin(ctx, r.From, r.N)
	case "keep":
		err = h.keep(ctx, w.verifier, r.Tokens)
	case "open":
		a.Lives, err = h.open()
	case "follow":
		h.follow(w.list, r.Subject)
	case "followed":
		a.Lives, err = h.wait(ctx, r.N)
	case "lives":
		a.Lives = h.count()
	default:
		err = fmt.Errorf("no such thing as %s", r.Op)
	}
	return a, err
}

// holderName is the subject of a session.
func holderName(i int) string { return fmt.Sprint("holder-", i/eachHas) }

// begin begins n sessions, all at once: they share readings of the store.
func (w *worker) begin(ctx context.Context, from, n int) ([]string, error) {
	tokens, errs := make([]string, n), make([]error, n)
	var beginning sync.WaitGroup
	for i := range n {
		beginning.Go(func() { tokens[i], _, errs[i] = w.issuer.Issue(ctx, holderName(from+i), state{Name: "Ada"}) })
	}
	beginning.Wait()
	return tokens, errors.Join(errs...)
}

// keep verifies tokens, and keeps their claims for open.
func (h *holder) keep(ctx context.Context, verifier *sessiontoken.Verifier[state], tokens []string) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions == nil {
		if h.sessions, err = sessionhttp.New(sessionhttp.Config[state]{Verifier: verifier, Logger: quiet}); err != nil {
			return err
		}
	}
	for _, token := range tokens {
		c, err := verifier.Verify(ctx, token)
		for verdictOf(err) == "undecided" && ctx.Err() == nil { // a machine with other work
			time.Sleep(10 * time.Millisecond)
			c, err = verifier.Verify(ctx, token)
		}
		if err != nil {
			return err
		}
		h.claims = append(h.claims, c)
	}
	return nil
}

// open opens a connection for each session that was kept, in place of those
// before.
func (h *holder) open() (*lives, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions == nil {
		return nil, errors.New("no session was kept")
	}
	for _, l := range h.conns {
		if l != nil {
			l.Stop()
		}
	}
	h.conns = make([]*sessionhttp.Live[state], len(h.claims))
	result, routines, bytes := new(lives), runtime.NumGoroutine(), heapBytes()
	for i, c := range h.claims {
		l, err := h.sessions.Live(context.Background(), c, sessionhttp.LiveOptions{})
		if result.count(err); err == nil {
			l.Done()
			h.conns[i] = l
		}
	}
	if result.Open > 0 {
		result.Goroutines = float64(runtime.NumGoroutine()-routines) / float64(result.Open)
		result.Bytes = float64(heapBytes()-bytes) / float64(result.Open)
	}
	return result, nil
}

// heapBytes returns the size of the heap after a collection.
func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// follow records how connections end from now on: those of a subject, or all.
func (h *holder) follow(list *revoke.List, subject string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := new(lives)
	h.followed = f
	for i, l := range h.conns {
		if l == nil || l.Err() != nil || subject != "" && h.claims[i].Subject != subject {
			continue
		}
		context.AfterFunc(l, func() {
			at, synced := time.Now(), list.Status().Synced
			h.mu.Lock()
			defer h.mu.Unlock()
			age := at.Sub(synced)
			if f.count(context.Cause(l)); f.Ended == 0 {
				f.First, f.Last = age, age
			}
			f.Ended++
			f.First, f.Last, f.At = min(f.First, age), max(f.Last, age), max(f.At, at.UnixNano())
		})
	}
}

// wait waits until n of the followed connections have ended.
func (h *holder) wait(ctx context.Context, n int) (*lives, error) {
	for {
		h.mu.Lock()
		f := *h.followed
		h.mu.Unlock()
		if f.Ended >= n || ctx.Err() != nil {
			return &f, ctx.Err()
		}
		time.Sleep(time.Millisecond)
	}
}

// count counts the connections.
func (h *holder) count() *lives {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := new(lives)
	for _, l := range h.conns {
		if l != nil {
			all.count(context.Cause(l))
		}
	}
	return all
}

// hold has one process begin n sessions, and another verify and keep them.
func hold(t *testing.T, issuer, holder *Process, n int) {
	t.Helper()
	first, _ := issuer.issue(t, "ada")
	until(t, 10*time.Second, "the first token verifies", func() bool { return holder.verify(first) == "ok" })
	var keeping sync.WaitGroup
	defer keeping.Wait()
	for from := 0; from < n && !t.Failed(); from += batch {
		begun := issuer.must(t, request{Op: "begin", From: from, N: min(batch, n-from)})
		keeping.Wait() // in order
		keeping.Go(func() {
			if a := holder.call(request{Op: "keep", Tokens: begun.Tokens}); a.Error != "" {
				t.Errorf("keep: %s", a.Error)
			}
		})
	}
	keeping.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// HowSoonLive measures how long it takes, from the acknowledged revocation of a
// subject in one process, until its three connections have ended in another,
// which holds n live connections, in full size 100,000: n/50 times, in full size
// 1,000 times, or as often as SESSIONTOKEN_TRIALS says. No other connection may
// end.
//
// In the same run it measures how long the process accepts the token of a
// revoked session. Ten times that is asserted, of p50 and of 99 in 100, and of
// these no less than what revoke.Config.SyncEvery promises.
func HowSoonLive(t *testing.T, place string, every time.Duration, n int) {
	subjects := trials(sized(n/50, 1000))
	n = sized(n, 100_000)
	role := Role{Place: place, SyncEvery: every, MaxStale: 30 * time.Second, TTL: time.Hour}
	issuer := Start(t, role)
	role.Verifies = true
	holder := Start(t, role)
	trip := holder.must(t, request{Op: "roundTrip"}).Took
	begin := time.Now()
	hold(t, issuer, holder, n)
	t.Logf("%s: %d sessions began in %v", t.Name(), n, time.Since(begin).Round(time.Millisecond))
	opened := holder.must(t, request{Op: "open"}).Lives
	if opened.Open != n {
		t.Fatalf("not all could be opened: %+v", opened)
	}
	if opened.Goroutines > 0.01 {
		t.Errorf("%.2f goroutines a connection", opened.Goroutines)
	}

	var refused, ended spread
	for i := range subjects {
		refused = append(refused, refusal(t, issuer, holder))

		subject := holderName(i * (n / eachHas / subjects) * eachHas)
		holder.must(t, request{Op: "follow", Subject: subject})
		at := issuer.must(t, request{Op: "revokeSubject", Subject: subject}).At
		f := holder.must(t, request{Op: "followed", N: eachHas}).Lives
		if f.Ended != eachHas || f.Revoked != eachHas {
			t.Fatalf("%s has %d connections: %+v", subject, eachHas, f)
		}
		ended = append(ended, max(0, time.Duration(f.At-at)))
		if all := holder.must(t, request{Op: "lives"}).Lives; all.Open != n-(i+1)*eachHas || all.Revoked != (i+1)*eachHas {
			t.Fatalf("%d subjects were revoked, of %d connections: %+v", i+1, n, all)
		}
	}
	slices.Sort(refused)
	slices.Sort(ended)
	t.Logf("%s: one round trip to the store takes %v; lists read every %v; %d live connections in one process, %.0f bytes and %.4f goroutines each; %d subjects with %d of them were revoked in another, and no other connection ended",
		t.Name(), trip.Round(time.Microsecond), every, n, opened.Bytes, opened.Goroutines, subjects, eachHas)
	for _, m := range []struct {
		what string
		took spread
	}{{"revoked, until a token is refused", refused}, {"revoked, until its connections have ended", ended}} {
		t.Logf("%s: %s: p50 %v, p99 %v; in round trips p50 %s, p99 %s", t.Name(), m.what, m.took.p50().Round(10*time.Microsecond),
			m.took.p99().Round(10*time.Microsecond), times(m.took.p50(), trip), times(m.took.p99(), trip))
	}
	if ended.p50() > 10*refused.p50() {
		t.Errorf("the p50 of %v is more than ten times %v", ended.p50(), refused.p50())
	}
	most, late := max(10*refused.p99(), every+100*time.Millisecond), 0
	for _, took := range ended {
		if took > most {
			late++
		}
	}
	if late > subjects/100 {
		t.Errorf("%d of %d took longer than %v", late, subjects, most)
	}
}

// Briefly is a way that is cut for less than MaxStale.
func Briefly(proxy *servers.Proxy) Fault {
	return Fault{
		Name:  "a cut of 0.5 s",
		Begin: func() error { proxy.Cut(); return nil },
		Lasts: time.Second / 2, End: func() error { proxy.Heal(); return nil }, Back: 10 * time.Second,
	}
}

// LiveFaults lets faults happen, one after the other, to a process that holds
// 2,000 live connections, in full size 10,000: its store is at the place that
// through names. Past MaxStale all of them must end, none sooner and not all at
// once, as undecided. After the end of the fault they can be opened again, but
// for those of a subject that was revoked meanwhile. A fault that does not
// close must end those alone.
func LiveFaults(t *testing.T, place, through string, faults ...Fault) {
	n := sized(2_000, 10_000)
	role := Role{Place: place, SyncEvery: 100 * time.Millisecond, MaxStale: 30 * time.Second, TTL: time.Hour}
	issuer := Start(t, role)
	role.Verifies, role.Place, role.MaxStale = true, through, 2*time.Second
	holder := Start(t, role)
	hold(t, issuer, holder, n)
	fresh := make([]string, len(faults)) // tokens that are first seen after a fault
	for i := range fresh {
		fresh[i], _ = issuer.issue(t, "fresh")
	}
	open := func() *lives { return holder.must(t, request{Op: "open"}).Lives }
	count := func() *lives { return holder.must(t, request{Op: "lives"}).Lives }
	followed := func() *lives { return holder.must(t, request{Op: "followed"}).Lives }
	if opened := open(); opened.Open != n {
		t.Fatalf("not all could be opened: %+v", opened)
	}
	left, acknowledged := n, 0 // connections of subjects that were not revoked; revocations acknowledged during faults
	for i, f := range faults {
		if all := count(); all.Open != left || all.Undecided+all.Others > 0 {
			t.Fatalf("before %s, of %d: %+v", f.Name, left, all)
		}
		holder.must(t, request{Op: "follow"})
		before := left
		left -= eachHas
		subject := holderName(i * eachHas)
		begin := time.Now()
		if err := f.Begin(); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		revoking := make(chan bool, 1)
		go func() { revoking <- issuer.call(request{Op: "revokeSubject", Subject: subject}).Error == "" }()
		closed := f.Closes
		if f.Closes {
			var ends *lives
			until(t, role.MaxStale+endSpread+slack, f.Name+": past MaxStale all connections end", func() bool {
				ends = followed()
				return ends.Ended == before
			})
			if ends.Undecided != before {
				t.Errorf("%s: ended for another reason: %+v", f.Name, ends)
			}
			if ends.First < role.MaxStale || ends.Last > role.MaxStale+endSpread+slack {
				t.Errorf("%s: they ended %v to %v after the last reading", f.Name, ends.First, ends.Last)
			}
			if ends.Last-ends.First < endSpread/2 {
				t.Errorf("%s: all ended within %v", f.Name, ends.Last-ends.First)
			}
			t.Logf("%s: %s: %d connections ended, %v to %v after the last reading", t.Name(), f.Name, before,
				ends.First.Round(10*time.Millisecond), ends.Last.Round(10*time.Millisecond))
		} else {
			time.Sleep(f.Lasts - time.Since(begin))
		}
		meanwhile := false // the revocation was acknowledged
		select {
		case meanwhile = <-revoking:
			if meanwhile && !closed && f.Back == 0 { // it can be known meanwhile
				until(t, slack, f.Name+": the connections of the revoked subject end", func() bool { return followed().Ended >= eachHas })
			}
			revoking <- meanwhile
		default:
		}
		when := "afterwards"
		if meanwhile {
			acknowledged++
			when = "meanwhile"
		}
		if err := f.End(); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		gone := time.Since(begin)
		healed := time.Now()
		until(t, 10*time.Second, f.Name+": a new session can be verified", func() bool { return holder.verify(fresh[i]) == "ok" })
		if !<-revoking {
			until(t, 10*time.Second, f.Name+": the revocation is acknowledged", func() bool {
				return issuer.call(request{Op: "revokeSubject", Subject: subject}).Error == ""
			})
		}
		if ends := followed(); !f.Closes && ends.Undecided > 0 {
			// An engine may need longer than MaxStale to come back.
			if closed = true; f.Back == 0 || gone < role.MaxStale-4*role.SyncEvery {
				t.Errorf("%s: of %d connections, after %v: %+v", f.Name, before, gone, ends)
			}
			t.Logf("%s: %s: the engine was gone for %v: %d connections ended", t.Name(), f.Name, gone.Round(10*time.Millisecond), ends.Undecided)
		}
		if closed {
			if opened := open(); meanwhile && (opened.Open != left || opened.Revoked != n-left) {
				t.Errorf("%s: the revocation of a subject was acknowledged meanwhile, and of %d connections: %+v", f.Name, n, opened)
			}
			t.Logf("%s: %s: %d connections were opened again after %v, and none of a subject that was revoked %s", t.Name(), f.Name, left, time.Since(healed).Round(time.Millisecond), when)
		}
		until(t, 10*time.Second, f.Name+": the connections of the revoked subject have ended, and no other", func() bool { return count().Open == left })
		if !closed {
			if ends := followed(); ends.Revoked != eachHas || ends.Ended != eachHas {
				t.Errorf("%s: of %d connections: %+v", f.Name, before, ends)
			}
			t.Logf("%s: %s: %d connections went on, and those of a subject ended that was revoked %s", t.Name(), f.Name, left, when)
		}
	}
	if acknowledged == 0 && place != through {
		t.Error("no revocation was acknowledged while a fault lasted")
	}
	time.Sleep(role.MaxStale)
	if all := count(); all.Open != left || all.Undecided+all.Others > 0 {
		t.Errorf("afterwards, of %d: %+v", left, all)
	}
}
