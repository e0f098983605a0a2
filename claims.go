package sessiontoken

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// Claims is what a verified token says. There is no other way to get one than
// from [Issuer.Issue], [Issuer.Renew] and [Verifier.Verify].
//
// The user is the pair of Issuer and Subject; an address or a name in State may
// have changed hands. State was true when the token was issued, and a verifier
// cannot tell whether it still is: that is what a short TTL is for.
type Claims[T any] struct {
	Issuer    string // iss
	Subject   string // sub
	TokenID   string // jti: new with each token
	SessionID string // sid: the same over all renewals of a session

	AuthTime time.Time // auth_time: when the session began; no renewal changes it
	IssuedAt time.Time // iat: when this token was made, and State was read
	Expires  time.Time // exp: the first moment at which it is no longer valid

	State T // the application's own, the claim "state"
}

// The wire form of a payload: the registered claims of RFC 7519 section 4.1,
// auth_time of OpenID Connect Core section 2, sid of its logout documents, and
// the application's state as one claim, so that no field of it can pass for a
// registered one. All times are whole seconds.
type payload struct {
	Issuer    string         `json:"iss"`
	Subject   string         `json:"sub"`
	Audience  audience       `json:"aud"`
	Expires   numericDate    `json:"exp"`
	NotBefore numericDate    `json:"nbf,omitzero"`
	IssuedAt  numericDate    `json:"iat"`
	TokenID   string         `json:"jti"`
	SessionID string         `json:"sid"`
	AuthTime  numericDate    `json:"auth_time"`
	State     jsontext.Value `json:"state"`
}

// numericDate is a NumericDate of RFC 7519 section 2, narrowed to whole seconds
// from 1970 to the end of the year 9999. Zero means that the claim is absent.
type numericDate int64

const maxNumericDate = 253402300799

var errWire = errors.New("not of the claim's type")

func (d *numericDate) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var n int64
	if dec.PeekKind() != '0' {
		return errWire
	}
	if err := json.UnmarshalDecode(dec, &n); err != nil {
		return errWire // a fraction, an exponent, or out of range
	}
	if n <= 0 || n > maxNumericDate {
		return errWire
	}
	*d = numericDate(n)
	return nil
}

func (d numericDate) time() time.Time { return time.Unix(int64(d), 0).UTC() }

// audience is one string or an array of strings (RFC 7519 section 4.1.3).
type audience []string

func (a audience) MarshalJSONTo(enc *jsontext.Encoder) error {
	if len(a) == 1 {
		return enc.WriteToken(jsontext.String(a[0]))
	}
	return json.MarshalEncode(enc, []string(a))
}

func (a *audience) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var list []string
	switch dec.PeekKind() {
	case '"':
		var one string
		if json.UnmarshalDecode(dec, &one) != nil {
			return errWire
		}
		list = []string{one}
	case '[':
		if json.UnmarshalDecode(dec, &list) != nil {
			return errWire
		}
	default:
		return errWire
	}
	if slices.Contains(list, "") { // an empty string, or a null
		return errWire
	}
	*a = list
	return nil
}

// parsePayload reads the claims of a token whose signature is good, strictly.
// The error is a detail for because.
func parsePayload(raw []byte) (*payload, string) {
	if strictjson.TooDeep(raw) {
		return nil, "nested too deep"
	}
	var p payload
	if jsontext.Value(raw).Kind() != '{' || json.Unmarshal(raw, &p) != nil {
		return nil, "not a JSON object of well-formed claims"
	}
	switch {
	case p.Issuer == "":
		return nil, "iss is missing"
	case p.Subject == "":
		return nil, "sub is missing"
	case len(p.Audience) == 0:
		return nil, "aud is missing"
	case p.Expires == 0:
		return nil, "exp is missing"
	case p.IssuedAt == 0:
		return nil, "iat is missing"
	case p.TokenID == "":
		return nil, "jti is missing"
	case p.SessionID == "":
		return nil, "sid is missing"
	case p.AuthTime == 0:
		return nil, "auth_time is missing"
	case len(p.State) == 0:
		return nil, "state is missing"
	}
	return &p, ""
}

// marshal returns the payload as JSON. Maps in the state are written in order,
// so that the same state always has the same size and bytes.
func (p *payload) marshal() ([]byte, error) {
	b, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		return nil, errors.New("sessiontoken: subject is not valid UTF-8") // the only part not checked before
	}
	return b, nil
}

// claims turns the payload into what the caller sees.
func decodeClaims[T any](p *payload) (*Claims[T], error) {
	c := &Claims[T]{
		Issuer:    p.Issuer,
		Subject:   p.Subject,
		TokenID:   p.TokenID,
		SessionID: p.SessionID,
		AuthTime:  p.AuthTime.time(),
		IssuedAt:  p.IssuedAt.time(),
		Expires:   p.Expires.time(),
	}
	if json.Unmarshal(p.State, &c.State) != nil {
		return nil, because(ErrClaims, "state does not fit its type")
	}
	return c, nil
}

// newID returns 128 bits from crypto/rand in base64url. crypto/rand does not
// fail: it ends the program before it returns a weak id.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
