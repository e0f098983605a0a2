// Package testhook is how package sessiontest gives a request a session: package
// sessionhttp asks it before it looks at the request's credentials.
//
// No request can reach it: what it returns is in the context that a server makes,
// under a key that only sessiontest has, and without sessiontest in a test binary
// there is nothing to ask.
package testhook

import "context"

// Claims returns the claims that a test has given a request for a Sessions, or
// nil. It is nil itself, unless package sessiontest has set it while the program
// was initialised, which it does in a test binary alone.
var Claims func(ctx context.Context, sessions any) any
