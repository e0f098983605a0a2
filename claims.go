package sessiontoken

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Claims is what a verified token says. There is no other way to get one than
// from the methods of [Issuer] and from [Verifier.Verify].
//
// The user is the pair of Issuer and Subject. An address or a name in State
// does not identify the user: it may have passed to another one. State was true
// at IssuedAt, and a verifier does not know whether it still is. A short TTL
// bounds how old it gets.
type Claims[T any] struct {
	Issuer    string // iss
	Subject   string // sub
	TokenID   string // jti: new with each token
	SessionID string // sid: the same over all renewals of a session
	KeyID     string // kid: the key that signed this token

	Began    time.Time // begun: when the session began, in milliseconds; no renewal changes it
	AuthTime time.Time // auth_time: when the user last proved who they are; zero if not known; no renewal changes it
	IssuedAt time.Time // iat: when this token was made, and State was read
	Expires  time.Time // exp: the first moment at which it is no longer valid

	Renewable bool     // rnw: Renew takes this token
	changed   sixBytes // chg, in the room that Renewable leaves

	rare *rareClaims // nil if there are none

	State T // the application's own, the claim "state"
}

// rareClaims are what few sessions have. They are apart, since the time of a
// cache hit grows with the size of the claims that it copies. They are never
// changed, so that copies of the claims share them.
type rareClaims struct {
	acr     string
	amr     []string
	actor   Actor // zero if there is none
	context []byte
}

// ACR returns acr: how strong the proof at AuthTime was, by the issuer's own
// names. It is empty if that is not known.
func (c *Claims[T]) ACR() string {
	if c.rare == nil {
		return ""
	}
	return c.rare.acr
}

// AMR returns a copy of amr: how the user proved it, such as "pwd" and "otp"
// (RFC 8176). It is nil if that is not known.
func (c *Claims[T]) AMR() []string {
	if c.rare == nil {
		return nil
	}
	return slices.Clone(c.rare.amr)
}

// Actor returns a copy of act: who acts for the subject. It is nil if the
// subject does.
func (c *Claims[T]) Actor() *Actor {
	if c.rare == nil || c.rare.actor == (Actor{}) {
		return nil
	}
	actor := c.rare.actor
	return &actor
}

// Context returns a copy of what the server has on record of the session beside
// the token: that of [Start] or [Resumption]. Claims from Begin and Resume have
// it, and those that load is given. It is never in a token.
func (c *Claims[T]) Context() []byte {
	if c.rare == nil {
		return nil
	}
	return slices.Clone(c.rare.context)
}

// setContext sets the Context to a copy of context.
func (c *Claims[T]) setContext(context []byte) {
	if len(context) == 0 && c.rare == nil {
		return
	}
	rare := new(rareClaims)
	if c.rare != nil {
		*rare = *c.rare
	}
	rare.context = slices.Clone(context)
	c.rare = rare
}

// sixBytes is a milliDate, of which none needs more.
type sixBytes [6]byte

func sixBytesOf(d milliDate) (b sixBytes) {
	var all [8]byte
	binary.LittleEndian.PutUint64(all[:], uint64(d))
	copy(b[:], all[:])
	return b
}

func (b sixBytes) date() milliDate {
	var all [8]byte
	copy(all[:], b[:])
	return milliDate(binary.LittleEndian.Uint64(all[:]))
}

// Question returns the question whether the session is live and the state is
// current, such as for [revoke.List.Watch]. It does not ask about the Actor.
func (c *Claims[T]) Question() revoke.Question {
	return revoke.Question{
		SessionID: c.SessionID, Subject: c.Subject, KeyID: c.KeyID, Began: c.Began,
		IssuedAt: c.IssuedAt, Changed: int64(c.changed.date()),
	}
}

