package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

const (
	asEditor = "200 Ada (editor) of analytical-engines"
	asAdmin  = "200 Ada (admin) of analytical-engines"
)

func (s *story) firstKeys(ctx context.Context) error {
	for _, r := range []*replica{s.a, s.b} {
		if _, err := r.Ring().SigningKey(ctx); err != nil { // the first use makes the keys
			return err
		}
	}
	status := s.a.Ring().Status().Keys
	for _, k := range status {
		s.say("%-7s  %s  kid %s", k.Phase, k.Algorithm, short(k.KeyID))
	}
	if err := s.check(len(status) == 2 && status[0].Phase == "current" && status[1].Phase == "next",
		"one key signs; the next is published a day ahead of its turn"); err != nil {
		return err
	}
	if err := s.check(s.b.currentKey() == status[0].KeyID, "both replicas sign with it"); err != nil {
		return err
	}
	published, err := s.b.ask(ctx, "GET", "/.well-known/jwks.json", "", nil)
	if err != nil {
		return err
	}
	if err := s.check(published.status == 200 && strings.Contains(published.text, status[0].KeyID) && strings.Contains(published.text, status[1].KeyID),
		"their public halves are at %s/.well-known/jwks.json", s.issuer); err != nil {
		return err
	}
	discovery, err := s.a.ask(ctx, "GET", "/.well-known/openid-configuration", "", nil)
	if err != nil {
		return err
	}
	return s.check(discovery.status == 200 && strings.Contains(discovery.text, `"`+s.issuer+`/.well-known/jwks.json"`),
		"who knows only the site's URL finds that address by discovery")
}

func (s *story) signIn(ctx context.Context) error {
	wrong, err := s.a.ask(ctx, "POST", "/sign-in", "", url.Values{"password": {"guess"}})
	if err != nil {
		return err
	}
	if err := s.check(wrong.status == 401 && wrong.token == "", "a wrong password: %s", wrong); err != nil {
		return err
	}
	if err := s.signInAt(ctx, s.a); err != nil {
		return err
	}
	claims, err := s.a.Verifier().Verify(ctx, s.token)
	if err != nil {
		return err
	}
	s.say("subject %s, session %s, until %s", claims.Subject, short(claims.SessionID), claims.Expires.Local().Format(time.TimeOnly))
	s.say("state %+v", claims.State)
	report, err := s.a.Issuer().Size(ctx, ada, claims.State)
	if err != nil {
		return err
	}
	s.show(report, 4)
	return s.check(report.Bytes == len(s.token), "the token in the cookie has %d bytes, as Issuer.Size foretold", len(s.token))
}

// signInAt signs Ada in and keeps her cookie, as a browser does.
func (s *story) signInAt(ctx context.Context, r *replica) error {
	in, err := r.ask(ctx, "POST", "/sign-in", "", url.Values{"password": {password}})
	if err != nil {
		return err
	}
	s.token = in.token
	return s.check(in.status == 200 && in.token != "", "%s, Ada's password: %d, and a cookie", r.name, in.status)
}

func (s *story) read(ctx context.Context) error {
	return s.me(ctx, "GET /me", s.token, asEditor, s.everywhere()...)
}

func (s *story) renew(ctx context.Context) error {
	state, _ := s.users.of(ada)
	state.Roles = []string{"admin"}
	s.users.set(ada, state)

	old := s.token
	before, err := s.a.Verifier().Verify(ctx, old)
	if err != nil {
		return err
	}
	s.say("a cookie past half its token's life is renewed on the way; here the page asks for it")
	renewed, err := s.b.ask(ctx, "POST", "/renew", old, nil)
	if err != nil {
		return err
	}
	claims, err := s.a.Verifier().Verify(ctx, renewed.token)
	if err != nil {
		return err
	}
	s.token = renewed.token
	if err := s.check(claims.SessionID == before.SessionID && claims.Began.Equal(before.Began) && claims.TokenID != before.TokenID,
		"a new token of the same session %s, which still began at %s", short(claims.SessionID), claims.Began.Local().Format(time.TimeOnly)); err != nil {
		return err
	}
	if err := s.check(slices.Equal(claims.State.Roles, []string{"admin"}), "its roles were read anew: %v", claims.State.Roles); err != nil {
		return err
	}
	if err := s.me(ctx, "the renewed token", s.token, asAdmin, s.everywhere()...); err != nil {
		return err
	}
	// This is the price of keeping no state on the server, and why TTL is short.
	return s.me(ctx, "the old token, stale until it expires", old, asEditor, s.api)
}

