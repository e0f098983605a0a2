package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// keys status shows each key, the secret that seals it, and the next change, and
// changes nothing.
func TestKeysStatus(t *testing.T) {
	p := newProgram(t)
	before, err := p.store.Load(t.Context(), issuer)
	require.NoError(t, err)
	newer := bytes.Repeat([]byte("newer"), 8)
	both := p.env().with(secretsEnv, base64.StdEncoding.EncodeToString(newer)+","+base64.StdEncoding.EncodeToString(theSecret))

	var report ringJSON
	both.decode(t, &report, "keys status")
	require.Len(t, report.Keys, 2)
	require.Equal(t, []secretJSON{{"secret 1 of SESSIONTOKEN_SECRETS", 0}, {"secret 2 of SESSIONTOKEN_SECRETS", 2}}, report.Secrets)
	require.Equal(t, "key "+report.Keys[1].KeyID+" becomes current", report.Change)
	require.WithinDuration(t, report.Keys[1].SignsFrom, *report.NextChange, 0)
	require.Zero(t, report.Sealed)

	without := p.env().with(secretsEnv, "")
	without.decode(t, &report, "keys status")
	require.Equal(t, 2, report.Sealed, "without secrets")
	wrong := p.env().with(secretsEnv, base64.StdEncoding.EncodeToString(newer))
	text := wrong.must(t, "keys", "status")
	require.Contains(t, text, "2 private keys are sealed with secrets that are not given here.")
	require.Contains(t, text, "SESSIONTOKEN_SECRETS seals 0 private keys")

	after, err := p.store.Load(t.Context(), issuer)
	require.NoError(t, err)
	require.Equal(t, before.Rev, after.Rev)
}

// keys rotate brings the next key forward, and a program follows.
func TestKeysRotate(t *testing.T) {
	p := newProgram(t)
	var before, after ringJSON
	p.env().decode(t, &before, "keys status")
	p.env().decode(t, &after, "keys rotate")
	require.NotNil(t, after.Rotates)
	require.True(t, after.Rotates.Before(before.Keys[0].SignsUntil))
	require.WithinDuration(t, before.Keys[1].Published.Add(24*time.Hour), *after.Rotates, time.Second)
	require.NoError(t, p.Ring().Look(t.Context()))
	require.WithinDuration(t, *after.Rotates, p.Ring().Status().Keys[0].SignsUntil, 0)
	require.Contains(t, p.env().must(t, "keys", "rotate"), "Acknowledged. The next key becomes current")
}

// keys reseal seals with the first secret, and keys of both algorithms keep
// their own.
func TestKeysReseal(t *testing.T) {
	p := newProgram(t)
	newer := bytes.Repeat([]byte("newer"), 8)
	both := p.env().with(secretsEnv, base64.StdEncoding.EncodeToString(newer)+","+base64.StdEncoding.EncodeToString(theSecret))
	var report ringJSON
	both.decode(t, &report, "keys reseal")
	require.Equal(t, 2, report.Secrets[0].Seals)
	require.Zero(t, report.Secrets[1].Seals)
	again := replica(t, p.store, newer)
	_, err := again.Ring().SigningKey(t.Context())
	require.NoError(t, err, "the new secret alone opens the keys")
}

// keys revoke revokes in the ring and in the list: a replica that has neither
// read refuses the tokens when it has read the list alone.
func TestKeysRevoke(t *testing.T) {
	p := newProgram(t)
	token, _, _ := signIn(t, p.Authority, "ada")
	kid := p.Ring().Status().Keys[0].KeyID
	_, err := p.Verifier().Verify(t.Context(), token)
	require.NoError(t, err)

	var done revokedKeys
	p.env().decode(t, &done, "keys revoke", "--no-wait", kid)
	require.Equal(t, []string{kid}, done.KeyIDs)
	require.False(t, done.Waited)
	require.NotEqual(t, kid, done.Current)
	require.EqualValues(t, 30, done.Within, "MaxStale of the program's list")
	_, most := p.Revocations().Staleness()
	require.EqualValues(t, most.Seconds(), done.Within)

	require.NoError(t, p.Revocations().Sync(t.Context()))
	_, err = p.Verifier().Verify(t.Context(), token)
	require.ErrorIs(t, err, sessiontoken.ErrRevoked)
	require.NoError(t, p.Ring().Look(t.Context()))
	for _, k := range p.Ring().Status().Keys {
		require.NotEqual(t, kid, k.KeyID)
	}
	// It can be repeated, such as after an error.
	p.env().must(t, "keys", "revoke", "--no-wait", kid)
}