// Actor is who acts for the subject of a session (RFC 8693 section 4.1), such
// as a member of the staff who sees the application as a user does. It names
// the actor's own session, from which this session was begun. A token is
// accepted only while both sessions are live, and this session ends with the
// actor's.
type Actor struct {
	Subject   string    // sub of the actor's session
	SessionID string    // sid of the actor's session
	Began     time.Time // when the actor's session began; whole milliseconds
}

// The wire form of a payload: the registered claims of RFC 7519 section 4.1,
// auth_time, acr and amr of OpenID Connect Core section 2, act of RFC 8693, sid
// of OpenID's logout documents, begun and rnw, and the application's state as
// one claim, so that no field of the state can pass for a registered claim. All
// times are whole seconds, except begun, which is in milliseconds: a sign-out
// and a sign-in within one second have different times. chg is the number of
// the newest mark of the subject that was known before the state was read: see
// [revoke.List.Changed]. stv has the version of the state and the oldest one that
// can read it: see [Versioned]. sld has the places of sealed values: see [Sealed].
// auth_time, acr, amr, act, rnw, chg, stv and sld may be absent.
type payload struct {
	Issuer    string         `json:"iss"`
	Subject   string         `json:"sub"`
	Audience  audience       `json:"aud"`
	Expires   numericDate    `json:"exp"`
	NotBefore numericDate    `json:"nbf"`
	IssuedAt  numericDate    `json:"iat"`
	TokenID   string         `json:"jti"`
	SessionID string         `json:"sid"`
	Began     milliDate      `json:"begun"`
	AuthTime  numericDate    `json:"auth_time"`
	ACR       shortText      `json:"acr"`
	AMR       methods        `json:"amr"`
	Actor     actorClaim     `json:"act"`
	Renewable onlyTrue       `json:"rnw"`
	Changed   milliDate      `json:"chg"`
	Version   versionClaim   `json:"stv"`
	State     jsontext.Value `json:"state"`
	Sealed    audience       `json:"sld"` // spelled as aud is
}

// numericDate is a NumericDate of RFC 7519 section 2, narrowed to whole seconds
// from 1970 to the end of the year 9999. Zero means that the claim is absent.
type numericDate int64

const maxNumericDate = 253402300799

var errWire = errors.New("not of the claim's type")

func (d *numericDate) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	n, err := decodePositive(dec, maxNumericDate)
	*d = numericDate(n)
	return err
}

func (d numericDate) time() time.Time { return time.Unix(int64(d), 0).UTC() }

// timeOrZero returns the time, or the zero time if the claim is absent.
func (d numericDate) timeOrZero() time.Time {
	if d == 0 {
		return time.Time{}
	}
	return d.time()
}

// milliDate is a number of milliseconds since 1970, to the end of the year 9999.
// Zero means that the claim is absent.
type milliDate int64

const maxMilliDate = maxNumericDate*1000 + 999

func (d *milliDate) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	n, err := decodePositive(dec, maxMilliDate)
	*d = milliDate(n)
	return err
}

func (d milliDate) time() time.Time { return time.UnixMilli(int64(d)).UTC() }

// decodePositive reads a whole number from 1 to most.
func decodePositive(dec *jsontext.Decoder, most int64) (int64, error) {
	var n int64
	if dec.PeekKind() != '0' {
		return 0, errWire
	}
	if err := json.UnmarshalDecode(dec, &n); err != nil {
		return 0, errWire // a fraction, an exponent, or out of range
	}
	if n <= 0 || n > most {
		return 0, errWire
	}
	return n, nil
}

// onlyTrue is a claim whose only value is true. False means that the claim is
// absent.
type onlyTrue bool

func (b *onlyTrue) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != 't' || dec.SkipValue() != nil {
		return errWire
	}
	*b = true
	return nil
}

const (
	maxShortText = 64 // bytes of acr, and of each name in amr
	maxMethods   = 10 // names in amr
)

// isShortText reports whether s is valid as an acr or as a name in amr.
func isShortText(s string) bool {
	return s != "" && len(s) <= maxShortText && utf8.ValidString(s)
}

