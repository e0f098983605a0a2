package oidclogin

import (
	"slices"
	"time"

	"github.com/sessiontoken/sessiontoken"
)

// The labels of groups. Each session that begins here belongs to the group of
// its subject at the provider, and to that of its session at the provider if
// the ID token names one.
const (
	sessionLabel = "oidc session"
	subjectLabel = "oidc subject"
	logoutLabel  = "oidc logout token"
)

// sessionGroup returns the group of the sessions that one session at a provider
// has begun.
func sessionGroup(issuer, sid string) sessiontoken.Group {
	return sessiontoken.GroupOf(sessionLabel, issuer, sid)
}

// subjectGroup returns the group of the sessions of one subject of a provider.
func subjectGroup(issuer, sub string) sessiontoken.Group {
	return sessiontoken.GroupOf(subjectLabel, issuer, sub)
}

// logoutID returns what the list knows a logout token by: as a session of that
// id, which was revoked. No session has it, since the random part of an id is
// longer.
func logoutID(issuer, jti string) string {
	return string(sessiontoken.GroupOf(logoutLabel, issuer, jti))
}

// startOf returns how the session of an ID token begins. earliest is the
// store's time at which the login began; now is the store's time. The subject
// is the application's: startOf leaves it empty.
func startOf(t *idToken, earliest, now time.Time) sessiontoken.Start {
	s := sessiontoken.Start{
		Groups:   []sessiontoken.Group{subjectGroup(t.issuer, t.subject)},
		Earliest: earliest,
		AuthTime: t.authTime,
		ACR:      t.acr,
		AMR:      slices.Clone(t.amr),
	}
	if t.sessionID != "" {
		s.Groups = append(s.Groups, sessionGroup(t.issuer, t.sessionID))
	}
	if s.AuthTime.After(now) {
		s.AuthTime = now
	}
	return s
}
