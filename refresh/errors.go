package refresh

import "errors"

// The reasons to refuse a refresh token. Each matches [ErrInvalid], which is
// the invalid_grant of RFC 6749 section 5.2. Any other error means that the
// server could not decide: the token can be presented again. No text holds a
// token.
var (
	ErrInvalid = errors.New("refresh: the refresh token is not valid")
	// ErrExpired: the family has reached its idle or its absolute end.
	ErrExpired error = reason("refresh: the refresh token has expired")
	// ErrReused: the token was used before. The session was revoked.
	ErrReused error = reason("refresh: the refresh token was used before")
	// ErrClient: the family is bound to another client than the one that the
	// request named. If the request named none, the answer may be
	// invalid_client.
	ErrClient error = reason("refresh: the refresh token is another client's")
	// ErrBinder: the request had not the binder of the token's family: none,
	// another one, or one though the family has none. Nothing was changed.
	ErrBinder error = reason("refresh: the refresh token did not come with its binder")
)

type reason string

func (r reason) Error() string        { return string(r) }
func (r reason) Is(target error) bool { return target == ErrInvalid }

// undecided is an error of the list. It does not match [ErrInvalid] or a
// reason, even if an error of the list's store does.
type undecided struct{ err error }

func (e *undecided) Error() string { return "refresh: " + e.err.Error() }

func (e *undecided) Is(target error) bool {
	return !errors.Is(target, ErrInvalid) && errors.Is(e.err, target)
}

func (e *undecided) As(target any) bool { return errors.As(e.err, target) }

// The errors of a [Store].
var (
	// ErrNotFound: there is no record with this id.
	ErrNotFound = errors.New("refresh: no such family")
	// ErrConflict: the record has another version than expected, or is absent.
	ErrConflict = errors.New("refresh: the record was changed by another")
)

var errZero = errors.New("refresh: the Manager is a zero value: make it with NewManager")
