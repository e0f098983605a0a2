package revoke_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

var errDown = errors.New("the store is down")

// faulty is a store that can fail, hang, and apply what it reports as failed.
type faulty struct {
	revoke.MemStore
	mode    atomic.Int32 // of all calls
	writes  atomic.Int32 // of Append alone
	appends atomic.Int64 // calls of Append
	reads   atomic.Int64 // calls of Since
}

const (
	good      int32 = iota
	down            // fails
	hung            // hangs until ctx ends
	swallowed       // hangs, whatever becomes of ctx
	lostReply       // is done, and fails
)

func fault(ctx context.Context, mode int32) error {
	switch mode {
	case down:
		return errDown
	case hung:
		<-ctx.Done()
		return ctx.Err()
	case swallowed:
		time.Sleep(6 * time.Hour)
		return errDown
	}
	return nil
}

func (f *faulty) Append(ctx context.Context, entries ...revoke.Entry) error {
	f.appends.Add(1)
	mode := max(f.mode.Load(), f.writes.Load())
	if err := fault(ctx, mode); err != nil {
		return err
	}
	if err := f.MemStore.Append(ctx, entries...); err != nil {
		return err
	}
	if mode == lostReply {
		return errDown
	}
	return nil
}

func (f *faulty) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	f.reads.Add(1)
	if err := fault(ctx, f.mode.Load()); err != nil {
		return revoke.Page{}, err
	}
	return f.MemStore.Since(ctx, cursor)
}

// revocations returns what a store holds, but for births.
func revocations(t *testing.T, s revoke.Store) []revoke.Entry {
	t.Helper()
	p, err := s.Since(t.Context(), "")
	require.NoError(t, err)
	var out []revoke.Entry
	for _, e := range p.Entries {
		if e.Scope != revoke.Birth {
			out = append(out, e)
		}
	}
	return out
}

func newList(t *testing.T, s revoke.Store, change ...func(*revoke.Config)) *revoke.List {
	t.Helper()
	cfg := revoke.Config{Store: s, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	l, err := revoke.NewList(cfg)
	require.NoError(t, err)
	return l
}

// run runs a list until the function that it returns is called, or the test ends.
func run(t *testing.T, l *revoke.List) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var stopped atomic.Bool
	stop = func() {
		if stopped.CompareAndSwap(false, true) {
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
		}
	}
	t.Cleanup(stop)
	synctest.Wait()
	return stop
}

func running(t *testing.T, s revoke.Store, change ...func(*revoke.Config)) *revoke.List {
	t.Helper()
	l := newList(t, s, change...)
	run(t, l)
	return l
}

func ask(t *testing.T, l *revoke.List, sid, sub, kid string, began time.Time) error {
	t.Helper()
	q := revoke.Question{SessionID: sid, Subject: sub, KeyID: kid, Began: began}.Prepared()
	_, live := l.Live(&q)
	err := l.Check(t.Context(), &q)
	if live {
		require.NoError(t, err, "Live says more than Check")
	}
	if err != nil {
		_, live = l.Live(&q)
		require.False(t, live, "Live says more than Check")
	}
	return err
}

// revoked reports whether a session is revoked, at a list that knows.
func revoked(t *testing.T, l *revoke.List, sid, sub, kid string, began time.Time) bool {
	t.Helper()
	err := ask(t, l, sid, sub, kid, began)
	if err != revoke.ErrRevoked {
		require.NoError(t, err)
	}
	return err != nil
}

// begin returns when a session of a subject begins.
func begin(t *testing.T, l *revoke.List, subject string) time.Time {
	t.Helper()
	begun, err := l.Begin(t.Context(), revoke.Question{Subject: subject})
	require.NoError(t, err)
	require.Equal(t, begun.Truncate(time.Millisecond), begun)
	return begun
}

func sessionEntry(value string) revoke.Entry {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return revoke.Entry{Scope: revoke.Session, Digest: revoke.Session.Digest(value), Before: now, Until: now.Add(time.Hour)}
}

func subjectEntry(value string, before, until time.Time) revoke.Entry {
	return revoke.Entry{Scope: revoke.Subject, Digest: revoke.Subject.Digest(value), Before: before.UTC(), Until: until.UTC()}
}

// made is a store that makes its entries up, page by page.
type made struct {
	revoke.MemStore
	make func(int) revoke.Entry
	n    int
}

func (m *made) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	p, err := m.MemStore.Since(ctx, "")
	if err != nil {
		return p, err
	}
	from, _ := strconv.Atoi(cursor)
	to := min(m.n, from+10_000)
	p.Entries = nil
	for i := from; i < to; i++ {
		p.Entries = append(p.Entries, m.make(i))
	}
	p.Next, p.More, p.Reset = strconv.Itoa(to), to < m.n, false
	return p, nil
}

// lastReading lets a reading that is under way end within the bubble. It is the
// first cleanup of a test, so that it comes last.
func lastReading() { time.Sleep(6 * time.Second) }