// shortText is a claim that is a string of at most maxShortText bytes. Empty
// means that the claim is absent.
type shortText string

func (s *shortText) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var text string
	if dec.PeekKind() != '"' || json.UnmarshalDecode(dec, &text) != nil || !isShortText(text) {
		return errWire
	}
	*s = shortText(text)
	return nil
}

// methods are the names of amr. None means that the claim is absent.
type methods []string

func (m *methods) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var list []string
	if dec.PeekKind() != '[' || json.UnmarshalDecode(dec, &list) != nil || len(list) == 0 || !areMethods(list) {
		return errWire
	}
	*m = list
	return nil
}

// areMethods reports whether a list is valid as an amr. An empty list is.
func areMethods(list []string) bool {
	return len(list) <= maxMethods && !slices.ContainsFunc(list, func(s string) bool { return !isShortText(s) })
}

// actorClaim is act: exactly sub, sid and begun of the actor's session. An empty
// one means that the claim is absent.
type actorClaim struct {
	Subject   string    `json:"sub"`
	SessionID string    `json:"sid"`
	Began     milliDate `json:"begun"`
}

func (a *actorClaim) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain actorClaim // without this method
	var p plain
	// An unknown member may be another act, whose session would not be checked.
	if dec.PeekKind() != '{' || json.UnmarshalDecode(dec, &p, json.RejectUnknownMembers(true)) != nil {
		return errWire
	}
	if p.Subject == "" || p.SessionID == "" || p.Began == 0 {
		return errWire
	}
	*a = actorClaim(p)
	return nil
}

func (a *actorClaim) isAbsent() bool { return a.Subject == "" }

// audience is one string or an array of strings (RFC 7519 section 4.1.3).
type audience []string

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

// parsePayload reads the claims of a token whose signature is valid, strictly.
// An empty fault means that every required claim is present and well-formed. A
// fault that is not empty is the detail of an error.
func parsePayload(raw []byte) (p payload, fault string) {
	if strictjson.TooDeep(raw) {
		return p, "nested too deep"
	}
	if jsontext.Value(raw).Kind() != '{' || json.Unmarshal(raw, &p) != nil {
		return p, "not a JSON object of well-formed claims"
	}
	switch {
	case p.Issuer == "":
		return p, "iss is missing"
	case p.Subject == "":
		return p, "sub is missing"
	case len(p.Audience) == 0:
		return p, "aud is missing"
	case p.Expires == 0:
		return p, "exp is missing"
	case p.IssuedAt == 0:
		return p, "iat is missing"
	case p.TokenID == "":
		return p, "jti is missing"
	case p.SessionID == "":
		return p, "sid is missing"
	case p.Began == 0:
		return p, "begun is missing"
	case len(p.State) == 0:
		return p, "state is missing"
	}
	return p, ""
}

