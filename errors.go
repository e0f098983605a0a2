package sessiontoken

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid matches every error that puts the token at fault: an API answers
// 401 (RFC 6750 section 3.1). Any other error of [Verifier.Verify],
// [Issuer.Renew] and [Issuer.Identify] means that the server could not tell: an
// API answers 503, and the same token may well be good a moment later.
//
// A reason says what was found first, in the order in which Verify checks; it
// does not say that the token has no other fault. No error of this package
// holds a token, a key or a part of one.
var ErrInvalid = errors.New("sessiontoken: invalid token")

// The reasons, each of which matches [ErrInvalid] too.
var (
	// ErrMalformed: too long, not three canonical base64url segments, or a
	// header that this library does not write. Nothing was verified.
	ErrMalformed error = &invalid{text: "malformed"}
	// ErrSignature: no known key can have signed it.
	ErrSignature error = &invalid{text: "signature"}
	// ErrClaims: the signature is good, but a claim is missing, of the wrong
	// type or not for this verifier.
	ErrClaims error = &invalid{text: "claims"}
	// ErrAudience: the token is for another audience. It matches ErrClaims too.
	ErrAudience = because(ErrClaims, "aud does not name this audience")
	// ErrExpired: past its end. From Renew: past the time in which it could be
	// renewed, or past the end of the session.
	ErrExpired error = &invalid{text: "expired"}
	// ErrRevoked: the session was revoked, or that of its actor. The token was
	// genuine and unexpired.
	ErrRevoked error = &invalid{text: "revoked"}
	// ErrNotRenewable: from Renew alone. The token is genuine, and it was issued
	// as one that is not renewed.
	ErrNotRenewable error = &invalid{text: "not renewable"}
)

// invalid is a reason (text alone) or a detail of one (parent set).
type invalid struct {
	parent error
	text   string
}

func (e *invalid) Error() string {
	if e.parent != nil {
		return e.parent.Error() + ": " + e.text
	}
	return ErrInvalid.Error() + ": " + e.text
}

func (e *invalid) Unwrap() error {
	if e.parent != nil {
		return e.parent
	}
	return ErrInvalid
}

// because gives a reason its detail: a text fixed in this package, never a
// part of the input.
func because(reason error, detail string) error { return &invalid{parent: reason, text: detail} }

// undecided is what a key source, a list or a clock failed with. It says nothing
// about the token, so that it does not match [ErrInvalid] nor any reason, not even
// if err is one: of another token that the source verified, say.
type undecided struct {
	text string // what is not known
	err  error
}

func (e *undecided) Error() string { return "sessiontoken: " + e.text + ": " + e.err.Error() }

func (e *undecided) Is(target error) bool {
	return !errors.Is(target, ErrInvalid) && errors.Is(e.err, target)
}

func (e *undecided) As(target any) bool {
	_, reason := target.(**invalid)
	return !reason && errors.As(e.err, target)
}

// SizeError is returned by the methods of [Issuer] that make a token if it
// would exceed IssuerConfig.MaxBytes. Nothing was signed.
type SizeError struct {
	// Report says how large the token would be and which claims weigh most.
	Report SizeReport
}

// Error names the size, the limit and the three heaviest claims by path. It
// holds names of claims and never their values.
func (e *SizeError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sessiontoken: token of %d B is over the limit of %d B", e.Report.Bytes, e.Report.Limit)
	for i, c := range e.Report.Claims[:min(3, len(e.Report.Claims))] {
		if i == 0 {
			b.WriteString("; heaviest: ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(c.String())
	}
	return b.String()
}
