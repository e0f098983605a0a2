// Package testhook lets package sessiontest give a request a session: package
// sessionhttp calls it before it reads the request's credentials.
//
// A client cannot use it: the session is in the context of the request, under a
// key that only sessiontest has, and the hook is set in a test binary that
// imports sessiontest alone.
package testhook

import "context"

// Claims returns the claims that a test has given a request for a Sessions, or
// nil. The function itself is nil unless package sessiontest has set it while
// the program was initialised, which it does in a test binary alone.
var Claims func(ctx context.Context, sessions any) any
