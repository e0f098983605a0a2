// Package sid parses the id of a session: the groups that the session belongs
// to, each followed by a dot, and a random part.
package sid

import "strings"

const (
	// MaxGroups is how many groups an id has at most.
	MaxGroups = 4
	// GroupSize is the length of a group: 96 bits in base64url.
	GroupSize = 16
)

// IsGroup reports whether s is one group.
func IsGroup(s string) bool {
	if len(s) != GroupSize {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Groups returns the n groups of an id. An id of another form has no groups:
// one with more than MaxGroups groups, with a malformed group, or without a
// random part.
func Groups(id string) (groups [MaxGroups]string, n int) {
	for rest := id; ; n++ {
		group, after, more := strings.Cut(rest, ".")
		switch {
		case !more && group != "":
			return groups, n
		case !more || n == MaxGroups || !IsGroup(group):
			return [MaxGroups]string{}, 0
		}
		groups[n], rest = group, after
	}
}
