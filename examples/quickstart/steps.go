package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken"
)

const ada = "user-42" // the subject: it stays when the name changes

var (
	asEditor = answer{200, "Ada (editor) of analytical-engines"}
	asAdmin  = answer{200, "Ada (admin) of analytical-engines"}
)

func (s *story) firstKey(ctx context.Context) error {
	a := s.authority
	if _, err := a.ring.SigningKey(ctx); err != nil { // the first use makes the keys
		return err
	}
	status := a.ring.Status().Keys
	for _, k := range status {
		s.say("%-7s  %s  kid %s", k.Phase, k.Algorithm, short(k.KeyID))
	}
	if err := s.check(len(status) == 2 && status[0].Phase == "current" && status[1].Phase == "next",
		"one key signs; the next is published ahead of its turn"); err != nil {
		return err
	}
	published, err := get(ctx, a.jwksURL, "")
	if err != nil {
		return err
	}
	if err := s.check(published.status == 200 && strings.Contains(published.text, status[0].KeyID) && strings.Contains(published.text, status[1].KeyID),
		"both are at %s", a.jwksURL); err != nil {
		return err
	}
	discovery, err := get(ctx, a.url+"/.well-known/openid-configuration", "")
	if err != nil {
		return err
	}
	return s.check(discovery.status == 200 && strings.Contains(discovery.text, `"`+a.jwksURL+`"`),
		"a gateway that knows only the issuer's URL finds that URL by discovery")
}

func (s *story) signIn(ctx context.Context) (err error) {
	a := s.authority
	// Here the password, the passkey or the ID token would have been checked.
	s.token, s.claims, err = a.issuer.Issue(ctx, ada, a.database[ada])
	if err != nil {
		return err
	}
	s.say("subject %s, session %s, until %s", s.claims.Subject, short(s.claims.SessionID), s.claims.Expires.Local().Format(time.TimeOnly))
	s.say("state %+v", s.claims.State)
	report, err := a.issuer.Size(ctx, ada, a.database[ada])
	if err != nil {
		return err
	}
	s.show(report, 4)
	return s.check(report.Bytes == len(s.token), "the token has %d bytes, as Issuer.Size foretold", len(s.token))
}

func (s *story) read(ctx context.Context) error {
	return s.everywhere(ctx, "GET /me", s.token, asEditor)
}

func (s *story) rotate(ctx context.Context) error {
	a := s.authority
	before := a.currentKey()
	at, err := a.ring.Rotate(ctx)
	if err != nil {
		return err
	}
	s.say("a key is published before it signs, so that every replica has it by then:")
	s.say("24 h unless told otherwise, %v here; the next one signs in %v", publishBefore, time.Until(at).Round(100*time.Millisecond))
	if err := sleepUntil(ctx, at); err != nil {
		return err
	}
	fresh, _, err := a.issuer.Issue(ctx, ada, a.database[ada])
	if err != nil {
		return err
	}
	if err := s.check(header(fresh) != header(s.token) && a.currentKey() != before,
		"new tokens are signed by %s, no longer by %s", short(a.currentKey()), short(before)); err != nil {
		return err
	}
	if err := s.everywhere(ctx, "a new token", fresh, asEditor); err != nil {
		return err
	}
	return s.everywhere(ctx, "the token from before", s.token, asEditor)
}

func (s *story) renew(ctx context.Context) error {
	a := s.authority
	state := a.database[ada]
	state.Roles = []string{"admin"}
	a.database[ada] = state

	renewed, claims, err := a.issuer.Renew(ctx, s.token, a.load)
	if err != nil {
		return err
	}
	if err := s.check(claims.SessionID == s.claims.SessionID && claims.Began.Equal(s.claims.Began) && claims.TokenID != s.claims.TokenID,
		"a new token of the same session %s, which still began at %s", short(claims.SessionID), claims.Began.Local().Format(time.TimeOnly)); err != nil {
		return err
	}
	if err := s.check(slices.Equal(claims.State.Roles, []string{"admin"}), "its roles were read afresh: %v", claims.State.Roles); err != nil {
		return err
	}
	if err := s.everywhere(ctx, "the renewed token", renewed, asAdmin); err != nil {
		return err
	}
	// This is the price of keeping no state on the server, and why TTL is short.
	if err := s.everywhere(ctx, "the old token, stale until it expires", s.token, asEditor); err != nil {
		return err
	}
	s.token, s.claims = renewed, claims
	return nil
}

