package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Each command revokes what it names and nothing else, prints when that holds
// everywhere, and a replica that runs sees it.
func TestSessions(t *testing.T) {
	for _, row := range []struct {
		name string
		args func(c *authorityClaims) []string
		bob  bool // the session of another user is revoked too
		want error
	}{
		{"revoke", func(c *authorityClaims) []string { return []string{"sessions", "revoke", "--json", c.SessionID} }, false, revoke.ErrRevoked},
		{"revoke-subject", func(*authorityClaims) []string { return []string{"sessions", "revoke-subject", "--json", "ada"} }, false, revoke.ErrRevoked},
		{"revoke-all", func(*authorityClaims) []string { return []string{"sessions", "revoke-all", "--json", "--yes"} }, true, revoke.ErrRevoked},
		{"changed", func(*authorityClaims) []string { return []string{"sessions", "changed", "--json", "ada"} }, false, nil},
	} {
		t.Run(row.name, bubble(func(t *testing.T) {
			p := newProgram(t)
			_, refreshToken, ada := signIn(t, p.Authority, "ada")
			_, _, bob := signIn(t, p.Authority, "bob")
			time.Sleep(2 * time.Millisecond) // the clock of a session is whole milliseconds
			var m mark
			args := row.args(ada)
			p.env().decode(t, &m, args[0]+" "+args[1], args[3:]...)
			require.WithinDuration(t, m.Acknowledged.Add(30*time.Second), m.Everywhere, 0)
			require.WithinDuration(t, m.Acknowledged.Add(6*time.Second), m.Healthy, 0)
			err := checkSoon(t, p.Authority, ada)
			if row.want != nil {
				require.ErrorIs(t, err, row.want)
				_, err := exchange(t, p.Authority, refreshToken)
				require.ErrorIs(t, err, refresh.ErrInvalid)
			} else {
				q := question(ada)
				q.IssuedAt = ada.IssuedAt
				prepared := q.Prepared()
				require.ErrorIs(t, p.Revocations().Check(t.Context(), &prepared), revoke.ErrChanged)
			}
			if row.bob {
				require.ErrorIs(t, checkSoon(t, p.Authority, bob), revoke.ErrRevoked)
			} else {
				require.NoError(t, checkSoon(t, p.Authority, bob))
			}
		}))
	}
}

// What is revoked stays revoked for as long as any session can last, whatever
// MaxSession the program has.
func TestSessionsAreRemembered(t *testing.T) {
	p := newProgram(t)
	_, _, c := signIn(t, p.Authority, "ada")
	p.env().must(t, "sessions", "revoke", c.SessionID)
	page, err := p.store.Since(t.Context(), "")
	require.NoError(t, err)
	last := page.Entries[len(page.Entries)-1]
	require.Equal(t, revoke.Session.Digest(c.SessionID), last.Digest)
	require.Greater(t, last.Until.Sub(page.Time), 400*24*time.Hour)
}

// A command line that would revoke nothing, or too much, is refused.
func TestSessionsRefuse(t *testing.T) {
	p := newProgram(t)
	_, refreshToken, c := signIn(t, p.Authority, "ada")
	before := dump(t, p)
	for _, row := range []struct {
		name, want string
		env        env
		args       []string
		code       int
	}{
		{"all without --yes", "set --yes", p.env(), []string{"revoke-all"}, exitUsage},
		{"no session", "it wants the ids of sessions", p.env(), []string{"revoke"}, exitUsage},
		{"not a session", "not the id of a session", p.env(), []string{"revoke", "ada@site.example with a blank"}, exitUsage},
		{"two subjects", "it wants one subject", p.env(), []string{"revoke-subject", "ada", "bob"}, exitUsage},
		{"an empty subject", "argument 1 is empty", p.env(), []string{"revoke-subject", ""}, exitUsage},
		{"not a group", "the argument is no group", p.env(), []string{"revoke-group", "admins"}, exitUsage},
		{"a refresh token", "looks like a token", p.env(), []string{"revoke", refreshToken}, exitUsage},
		{"a flag behind", "flags come first", p.env(), []string{"revoke", c.SessionID, "--json"}, exitUsage},
		{"another name", "no program with the name", p.env().with(issuerEnv, "https://other.example"), []string{"revoke", c.SessionID}, exitFailed},
		{"no name", "no authority is named", p.env().with(issuerEnv, ""), []string{"revoke", c.SessionID}, exitUsage},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := row.env.run(t, append([]string{"sessions"}, row.args...)...)
			require.Equal(t, row.code, r.code, r.err)
			require.Contains(t, r.err, row.want)
			require.NotContains(t, r.err, refreshToken)
			require.Empty(t, r.out)
			require.Equal(t, before, dump(t, p))
		})
	}
}

// devices list shows the devices of a user, and devices revoke signs one of them
// out.
func TestDevices(t *testing.T) {
	p := newProgram(t)
	_, first, a := signIn(t, p.Authority, "ada")
	_, second, _ := signIn(t, p.Authority, "ada")
	var list struct{ Devices []deviceJSON }
	p.env().decode(t, &list, "devices list", "ada")
	require.Len(t, list.Devices, 2)
	require.Equal(t, "Firefox on Linux", list.Devices[0].Label)
	i := 0
	if list.Devices[1].SessionID == a.SessionID {
		i = 1
	}
	require.Contains(t, p.env().must(t, "devices", "list", "ada"), list.Devices[i].ID)
	require.Contains(t, p.env().must(t, "devices", "list", "eve"), "no devices")

	before := dump(t, p)
	r := p.env().run(t, "devices", "revoke", "--", "ada", list.Devices[i].ID, "unknown-device")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "nothing was revoked")
	require.Equal(t, before, dump(t, p))

	p.env().must(t, "devices", "revoke", "--", "ada", list.Devices[i].ID)
	require.ErrorIs(t, checkSoon(t, p.Authority, a), revoke.ErrRevoked)
	_, err := exchange(t, p.Authority, first)
	require.ErrorIs(t, err, refresh.ErrInvalid)
	_, err = exchange(t, p.Authority, second)
	require.NoError(t, err)
	p.env().decode(t, &list, "devices list", "ada")
	require.Len(t, list.Devices, 1)
}

// A label is the client's: it does not reach the terminal as it is.
func TestPrintable(t *testing.T) {
	require.Equal(t, "a?[31mb??c é", printable("a\x1b[31mb\r\u202ec é"))
}
