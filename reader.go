package sessiontoken

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

// tokenReader reads tokens of one issuer that are meant for any of an audience:
// the form, the signature and the claims. It decides nothing about time.
type tokenReader struct {
	issuer   string
	audience []string
	keys     KeySource
	maxBytes int
	known    atomic.Pointer[knownHeaders]
}

// knownHeaders are the exact header segments that the keys of a set write,
// recognised without parsing.
type knownHeaders struct {
	set *keys.Set
	key map[string]*keys.PublicKey
}

// found is a key with the set that it was found in.
type found struct {
	key *keys.PublicKey
	set *keys.Set
}

// read returns the claims of a token, its audience narrowed to the expected ones,
// and its key.
func (r *tokenReader) read(ctx context.Context, token string) (p payload, f found, err error) {
	if len(token) > r.maxBytes {
		return p, f, because(ErrMalformed, "longer than MaxBytes")
	}
	header, body, signature, err := jws.Split(token)
	if err != nil {
		return p, f, because(ErrMalformed, err.Error())
	}
	if f, err = r.findKey(ctx, header); err != nil {
		return p, f, err
	}
	p, err = r.readSigned(token, header, body, signature, f.key)
	return p, f, err
}

// identify returns the claims of a token and its key as read does, also if the
// key signs and verifies no longer.
func (r *tokenReader) identify(ctx context.Context, token string) (p payload, key *keys.PublicKey, err error) {
	source, ok := r.keys.(keys.Identifier)
	if !ok {
		var f found
		p, f, err = r.read(ctx, token)
		return p, f.key, err
	}
	if len(token) > r.maxBytes {
		return p, nil, because(ErrMalformed, "longer than MaxBytes")
	}
	segment, body, signature, err := jws.Split(token)
	if err != nil {
		return p, nil, because(ErrMalformed, err.Error())
	}
	h, err := parseHeader(segment)
	if err != nil {
		return p, nil, err
	}
	if key, err = source.IdentifyKey(ctx, h.KeyID); err != nil {
		return p, nil, &undecided{"the key is not known", err}
	}
	if err := checkKey(key, key != nil, h); err != nil {
		return p, nil, err
	}
	p, err = r.readSigned(token, segment, body, signature, key)
	return p, key, err
}

// readSigned checks the signature of a token by key and returns its claims.
func (r *tokenReader) readSigned(token, header, body, signature string, key *keys.PublicKey) (payload, error) {
	// The claims point into this buffer until they are decoded: it is not reused.
	buf := make([]byte, 0, jws.DecodedLen(len(body))+jws.DecodedLen(len(signature)))
	raw, err := jws.AppendDecode(buf, body)
	if err != nil {
		return payload{}, because(ErrMalformed, err.Error())
	}
	sig, err := jws.AppendDecode(raw[len(raw):], signature)
	if err != nil {
		return payload{}, because(ErrMalformed, err.Error())
	}
	alg, signed := string(key.Algorithm()), token[:len(header)+1+len(body)]
	if !jws.IsCanonical(alg, sig) {
		return payload{}, because(ErrSignature, "not the one spelling of an ES256 signature")
	}
	if err := jws.Verify(alg, key.Key(), signed, sig); err != nil {
		return payload{}, because(ErrSignature, err.Error())
	}
	return r.claims(raw)
}

// claims reads the payload of a token whose signature is good.
func (r *tokenReader) claims(raw []byte) (payload, error) {
	var p payload
	var s scanned
	if scanPayload(raw, &s) {
		p = s.payload(r.issuer, r.audience)
	} else {
		var fault string
		if p, fault = parsePayload(raw); fault != "" {
			return p, because(ErrClaims, fault)
		}
		named := p.Audience
		p.Audience = narrow(r.audience, func(name string) bool { return slices.Contains(named, name) })
	}
	switch {
	case p.Issuer != r.issuer:
		return p, because(ErrClaims, "iss is another issuer")
	case len(p.Audience) == 0:
		return p, ErrAudience
	}
	return p, nil
}

