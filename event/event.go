// Package event is the stream of what happens to sessions and keys, for audit
// logs, traces and alarms.
//
// A program sets OnEvent of authority.Config, or of the Config of each part
// that it makes by hand. One function gets the events of all parts:
//
//	OnEvent: func(ctx context.Context, e event.Event) {
//		slog.InfoContext(ctx, "session", "event", e)
//	}
//
// An event never holds a token, a key or a secret. It names subjects and
// sessions by hashes, unless InsecureEventNames of the Config is set.
package event

import (
	"context"
	"log/slog"
)

// Kind is what has happened.
type Kind string

// The kinds. An event is sent by the replica at which it happened, except those
// of keys: each replica that has the ring sends them when it learns of them.
const (
	// Begun: a session has begun, and its first token is issued. Package
	// sessionhttp may fail to hand it out after that. From an issuer.
	Begun Kind = "begun"
	// Renewed: a session has new claims. Reason is "token" for a token that was
	// renewed, such as a cookie, "refresh" for a refresh token, and
	// "connection" for a connection that lasts. From an issuer.
	Renewed Kind = "renewed"
	// Refused: a request with a credential was refused. Reason is why: see
	// Event. Requests without a credential, and those whose client has gone
	// away, are no events. From package sessionhttp.
	Refused Kind = "refused"
	// Revoked: a call has revoked sessions. Reason is what it named:
	// "session", "subject", "others" (of Subject, all but Session), "group" or
	// "all". From a list of revocations.
	Revoked Kind = "revoked"
	// Changed: a call has marked the state of Subject as changed. From a list
	// of revocations.
	Changed Kind = "changed"
	// RefreshReused: a refresh token was used twice, and its session was
	// revoked. From a refresh manager.
	RefreshReused Kind = "refresh_reused"
	// KeyRotated: KeyID is the current key in the place of another. From a
	// ring.
	KeyRotated Kind = "key_rotated"
	// KeyRevoked: KeyID is revoked. Reason is "ring" or "list", by who sent it:
	// a replica may send both.
	KeyRevoked Kind = "key_revoked"
	// NearBudget: a token of Bytes was issued, over 90 % of Limit. From an
	// issuer.
	NearBudget Kind = "near_budget"
)

// Event is one event. Fields that do not belong to its kind are empty.
//
// Subject, Session and Actor are the first 128 bits of SHA-256 in hexadecimal,
// as revoke.Scope.Digest computes them: an event and the row of a store have
// the same hash. No secret is hashed with them, so that a reader who knows or
// guesses a name can find its events.
type Event struct {
	Kind    Kind
	Subject string // the user (sub)
	Session string // the session (sid)
	Actor   string // the user who acts for Subject
	KeyID   string // the key (kid), which is no secret

	// Reason is a word. Of Refused it is the reason of the log line and the
	// metric (no_session and client_gone are never sent), or one of these in
	// the place of invalid_credentials: "expired", "revoked", "changed",
	// "audience", "state", "signature", "claims", "malformed", "over" if Load
	// has ended the session, "step_up" if a handler asks for a newer or another
	// sign-in, "reused", "client", "binder" and "refresh_token" of a refresh
	// token, and "request".
	Reason string

	// Owed: of Revoked, Changed, RefreshReused and a KeyRevoked of the list.
	// The call has failed: the store has not acknowledged the entry, which the
	// list writes again by itself. No event follows when the store has
	// acknowledged it.
	Owed bool

	Bytes, Limit int // of NearBudget
}

// LogValue returns the fields that are set as a group, for package log/slog.
func (e Event) LogValue() slog.Value {
	room := [9]slog.Attr{slog.String("kind", string(e.Kind))}
	attrs := room[:1]
	for _, a := range [...]struct{ name, value string }{
		{"subject", e.Subject}, {"session", e.Session}, {"actor", e.Actor}, {"key_id", e.KeyID}, {"reason", e.Reason},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, a.value))
		}
	}
	if e.Owed {
		attrs = append(attrs, slog.Bool("owed", true))
	}
	if e.Limit != 0 {
		attrs = append(attrs, slog.Int("bytes", e.Bytes), slog.Int("limit", e.Limit))
	}
	return slog.GroupValue(attrs...)
}

// Func is called for each event, after what it reports has taken effect and
// with no lock held.
//
// It is called by the goroutine of the call that it reports, and that call
// waits for it: it must return soon. A program that writes events to a network
// puts them into a channel with room, and drops those that find none. Events of
// a ring come from a goroutine of their own. Func may be called by many
// goroutines at once.
//
// ctx has the values of the call's context, such as a trace. It does not end
// with the request. If Func panics, the panic is logged without its value, and
// the call goes on.
type Func func(ctx context.Context, e Event)