func (s *story) tooBig(ctx context.Context) error {
	a := s.authority
	state := a.database[ada]
	state.Permissions = nil
	for i := range 200 {
		state.Permissions = append(state.Permissions, fmt.Sprintf("orders:%03d:write", i))
	}
	token, _, err := a.issuer.Issue(ctx, ada, state)
	var tooBig *sessiontoken.SizeError
	if err := s.check(errors.As(err, &tooBig) && token == "", "a *SizeError: %v", err); err != nil {
		return err
	}
	report, err := a.issuer.Size(ctx, ada, state)
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
	if err := s.everywhere(ctx, `role "owner" written into the payload`, forged, refused(sessiontoken.ErrSignature)); err != nil {
		return err
	}
	first := "A"
	if part[2][0] == 'A' {
		first = "B"
	}
	flipped := part[0] + "." + part[1] + "." + first + part[2][1:]
	return s.everywhere(ctx, "a character of the signature changed", flipped, refused(sessiontoken.ErrSignature))
}

func (s *story) expire(ctx context.Context) error {
	a := s.authority
	token, claims, err := a.shortLived.Issue(ctx, ada, a.database[ada])
	if err != nil {
		return err
	}
	s.say("a token is valid for 5 min unless told otherwise, this one for %v", claims.Expires.Sub(claims.IssuedAt))
	if err := sleepUntil(ctx, claims.Expires); err != nil {
		return err
	}
	if err := s.everywhere(ctx, "the token after its time", token, refused(sessiontoken.ErrExpired)); err != nil {
		return err
	}
	// Any issuer of the same name and keys renews it; this one for 5 min, so
	// that a slow machine has the time to look.
	renewed, again, err := a.issuer.Renew(ctx, token, a.load)
	if err != nil {
		return err
	}
	if err := s.check(again.SessionID == claims.SessionID, "it is within IdleTimeout (1 h unless told otherwise), and is renewed"); err != nil {
		return err
	}
	return s.everywhere(ctx, "the renewed token", renewed, asAdmin)
}

func (s *story) revoke(ctx context.Context) error {
	a := s.authority
	if err := s.everywhere(ctx, "before", s.token, asAdmin); err != nil {
		return err
	}
	leaked, began := a.currentKey(), time.Now()
	if err := a.ring.Revoke(ctx, leaked); err != nil {
		return err
	}
	_, err := a.verifier.Verify(ctx, s.token)
	if err := s.check(errors.Is(err, sessiontoken.ErrSignature), "the issuer refuses the tokens of %s at once", short(leaked)); err != nil {
		return err
	}
	took := make([]time.Duration, len(s.replicas))
	var asking sync.WaitGroup
	for i, r := range s.replicas {
		asking.Go(func() { took[i] = r.untilRefused(ctx, s.token, began) })
	}
	asking.Wait()
	for i, r := range s.replicas {
		if err := s.check(took[i] > 0, "replica %s refuses them after %v: RefreshEvery is %v here, 10 min unless told otherwise", r.name, took[i].Round(10*time.Millisecond), refreshEvery); err != nil {
			return err
		}
	}
	again, _, err := a.issuer.Issue(ctx, ada, a.database[ada])
	if err != nil {
		return err
	}
	if err := s.check(a.currentKey() != leaked, "another key signs already: %s", short(a.currentKey())); err != nil {
		return err
	}
	return s.everywhere(ctx, "Ada after she signed in again", again, asAdmin)
}

// untilRefused asks with a token whose key was revoked until the replica refuses
// it, and returns how long that took; 0 if it took too long. When the key is gone
// from the set, the replica asks the issuer again before it says so: 503 for a
// moment, which is no verdict.
func (r *replica) untilRefused(ctx context.Context, token string, began time.Time) time.Duration {
	for time.Since(began) <= revokedWithin && ctx.Err() == nil {
		if got, err := r.me(ctx, token); err == nil && got == refused(sessiontoken.ErrSignature) {
			return time.Since(began)
		}
		_ = sleepUntil(ctx, time.Now())
	}
	return 0
}

// header is the part of a token that names its key.
func header(token string) string {
	h, _, _ := strings.Cut(token, ".")
	return h
}
