package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// emptyStore returns a store with tables and nothing in them.
func emptyStore(t *testing.T) (string, *sqlstore.Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "target.db")
	s, err := sqlite.Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return path, s
}

// copyEnv is the environment of a copy, without secrets.
func (p *program) copyEnv(to string) env {
	return env{"SESSIONTOKEN_FROM": "sqlite:" + p.path, "SESSIONTOKEN_TO": "sqlite:" + to, issuerEnv: issuer}
}

// After a copy users are signed in at the target, with their tokens and their
// refresh tokens, and what was revoked is revoked there.
func TestCopy(t *testing.T) {
	bubble(testCopy)(t)
}

func testCopy(t *testing.T) {
	p := newProgram(t)
	token, first, ada := signIn(t, p.Authority, "ada")
	revokedToken, revokedRefresh, bob := signIn(t, p.Authority, "bob")
	second, err := exchange(t, p.Authority, first)
	require.NoError(t, err)
	require.NoError(t, p.Revocations().RevokeSession(t.Context(), bob.SessionID))
	time.Sleep(5 * time.Millisecond) // a program that starts at the target does so later

	to, store := emptyStore(t)
	var report copyReport
	p.copyEnv(to).decode(t, &report, "copy")
	require.Equal(t, "copied", report.Ring)
	require.Equal(t, 1, report.Devices.Copied)
	require.Equal(t, 1, report.Revoked)
	require.Equal(t, 2, report.Revocations.Copied, "the session of bob, and the birth mark")

	a := replica(t, store, theSecret)
	_, err = a.Verifier().Verify(t.Context(), token)
	require.NoError(t, err)
	require.NoError(t, checkSoon(t, a, ada))
	_, err = a.Verifier().Verify(t.Context(), revokedToken)
	require.ErrorIs(t, err, sessiontoken.ErrRevoked)
	_, err = exchange(t, a, revokedRefresh)
	require.ErrorIs(t, err, refresh.ErrInvalid)
	third, err := exchange(t, a, second)
	require.NoError(t, err)

	// Once more: nothing is left to do, and what the target has gained stays.
	p.copyEnv(to).decode(t, &report, "copy")
	require.Equal(t, copyReport{
		Name: issuer, Ring: "there", Revocations: rows{2, 0}, Devices: rows{2, 0}, Revoked: 1, Rounds: 1,
	}, report)
	fourth, err := exchange(t, a, third)
	require.NoError(t, err)
	require.NotEmpty(t, fourth)
}

// What the source has gained since the last copy is copied by the next one, also
// many exchanges of one refresh token.
func TestCopyFollows(t *testing.T) {
	p := newProgram(t)
	_, refreshToken, _ := signIn(t, p.Authority, "ada")
	_, _, bob := signIn(t, p.Authority, "bob")
	to, store := emptyStore(t)
	p.copyEnv(to).must(t, "copy")
	var err error
	for range 5 {
		refreshToken, err = exchange(t, p.Authority, refreshToken)
		require.NoError(t, err)
	}
	require.NoError(t, p.Revocations().RevokeSession(t.Context(), bob.SessionID))
	_, eves, _ := signIn(t, p.Authority, "eve")
	text := p.copyEnv(to).must(t, "copy")
	require.Contains(t, text, "Verified: the target has each row of the source.")
	a := replica(t, store, theSecret)
	_, err = exchange(t, a, refreshToken)
	require.NoError(t, err)
	_, err = exchange(t, a, eves)
	require.NoError(t, err)
	require.ErrorIs(t, checkSoon(t, a, bob), revoke.ErrRevoked)
}

// What was revoked at the target stays revoked, whatever the source holds.
func TestCopyBringsNothingBack(t *testing.T) {
	p := newProgram(t)
	token, refreshToken, ada := signIn(t, p.Authority, "ada")
	_, bobs, bob := signIn(t, p.Authority, "bob")
	kid := p.Ring().Status().Keys[0].KeyID
	to, store := emptyStore(t)
	p.copyEnv(to).must(t, "copy")

	target := p.env().with("SESSIONTOKEN_STORE", "sqlite:"+to)
	target.must(t, "sessions", "revoke", ada.SessionID)
	target.must(t, "sessions", "revoke-subject", "bob")
	target.must(t, "keys", "revoke", "--no-wait", kid)

	e := p.copyEnv(to)
	for _, e := range []env{e, e.with(secretsEnv, base64.StdEncoding.EncodeToString(theSecret))} {
		e.must(t, "copy")
		a := replica(t, store, theSecret)
		require.ErrorIs(t, checkSoon(t, a, ada), revoke.ErrRevoked)
		require.ErrorIs(t, checkSoon(t, a, bob), revoke.ErrRevoked)
		_, err := a.Verifier().Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrInvalid)
		for _, token := range []string{refreshToken, bobs} {
			_, err = exchange(t, a, token)
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
		for _, k := range a.Ring().Status().Keys {
			require.NotEqual(t, kid, k.KeyID)
		}
	}
}

