package oidclogin

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// How far a provider's clock may be from ours.
const (
	maxBehind = 5 * time.Minute
	maxAhead  = time.Minute
)

// maxName is how many bytes a sub, a sid and a jti have at most. OpenID Connect
// Core section 2 sets it for sub.
const maxName = 255

// The algorithms that a provider may sign with. All are asymmetric: the client
// secret is no key here, and neither is a public key.
var signatureAlgorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// What a token of a provider can fail before its claims are read.
const (
	errSize      refusal = "the token is too long"
	errForm      refusal = "the token is not three segments of canonical base64url"
	errHeader    refusal = "the header is not a JSON object with the members alg, typ and kid of the right type"
	errExtension refusal = "the header has a member that changes what the token means or brings a key"
	errAlgorithm refusal = "the algorithm is not one that was asked for"
	errType      refusal = "the typ is that of another kind of token"
	errSignature refusal = "the signature is not that of a key of the provider"
	errClaims    refusal = "the claims are not a JSON object with members of the right type"
	errLibrary   refusal = "go-oidc refuses the token"
)

// header is what is read of a JOSE header. Members that it lacks are ignored,
// such as x5t: the key is always one of the provider's JWKS.
type header struct {
	Algorithm text           `json:"alg"`
	Type      optional       `json:"typ"`
	KeyID     text           `json:"kid"`
	Critical  jsontext.Value `json:"crit"`
	Base64    jsontext.Value `json:"b64"`
	Zip       jsontext.Value `json:"zip"`
	Enc       jsontext.Value `json:"enc"`
	Key       jsontext.Value `json:"jwk"`
}

// readForm checks the form of a token and returns its header and its payload,
// neither of which is verified yet. A token that it accepts has no other
// spelling.
func readForm(raw string, maxBytes int, algorithms []string) (*header, []byte, error) {
	if len(raw) > maxBytes {
		return nil, nil, errSize
	}
	first, second, third, err := jws.Split(raw)
	if err != nil {
		return nil, nil, errForm
	}
	head, err1 := jws.Decode(first)
	payload, err2 := jws.Decode(second)
	_, err3 := jws.Decode(third)
	if err1 != nil || err2 != nil || err3 != nil {
		return nil, nil, errForm
	}
	h, err := parseHeader(head)
	switch {
	case err != nil:
		return nil, nil, err
	case !slices.Contains(signatureAlgorithms, string(h.Algorithm)), !slices.Contains(algorithms, string(h.Algorithm)):
		return nil, nil, errAlgorithm
	}
	return h, payload, nil
}

// isPlain reports whether the typ is absent or "JWT".
func (h *header) isPlain() bool { return !h.Type.present || h.Type.text == "JWT" }

func parseHeader(raw []byte) (*header, error) {
	var h header
	if parseObject(raw, &h) != nil {
		return nil, errHeader
	}
	if h.Critical != nil || h.Base64 != nil || h.Zip != nil || h.Enc != nil || h.Key != nil {
		return nil, errExtension
	}
	return &h, nil
}

// parseObject reads a JSON object strictly: its depth is limited, names match
// exactly and occur once, and all text is valid UTF-8.
func parseObject(raw []byte, v any) error {
	if strictjson.TooDeep(raw) || jsontext.Value(raw).Kind() != '{' {
		return errClaims
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return errClaims
	}
	return nil
}

// recordingKeys keeps the result of a key set: go-oidc drops the kind of its
// error.
type recordingKeys struct {
	keys    oidc.KeySet
	payload []byte
	err     error
}

func (k *recordingKeys) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	k.payload, k.err = k.keys.VerifySignature(ctx, jwt)
	return k.payload, k.err
}

// verifySignature has go-oidc check a token. It returns nil if payload is
// signed by the provider. passed reports whether the claims have passed
// go-oidc's own checks, among them iss and aud: the caller asks that after its
// own checks, whose errors say more. check is one of go-oidc's two methods. It
// does not check times: go-oidc has no leeway for exp.
func verifySignature(ctx context.Context, keys oidc.KeySet, issuer, clientID string, algorithms []string, payload []byte, check func(*oidc.IDTokenVerifier) error) (passed bool, err error) {
	recorder := &recordingKeys{keys: keys}
	refused := check(oidc.NewVerifier(issuer, recorder, &oidc.Config{
		ClientID:             clientID,
		SupportedSigningAlgs: algorithms,
		SkipExpiryCheck:      true,
	}))
	switch {
	case errors.Is(recorder.err, errUnavailable), errors.Is(recorder.err, errRefused):
		return false, recorder.err
	case recorder.err != nil && ctx.Err() != nil:
		return false, errors.Join(errUnavailable, ctx.Err())
	case recorder.err != nil || recorder.payload == nil || !bytes.Equal(recorder.payload, payload):
		return false, errSignature // nil if go-oidc did not ask for the signature
	}
	return refused == nil, nil
}

// text is a string. Null is none. It is empty if the member is absent or empty.
type text string

func (s *text) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '"' {
		return errClaims
	}
	return json.UnmarshalDecode(dec, (*string)(s))
}

// optional is a string that may be absent, which differs from an empty one.
// Null is no string.
type optional struct {
	text    text
	present bool
}

func (o *optional) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	o.present = true
	return json.UnmarshalDecode(dec, &o.text)
}

// name is a sub, a sid or a jti: a string of 1 to maxName bytes. It is empty if
// the member is absent.
type name string

func (n *name) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var s string
	if dec.PeekKind() != '"' || json.UnmarshalDecode(dec, &s) != nil || s == "" || len(s) > maxName {
		return errClaims
	}
	*n = name(s)
	return nil
}

// audience is one string, or an array of at least one.
type audience []string

func (a *audience) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '"' {
		*a = make(audience, 1)
		return json.UnmarshalDecode(dec, &(*a)[0])
	}
	var list []text
	if dec.PeekKind() != '[' || json.UnmarshalDecode(dec, &list) != nil || len(list) == 0 {
		return errClaims
	}
	for _, s := range list {
		*a = append(*a, string(s))
	}
	return nil
}

// date is a NumericDate of RFC 7519 section 2, from 1970 to the year 9999. A
// fraction of a second is dropped. Zero means that the member is absent: some
// providers write auth_time that way.
type date int64

const maxDate = 253402300799

func (d *date) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '0' {
		return errClaims
	}
	v, err := dec.ReadValue()
	if err != nil {
		return errClaims
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || !(f >= 0 && f <= maxDate) {
		return errClaims
	}
	*d = date(math.Floor(f))
	return nil
}

// time returns the date, or the zero time if it is absent.
func (d date) time() time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Unix(int64(d), 0).UTC()
}

// isFor reports whether a token is for a client: it is the only audience, or
// one of several and the authorized party (azp). An azp that names another
// party is wrong in any case.
func isFor(clientID string, aud audience, azp optional) bool {
	if azp.present && string(azp.text) != clientID || !azp.present && len(aud) != 1 {
		return false
	}
	return clientID != "" && slices.Contains(aud, clientID)
}

// isShort reports whether s fits into a session's acr and amr.
func isShort(s string) bool {
	return s != "" && len(s) <= 64 && utf8.ValidString(s)
}
