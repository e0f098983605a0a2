// Package frameworks shows package sessionhttp within chi, echo and gin. The
// library knows none of them: its middleware is net/http's.
package frameworks