// A target that has a ring of its own is joined with the source's: tokens of both
// are accepted, and what is revoked in one of them stays revoked.
func TestCopyJoinsRings(t *testing.T) {
	p, q := newProgram(t), newProgram(t)
	token, _, _ := signIn(t, p.Authority, "ada")
	others, _, _ := signIn(t, q.Authority, "bob")
	before := dump(t, q)
	r := p.copyEnv(q.path).run(t, "copy")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "set --secret-file")
	require.Equal(t, before, dump(t, q), "nothing was changed")

	_, err := q.Ring().Rotate(t.Context())
	require.NoError(t, err)
	r = p.copyEnv(q.path).with(secretsEnv, base64.StdEncoding.EncodeToString(make([]byte, 32))).run(t, "copy")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "sealed with a secret that is not given")
	page, err := q.store.Since(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, page.Entries, 1, "no revocation was copied either")

	source := dump(t, p)
	e := p.copyEnv(q.path).with(secretsEnv, base64.StdEncoding.EncodeToString(theSecret))
	var report copyReport
	e.decode(t, &report, "copy")
	require.Equal(t, "merged", report.Ring)
	require.Equal(t, source, dump(t, p), "the source is not changed")
	a := replica(t, q.store, theSecret)
	for _, token := range []string{token, others} {
		_, err := a.Verifier().Verify(t.Context(), token)
		require.NoError(t, err)
	}
	e.with(secretsEnv, "").decode(t, &report, "copy")
	require.Equal(t, "there", report.Ring)
}

// A copy that is ended at any point is completed by the next one.
func TestCopyEnded(t *testing.T) {
	p := newProgram(t)
	tokens := map[string]bool{} // whether it is live
	for i := range 40 {
		_, token, c := signIn(t, p.Authority, "ada")
		if tokens[token] = i%4 > 0; !tokens[token] {
			require.NoError(t, p.Revocations().RevokeSession(t.Context(), c.SessionID))
		}
	}
	to, store := emptyStore(t)
	e := p.copyEnv(to)
	ended := 0
	for ended < 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(60*time.Millisecond))))
		var out, errs bytes.Buffer
		code := run(ctx, []string{"copy"}, &call{stdin: strings.NewReader(""), out: &out, err: &errs, getenv: func(name string) string { return e[name] }})
		if cancel(); code == exitDone {
			to, store = emptyStore(t)
			e = p.copyEnv(to)
		} else {
			require.Equal(t, exitFailed, code)
		}
		ended++
	}
	e.must(t, "copy")
	a := replica(t, store, theSecret)
	for token, live := range tokens {
		_, err := exchange(t, a, token)
		require.Equal(t, live, err == nil, "%v", err)
	}
}

// The births of the source are the last that is written: until then a list of
// the target does not accept its sessions.
func TestCopyBirthsLast(t *testing.T) {
	p := newProgram(t)
	_, _, bob := signIn(t, p.Authority, "bob")
	require.NoError(t, p.Revocations().RevokeSession(t.Context(), bob.SessionID))
	_, store := emptyStore(t)
	broken := errors.New("broken")
	target := &failingStore{Store: store, err: broken}
	c := &copier{from: &openedStore{ring: p.store, all: p.store}, to: &openedStore{ring: target, all: target}, issuer: issuer, namespace: issuer, limit: time.Minute}
	for target.left = 0; ; target.left++ {
		left := target.left
		err := c.run(t.Context())
		target.left = left
		page, err2 := store.Since(t.Context(), "")
		require.NoError(t, err2)
		var births, others int
		for _, e := range page.Entries {
			if e.Scope == revoke.Birth {
				births++
			} else {
				others++
			}
		}
		require.True(t, births == 0 || others == 1, "a birth mark without the revocations before it")
		if err == nil {
			require.Equal(t, 1, births)
			return
		}
		require.ErrorIs(t, err, broken)
	}
}

// failingStore fails after some writes.
type failingStore struct {
	*sqlstore.Store
	left int
	err  error
}

var _ authority.Store = (*failingStore)(nil)

func (s *failingStore) write() error {
	if s.left <= 0 {
		return s.err
	}
	s.left--
	return nil
}

func (s *failingStore) Append(ctx context.Context, entries ...revoke.Entry) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Append(ctx, entries...)
}

func (s *failingStore) Create(ctx context.Context, r refresh.Record) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Create(ctx, r)
}

func (s *failingStore) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if err := s.write(); err != nil {
		return "", err
	}
	return s.Store.Save(ctx, name, doc, rev)
}

// A copy of the ring alone, from or to a file.
func TestCopyFile(t *testing.T) {
	p := newProgram(t)
	path := filepath.Join(t.TempDir(), "ring")
	e := p.copyEnv("").with("SESSIONTOKEN_TO", "file:"+path)
	require.Contains(t, e.must(t, "copy"), "A file: store has no revocations")
	file, err := keys.NewFileStore(path)
	require.NoError(t, err)
	stored, err := file.Load(t.Context(), issuer)
	require.NoError(t, err)
	original, err := p.store.Load(t.Context(), issuer)
	require.NoError(t, err)
	require.Equal(t, original.Doc, stored.Doc)
	r := e.with(issuerEnv, "https://other.example").run(t, "copy")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "no key ring of the name")
}

func FuzzHolds(f *testing.F) {
	f.Add([]byte(`{"keys":[{"jwk":{"kid":"a"}}]}`), []byte(`{"keys":[],"revoked":[{"kid":"a"}]}`))
	f.Add([]byte(`{}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if ok, err := holds(append(a[:len(a):len(a)], ' '), a); err == nil && !ok {
			t.Fatal("a document lacks a part of itself")
		}
		_, _ = holds(a, b)
	})
}