func (s *story) tooBig(ctx context.Context) error {
	state, _ := s.users.of(ada)
	state.Permissions = nil
	for i := range 200 {
		state.Permissions = append(state.Permissions, fmt.Sprintf("orders:%03d:write", i))
	}
	token, _, err := s.a.Issuer().Issue(ctx, ada, state)
	var tooBig *sessiontoken.SizeError
	if err := s.check(errors.As(err, &tooBig) && token == "", "a *SizeError: %v", err); err != nil {
		return err
	}
	report, err := s.a.Issuer().Size(ctx, ada, state)
	if err != nil {
		return err
	}
	s.show(report, 4)
	return s.check(report.Bytes == tooBig.Report.Bytes && report.Bytes > report.Limit && report.Claims[0].Path == "state.permissions",
		"Issuer.Size says the same without signing, for a test of your own")
}

func (s *story) tamper(ctx context.Context) error {
	part := strings.Split(s.token, ".") // header, payload, signature
	payload, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		return err
	}
	promoted := bytes.Replace(payload, []byte(`"admin"`), []byte(`"owner"`), 1)
	if bytes.Equal(promoted, payload) {
		return errors.New("the payload has no role to change")
	}
	forged := part[0] + "." + base64.RawURLEncoding.EncodeToString(promoted) + "." + part[2]
	if err := s.me(ctx, `role "owner" written into the payload`, forged, "401 not valid", s.everywhere()...); err != nil {
		return err
	}
	first := "A"
	if part[2][0] == 'A' {
		first = "B"
	}
	flipped := part[0] + "." + part[1] + "." + first + part[2][1:]
	return s.me(ctx, "a character of the signature changed", flipped, "401 not valid", s.everywhere()...)
}

func (s *story) expire(ctx context.Context) error {
	// An issuer by hand, with the site's keys and a TTL that the story can wait for.
	cfg := s.a.Issuer().Config()
	cfg.TTL = 2 * time.Second
	shortLived, err := sessiontoken.NewIssuer[State](cfg)
	if err != nil {
		return err
	}
	state, _ := s.users.of(ada)
	token, claims, err := shortLived.Issue(ctx, ada, state)
	if err != nil {
		return err
	}
	s.say("a token is valid for 5 min unless told otherwise, this one for %v", claims.Expires.Sub(claims.IssuedAt))
	if err := s.until(ctx, s.api, "the token after its time", token, "401 expired"); err != nil {
		return err
	}
	again, err := s.a.ask(ctx, "GET", "/me", token, nil)
	if err != nil {
		return err
	}
	if err := s.check(again.String() == asAdmin && again.token != "",
		"%s renews it within IdleTimeout, 1 h unless told otherwise: %s, and a new cookie", s.a.name, again); err != nil {
		return err
	}
	return s.me(ctx, "the new cookie", again.token, asAdmin, s.everywhere()...)
}

func (s *story) signOut(ctx context.Context) error {
	out, err := s.a.ask(ctx, "POST", "/sign-out", s.token, nil)
	if err != nil {
		return err
	}
	if err := s.check(out.status == 200, "%s, POST /sign-out: %d, so the store has it", s.a.name, out.status); err != nil {
		return err
	}
	if err := s.me(ctx, "a copy of the token", s.token, "401 revoked", &s.a.server); err != nil {
		return err
	}
	if err := s.until(ctx, &s.b.server, "which reads the store each second", s.token, "401 revoked"); err != nil {
		return err
	}
	// An API that has to know sooner shares the store.
	return s.me(ctx, "which has no store, until the token's exp", s.token, asAdmin, s.api)
}

