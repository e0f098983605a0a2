package sessiontoken

import (
	"bytes"
	"slices"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// scanned is a payload in the one spelling that this library writes, read in
// one pass. The slices point into the payload. Of the state, only where it ends
// is known: decoding it shows whether it is JSON.
type scanned struct {
	issuer, subject, tokenID, sessionID []byte
	audience                            []byte // of one string its content, else the whole array
	audienceIsArray                     bool
	expires, issuedAt, authTime         numericDate
	began                               milliDate
	renewable                           bool
	state                               []byte
}

// scanPayload reads raw if it has no white space, no escape and no byte beyond
// ASCII outside the state, no claim twice, none that this library does not
// write, and all of those that it always writes. Anything else it leaves to
// parsePayload. What it accepts, parsePayload reads as the same (FuzzScan).
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
		begun
		authTime
		state
		required = 1<<iota - 1
		rnw      = 1 << (iota - 1)
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
			var n int64
			n, i, ok = scanNumber(raw, i, maxNumericDate)
			p.expires = numericDate(n)
		case "iat":
			claim = iat
			var n int64
			n, i, ok = scanNumber(raw, i, maxNumericDate)
			p.issuedAt = numericDate(n)
		case "begun":
			claim = begun
			var n int64
			n, i, ok = scanNumber(raw, i, maxMilliDate)
			p.began = milliDate(n)
		case "auth_time":
			claim = authTime
			var n int64
			n, i, ok = scanNumber(raw, i, maxNumericDate)
			p.authTime = numericDate(n)
		case "rnw":
			claim = rnw
			i, ok = scanTrue(raw, i)
			p.renewable = ok
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
			return i == len(raw)-1 && seen&required == required
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

// scanNumber reads a whole number from 1 to most as decodePositive does, without
// the spellings that are not the shortest.
func scanNumber(raw []byte, i int, most int64) (int64, int, bool) {
	const digits = len("253402300799999")
	n, j := int64(0), i
	for ; j < len(raw) && '0' <= raw[j] && raw[j] <= '9'; j++ {
		if j-i == digits {
			return 0, i, false
		}
		n = n*10 + int64(raw[j]-'0')
	}
	// No leading zero, and so never zero itself.
	if j == i || raw[i] == '0' || n > most {
		return 0, i, false
	}
	return n, j, true
}

// scanTrue reads the value true.
func scanTrue(raw []byte, i int) (int, bool) {
	const text = "true"
	if len(raw)-i < len(text) || string(raw[i:i+len(text)]) != text {
		return i, false
	}
	return i + len(text), true
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

// names reports whether the audience holds one name, byte for byte.
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
		Began:     s.began,
		AuthTime:  s.authTime,
		Renewable: onlyTrue(s.renewable),
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
