//go:build unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// full reports whether tests run in their full size.
func full() bool { return os.Getenv("SESSIONTOKEN_FULL") == "1" }

// sized is n, or many in full size.
func sized(n, many int) int {
	if full() {
		return many
	}
	return n
}

// The times of the lists of these tests.
const (
	listSyncEvery = 100 * time.Millisecond
	listMaxStale  = 3 * time.Second
)

// runList returns a list on a store, which follows it until the test ends.
func runList(t *testing.T, s revoke.Store) *revoke.List {
	t.Helper()
	return runListIn(t, s, "")
}

func runListIn(t *testing.T, s revoke.Store, namespace string) *revoke.List {
	t.Helper()
	l := newList(t, s, namespace)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func newList(t *testing.T, s revoke.Store, namespace string) *revoke.List {
	t.Helper()
	l, err := revoke.NewList(revoke.Config{Store: s, Namespace: namespace, SyncEvery: listSyncEvery, MaxStale: listMaxStale, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// session is one that has begun.
type session struct {
	id, subject string
	began       time.Time
}

func begin(t *testing.T, l *revoke.List, id, subject string) session {
	t.Helper()
	at, err := l.Begin(t.Context(), revoke.Question{Subject: subject})
	if err != nil {
		t.Fatalf("%s of %s cannot begin: %v", id, subject, err)
	}
	return session{id, subject, at}
}

// ask asks a list about a session: "live", "revoked", or "undecided".
func ask(l *revoke.List, s session) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	q := revoke.Question{SessionID: s.id, Subject: s.subject, KeyID: "kid", Began: s.began}.Prepared()
	switch err := l.Check(ctx, &q); {
	case err == nil:
		return "live"
	case errors.Is(err, revoke.ErrRevoked):
		return "revoked"
	}
	return "undecided"
}

// until calls f until it is true.
func until(t *testing.T, d time.Duration, what string, f func() bool) {
	t.Helper()
	for begin := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > d {
			t.Fatalf("%s: not within %v", what, d)
		}
	}
}

// repeat calls a revocation until it is acknowledged.
func repeat(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for range 20 {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// Lagging checks that a copy that may lag is never taken for the store: primary
// and copied are stores on the two, and lag makes the copy fall behind. A list, a
// ring and a manager's store that read the copy fail at once; a list and a ring
// that had read the primary before, and are sent to the copy, refuse within
// MaxStale.
func Lagging(t *testing.T, primary, copied Store, lag func()) {
	moved := &moving{}
	moved.send(&primary)
	ring := func(s keys.Store) *keys.Ring {
		cfg := ringConfig(Role{Rotates: true}, s)
		r, err := keys.NewRing(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	writer, before := runList(t, primary), runList(t, moved)
	signing := ring(primary)
	key, err := signing.SigningKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kid := key.Public().KeyID()
	sentAway := ring(moved)
	if _, err := sentAway.KeySet(t.Context(), kid); err != nil {
		t.Fatal(err)
	}
	record := refresh.Record{Namespace: "ns", ID: "x", Subject: "ada", SessionID: "sid", Version: 1, Until: time.Now().Add(time.Hour)}
	if err := primary.Create(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	ada := begin(t, writer, "sid-ada", "ada")
	until(t, 10*time.Second, "both lists answer", func() bool { return ask(writer, ada) == "live" && ask(before, ada) == "live" })

	lag()
	moved.send(&copied)
	at := time.Now()
	repeat(t, func() error { return writer.RevokeSession(t.Context(), ada.id) })
	never := runList(t, copied)
	for time.Since(at) < listMaxStale+listSyncEvery {
		if v := ask(never, ada); v != "undecided" {
			t.Fatalf("a list that reads the copy alone says %s", v)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for range 50 {
		if v := ask(before, ada); v != "undecided" {
			t.Fatalf("past MaxStale, a list that was sent to the copy says %s", v)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if _, err := ring(copied).KeySet(t.Context(), kid); err == nil {
		t.Fatal("a ring takes the copy for its store")
	}
	until(t, 5*time.Second, "past MaxStale, a ring that was sent to the copy refuses", func() bool {
		_, err := sentAway.KeySet(t.Context(), kid)
		return err != nil
	})
	for name, f := range map[string]func() error{
		"Load": func() error { _, err := copied.Load(t.Context(), ""); return err },
		"Revisions": func() error {
			s := copied.(interface {
				Revisions(ctx context.Context, names ...string) ([]string, time.Time, error)
			})
			_, _, err := s.Revisions(t.Context(), "")
			return err
		},
		"Since": func() error { _, err := copied.Since(t.Context(), ""); return err },
		"Find":  func() error { _, err := copied.Find(t.Context(), "ns", "x"); return err },
		"List":  func() error { _, err := copied.List(t.Context(), "ns", "ada"); return err },
	} {
		if err := f(); err == nil || errors.Is(err, refresh.ErrNotFound) {
			t.Errorf("%s of a copy: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	moved.send(&primary)
	until(t, 10*time.Second, "with the primary again, it answers", func() bool { return ask(before, ada) == "revoked" })
}

// moving is a store that can be exchanged for another.
type moving struct{ to atomic.Pointer[Store] }

func (m *moving) send(s *Store) { m.to.Store(s) }

func (m *moving) Append(ctx context.Context, entries ...revoke.Entry) error {
	return (*m.to.Load()).Append(ctx, entries...)
}

func (m *moving) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	return (*m.to.Load()).Since(ctx, cursor)
}

func (*moving) Wait(context.Context, string) error { return errors.ErrUnsupported }

func (m *moving) Load(ctx context.Context, name string) (keys.Stored, error) {
	return (*m.to.Load()).Load(ctx, name)
}

func (m *moving) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	return (*m.to.Load()).Save(ctx, name, doc, rev)
}

// Environment is a database that can be replaced by a copy, under stores that use
// it.
type Environment struct {
	// Open opens a store on it, with connections of its own.
	Open func() Store
	// Take returns a copy of all revocations that it holds.
	Take func() any
	// Put replaces all that it holds by a copy, of itself or of another one.
	Put func(any)
}

// Replaced checks what happens to a store that is emptied, restored from a backup,
// and replaced by another environment's, while five lists run and two start: no
// session that was revoked is accepted, nothing is written into another
// environment, and sessions can begin throughout. other is another environment.
func Replaced(t *testing.T, env, other Environment) {
	t.Run("emptied", func(t *testing.T) {
		empty := env.Take()
		w := newWorld(t, env, "emptied")
		w.watch(func() {
			env.Put(empty)
			w.start(2)
			w.settle(true)
		})
	})
	t.Run("restored", func(t *testing.T) {
		w := newWorld(t, env, "restored")
		backup := env.Take()
		w.sessions("later")
		running := w.lists
		w.watch(func() {
			env.Put(backup)
			// Within one reading of a list that runs, the backup has what it lacked.
			until(t, 10*time.Second, "what the backup lacked is written back", func() bool {
				l := newList(t, env.Open(), "")
				return !slices.ContainsFunc(w.revoked, func(s session) bool { return ask(l, s) != "revoked" })
			})
			w.start(2)
			w.settle(true)
		})
		if len(running) != 5 {
			t.Fatal(len(running))
		}
	})
	t.Run("replaced by another environment's", func(t *testing.T) {
		// It was born long ago, and has entries of its own.
		born := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
		o := other.Open()
		if err := o.Append(t.Context(), revoke.Entry{Scope: revoke.Birth, Digest: revoke.Birth.Digest("other"), Before: born, Until: born.AddDate(100, 0, 0)}); err != nil {
			t.Fatal(err)
		}
		theirs := runList(t, o)
		repeat(t, func() error { return theirs.RevokeSession(t.Context(), "theirs") })
		w := newWorld(t, env, "foreign")
		own := env.Take()
		content := contentOf(t, env.Open())
		foreign := other.Take()
		w.watch(func() {
			env.Put(foreign)
			want := contentOf(t, env.Open())
			for _, l := range w.running() {
				until(t, 10*time.Second, "it is seen to be another store", func() bool { return l.Status().Foreign })
			}
			for _, l := range w.running() {
				_ = l.RevokeSession(t.Context(), "not to be written")
			}
			time.Sleep(10 * listSyncEvery)
			if got := contentOf(t, env.Open()); !slices.Equal(got, want) {
				t.Errorf("the other environment's store held %d entries, and now has %d", len(want), len(got))
			}
			env.Put(own)
			w.settle(false)
		})
		if got := contentOf(t, env.Open()); len(got) < len(content) {
			t.Errorf("its own store has %d entries of %d", len(got), len(content))
		}
	})
}

// contentOf are the entries of a store, in words.
func contentOf(t *testing.T, s revoke.Store) (all []string) {
	t.Helper()
	cursor := ""
	for more := true; more; {
		page, err := s.Since(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			all = append(all, fmt.Sprint(e))
		}
		cursor, more = page.Next, page.More
	}
	return all
}

// world is lists that run on one environment, and sessions that they know.
type world struct {
	t    *testing.T
	env  Environment
	name string

	mu            sync.Mutex
	lists         []*revoke.List
	live, revoked []session
}

func newWorld(t *testing.T, env Environment, name string) *world {
	w := &world{t: t, env: env, name: name}
	w.start(5)
	for _, l := range w.lists {
		until(t, 10*time.Second, "a list answers", func() bool { _, err := l.Now(t.Context()); return err == nil })
	}
	w.sessions("first")
	return w
}

// start starts more lists.
func (w *world) start(n int) {
	for range n {
		l := runList(w.t, w.env.Open())
		w.mu.Lock()
		w.lists = append(w.lists, l)
		w.mu.Unlock()
	}
}

func (w *world) running() []*revoke.List {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lists)
}

// sessions begins some at each list, and has most of them revoked in every way.
func (w *world) sessions(when string) {
	t := w.t
	t.Helper()
	for i, l := range w.running() {
		other := w.lists[(i+1)%len(w.lists)]
		subject := func(name string) string { return fmt.Sprint(w.name, "-", when, "-", name, "-", i) }
		made := func(name, subject string) session {
			return begin(t, l, fmt.Sprint(subject, "/", name), subject)
		}
		live := made("live", subject("live"))
		one := made("one", subject("one"))
		all := made("all", subject("all"))
		thief, spared := made("thief", subject("others")), made("spared", subject("others"))
		repeat(t, func() error { return other.RevokeSession(t.Context(), one.id) })
		repeat(t, func() error { return other.RevokeSubject(t.Context(), all.subject) })
		repeat(t, func() error { return other.RevokeOthers(t.Context(), spared.subject, spared.id) })
		again := made("again", subject("all"))
		w.mu.Lock()
		w.live = append(w.live, live, spared, again)
		w.revoked = append(w.revoked, one, all, thief)
		w.mu.Unlock()
	}
	w.settle(true)
}

// settle waits until all lists know everything.
func (w *world) settle(all bool) {
	w.t.Helper()
	lists := w.running()
	if !all {
		lists = lists[:5]
	}
	for i, l := range lists {
		for _, s := range w.revoked {
			until(w.t, 15*time.Second, fmt.Sprintf("list %d knows that %s is revoked", i+1, s.id), func() bool { return ask(l, s) == "revoked" })
		}
		for _, s := range w.live {
			until(w.t, 15*time.Second, fmt.Sprintf("list %d knows that %s is live", i+1, s.id), func() bool { return ask(l, s) == "live" })
		}
	}
}

// watch runs f while it asks all lists about all sessions, and has sessions begin.
func (w *world) watch(f func()) {
	w.t.Helper()
	stop := make(chan struct{})
	var watching sync.WaitGroup
	var asked, accepted, began, refused atomic.Int64
	loop := func(f func()) {
		watching.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
					f()
				}
			}
		})
	}
	loop(func() {
		for i, l := range w.running() {
			for _, s := range w.revoked {
				asked.Add(1)
				if ask(l, s) == "live" && accepted.Add(1) == 1 {
					w.t.Errorf("list %d says that %s is live", i+1, s.id)
				}
			}
		}
	})
	loop(func() {
		for i, l := range w.running() {
			began.Add(1)
			if _, err := l.Begin(context.Background(), revoke.Question{Subject: "grace"}); err != nil && refused.Add(1) == 1 {
				w.t.Errorf("a session cannot begin at list %d: %v", i+1, err)
			}
		}
	})
	stopWatching := sync.OnceFunc(func() { close(stop); watching.Wait() })
	defer stopWatching() // also if f ends the test
	f()
	time.Sleep(5 * listSyncEvery)
	stopWatching()
	w.t.Logf("%s: asked %d times about revoked sessions, %d accepted; %d sessions began, %d could not", w.t.Name(), asked.Load(), accepted.Load(), began.Load(), refused.Load())
}

// Beginnings has a subject's sessions revoked at one list, and a session begin at
// another 0 to 5 ms after the answer: 200 times, 10,000 times in full size, with
// answers that are lost and revocations that are repeated. No session is born
// revoked, and no older one survives. a, b and c are stores on one database.
func Beginnings(t *testing.T, a, b, c revoke.Store) {
	const users = 8
	lists := []*revoke.List{runList(t, &losing{Store: a}), runList(t, b), runList(t, c)}
	for _, l := range lists {
		until(t, 10*time.Second, "a list answers", func() bool { _, err := l.Now(t.Context()); return err == nil })
	}
	trials := sized(200, 10_000)
	var wg sync.WaitGroup
	var repeated atomic.Int64
	for u := range users {
		wg.Go(func() {
			for i := u; i < trials && !t.Failed(); i += users {
				if !beginning(t, lists, i, &repeated) {
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%s: %d sign-ins right after a revocation, %d answers were lost: none was born revoked, and none of the older ones survived", t.Name(), trials, repeated.Load())
}

func beginning(t *testing.T, lists []*revoke.List, i int, repeated *atomic.Int64) bool {
	subject := fmt.Sprint("user-", i)
	var made [3]session // two before, one after
	start := func(n int, l *revoke.List) bool {
		at, err := l.Begin(t.Context(), revoke.Question{Subject: subject})
		if err != nil {
			t.Errorf("trial %d: session %d cannot begin: %v", i, n, err)
			return false
		}
		made[n] = session{fmt.Sprint(subject, "/", n), subject, at}
		return true
	}
	if !start(0, lists[1]) || !start(1, lists[0]) {
		return false
	}
	for {
		var err error
		if i%2 == 0 {
			err = lists[0].RevokeSubject(t.Context(), subject)
		} else { // change the password, stay signed in here
			err = lists[0].RevokeOthers(t.Context(), subject, made[1].id)
		}
		if err == nil {
			break
		}
		repeated.Add(1)
	}
	time.Sleep(rand.N(5 * time.Millisecond))
	if !start(2, lists[1]) {
		return false
	}
	second := "revoked"
	if i%2 == 1 {
		second = "live"
	}
	ok := true
	expect := func(list int, n int, want string) {
		if got := ask(lists[list], made[n]); got != want {
			t.Errorf("trial %d: list %d says that session %d, which began %v, is %s", i, list+1, n, made[n].began, got)
			ok = false
		}
	}
	expect(0, 0, "revoked")
	expect(0, 1, second)
	expect(0, 2, "live")
	expect(1, 0, "revoked") // its reading for the beginning brought the mark
	expect(1, 1, second)
	expect(1, 2, "live")
	if i%20 == 0 {
		if _, err := lists[2].Begin(t.Context(), revoke.Question{Subject: "other"}); err != nil { // reads
			t.Error(err)
			return false
		}
		expect(2, 0, "revoked")
		expect(2, 1, second)
		expect(2, 2, "live")
	}
	return ok
}

// losing is a store whose answer to one in four Appends is lost.
type losing struct {
	revoke.Store
	n atomic.Int64
}

func (l *losing) Append(ctx context.Context, entries ...revoke.Entry) error {
	err := l.Store.Append(ctx, entries...)
	if n := l.n.Add(1); err == nil && n > 1 && n%4 == 0 {
		return errors.New("the answer is lost")
	}
	return err
}

// Orders checks that the marks of one subject (all, all but a, all but b, one
// session) give one answer in every order in which a store can hold them, and
// whichever of them is the newest, also if all of them are there twice.
func Orders(t *testing.T, s revoke.Store) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	at := func(n int) time.Time { return now.Add(time.Duration(n-10) * time.Minute) }
	entries := []revoke.Entry{{Scope: revoke.Birth, Digest: revoke.Birth.Digest("x"), Before: at(-100), Until: now.AddDate(1, 0, 0)}}
	var want []func(id string, began time.Time) bool // of each order: whether a session is revoked
	for _, times := range permutations(3) {
		all, butA, butB := at(2*times[0]+2), at(2*times[1]+2), at(2*times[2]+2)
		revoked := func(id string, began time.Time) bool {
			return id == "c" || !began.After(all) || id != "a" && !began.After(butA) || id != "b" && !began.After(butB)
		}
		for _, order := range permutations(4) {
			for twice := range 2 {
				subject := fmt.Sprint("user-", len(want))
				mark := func(except string, before time.Time) revoke.Entry {
					e := revoke.Entry{Scope: revoke.Subject, Digest: revoke.Subject.Digest(subject), Before: before, Until: now.Add(time.Hour)}
					if except != "" {
						e.Except = revoke.Session.Digest(subject + except)
					}
					return e
				}
				marks := []revoke.Entry{mark("", all), mark("a", butA), mark("b", butB),
					{Scope: revoke.Session, Digest: revoke.Session.Digest(subject + "c"), Before: at(9), Until: now.Add(time.Hour)}}
				order := slices.Clone(order)
				if twice == 1 {
					reversed := slices.Clone(order)
					slices.Reverse(reversed)
					order = append(order, reversed...)
				}
				for _, i := range order {
					entries = append(entries, marks[i])
				}
				want = append(want, revoked)
			}
		}
	}
	if err := s.Append(t.Context(), entries...); err != nil {
		t.Fatal(err)
	}
	l := newList(t, s, "")
	until(t, 30*time.Second, "the list answers", func() bool { return ask(l, session{"x", "x", now}) != "undecided" })
	for n, revoked := range want {
		subject := fmt.Sprint("user-", n)
		for _, id := range []string{"a", "b", "c", "d"} {
			for began := 1; began <= 9; began += 2 {
				expected := "live"
				if revoked(id, at(began)) {
					expected = "revoked"
				}
				if got := ask(l, session{subject + id, subject, at(began)}); got != expected {
					t.Fatalf("order %d: session %s, which began at %d, is %s and not %s", n, id, began, got, expected)
				}
			}
		}
	}
	t.Logf("%s: %d orders: one answer", t.Name(), len(want))
}

// permutations are all orders of 0 to n-1.
func permutations(n int) (out [][]int) {
	if n == 0 {
		return [][]int{{}}
	}
	for _, p := range permutations(n - 1) {
		for i := range n {
			out = append(out, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return out
}

// Growth measures 50 sign-ins and -outs of an account that has many behind it,
// 20,000 or, in full size, 200,000, against those of a fresh one, and against those
// of one with 20,000 sessions that live. seed makes the traces of n of them, all at
// once.
func Growth(t *testing.T, s Store, seed func(subject string, n int, live bool)) {
	seed("old", sized(20_000, 200_000), false)
	seed("busy", 20_000, true)
	took := map[string][]time.Duration{}
	for i := range 50 {
		for _, subject := range []string{"fresh", "old", "busy"} {
			took[subject] = append(took[subject], signInAndOut(t, s, subject, i))
		}
	}
	median := func(subject string) float64 {
		slices.Sort(took[subject])
		return float64(took[subject][25])
	}
	for _, subject := range []string{"old", "busy"} {
		ratio := median(subject) / median("fresh")
		t.Logf("%s: median of 50 sign-ins and -outs of the %s account: %.2f times that of a fresh one (bar: 2)", t.Name(), subject, ratio)
		if ratio > 20 {
			t.Errorf("the %s account takes %.1f times as long", subject, ratio)
		}
	}
}

func signInAndOut(t *testing.T, s Store, subject string, i int) time.Duration {
	t.Helper()
	begin := time.Now()
	now := begin.UTC().Truncate(time.Millisecond)
	sid := fmt.Sprint(subject, "-sid-", i)
	if err := s.Create(t.Context(), refresh.Record{Namespace: "ns", ID: fmt.Sprint(subject, "-id-", i), Subject: subject, SessionID: sid, Version: 1, Until: now.Add(time.Hour), Data: make([]byte, 300)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), revoke.Entry{Namespace: "ns", Scope: revoke.Session, Digest: revoke.Session.Digest(sid), Before: now, Until: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteSession(t.Context(), "ns", sid); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}