// append appends the payload to dst as JSON, in the one spelling that
// scanPayload reads. The value of the state and the closing bracket are left
// out.
func (p *payload) append(dst []byte) ([]byte, error) {
	var err error
	quoted := func(name, value string) {
		dst = append(dst, name...)
		if err == nil {
			dst, err = jsontext.AppendQuote(dst, value)
		}
	}
	number := func(name string, n int64) {
		dst = strconv.AppendInt(append(dst, name...), n, 10)
	}
	quoted(`{"iss":`, p.Issuer)
	quoted(`,"sub":`, p.Subject)
	list := func(name string, values []string) {
		if err == nil {
			dst, err = appendTexts(append(dst, name...), values)
		}
	}
	if len(p.Audience) == 1 {
		quoted(`,"aud":`, p.Audience[0])
	} else {
		list(`,"aud":`, p.Audience)
	}
	number(`,"exp":`, int64(p.Expires))
	number(`,"iat":`, int64(p.IssuedAt))
	quoted(`,"jti":`, p.TokenID)
	quoted(`,"sid":`, p.SessionID)
	number(`,"begun":`, int64(p.Began))
	if p.AuthTime != 0 {
		number(`,"auth_time":`, int64(p.AuthTime))
	}
	if p.ACR != "" {
		quoted(`,"acr":`, string(p.ACR))
	}
	if len(p.AMR) > 0 {
		list(`,"amr":`, p.AMR)
	}
	if !p.Actor.isAbsent() {
		quoted(`,"act":{"sub":`, p.Actor.Subject)
		quoted(`,"sid":`, p.Actor.SessionID)
		number(`,"begun":`, int64(p.Actor.Began))
		dst = append(dst, '}')
	}
	if p.Renewable {
		dst = append(dst, `,"rnw":true`...)
	}
	if p.Changed != 0 {
		number(`,"chg":`, int64(p.Changed))
	}
	if v := p.Version; v.written != 0 {
		dst = strconv.AppendUint(append(dst, `,"stv":[`...), uint64(v.written), 10)
		dst = strconv.AppendUint(append(dst, ','), uint64(v.readableBy), 10)
		dst = append(dst, ']')
	}
	return append(dst, `,"state":`...), err
}

// appendTexts appends an array of strings to dst.
func appendTexts(dst []byte, texts []string) (_ []byte, err error) {
	for i, text := range texts {
		separator := byte(',')
		if i == 0 {
			separator = '['
		}
		if dst, err = jsontext.AppendQuote(append(dst, separator), text); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// appendSealed appends the claim sld to dst, if there is one.
func appendSealed(dst []byte, pointers []string) ([]byte, error) {
	switch len(pointers) {
	case 0:
		return dst, nil
	case 1:
		return jsontext.AppendQuote(append(dst, `,"sld":`...), pointers[0])
	}
	return appendTexts(append(dst, `,"sld":`...), pointers)
}

// claimsOf returns the claims of a payload without the state. They share no
// memory that a caller can change. kid is the id of the key that signed the
// token.
func claimsOf[T any](p *payload, kid string) *Claims[T] {
	return &Claims[T]{
		Issuer:    p.Issuer,
		Subject:   p.Subject,
		TokenID:   p.TokenID,
		SessionID: p.SessionID,
		KeyID:     kid,
		Began:     p.Began.time(),
		AuthTime:  p.AuthTime.timeOrZero(),
		IssuedAt:  p.IssuedAt.time(),
		Expires:   p.Expires.time(),
		Renewable: bool(p.Renewable),
		changed:   sixBytesOf(p.Changed),
		rare:      p.rare(),
	}
}

// rare returns the claims that few tokens have, or nil. They share AMR with p,
// where nothing changes it.
func (p *payload) rare() *rareClaims {
	if p.ACR == "" && len(p.AMR) == 0 && p.Actor.isAbsent() {
		return nil
	}
	rare := &rareClaims{acr: string(p.ACR), amr: p.AMR}
	if a := &p.Actor; !a.isAbsent() {
		rare.actor = Actor{Subject: a.Subject, SessionID: a.SessionID, Began: a.Began.time()}
	}
	return rare
}

// claims is claimsOf with the state. If the state is of an older version, claims
// upgrades it, and p is then as if it were of the current version.
func (d *stateDecoder[T]) claims(p *payload, kid string) (*Claims[T], error) {
	c := claimsOf[T](p, kid)
	if err := d.read(p, &c.State); err != nil {
		return nil, err
	}
	return c, nil
}

// newIDs returns two ids of 128 bits each from crypto/rand, in base64url.
// crypto/rand does not fail: it ends the program before it returns a weak id.
func newIDs() (string, string) {
	var random [32]byte
	rand.Read(random[:])
	var buf [44]byte
	ids := string(jws.AppendEncode(jws.AppendEncode(buf[:0], random[:16]), random[16:]))
	return ids[:len(ids)/2], ids[len(ids)/2:]
}
