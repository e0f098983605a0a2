// Package connect is an example and a test: connect-go works behind
// sessionhttp.Require as any net/http handler does, for browsers and for native
// clients, and a stream ends with its session by sessionhttp's Live.
package connect
