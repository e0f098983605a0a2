package oidclogin

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

func TestGroupsDiffer(t *testing.T) {
	seen := map[sessiontoken.Group]bool{}
	for _, g := range []sessiontoken.Group{
		sessionGroup(opIssuer, "a"), subjectGroup(opIssuer, "a"), sessiontoken.Group(logoutID(opIssuer, "a")),
		sessionGroup(opIssuer, "b"), sessionGroup(opIssuer+"/", "a"), sessionGroup("", opIssuer+"a"),
	} {
		require.False(t, seen[g])
		seen[g] = true
	}
	require.Equal(t, sessionGroup(opIssuer, "a"), sessionGroup(opIssuer, "a"))
}

func TestStartOf(t *testing.T) {
	earliest := opNow.Add(-time.Minute)
	for _, c := range []struct {
		name  string
		token idToken
		want  sessiontoken.Start
	}{
		{"all", idToken{issuer: opIssuer, subject: "s", sessionID: "p", acr: "a", amr: []string{"pwd"}, authTime: opNow.Add(-time.Hour)},
			sessiontoken.Start{Groups: []sessiontoken.Group{subjectGroup(opIssuer, "s"), sessionGroup(opIssuer, "p")}, Earliest: earliest, AuthTime: opNow.Add(-time.Hour), ACR: "a", AMR: []string{"pwd"}}},
		{"no session at the provider", idToken{issuer: opIssuer, subject: "s"},
			sessiontoken.Start{Groups: []sessiontoken.Group{subjectGroup(opIssuer, "s")}, Earliest: earliest}},
		{"a clock that is ahead", idToken{issuer: opIssuer, subject: "s", authTime: opNow.Add(30 * time.Second)},
			sessiontoken.Start{Groups: []sessiontoken.Group{subjectGroup(opIssuer, "s")}, Earliest: earliest, AuthTime: opNow}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, startOf(&c.token, earliest, opNow))
		})
	}
}

// What a session cannot have is dropped as a whole: the session is the weaker
// one.
func TestACRAndAMRThatDoNotFit(t *testing.T) {
	long, many := strings.Repeat("x", 65), strings.Split(strings.Repeat("x ", 10)+"x", " ")
	fits, ten := strings.Repeat("x", 64), strings.Split(strings.Repeat("x ", 9)+"x", " ")
	for _, c := range []struct {
		name     string
		acr, amr any
		wantACR  string
		wantAMR  []string
	}{
		{"longest", fits, append([]string{fits}, ten[1:]...), fits, append([]string{fits}, ten[1:]...)},
		{"too long", long, []string{"pwd", long}, "", nil},
		{"too many", "", many, "", nil},
		{"an empty name", "a", []string{"pwd", ""}, "a", nil},
		{"of another type", []string{"a"}, "pwd", "", nil},
		{"a name of another type", 1, []any{"pwd", 1}, "", nil},
		{"null", members(nil), []any{"pwd", members(nil)}, "", nil},
		{"empty", members{}, []string{}, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			token, err := checkID(t, sign("ES256", headerOf("ES256", "JWT"), idClaims().with(members{"acr": c.acr, "amr": c.amr}).text()), idRules())
			require.NoError(t, err)
			require.Equal(t, c.wantACR, token.acr)
			require.Equal(t, c.wantAMR, token.amr)

			_, _, err = newIssuer(t).Begin(t.Context(), withSubject(startOf(token, time.Time{}, opNow)), struct{}{})
			require.NoError(t, err, "a session can have what is left")
		})
	}
}

func newIssuer(t *testing.T) *sessiontoken.Issuer[struct{}] {
	t.Helper()
	key, err := keys.GenerateKey(keys.ES256)
	require.NoError(t, err)
	signer, err := keys.NewStatic(key)
	require.NoError(t, err)
	issuer, err := sessiontoken.NewIssuer[struct{}](sessiontoken.IssuerConfig{Issuer: "https://site.example", Audience: []string{"https://site.example"}, Keys: signer})
	require.NoError(t, err)
	return issuer
}

func withSubject(s sessiontoken.Start) sessiontoken.Start {
	s.Subject = "user-1"
	return s
}

// Both groups make a session token at most 46 bytes longer.
func TestSizeOfGroups(t *testing.T) {
	issuer := newIssuer(t)
	size := func(s sessiontoken.Start) int {
		token, _, err := issuer.Begin(t.Context(), withSubject(s), struct{}{})
		require.NoError(t, err)
		return len(token)
	}
	without := size(sessiontoken.Start{})
	with := size(startOf(&idToken{issuer: opIssuer, subject: strings.Repeat("s", 255), sessionID: strings.Repeat("p", 255)}, time.Time{}, opNow))
	require.Greater(t, with, without)
	require.LessOrEqual(t, with, without+46)
}
