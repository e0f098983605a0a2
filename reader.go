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

// tokenReader reads the tokens of one issuer that name at least one of an
// audience. It checks the form, the signature and the claims, and not the
// times.
type tokenReader struct {
	issuer   string
	audience []string
	keys     KeySource
	maxBytes int
	headers  atomic.Pointer[knownHeaders]
}

// knownHeaders maps each header segment that the issuer writes to its key, so
// that such a header is not parsed.
type knownHeaders struct {
	set *keys.Set
	key map[string]*keys.PublicKey
}

// setKey is a key with the set that holds it.
type setKey struct {
	key *keys.PublicKey
	set *keys.Set
}

// read returns the claims of a token and its key. The audience is narrowed to
// the names that the reader expects.
func (r *tokenReader) read(ctx context.Context, token string) (p payload, f setKey, err error) {
	if len(token) > r.maxBytes {
		return p, f, withDetail(ErrMalformed, "longer than MaxBytes")
	}
	header, body, signature, err := jws.Split(token)
	if err != nil {
		return p, f, withDetail(ErrMalformed, err.Error())
	}
	if f, err = r.findKey(ctx, header); err != nil {
		return p, f, err
	}
	p, err = r.readSigned(token, header, body, signature, f.key)
	return p, f, err
}

// identify is read that also accepts a token of a retired key.
func (r *tokenReader) identify(ctx context.Context, token string) (p payload, key *keys.PublicKey, err error) {
	source, ok := r.keys.(keys.Identifier)
	if !ok {
		var f setKey
		p, f, err = r.read(ctx, token)
		return p, f.key, err
	}
	if len(token) > r.maxBytes {
		return p, nil, withDetail(ErrMalformed, "longer than MaxBytes")
	}
	segment, body, signature, err := jws.Split(token)
	if err != nil {
		return p, nil, withDetail(ErrMalformed, err.Error())
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

// readSigned verifies the signature of a token with key and returns its claims.
func (r *tokenReader) readSigned(token, header, body, signature string, key *keys.PublicKey) (payload, error) {
	// The claims point into this buffer until they are decoded: it is not reused.
	buf := make([]byte, 0, jws.DecodedLen(len(body))+jws.DecodedLen(len(signature)))
	raw, err := jws.AppendDecode(buf, body)
	if err != nil {
		return payload{}, withDetail(ErrMalformed, err.Error())
	}
	sig, err := jws.AppendDecode(raw[len(raw):], signature)
	if err != nil {
		return payload{}, withDetail(ErrMalformed, err.Error())
	}
	alg, signed := string(key.Algorithm()), token[:len(header)+1+len(body)]
	if !jws.IsCanonical(alg, sig) {
		return payload{}, withDetail(ErrSignature, "not the one spelling of an ES256 signature")
	}
	if err := jws.Verify(alg, key.Key(), signed, sig); err != nil {
		return payload{}, withDetail(ErrSignature, err.Error())
	}
	return r.claims(raw)
}

// claims reads the payload of a token whose signature is valid.
func (r *tokenReader) claims(raw []byte) (payload, error) {
	var p payload
	var s scanned
	if scanPayload(raw, &s) {
		p = s.payload(r.issuer, r.audience)
	} else {
		var fault string
		if p, fault = parsePayload(raw); fault != "" {
			return p, withDetail(ErrClaims, fault)
		}
		named := p.Audience
		p.Audience = narrow(r.audience, func(name string) bool { return slices.Contains(named, name) })
	}
	switch {
	case p.Issuer != r.issuer:
		return p, withDetail(ErrClaims, "iss is another issuer")
	case len(p.Audience) == 0:
		return p, ErrAudience
	}
	return p, nil
}

// findKey returns the key that the header names. It fails unless the key has
// the header's algorithm and the header is that of a session token.
func (r *tokenReader) findKey(ctx context.Context, segment string) (setKey, error) {
	known := r.headers.Load()
	if known != nil {
		if k := known.key[segment]; k != nil {
			set, err := r.keySet(ctx, k.KeyID())
			if err != nil {
				return setKey{}, err
			}
			if set == known.set {
				return setKey{k, set}, nil
			}
			// The set has changed: look the key up in the new one.
		}
	}
	h, err := parseHeader(segment)
	if err != nil {
		return setKey{}, err
	}
	set, err := r.keySet(ctx, h.KeyID)
	if err != nil {
		return setKey{}, err
	}
	if known == nil || known.set != set {
		r.headers.Store(recognise(set))
	}
	key, ok := set.Key(h.KeyID)
	if err := checkKey(key, ok, h); err != nil {
		return setKey{}, err
	}
	return setKey{key, set}, nil
}

// parseHeader reads the header segment of a session token.
func parseHeader(segment string) (jws.Header, error) {
	if len(segment) > jws.MaxHeader {
		return jws.Header{}, withDetail(ErrMalformed, "the header is too long")
	}
	raw, err := jws.Decode(segment)
	if err != nil {
		return jws.Header{}, withDetail(ErrMalformed, err.Error())
	}
	h, err := jws.ParseHeader(raw)
	if err != nil {
		return jws.Header{}, withDetail(ErrMalformed, err.Error())
	}
	if !isSessionType(h.Type) {
		return jws.Header{}, withDetail(ErrMalformed, "typ is not that of a session token")
	}
	return h, nil
}

// checkKey refuses a token whose key is absent or has another algorithm than
// the header.
func checkKey(key *keys.PublicKey, there bool, h jws.Header) error {
	switch {
	case !there:
		return withDetail(ErrSignature, "no key has this kid")
	case !algorithmOf(key, h.Algorithm):
		return withDetail(ErrSignature, "alg is not the key's")
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

// headerOf returns the header segment of the tokens that a key signs.
func headerOf(k *keys.PublicKey) (string, error) {
	return jws.Header{Algorithm: string(k.Algorithm()), KeyID: k.KeyID(), Type: tokenType}.Encode()
}

// algorithmOf reports whether alg is the key's algorithm. RFC 9864 renames
// EdDSA with an Ed25519 key to Ed25519; both names are accepted.
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
