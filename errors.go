package sessiontoken

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid matches every error that is the token's fault: an API answers 401
// (RFC 6750 section 3.1). Any other error of [Verifier.Verify], [Issuer.Renew]
// and [Issuer.Identify] means that the server could not decide: an API answers
// 503, and the same token may be accepted a moment later.
//
// A reason names the first fault in the order in which Verify checks. It does
// not mean that the token has no other fault. No error of this package holds a
// token, a key or a part of one.
var ErrInvalid = errors.New("sessiontoken: invalid token")

// The reasons, each of which matches [ErrInvalid] too.
var (
	// ErrMalformed: too long, not three canonical base64url segments, or a
	// header that this library does not write. Nothing was verified.
	ErrMalformed error = &invalid{text: "malformed"}
	// ErrSignature: no key of the current set signed the token.
	ErrSignature error = &invalid{text: "signature"}
	// ErrClaims: the signature is valid, and a claim is missing, of the wrong
	// type or not for this verifier.
	ErrClaims error = &invalid{text: "claims"}
	// ErrAudience: the token is for another audience. It matches ErrClaims too.
	ErrAudience = withDetail(ErrClaims, "aud does not name this audience")
	// ErrState: the state is not one that T can read. It is of a version that T
	// does not know ([Versioned]), does not fit T, or lacks a member, which the
	// detail names. It matches ErrClaims too. The token can be renewed. From
	// Verify alone.
	ErrState = withDetail(ErrClaims, "state")
	// ErrExpired: the token is past its exp. From Renew: it is past
	// IdleTimeout, or its session is past MaxSession.
	ErrExpired error = &invalid{text: "expired"}
	// ErrChanged: the state may be older than the last change that the
	// application marked with [revoke.List.Changed]. It matches ErrExpired too:
	// the token counts as expired early, and can be renewed. From Verify alone.
	ErrChanged = withDetail(ErrExpired, "the state has changed since the token was made")
	// ErrRevoked: the session of the token or of its actor was revoked. The
	// token passed all other checks.
	ErrRevoked error = &invalid{text: "revoked"}
	// ErrNotRenewable: from Renew alone. The signature is valid, and the token
	// was issued with [NotRenewable].
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

// withDetail returns an error that matches reason. The detail is a text of this
// package and never a part of the input.
func withDetail(reason error, detail string) error { return &invalid{parent: reason, text: detail} }

// undecided is an error of a key source or a list. It does not match
// [ErrInvalid] or a reason, even if err does: err may be about another token,
// such as the credential of the store.
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

// SizeError means that a token would exceed IssuerConfig.MaxBytes. Every method
// of [Issuer] that signs can return it. Nothing was signed.
type SizeError struct {
	// Report says how large the token would be and which claims weigh most.
	Report SizeReport
}

// Error returns a text with the size, the limit and the paths of the three
// heaviest claims. It holds no value of a claim.
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