// Without --no-wait it returns when the time has passed within which every
// replica knows, and says so. An interrupted wait says what is done.
func TestKeysRevokeWaits(t *testing.T) {
	p := newProgram(t)
	kid := p.Ring().Status().Keys[0].KeyID
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	writes := writerFunc(func(b []byte) (int, error) {
		cancel()
		return out.Write(b)
	})
	code := run(ctx, []string{"keys", "revoke", kid}, &call{stdin: strings.NewReader(""), out: writes, err: &errs, getenv: func(name string) string { return p.env()[name] }})
	require.Equal(t, exitFailed, code)
	require.Contains(t, out.String(), "Every replica refuses their tokens by")
	require.Contains(t, errs.String(), "the keys are revoked; the wait was interrupted before")
	require.True(t, strings.Contains(out.String(), kid))

	synctest.Test(t, func(t *testing.T) {
		p := newProgram(t)
		began := time.Now()
		text := p.env().must(t, "keys", "revoke", "--timeout", "1h", p.Ring().Status().Keys[0].KeyID)
		require.GreaterOrEqual(t, time.Since(began), 30*time.Second)
		require.Contains(t, text, "That time has passed, and the ring does not have them")
		var done revokedKeys
		p.env().decode(t, &done, "keys revoke", "--timeout", "1h", p.Ring().Status().Keys[0].KeyID)
		require.True(t, done.Waited)
		require.False(t, time.Now().Before(done.Everywhere))
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// keys revoke never creates a ring, and revokes nothing if an id is unknown or a
// secret is wrong.
func TestKeysRevokeRefuses(t *testing.T) {
	p := newProgram(t)
	kid := p.Ring().Status().Keys[0].KeyID
	before := dump(t, p)
	for _, row := range []struct {
		name, want string
		env        env
		args       []string
		code       int
	}{
		{"no id", "it wants the ids of keys", p.env(), nil, exitUsage},
		{"an unknown id", "nothing was revoked: 'sessiontoken keys status' lists the ids", p.env(), []string{kid, "unknown"}, exitFailed},
		{"another name", `no key ring of the name "https://other.example"`, p.env().with(issuerEnv, "https://other.example"), []string{kid}, exitFailed},
		{"another secret", "sealed with a secret that is not given", p.env().with(secretsEnv, base64.StdEncoding.EncodeToString(make([]byte, 32))), []string{kid}, exitFailed},
		{"a token", "looks like a token", p.env(), []string{"eyJhbGciOiJFUzI1NiJ9.e30.x"}, exitUsage},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := row.env.run(t, append([]string{"keys", "revoke", "--no-wait"}, row.args...)...)
			require.Equal(t, row.code, r.code, r.err)
			require.Contains(t, r.err, row.want)
			require.NotContains(t, r.err, "eyJ")
			require.Empty(t, r.out)
			require.Equal(t, before, dump(t, p))
		})
	}
	t.Run("an empty store", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "empty.db")
		s, err := sqlite.Open(t.Context(), path)
		require.NoError(t, err)
		defer s.Close()
		r := p.env().with("SESSIONTOKEN_STORE", "sqlite:"+path).run(t, "keys", "revoke", "--no-wait", kid)
		require.Equal(t, exitFailed, r.code)
		stored, err := s.Load(t.Context(), issuer)
		require.NoError(t, err)
		require.Empty(t, stored.Doc)
		page, err := s.Since(t.Context(), "")
		require.NoError(t, err)
		require.Empty(t, page.Entries)
	})
}

// A ring in a file has no list: revoke says what it cannot do, and --ring-only
// revokes in the ring.
func TestKeysInFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring.json")
	store, err := keys.NewFileStore(path)
	require.NoError(t, err)
	s := &site{openedStore: &openedStore{ring: store}, issuer: issuer, namespace: issuer}
	sealer, err := s.sealingOf([]secret{{"", theSecret}})
	require.NoError(t, err)
	ring, err := s.changer(sealer, keys.EdDSA)
	require.NoError(t, err)
	first, err := ring.SigningKey(t.Context())
	require.NoError(t, err)
	kid := first.Public().KeyID()

	e := (&program{}).env().with("SESSIONTOKEN_STORE", "file:"+path)
	var report ringJSON
	e.decode(t, &report, "keys status")
	require.Equal(t, kid, report.Keys[0].KeyID)
	e.must(t, "keys", "rotate")
	r := e.run(t, "keys", "revoke", "--no-wait", kid)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "--ring-only")
	var done revokedKeys
	e.decode(t, &done, "keys revoke", "--no-wait", "--ring-only", kid)
	require.NoError(t, ring.Look(t.Context()))
	require.Equal(t, keys.EdDSA, ring.Status().Keys[0].Algorithm, "the algorithm of the ring")
	r = e.run(t, "sessions", "revoke-subject", "ada")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "holds a key ring alone")
}

// dump returns all that a store holds, as text.
func dump(t *testing.T, p *program) string {
	t.Helper()
	var b strings.Builder
	stored, err := p.store.Load(t.Context(), issuer)
	require.NoError(t, err)
	b.WriteString(stored.Rev)
	page, err := p.store.Since(t.Context(), "")
	require.NoError(t, err)
	for _, e := range page.Entries {
		b.WriteString(string(e.Scope))
		b.WriteString(base64.StdEncoding.EncodeToString(e.Digest[:]))
	}
	records, err := p.store.List(t.Context(), issuer, "ada")
	require.NoError(t, err)
	for _, r := range records {
		b.WriteString(r.ID)
		b.Write(r.Data)
	}
	return b.String()
}
