package sessiontoken

import (
	"bytes"
	"slices"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// scanned is a payload in the one spelling that this library writes, read in
// one pass. The slices point into the payload. The state is not checked:
// decoding it shows whether it is JSON.
type scanned struct {
	issuer, subject, tokenID, sessionID []byte
	audience                            []byte // of one string its content, else the whole array
	audienceIsArray                     bool
	expires, issuedAt, authTime         numericDate
	began                               milliDate
	acr                                 []byte
	amr                                 []byte // the whole array
	methods                             int    // in amr
	actorSubject, actorSessionID        []byte
	actorBegan                          milliDate
	renewable                           bool
	changed                             milliDate
	version                             versionClaim
	state                               []byte
	sealed                              []byte // as audience
	sealedIsArray                       bool
}

// scanPayload reads a payload in the spelling that this library writes, and
// reports whether it is one:
//
//   - outside the state: no white space, no escape and ASCII alone;
//   - each claim that this library always writes, once;
//   - no claim twice, and no other claim than those that this library writes.
//
// parsePayload reads any other payload. It reads a payload that scanPayload
// accepts as the same claims (FuzzScan).
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
		state
		required = 1<<iota - 1
		authTime = 1 << (iota - 1)
		acr      = 1 << (iota - 1)
		amr      = 1 << (iota - 1)
		act      = 1 << (iota - 1)
		rnw      = 1 << (iota - 1)
		chg      = 1 << (iota - 1)
		stv      = 1 << (iota - 1)
		sld      = 1 << (iota - 1)
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
		case "acr":
			claim = acr
			p.acr, i, ok = scanString(raw, i)
			ok = ok && len(p.acr) <= maxShortText
		case "amr":
			claim = amr
			p.amr, p.methods, i, ok = scanMethods(raw, i)
		case "act":
			claim = act
			i, ok = scanActor(raw, i, p)
		case "rnw":
			claim = rnw
			i, ok = scanText(raw, i, "true")
			p.renewable = ok
		case "chg":
			claim = chg
			var n int64
			n, i, ok = scanNumber(raw, i, maxMilliDate)
			p.changed = milliDate(n)
		case "stv":
			claim = stv
			p.version, i, ok = scanVersion(raw, i)
		case "state":
			claim = state
			p.state, i, ok = scanValue(raw, i)
		case "sld":
			claim = sld
			p.sealed, p.sealedIsArray, i, ok = scanAudience(raw, i)
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

// scanMethods reads an array of at most maxMethods strings, and returns all of it
// and their number.
func scanMethods(raw []byte, i int) (value []byte, n, next int, ok bool) {
	value, array, next, ok := scanAudience(raw, i)
	if !ok || !array {
		return nil, 0, i, false
	}
	for rest := value; len(rest) > 1; n++ {
		var name []byte
		if name, rest = nextName(rest); len(name) > maxShortText || n == maxMethods {
			return nil, 0, i, false
		}
	}
	return value, n, next, true
}

// nextName returns the first name of array and the rest after it. array is what
// scanAudience has read, or a rest of it; a rest of at most 1 byte has no name.
// A name holds no quote and no escape, so that it ends at the next quote.
func nextName(array []byte) (name, rest []byte) {
	array = array[2:] // the bracket or comma, and a quote
	end := bytes.IndexByte(array, '"')
	return array[:end], array[end+1:]
}

// scanActor reads the claim act, whose three members have a fixed order.
func scanActor(raw []byte, i int, p *scanned) (int, bool) {
	var ok bool
	if i, ok = scanText(raw, i, `{"sub":`); !ok {
		return i, false
	}
	if p.actorSubject, i, ok = scanString(raw, i); !ok {
		return i, false
	}
	if i, ok = scanText(raw, i, `,"sid":`); !ok {
		return i, false
	}
	if p.actorSessionID, i, ok = scanString(raw, i); !ok {
		return i, false
	}
	if i, ok = scanText(raw, i, `,"begun":`); !ok {
		return i, false
	}
	n, i, ok := scanNumber(raw, i, maxMilliDate)
	p.actorBegan = milliDate(n)
	if !ok {
		return i, false
	}
	return scanText(raw, i, "}")
}

// scanVersion reads the claim stv.
func scanVersion(raw []byte, i int) (v versionClaim, next int, ok bool) {
	if i, ok = scanText(raw, i, "["); !ok {
		return v, i, false
	}
	written, i, ok := scanNumber(raw, i, maxVersion)
	if !ok {
		return v, i, false
	}
	if i, ok = scanText(raw, i, ","); !ok {
		return v, i, false
	}
	var readableBy int64
	if next, ok = scanText(raw, i, "0"); !ok {
		if readableBy, next, ok = scanNumber(raw, i, written); !ok {
			return v, i, false
		}
	}
	next, ok = scanText(raw, next, "]")
	return versionClaim{uint32(written), uint32(readableBy)}, next, ok
}

// scanNumber reads a whole number from 1 to most as decodePositive does, in its
// shortest spelling alone.
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

// scanText reads one fixed text.
func scanText(raw []byte, i int, text string) (int, bool) {
	if len(raw)-i < len(text) || string(raw[i:i+len(text)]) != text {
		return i, false
	}
	return i + len(text), true
}

// scanValue returns the end of a value that begins at i. It looks at brackets
// and strings alone. If the bytes up to the end are a JSON value, a decoder
// reads that value.
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

// isFor reports whether the audience holds one name, byte for byte.
func (s *scanned) isFor(audience string) bool {
	if !s.audienceIsArray {
		return string(s.audience) == audience
	}
	for rest := s.audience; len(rest) > 1; {
		var name []byte
		if name, rest = nextName(rest); string(name) == audience {
			return true
		}
	}
	return false
}

// names returns the names in amr, a copy of s.amr, as substrings of it.
func (s *scanned) names(amr string) methods {
	if s.methods == 0 {
		return nil
	}
	list := make(methods, 0, s.methods)
	for rest := s.amr; len(rest) > 1; {
		from := len(amr) - len(rest) + 2
		var name []byte
		name, rest = nextName(rest)
		list = append(list, amr[from:from+len(name)])
	}
	return list
}

// pointers returns the places in s.sealed.
func (s *scanned) pointers() []string {
	if !s.sealedIsArray {
		if s.sealed == nil {
			return nil
		}
		return []string{string(s.sealed)}
	}
	var list []string
	for rest := s.sealed; len(rest) > 1; {
		var pointer []byte
		pointer, rest = nextName(rest)
		list = append(list, string(pointer))
	}
	return list
}

// payload returns the claims, with the audience narrowed to those of ours. The
// issuer and the audience are not copied if they are the expected ones, and the
// other texts share one string.
func (s *scanned) payload(issuer string, ours []string) payload {
	var room [384]byte
	b := room[:0]
	for _, part := range [...][]byte{s.subject, s.tokenID, s.sessionID, s.acr, s.amr, s.actorSubject, s.actorSessionID} {
		b = append(b, part...)
	}
	texts := string(b)
	next := func(part []byte) (text string) {
		text, texts = texts[:len(part)], texts[len(part):]
		return text
	}
	p := payload{
		Subject:   next(s.subject),
		TokenID:   next(s.tokenID),
		SessionID: next(s.sessionID),
		ACR:       shortText(next(s.acr)),
		AMR:       s.names(next(s.amr)),
		Actor:     actorClaim{next(s.actorSubject), next(s.actorSessionID), s.actorBegan},
		Expires:   s.expires,
		IssuedAt:  s.issuedAt,
		Began:     s.began,
		AuthTime:  s.authTime,
		Renewable: onlyTrue(s.renewable),
		Changed:   s.changed,
		Version:   s.version,
		State:     s.state,
		Sealed:    s.pointers(),
		Audience:  narrow(ours, s.isFor),
	}
	if p.Issuer = issuer; string(s.issuer) != issuer {
		p.Issuer = string(s.issuer)
	}
	return p
}

// narrow returns the names of ours for which named returns true. If they are
// adjacent in ours, it returns a slice of ours.
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
