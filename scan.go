package sessiontoken

import (
	"bytes"
	"slices"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// scanned is a payload in the one spelling that this library writes, read in
// one pass. The slices point into the payload. Of the state, only where it ends
// is known: whoever decodes it finds out whether it is JSON.
type scanned struct {
	issuer, subject, tokenID, sessionID []byte
	audience                            []byte // of one string its content, else the whole array
	audienceIsArray                     bool
	expires, issuedAt, authTime         numericDate
	state                               []byte
}

// scanPayload reads raw if it has no white space, no escape and no byte beyond
// ASCII outside the state, no claim twice, none that this library does not
// write, and all of those. It says no to everything else, which decides nothing:
// parsePayload does. What it accepts, parsePayload reads as the same (FuzzScan).
func scanPayload(raw []byte, p *scanned) bool {
	if len(raw) < 2 || raw[0] != '{' {
		return false
	}
	const (
		iss = 1 << iota
		sub
		aud
		exp
		iat
		jti
		sid
		authTime
		state
		all = 1<<iota - 1
	)
	seen, i := 0, 1
	for {
		name, next, ok := scanString(raw, i)
		if !ok || next >= len(raw) || raw[next] != ':' {
			return false
		}
		i = next + 1
		var claim int
		switch string(name) {
		case "iss":
			claim = iss
			p.issuer, i, ok = scanString(raw, i)
		case "sub":
			claim = sub
			p.subject, i, ok = scanString(raw, i)
		case "jti":
			claim = jti
			p.tokenID, i, ok = scanString(raw, i)
		case "sid":
			claim = sid
			p.sessionID, i, ok = scanString(raw, i)
		case "aud":
			claim = aud
			p.audience, p.audienceIsArray, i, ok = scanAudience(raw, i)
		case "exp":
			claim = exp
			p.expires, i, ok = scanDate(raw, i)
		case "iat":
			claim = iat
			p.issuedAt, i, ok = scanDate(raw, i)
		case "auth_time":
			claim = authTime
			p.authTime, i, ok = scanDate(raw, i)
		case "state":
			claim = state
			p.state, i, ok = scanValue(raw, i)
		}
		if !ok || claim == 0 || seen&claim != 0 || i >= len(raw) {
			return false
		}
		seen |= claim
		switch raw[i] {
		case ',':
			i++
		case '}':
			return i == len(raw)-1 && seen == all
		default:
			return false
		}
	}
}

// scanString reads a string that is not empty and holds printable ASCII and no
// escape, and returns its content and the index after it.
func scanString(raw []byte, i int) ([]byte, int, bool) {
	if i >= len(raw) || raw[i] != '"' {
		return nil, i, false
	}
	for j := i + 1; j < len(raw); j++ {
		switch c := raw[j]; {
		case c == '"':
			return raw[i+1 : j], j + 1, j > i+1
		case c < ' ' || c > '~' || c == '\\':
			return nil, i, false
		}
	}
	return nil, i, false
}

// scanAudience reads one string, or an array of strings.
func scanAudience(raw []byte, i int) (value []byte, array bool, next int, ok bool) {
	if i >= len(raw) || raw[i] != '[' {
		value, next, ok = scanString(raw, i)
		return value, false, next, ok
	}
	for j := i + 1; ; j++ {
		if _, j, ok = scanString(raw, j); !ok || j >= len(raw) {
			return nil, true, i, false
		}
		switch raw[j] {
		case ',':
		case ']':
			return raw[i : j+1], true, j + 1, true
		default:
			return nil, true, i, false
		}
	}
}

// scanDate reads a NumericDate as numericDate.UnmarshalJSONFrom does.
func scanDate(raw []byte, i int) (numericDate, int, bool) {
	const digits = len("253402300799")
	n, j := int64(0), i
	for ; j < len(raw) && '0' <= raw[j] && raw[j] <= '9'; j++ {
		if j-i == digits {
			return 0, i, false
		}
		n = n*10 + int64(raw[j]-'0')
	}
	// No leading zero, and so never zero itself.
	if j == i || raw[i] == '0' || n > maxNumericDate {
		return 0, i, false
	}
	return numericDate(n), j, true
}

// scanValue finds the end of a value that begins at i, by its brackets and
// strings alone. If the bytes up to there are one JSON value, they are the one
// that a decoder would have read.
func scanValue(raw []byte, i int) ([]byte, int, bool) {
	depth := 1 // inside the payload's own object
	for j := i; j < len(raw); j++ {
		c := raw[j]
		switch {
		case !structural[c]:
		case c == '"':
			for j++; j < len(raw) && raw[j] != '"'; j++ {
				if raw[j] == '\\' {
					j++
				}
			}
		case c == '{' || c == '[':
			if depth++; depth > strictjson.MaxDepth {
				return nil, i, false
			}
		default:
			if depth == 1 {
				return raw[i:j], j, j > i
			}
			if c != ',' {
				depth--
			}
		}
	}
	return nil, i, false
}

// structural are the bytes that scanValue stops at.
var structural = [256]bool{'"': true, '{': true, '[': true, '}': true, ']': true, ',': true}

// names says whether the audience holds one name, byte for byte.
func (s *scanned) names(audience string) bool {
	if !s.audienceIsArray {
		return string(s.audience) == audience
	}
	// Its strings hold neither quotes nor escapes, so each ends at the next quote.
	rest := s.audience[1:]
	for len(rest) > 0 {
		end := 1 + bytes.IndexByte(rest[1:], '"')
		if string(rest[1:end]) == audience {
			return true
		}
		rest = rest[min(len(rest), end+2):] // the quote, and a comma or the bracket
	}
	return false
}

// payload returns the claims, with the audience narrowed to those of ours. The
// issuer and the audience are not copied if they are the expected ones, and the
// ids share one string.
func (s *scanned) payload(issuer string, ours []string) payload {
	var buf [192]byte
	ids := string(append(append(append(buf[:0], s.subject...), s.tokenID...), s.sessionID...))
	sub, jti := len(s.subject), len(s.subject)+len(s.tokenID)
	p := payload{
		Subject:   ids[:sub],
		TokenID:   ids[sub:jti],
		SessionID: ids[jti:],
		Expires:   s.expires,
		IssuedAt:  s.issuedAt,
		AuthTime:  s.authTime,
		State:     s.state,
		Audience:  narrow(ours, s.names),
	}
	if p.Issuer = issuer; string(s.issuer) != issuer {
		p.Issuer = string(s.issuer)
	}
	return p
}

// narrow returns the names of ours that named says yes to: a part of ours if
// they stand together, as one does and all do.
func narrow(ours []string, named func(string) bool) []string {
	from, to := 0, 0
	for i, name := range ours {
		switch {
		case !named(name):
		case from == to:
			from, to = i, i+1
		case to == i:
			to = i + 1
		default:
			return slices.DeleteFunc(slices.Clone(ours), func(name string) bool { return !named(name) })
		}
	}
	return ours[from:to:to]
}
