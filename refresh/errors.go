package refresh

import "errors"

// Reasons for which a refresh token is refused. Each of them matches
// [ErrInvalid], which is the invalid_grant of RFC 6749 section 5.2. Any other
// error means that the server could not tell: the token can be presented again.
// No text holds a token.
var (
	ErrInvalid = errors.New("refresh: the refresh token is not valid")
	// ErrExpired: the family has reached its idle or its absolute end.
	ErrExpired error = reason("refresh: the refresh token has expired")
	// ErrReused: the token was used before. The session was revoked.
	ErrReused error = reason("refresh: the refresh token was used before")
	// ErrClient: the family is bound to another client, or to one where none was
	// named. If the request named no client, the answer may be invalid_client.
	ErrClient error = reason("refresh: the refresh token is another client's")
	// ErrBinder: the token came without the binder of its family, with another
	// one, or with one though its family has none. Nothing was changed.
	ErrBinder error = reason("refresh: the refresh token did not come with its binder")
)

type reason string

func (r reason) Error() string        { return string(r) }
func (r reason) Is(target error) bool { return target == ErrInvalid }

// undecided is what the list failed with. It says nothing about the refresh
// token, so that it does not match [ErrInvalid] nor any reason, not even if an
// error of the list's store does.
type undecided struct{ err error }

func (e *undecided) Error() string { return "refresh: " + e.err.Error() }

func (e *undecided) Is(target error) bool {
	return !errors.Is(target, ErrInvalid) && errors.Is(e.err, target)
}

func (e *undecided) As(target any) bool { return errors.As(e.err, target) }

// What a [Store] returns.
var (
	// ErrNotFound: there is no record with this id.
	ErrNotFound = errors.New("refresh: no such family")
	// ErrConflict: the record is not of the expected version, or gone.
	ErrConflict = errors.New("refresh: the record was changed by another")
)

var errZero = errors.New("refresh: the Manager is a zero value: make it with NewManager")