// findKey returns the one key that the header names, if it is of the header's
// algorithm and the header is a session token's.
func (r *tokenReader) findKey(ctx context.Context, segment string) (found, error) {
	known := r.known.Load()
	if known != nil {
		if k := known.key[segment]; k != nil {
			set, err := r.keySet(ctx, k.KeyID())
			if err != nil {
				return found{}, err
			}
			if set == known.set {
				return found{k, set}, nil
			}
			// Another generation: decided below, by the new set alone.
		}
	}
	h, err := parseHeader(segment)
	if err != nil {
		return found{}, err
	}
	set, err := r.keySet(ctx, h.KeyID)
	if err != nil {
		return found{}, err
	}
	if known == nil || known.set != set {
		r.known.Store(recognise(set))
	}
	key, ok := set.Key(h.KeyID)
	if err := checkKey(key, ok, h); err != nil {
		return found{}, err
	}
	return found{key, set}, nil
}

// parseHeader reads the header segment of a session token.
func parseHeader(segment string) (jws.Header, error) {
	if len(segment) > jws.MaxHeader {
		return jws.Header{}, because(ErrMalformed, "the header is too long")
	}
	raw, err := jws.Decode(segment)
	if err != nil {
		return jws.Header{}, because(ErrMalformed, err.Error())
	}
	h, err := jws.ParseHeader(raw)
	if err != nil {
		return jws.Header{}, because(ErrMalformed, err.Error())
	}
	if !isSessionType(h.Type) {
		return jws.Header{}, because(ErrMalformed, "typ is not that of a session token")
	}
	return h, nil
}

// checkKey refuses a token whose key is not there, or of another algorithm than
// its header says.
func checkKey(key *keys.PublicKey, there bool, h jws.Header) error {
	switch {
	case !there:
		return because(ErrSignature, "no key has this kid")
	case !algorithmOf(key, h.Algorithm):
		return because(ErrSignature, "alg is not the key's")
	}
	return nil
}

func (r *tokenReader) keySet(ctx context.Context, kid string) (*keys.Set, error) {
	set, err := r.keys.KeySet(ctx, kid)
	if err != nil {
		return nil, &undecided{"no key set", err}
	}
	if set == nil {
		return nil, errors.New("sessiontoken: no key set: the source returned none")
	}
	return set, nil
}

func recognise(set *keys.Set) *knownHeaders {
	known := &knownHeaders{set: set, key: make(map[string]*keys.PublicKey)}
	for _, k := range set.Keys() {
		if segment, err := headerOf(k); err == nil {
			known.key[segment] = k
		}
	}
	return known
}

// headerOf is the header segment that tokens of a key are written with.
func headerOf(k *keys.PublicKey) (string, error) {
	return jws.Header{Algorithm: string(k.Algorithm()), KeyID: k.KeyID(), Type: tokenType}.Encode()
}

// algorithmOf reports whether alg is the key's. RFC 9864 renames EdDSA with an
// Ed25519 key to Ed25519; both say the same.
func algorithmOf(k *keys.PublicKey, alg string) bool {
	return alg == string(k.Algorithm()) || alg == "Ed25519" && k.Algorithm() == keys.EdDSA
}

// isSessionType compares media types as RFC 7515 section 4.1.9 does: in any
// letter case, with or without "application/".
func isSessionType(typ string) bool {
	const prefix = "application/"
	if len(typ) == len(prefix)+len(tokenType) && equalASCIIFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return equalASCIIFold(typ, tokenType)
}

func equalASCIIFold(s, lower string) bool {
	// Of equal length in bytes, EqualFold can match beyond ASCII only where
	// lower holds a k or an s, whose Unicode folds are longer.
	return len(s) == len(lower) && strings.EqualFold(s, lower)
}