func (s *story) revoke(ctx context.Context) error {
	if err := s.signInAt(ctx, s.b); err != nil {
		return err
	}
	if err := s.me(ctx, "before", s.token, asAdmin, s.everywhere()...); err != nil {
		return err
	}
	leaked := s.a.currentKey()
	if err := s.a.RevokeKeys(ctx, leaked); err != nil {
		return err
	}
	if err := s.me(ctx, "at once", s.token, "401 not valid", &s.a.server); err != nil {
		return err
	}
	old := s.token
	if err := s.signInAt(ctx, s.a); err != nil {
		return err
	}
	if err := s.check(s.a.currentKey() != leaked, "another key signs already: %s, no longer %s", short(s.a.currentKey()), short(leaked)); err != nil {
		return err
	}
	if err := s.refusedBy(ctx, &s.b.server, old); err != nil {
		return err
	}
	if err := s.refusedBy(ctx, s.api, old); err != nil {
		return err
	}
	for _, server := range s.everywhere() {
		if err := s.until(ctx, server, "Ada, who signed in again", s.token, asAdmin); err != nil {
			return err
		}
	}
	return nil
}

// refusedBy waits until a server refuses a token of the revoked key, by its list or
// since the key is no longer published.
func (s *story) refusedBy(ctx context.Context, server *server, token string) error {
	began := time.Now()
	for time.Since(began) < 20*time.Second {
		got, err := server.ask(ctx, "GET", "/me", token, nil)
		if err != nil {
			return err
		}
		if got.status == 401 {
			return s.check(true, "%s, within %v: %s", server.name, time.Since(began).Truncate(10*time.Millisecond)+10*time.Millisecond, got)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return s.check(false, "%s refuses the tokens of the revoked key", server.name)
}

// publishBefore is a day unless told otherwise: every verifier has a key before it
// signs. A story cannot wait for that, so the last step has a ring by hand.
const publishBefore = 2 * time.Second

func startRing(ctx context.Context) (*keys.Ring, error) {
	ring, err := keys.NewRing(keys.RingConfig{
		Store:         new(keys.MemStore),
		Logger:        quiet,
		RotateEvery:   time.Hour,
		PublishBefore: publishBefore,
		SyncEvery:     100 * time.Millisecond,
		MaxStale:      time.Second,
		ClientRefresh: 100 * time.Millisecond,
		MaxSkew:       100 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	_, err = ring.SigningKey(ctx)
	return ring, err
}

func (s *story) rotate(ctx context.Context) error {
	issuer, err := sessiontoken.NewIssuer[State](sessiontoken.IssuerConfig{Issuer: s.issuer, Audience: []string{site}, Keys: s.ring})
	if err != nil {
		return err
	}
	verifier, err := sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{Issuer: s.issuer, Audience: site, Keys: s.ring})
	if err != nil {
		return err
	}
	state, _ := s.users.of(ada)
	old, before, err := issuer.Issue(ctx, ada, state)
	if err != nil {
		return err
	}
	s.say("a ring by hand: a key is published for %v before it signs, and not for a day", publishBefore)
	at, err := s.ring.Rotate(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, time.Until(at)+20*time.Millisecond); err != nil {
		return err
	}
	_, after, err := issuer.Issue(ctx, ada, state)
	if err != nil {
		return err
	}
	if err := s.check(after.KeyID != before.KeyID, "new tokens are signed by %s, no longer by %s", short(after.KeyID), short(before.KeyID)); err != nil {
		return err
	}
	_, err = verifier.Verify(ctx, old)
	return s.check(err == nil, "tokens from before are accepted as ever")
}

// currentKey is the id of the key that signs now.
func (r *replica) currentKey() string {
	for _, k := range r.Ring().Status().Keys {
		if k.Phase == "current" {
			return k.KeyID
		}
	}
	return ""
}
