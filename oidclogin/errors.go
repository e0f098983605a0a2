package oidclogin

import "errors"

var (
	// errUnavailable matches an error that is not the fault of a token or of a
	// browser, such as a provider that does not answer: 503.
	errUnavailable = errors.New("oidclogin: not available")
	// errRefused matches the error of every check that a token failed.
	errRefused = errors.New("oidclogin: refused")
)

// refusal is why a token was refused: one fixed text for each check, which
// holds nothing of the token. It matches errRefused.
type refusal string

func (r refusal) Error() string { return "oidclogin: " + string(r) }

func (refusal) Is(target error) bool { return target == errRefused }
