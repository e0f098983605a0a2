package sessiontoken_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

// attacker makes hostile tokens with genuine keys, which no attacker has: what
// is refused is refused for what it says, not for its signature, unless that is
// what is wrong.
type attacker struct {
	t    testing.TB
	keys map[keys.Algorithm]*keys.SigningKey
	raw  map[keys.Algorithm]crypto.Signer
	list []attack
	seen map[string]int
}

func (a *attacker) add(expect, name, comment, token string) {
	name = regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-")
	name = strings.Trim(name, "-")
	a.seen[name]++
	if n := a.seen[name]; n > 1 {
		name += "-" + strconv.Itoa(n)
	}
	a.list = append(a.list, attack{name, expect, comment, token})
}

func (a *attacker) sign(alg keys.Algorithm, header, payload string) string {
	signed := jws.Encode([]byte(header)) + "." + jws.Encode([]byte(payload))
	sig, err := a.keys[alg].Sign(a.t.Context(), []byte(signed))
	require.NoError(a.t, err)
	return signed + "." + jws.Encode(sig)
}

func (a *attacker) kid(alg keys.Algorithm) string { return a.keys[alg].Public().KeyID() }

func (a *attacker) header(alg keys.Algorithm) string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"session+jwt"}`, alg, a.kid(alg))
}

// now is when the tokens are verified.
var now = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// claim is one member of a payload, in its raw form; an empty value leaves it out.
type claim struct{ name, value string }

func goodClaims() []claim {
	n := func(d int64) string { return strconv.FormatInt(now+d, 10) }
	return []claim{
		{"iss", `"https://issuer.example"`}, {"sub", `"user-1"`}, {"aud", `"api"`}, {"exp", n(300)}, {"iat", n(0)},
		{"jti", `"0123456789abcdefABCDEF"`}, {"sid", `"ABCDEF0123456789abcdef"`}, {"begun", n(-60) + "123"}, {"auth_time", n(-60)},
		{"state", `{"name":"Ada","roles":["a","b"]}`},
	}
}

// payload is the good claims with changes; an unknown name is added at the end.
func payload(changes ...claim) string {
	claims := goodClaims()
	for _, c := range changes {
		found := false
		for i := range claims {
			if claims[i].name == c.name {
				claims[i].value, found = c.value, true
			}
		}
		if !found {
			claims = append(claims, c)
		}
	}
	var members []string
	for _, c := range claims {
		if c.value != "" {
			members = append(members, strconv.Quote(c.name)+":"+c.value)
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

func writeAttacks(t *testing.T) {
	a := &attacker{t: t, keys: map[keys.Algorithm]*keys.SigningKey{}, raw: map[keys.Algorithm]crypto.Signer{}, seen: map[string]int{}}
	var public []*keys.PublicKey
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		a.raw[alg] = newSigner(t, alg)
		k, err := keys.NewSigningKey(alg, a.raw[alg])
		require.NoError(t, err)
		a.keys[alg] = k
		public = append(public, k.Public())
		a.add("ok", "ok "+string(alg), "a control that must verify", a.sign(alg, a.header(alg), payload()))
	}
	set, err := keys.NewSet(public...)
	require.NoError(t, err)
	a.form()
	a.headers()
	a.signatures()
	a.claims()

	require.NoError(t, os.RemoveAll(attacksDir))
	require.NoError(t, os.MkdirAll(attacksDir, 0o755))
	document, err := set.MarshalJSON()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(attacksDir, "keys.json"), append(document, '\n'), 0o644))
	for _, x := range a.list {
		text := fmt.Sprintf("expect: %s\ncomment: %s\n\n%s\n", x.expect, x.comment, strconv.QuoteToASCII(x.token))
		require.NoError(t, os.WriteFile(filepath.Join(attacksDir, x.name+".txt"), []byte(text), 0o644))
	}
}

// form: what is wrong with the spelling alone.
func (a *attacker) form() {
	good := a.sign(keys.ES256, a.header(keys.ES256), payload())
	parts := strings.Split(good, ".")
	h, p, s := parts[0], parts[1], parts[2]
	bad := func(name, comment, token string) { a.add("malformed", "form "+name, comment, token) }
	bad("empty", "nothing", "")
	bad("one dot", "two segments", h+"."+p)
	bad("four segments", "a fourth segment", good+"."+s)
	bad("five segments", "as many segments as an encrypted token", good+".."+s)
	bad("leading dot", "an empty header", "."+p+"."+s)
	bad("no signature", "an empty signature", h+"."+p+".")
	bad("dots alone", "nothing but dots", strings.Repeat(".", 1000))
	bad("json flattened", "the flattened JSON serialization", fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, h, p, s))
	bad("json general", "the general JSON serialization", fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, p, h, s))
	bad("bearer", "the scheme left on", "Bearer "+good)
	bad("quoted", "in quotes", `"`+good+`"`)
	bad("percent", "dots escaped as in a URL", h+"%2e"+p+"%2e"+s)
	bad("full stop", "a dot beyond ASCII", h+"。"+p+"."+s)
	for i, name := range []string{"header", "payload", "signature"} {
		in := func(segment string) string {
			q := []string{h, p, s}
			q[i] = segment
			return strings.Join(q, ".")
		}
		seg := parts[i]
		mid := len(seg) / 2
		for _, tt := range []struct{ name, insert string }{
			{"lf", "\n"}, {"cr", "\r"}, {"crlf", "\r\n"}, {"space", " "}, {"tab", "\t"}, {"nul", "\x00"}, {"equals", "="}, {"high byte", "\xff"},
			{"utf8", "é"}, {"plus", "+"}, {"slash", "/"},
		} {
			bad(name+" "+tt.name+" inside", "a byte that no segment holds", in(seg[:mid]+tt.insert+seg[mid:]))
		}
		bad(name+" lf at the end", "a line break that a lenient decoder skips", in(seg+"\n"))
		padded := seg + "="
		if len(seg)%4 == 2 {
			padded += "="
		}
		bad(name+" padded", "base64 padding", in(padded))
		bad(name+" one character more", "a length that no bytes encode to, or another byte", in(seg+strings.Repeat("A", (5-len(seg)%4)%4)))
		if len(seg)%4 != 0 {
			alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			last := strings.IndexByte(alphabet, seg[len(seg)-1])
			bad(name+" spare bits", "the last character with a spare bit set: the same bytes to a lenient decoder", in(seg[:len(seg)-1]+alphabet[last+1:last+2]))
		}
	}
	a.spareBits()
	std := strings.NewReplacer("-", "+", "_", "/")
	tricky := a.sign(keys.ES256, a.header(keys.ES256), payload(claim{"state", `{"name":"???>>>~~~ü¿¿¿","roles":[]}`}))
	require.NotEqual(a.t, tricky, std.Replace(tricky))
	bad("standard alphabet", "base64 with plus and slash", std.Replace(tricky))
}

// spareBits: tokens with a genuine signature over a second spelling of their
// payload, for both lengths of a segment that leave spare bits, and each bit.
func (a *attacker) spareBits() {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, name := range []string{"A", "Ad", "Ada"} {
		body := payload(claim{"state", fmt.Sprintf(`{"name":%q,"roles":[]}`, name)})
		head, seg := jws.Encode([]byte(a.header(keys.ES256))), jws.Encode([]byte(body))
		spare := map[int]int{0: 0, 2: 4, 3: 2}[len(seg)%4]
		for bit := range spare {
			last := strings.IndexByte(alphabet, seg[len(seg)-1])
			signed := head + "." + seg[:len(seg)-1] + string(alphabet[last|1<<bit])
			sig, err := a.keys[keys.ES256].Sign(a.t.Context(), []byte(signed))
			require.NoError(a.t, err)
			a.add("malformed", fmt.Sprintf("form signed spare bit %d of %d", bit, spare),
				"a genuine signature over a payload whose last character has a spare bit set", signed+"."+jws.Encode(sig))
		}
	}
}

func (a *attacker) headers() {
	kid := a.kid(keys.ES256)
	es := func(expect, name, comment, header string) {
		a.add(expect, "header "+name, comment, a.sign(keys.ES256, header, payload()))
	}
	bad := func(name, comment, header string) { es("malformed", name, comment, header) }
	with := func(member string) string {
		return fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"session+jwt",%s}`, kid, member)
	}
	for _, tt := range []struct{ name, raw string }{
		{"not json", `alg`}, {"array", `[]`}, {"null", `null`}, {"string", `"x"`}, {"number", `1`}, {"empty object", `{}`},
		{"trailing", a.header(keys.ES256) + "{}"}, {"trailing comma", `{"alg":"ES256",}`}, {"bom", "\ufeff" + a.header(keys.ES256)},
		{"single quotes", strings.ReplaceAll(a.header(keys.ES256), `"`, `'`)}, {"comment", "/**/" + a.header(keys.ES256) + "//"},
	} {
		bad(tt.name, "not one JSON object with the three members", tt.raw)
	}
	for _, member := range []string{
		`"crit":[]`, `"crit":["exp"]`, `"crit":["b64"],"b64":true`, `"crit":null`, `"b64":false`, `"b64":true`, `"zip":"DEF"`, `"enc":"A128GCM"`,
		`"epk":{}`, `"cty":"JWT"`, `"jku":"http://127.0.0.1:1/jwks"`, `"x5u":"http://127.0.0.1:1/x"`, `"x5c":["AAAA"]`, `"x5t":"AAAA"`,
		`"x5t#S256":"AAAA"`, `"jwk":{"kty":"oct","k":"AAAA"}`, `"iss":"https://issuer.example"`, `"nonce":"1"`, `"ALG":"none"`, `"Kid":"x"`, `"TYP":"session+jwt"`,
	} {
		bad("with "+member, "a parameter beyond alg, kid and typ", with(member))
	}
	own, err := mustSet(a.t, a.keys[keys.EdDSA].Public()).MarshalJSON()
	require.NoError(a.t, err)
	bad("embedded key", "the verification key in the token", with(`"jwk":`+string(own[len(`{"keys":[`):len(own)-len(`]}`)])))
	for _, tt := range []struct{ name, header string }{
		{"alg twice", fmt.Sprintf(`{"alg":"ES256","alg":"ES256","kid":%q,"typ":"session+jwt"}`, kid)},
		{"alg twice, escaped", fmt.Sprintf(`{"alg":"ES256","\u0061lg":"none","kid":%q,"typ":"session+jwt"}`, kid)},
		{"kid twice", fmt.Sprintf(`{"alg":"ES256","kid":"x","kid":%q,"typ":"session+jwt"}`, kid)},
		{"no alg", fmt.Sprintf(`{"kid":%q,"typ":"session+jwt"}`, kid)},
		{"alg null", fmt.Sprintf(`{"alg":null,"kid":%q,"typ":"session+jwt"}`, kid)},
		{"alg number", fmt.Sprintf(`{"alg":256,"kid":%q,"typ":"session+jwt"}`, kid)},
		{"alg list", fmt.Sprintf(`{"alg":["ES256"],"kid":%q,"typ":"session+jwt"}`, kid)},
		{"alg empty", fmt.Sprintf(`{"alg":"","kid":%q,"typ":"session+jwt"}`, kid)},
		{"no kid", `{"alg":"ES256","typ":"session+jwt"}`},
		{"kid null", `{"alg":"ES256","kid":null,"typ":"session+jwt"}`},
		{"kid number", `{"alg":"ES256","kid":1,"typ":"session+jwt"}`},
		{"kid empty", `{"alg":"ES256","kid":"","typ":"session+jwt"}`},
		{"kid too long", fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"session+jwt"}`, strings.Repeat("k", 129))},
		{"kid not utf8", "{\"alg\":\"ES256\",\"kid\":\"\xff\",\"typ\":\"session+jwt\"}"},
		{"kid surrogate", `{"alg":"ES256","kid":"\udc00","typ":"session+jwt"}`},
		{"no typ", fmt.Sprintf(`{"alg":"ES256","kid":%q}`, kid)},
		{"typ null", fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":null}`, kid)},
		{"deep", `{"alg":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`},
		{"utf16", "{\x00\"\x00a\x00l\x00g\x00\"\x00:\x00"},
	} {
		bad(tt.name, "a header that is not exactly alg, kid and typ as strings", tt.header)
	}
	for _, typ := range []string{"JWT", "at+jwt", "logout+jwt", "dpop+jwt", "statuslist+jwt", "refresh+jwt", "id+jwt", "session", "session+jwt ", "x-session+jwt",
		"text/session+jwt", "application/application/session+jwt", "ſession+jwt", "secevent+jwt"} {
		bad("typ "+strconv.QuoteToASCII(typ), "another kind of token, signed by the same key", fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":%q}`, kid, typ))
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "HS256", "HS512", "ES384", "ES512", "ES256K", "es256", "Es256", "RS256", "PS256", "EdDSA", "Ed25519", " ES256", "ES256\u0000"} {
		a.add("signature", "alg "+strconv.QuoteToASCII(alg), "another alg than the key's, over the key's good signature",
			a.sign(keys.ES256, fmt.Sprintf(`{"alg":%s,"kid":%q,"typ":"session+jwt"}`, strings.ReplaceAll(strconv.QuoteToASCII(alg), `\x00`, `\u0000`), kid), payload()))
	}
	for _, other := range []string{"unknown", kid + "x", kid[1:], strings.ToUpper(kid), "../../etc/passwd", "' OR 1=1 --", "http://127.0.0.1:1/"} {
		es("signature", "kid "+other, "a kid of no key, compared as bytes", fmt.Sprintf(`{"alg":"ES256","kid":%s,"typ":"session+jwt"}`, strconv.QuoteToASCII(other)))
	}
}

func (a *attacker) signatures() {
	head := jws.Encode([]byte(a.header(keys.ES256)))
	signed := head + "." + jws.Encode([]byte(payload()))
	sig, err := a.keys[keys.ES256].Sign(a.t.Context(), []byte(signed))
	require.NoError(a.t, err)
	bad := func(name, comment string, sig []byte) {
		a.add("signature", "sig "+name, comment, signed+"."+jws.Encode(sig))
	}
	zero, order := make([]byte, 32), mustHex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
	r, s := sig[:32], sig[32:]
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	bad("zero", "r and s of zero (CVE-2022-21449)", cat(zero, zero))
	bad("r zero", "r of zero", cat(zero, s))
	bad("s zero", "s of zero", cat(r, zero))
	bad("order", "r and s of the group's order", cat(order, order))
	bad("r order", "r of the group's order", cat(order, s))
	bad("s order", "s of the group's order", cat(r, order))
	bad("all ones", "r and s above the order", bytes.Repeat([]byte{0xff}, 64))
	one := cat(make([]byte, 31), []byte{1})
	bad("one", "r and s of one", cat(one, one))
	bad("swapped", "s before r", cat(s, r))
	bad("short", "a byte short", sig[:63])
	bad("half", "r alone", r)
	bad("longer", "a byte more", cat(sig, []byte{0}))
	bad("padded halves", "r and s with a leading zero each", cat([]byte{0}, r, []byte{0}, s))
	der, err := a.raw[keys.ES256].Sign(rand.Reader, digest(signed), crypto.SHA256)
	require.NoError(a.t, err)
	bad("der", "the signature in ASN.1", der)
	bad("doubled", "the signature twice", cat(sig, sig))
	flipped := bytes.Clone(sig)
	flipped[0] ^= 0x80
	bad("flipped", "one bit changed", flipped)
	other, err := keys.GenerateKey(keys.ES256)
	require.NoError(a.t, err)
	foreign, err := other.Sign(a.t.Context(), []byte(signed))
	require.NoError(a.t, err)
	bad("foreign", "another key's signature", foreign)
	bad("one byte", "one byte of signature", []byte{0})
	highS := bytes.Clone(sig)
	new(big.Int).Add(new(big.Int).SetBytes(order), big.NewInt(1)).FillBytes(highS[32:])
	bad("s order plus one", "s above the order by one", highS)
	bad("larger s", "the other signature of the pair, which anyone can make from the first", cat(r, otherS(s)))

	other2 := strings.Replace(payload(), "user-1", "user-2", 1)
	a.add("signature", "sig payload swapped", "another payload under the signature", head+"."+jws.Encode([]byte(other2))+"."+jws.Encode(sig))
	expired := payload(claim{"exp", strconv.FormatInt(now-10, 10)}, claim{"iat", strconv.FormatInt(now-300, 10)}, claim{"auth_time", strconv.FormatInt(now-400, 10)})
	a.add("signature", "sig bad and expired", "a bad signature is what is said, not the expiry", head+"."+jws.Encode([]byte(expired))+"."+jws.Encode(sig))
	a.add("signature", "sig bad and not json", "a payload that is no JSON is not looked at before the signature", head+"."+jws.Encode([]byte("{{{"))+"."+jws.Encode(sig))

	for _, alg := range []keys.Algorithm{keys.EdDSA, keys.PS256, keys.RS256} {
		token := a.sign(alg, a.header(alg), payload())
		at := strings.LastIndexByte(token, '.')
		raw, err := jws.Decode(token[at+1:])
		require.NoError(a.t, err)
		variant := func(name, comment string, sig []byte) {
			a.add("signature", fmt.Sprintf("sig %s %s", alg, name), comment, token[:at+1]+jws.Encode(sig))
		}
		variant("zero", "a signature of zeros", make([]byte, len(raw)))
		variant("ones", "a signature of ones", bytes.Repeat([]byte{0xff}, len(raw)))
		variant("short", "a byte short", raw[1:])
		variant("longer", "a leading zero more", cat([]byte{0}, raw))
		variant("flipped", "one bit changed", cat(raw[:len(raw)-1], []byte{raw[len(raw)-1] ^ 1}))
		variant("other alg", "the signature of ES256", sig)
	}
	// Ed25519: S plus the group's order is the same signature to a verifier that does not reduce it.
	ed := a.sign(keys.EdDSA, a.header(keys.EdDSA), payload())
	at := strings.LastIndexByte(ed, '.')
	raw, err := jws.Decode(ed[at+1:])
	require.NoError(a.t, err)
	l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	sum := new(big.Int).Add(l, new(big.Int).SetBytes(reversed(raw[32:])))
	a.add("signature", "sig eddsa malleable", "S plus the order of the group", ed[:at+1]+jws.Encode(cat(raw[:32], reversed(sum.FillBytes(make([]byte, 32))))))
	// RSA: other paddings of the same key's type.
	for _, tt := range []struct {
		alg  keys.Algorithm
		salt int
	}{{keys.PS256, 0}, {keys.RS256, 32}} {
		in := jws.Encode([]byte(a.header(tt.alg))) + "." + jws.Encode([]byte(payload()))
		sig, err := a.raw[tt.alg].Sign(rand.Reader, digest(in), &rsa.PSSOptions{SaltLength: tt.salt, Hash: crypto.SHA256})
		require.NoError(a.t, err)
		a.add("signature", fmt.Sprintf("sig %s pss salt %d", tt.alg, tt.salt), "PSS with a salt that the algorithm does not have", in+"."+jws.Encode(sig))
	}
	in := jws.Encode([]byte(a.header(keys.PS256))) + "." + jws.Encode([]byte(payload()))
	pkcs, err := a.raw[keys.PS256].Sign(rand.Reader, digest(in), crypto.SHA256)
	require.NoError(a.t, err)
	a.add("signature", "sig ps256 pkcs1", "PKCS #1 v1.5 under a PSS key", in+"."+jws.Encode(pkcs))
	// HMAC with the public key as the secret.
	for _, tt := range []struct {
		name string
		alg  keys.Algorithm
	}{{"es256", keys.ES256}, {"rs256", keys.RS256}} {
		pub := a.keys[tt.alg].Public()
		der, err := x509.MarshalPKIXPublicKey(pub.Key())
		require.NoError(a.t, err)
		jwkSet, err := mustSet(a.t, pub).MarshalJSON()
		require.NoError(a.t, err)
		for _, row := range []struct {
			name   string
			secret []byte
		}{
			{"der", der}, {"pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}, {"jwks", jwkSet},
		} {
			in := jws.Encode(fmt.Appendf(nil, `{"alg":"HS256","kid":%q,"typ":"session+jwt"}`, pub.KeyID())) + "." + jws.Encode([]byte(payload()))
			mac := hmac.New(sha256.New, row.secret)
			mac.Write([]byte(in))
			a.add("signature", "hmac "+tt.name+" "+row.name, "HMAC with the public key as its secret", in+"."+jws.Encode(mac.Sum(nil)))
		}
	}
	none := jws.Encode(fmt.Appendf(nil, `{"alg":"none","kid":%q,"typ":"session+jwt"}`, a.kid(keys.ES256)))
	a.add("malformed", "none without signature", "the unsecured token of RFC 7519 section 6", none+"."+jws.Encode([]byte(payload()))+".")
}

func (a *attacker) claims() {
	add := func(expect, name, comment, body string) {
		a.add(expect, "claims "+name, comment, a.sign(keys.ES256, a.header(keys.ES256), body))
	}
	bad := func(name, comment, body string) { add("claims", name, comment, body) }
	date := func(d int64) string { return strconv.FormatInt(now+d, 10) }
	for _, tt := range []struct{ name, raw string }{
		{"empty", ""}, {"not json", "{{{"}, {"null", "null"}, {"array", "[]"}, {"string", `"x"`}, {"empty object", "{}"},
		{"trailing", payload() + "{}"}, {"trailing text", payload() + "x"}, {"nul behind", payload() + "\x00"}, {"cut", payload()[:100]},
		{"bom", "\ufeff" + payload()}, {"utf16", "{\x00}\x00"}, {"comment", "/* */" + payload()}, {"comma", strings.TrimSuffix(payload(), "}") + ",}"},
		{"unquoted", strings.Replace(payload(), `"iss"`, `iss`, 1)},
	} {
		bad(tt.name, "not one JSON object", tt.raw)
	}
	for _, c := range goodClaims() {
		if c.name != "auth_time" {
			bad("no "+c.name, "a claim that must be there", payload(claim{c.name, ""}))
			bad(c.name+" upper case", "a claim in another case is another claim", payload(claim{c.name, ""}, claim{strings.ToUpper(c.name), c.value}))
		}
		if c.name != "state" {
			bad(c.name+" null", "null is not a value of the claim", payload(claim{c.name, "null"}))
		}
		bad(c.name+" twice", "a claim twice, the same", strings.TrimSuffix(payload(), "}")+fmt.Sprintf(",%q:%s}", c.name, c.value))
		bad(c.name+" twice escaped", "a claim twice, once in escapes", strings.TrimSuffix(payload(), "}")+fmt.Sprintf(`,"\u%04x%s":%s}`, c.name[0], c.name[1:], c.value))
	}
	for _, name := range []string{"iss", "sub", "jti", "sid"} {
		for _, tt := range []struct{ name, value string }{{"number", "1"}, {"list", `["x"]`}, {"object", "{}"}, {"empty", `""`}, {"true", "true"}} {
			bad(name+" "+tt.name, "a claim of the wrong type", payload(claim{name, tt.value}))
		}
	}
	for _, name := range []string{"exp", "iat", "auth_time", "nbf"} {
		for _, tt := range []struct{ name, value string }{
			{"string", `"` + date(0) + `"`}, {"true", "true"}, {"list", "[" + date(0) + "]"}, {"object", "{}"}, {"zero", "0"}, {"negative", "-1"},
			{"fraction", date(0) + ".5"}, {"exponent", "9.4668e8"}, {"huge", "1e400"}, {"overflow", "99999999999999999999"}, {"beyond 9999", "253402300800"},
			{"minus zero", "-0"}, {"leading zero", "0" + date(0)}, {"hex", "0x386d4380"}, {"plus", "+" + date(0)}, {"nan", "NaN"}, {"infinity", "Infinity"}, {"null again", "null"},
		} {
			bad(name+" "+tt.name, "a date is a whole number of seconds", payload(claim{name, tt.value}))
		}
	}
	milli := func(d int64) string { return strconv.FormatInt(1000*now+d, 10) }
	for _, tt := range []struct{ name, value string }{
		{"string", `"` + milli(0) + `"`}, {"true", "true"}, {"list", "[" + milli(0) + "]"}, {"object", "{}"}, {"zero", "0"}, {"negative", "-1"}, {"negative now", "-" + milli(0)},
		{"fraction", milli(0) + ".5"}, {"no fraction", milli(0) + ".0"}, {"exponent", "9.466848e11"}, {"huge", "1e400"}, {"overflow", "99999999999999999999"}, {"beyond 9999", "253402300800000"},
		{"minus zero", "-0"}, {"leading zero", "0" + milli(0)}, {"hex", "0xdc6acfac00"}, {"plus", "+" + milli(0)}, {"nan", "NaN"}, {"infinity", "Infinity"}, {"year 9999", "253402300799999"},
	} {
		bad("begun "+tt.name, "a beginning is a whole number of milliseconds", payload(claim{"begun", tt.value}))
	}
	bad("begun after iat", "the session began after the token, by more than clocks differ", payload(claim{"begun", milli(61_001)}))
	bad("begun microseconds", "another unit, and so in the far future", payload(claim{"begun", milli(0) + "000"}))
	bad("begun tomorrow", "a session that no revocation of today would reach", payload(claim{"begun", milli(24 * 3600 * 1000)}))
	for _, tt := range []struct{ name, value string }{
		{"false", "false"}, {"null", "null"}, {"string", `"true"`}, {"empty", `""`}, {"one", "1"}, {"zero", "0"}, {"list", "[true]"}, {"empty list", "[]"}, {"object", "{}"},
		{"upper case", "True"}, {"cut", "tru"}, {"longer", "truee"}, {"two", "true,true"}, {"negative", "-1"}, {"float", "1.0"},
	} {
		bad("rnw "+tt.name, "rnw is true or absent", payload(claim{"rnw", tt.value}))
	}
	bad("rnw twice", "a claim twice, the same", strings.TrimSuffix(payload(claim{"rnw", "true"}), "}")+`,"rnw":true}`)
	bad("rnw twice escaped", "a claim twice, once in escapes", strings.TrimSuffix(payload(claim{"rnw", "true"}), "}")+`,"\u0072nw":true}`)
	for _, tt := range []struct{ name, value string }{
		{"string", `"` + milli(0) + `"`}, {"true", "true"}, {"null", "null"}, {"list", "[" + milli(0) + "]"}, {"object", "{}"}, {"zero", "0"}, {"negative", "-1"},
		{"fraction", milli(0) + ".5"}, {"no fraction", milli(0) + ".0"}, {"exponent", "9.466848e11"}, {"overflow", "99999999999999999999"}, {"beyond 9999", "253402300800000"},
		{"minus zero", "-0"}, {"leading zero", "0" + milli(0)}, {"hex", "0xdc6acfac00"}, {"plus", "+" + milli(0)}, {"two", milli(0) + "," + milli(0)}, {"empty", `""`},
	} {
		bad("chg "+tt.name, "the number of a mark is a whole number of milliseconds, or absent", payload(claim{"chg", tt.value}))
	}
	bad("chg twice", "a claim twice, the same", strings.TrimSuffix(payload(claim{"chg", milli(0)}), "}")+`,"chg":`+milli(0)+"}")
	bad("chg twice escaped", "a claim twice, once in escapes", strings.TrimSuffix(payload(claim{"chg", milli(0)}), "}")+`,"\u0063hg":`+milli(0)+"}")
	for _, tt := range []struct{ name, value string }{
		{"number", "1"}, {"string", `"1"`}, {"true", "true"}, {"null", "null"}, {"object", "{}"}, {"empty", "[]"}, {"one", "[1]"}, {"three", "[1,1,1]"}, {"zero", "[0,0]"},
		{"readable by a newer one", "[1,2]"}, {"negative", "[1,-1]"}, {"fraction", "[1.5,1]"}, {"no fraction", "[1.0,1]"}, {"exponent", "[1e0,1]"}, {"leading zero", "[01,1]"},
		{"beyond", "[1000001,1]"}, {"overflow", "[4294967297,1]"}, {"strings", `["1","0"]`}, {"nulls", "[null,null]"}, {"nested", "[[1,0]]"}, {"two", "[1,0],[1,0]"},
	} {
		bad("stv "+tt.name, "the versions of a state are two whole numbers, or absent", payload(claim{"stv", tt.value}))
	}
	bad("stv newer", "a state that only a newer release can read", payload(claim{"stv", "[2,1]"}))
	bad("stv twice", "a claim twice, the same", strings.TrimSuffix(payload(claim{"stv", "[1,0]"}), "}")+`,"stv":[1,0]}`)
	bad("stv twice escaped", "a claim twice, once in escapes", strings.TrimSuffix(payload(claim{"stv", "[1,0]"}), "}")+`,"s\u0074v":[1,0]}`)
	for _, tt := range []struct{ name, value string }{
		{"lacks a member", `{"name":"Ada"}`}, {"member in another case", `{"Name":"Ada","roles":[]}`}, {"member null", `{"name":null,"roles":[]}`}, {"empty object", `{}`},
	} {
		bad("state "+tt.name, "a state of another release", payload(claim{"state", tt.value}))
	}
	a.proof()
	for _, tt := range []struct{ name, value string }{
		{"other", `"other"`}, {"prefix", `"ap"`}, {"longer", `"api2"`}, {"upper case", `"API"`}, {"empty list", `[]`}, {"list of others", `["a","b"]`}, {"list with number", `["api",1]`},
		{"list with null", `["api",null]`}, {"nested", `[["api"]]`}, {"number", "1"}, {"object", `{"api":1}`}, {"empty", `""`}, {"list with empty", `["api",""]`}, {"joined", `"api other"`}, {"comma", `"a\",\"api"`},
	} {
		bad("aud "+tt.name, "not the verifier's audience, or not an audience", payload(claim{"aud", tt.value}))
	}
	for _, tt := range []struct{ name, value string }{
		{"other", `"https://evil.example"`}, {"slash", `"https://issuer.example/"`}, {"upper case", `"https://ISSUER.example"`}, {"prefix", `"https://issuer.exampl"`},
		{"longer", `"https://issuer.example.evil"`}, {"space", `" https://issuer.example"`}, {"nul", `"https://issuer.example\u0000"`},
	} {
		bad("iss "+tt.name, "another issuer", payload(claim{"iss", tt.value}))
	}
	add("expired", "exp now", "the moment of exp is too late", payload(claim{"exp", date(0)}, claim{"iat", date(-300)}, claim{"auth_time", date(-300)}))
	add("expired", "exp past", "past its exp", payload(claim{"exp", date(-1)}, claim{"iat", date(-300)}, claim{"auth_time", date(-300)}))
	add("expired", "exp one", "expired since 1970", payload(claim{"exp", "1"}))
	bad("nbf future", "not yet valid", payload(claim{"nbf", date(1)}))
	bad("iat future", "issued 61 s from now", payload(claim{"iat", date(61)}))
	bad("exp at iat", "ends the moment it begins", payload(claim{"iat", date(30)}, claim{"exp", date(30)}))
	bad("exp before iat", "ends before it begins", payload(claim{"iat", date(30)}, claim{"exp", date(20)}))
	bad("auth time after iat", "the user signed in after the token was made, by more than clocks differ", payload(claim{"auth_time", date(61)}))
	bad("too long a life", "valid for longer than any session", payload(claim{"exp", date(24*3600 + 1)}))
	bad("year 9999", "valid for ever", payload(claim{"exp", "253402300799"}))
	for _, tt := range []struct{ name, value string }{
		{"string", `"x"`}, {"list", `[1]`}, {"number", "1"}, {"wrong member", `{"name":1}`}, {"twice", `{"name":"a","name":"b"}`}, {"twice escaped", `{"name":"a","\u006eame":"b"}`},
		{"unknown twice", `{"x":1,"x":2}`}, {"deep twice", `{"x":{"y":1,"y":2}}`}, {"lone surrogate", `{"name":"\ud800"}`}, {"not utf8", "{\"name\":\"\xff\"}"}, {"control", "{\"name\":\"a\nb\"}"},
		{"bad escape", `{"name":"\x41"}`}, {"deep", strings.Repeat(`[`, 16) + strings.Repeat(`]`, 16)}, {"deep unknown", `{"x":` + strings.Repeat(`[`, 15) + strings.Repeat(`]`, 15) + `}`},
		{"very deep", strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)}, {"mismatched", `{"x":[}]`}, {"unclosed", `{"x":"`}, {"trailing comma", `{"x":1,}`}, {"huge number", `{"roles":[1e999]}`},
	} {
		bad("state "+tt.name, "a state that is not strict JSON, too deep, or not of the type", payload(claim{"state", tt.value}))
	}
	bad("unknown twice", "a claim that is not known, twice", strings.TrimSuffix(payload(), "}")+`,"x":1,"x":2}`)
	bad("unknown deep", "a claim that is not known, too deep", payload(claim{"x", strings.Repeat("[", 16) + strings.Repeat("]", 16)}))
	bad("unknown not utf8", "a claim that is not known, in another encoding", payload(claim{"x", "\"\xc3\x28\""}))
	bad("unknown surrogate", "a lone surrogate in a claim that is not known", payload(claim{"x", `"\udfff"`}))
	bad("sub fold", "a long s is no s", strings.Replace(payload(), `"sub"`, `"ſub"`, 1))
}

// proof: how the user proved who they are, and who acts for them.
func (a *attacker) proof() {
	bad := func(name, comment, body string) {
		a.add("claims", "claims "+name, comment, a.sign(keys.ES256, a.header(keys.ES256), body))
	}
	for _, tt := range []struct{ name, value string }{
		{"empty", `""`}, {"null", "null"}, {"number", "1"}, {"list", `["x"]`}, {"object", "{}"}, {"true", "true"}, {"not utf8", "\"\xff\""}, {"surrogate", `"\ud800"`},
		{"65 bytes", `"` + strings.Repeat("x", 65) + `"`}, {"65 bytes escaped", `"\u0078` + strings.Repeat("x", 64) + `"`}, {"33 letters of 2 bytes", `"` + strings.Repeat("é", 33) + `"`},
	} {
		bad("acr "+tt.name, "acr is a string of 1 to 64 bytes", payload(claim{"acr", tt.value}))
		if tt.name != "list" {
			bad("amr "+tt.name, "amr is a list", payload(claim{"amr", tt.value}))
		}
		bad("amr list with "+tt.name, "a name in amr is a string of 1 to 64 bytes", payload(claim{"amr", `["pwd",` + tt.value + `]`}))
		bad("act "+tt.name, "act is an object", payload(claim{"act", tt.value}))
	}
	bad("amr empty list", "amr is absent or has a name", payload(claim{"amr", "[]"}))
	bad("amr eleven", "amr has at most ten names", payload(claim{"amr", `["a"` + strings.Repeat(`,"a"`, 10) + `]`}))
	bad("amr trailing comma", "not JSON", payload(claim{"amr", `["a",]`}))
	bad("amr unclosed", "not JSON", payload(claim{"amr", `["a"`}))
	act := func(sub, sid, begun, more string) string {
		var members []string
		for _, m := range []claim{{"sub", sub}, {"sid", sid}, {"begun", begun}} {
			if m.value != "" {
				members = append(members, strconv.Quote(m.name)+":"+m.value)
			}
		}
		return "{" + strings.Join(members, ",") + more + "}"
	}
	begun := strconv.FormatInt(1000*now, 10)
	for _, tt := range []struct{ name, value string }{
		{"no sub", act("", `"s"`, begun, "")}, {"no sid", act(`"a"`, "", begun, "")}, {"no begun", act(`"a"`, `"s"`, "", "")},
		{"sub empty", act(`""`, `"s"`, begun, "")}, {"sid empty", act(`"a"`, `""`, begun, "")}, {"sub null", act("null", `"s"`, begun, "")}, {"sid null", act(`"a"`, "null", begun, "")},
		{"begun null", act(`"a"`, `"s"`, "null", "")}, {"sub number", act("1", `"s"`, begun, "")}, {"sid list", act(`"a"`, `["s"]`, begun, "")}, {"begun string", act(`"a"`, `"s"`, `"`+begun+`"`, "")},
		{"begun zero", act(`"a"`, `"s"`, "0", "")}, {"begun negative", act(`"a"`, `"s"`, "-1", "")}, {"begun fraction", act(`"a"`, `"s"`, begun+".5", "")}, {"begun exponent", act(`"a"`, `"s"`, "9.466848e11", "")},
		{"begun leading zero", act(`"a"`, `"s"`, "0"+begun, "")}, {"begun beyond 9999", act(`"a"`, `"s"`, "253402300800000", "")}, {"begun after iat", act(`"a"`, `"s"`, strconv.FormatInt(1000*now+61_001, 10), "")},
		{"nested", act(`"a"`, `"s"`, begun, `,"act":{"sub":"b","sid":"t","begun":`+begun+"}")}, {"unknown", act(`"a"`, `"s"`, begun, `,"iss":"x"`)},
		{"sub twice", act(`"a"`, `"s"`, begun, `,"sub":"a"`)}, {"sub twice escaped", act(`"a"`, `"s"`, begun, `,"\u0073ub":"b"`)}, {"upper case", `{"SUB":"a","sid":"s","begun":` + begun + "}"},
		{"trailing comma", act(`"a"`, `"s"`, begun, ",")}, {"not utf8", act("\"\xff\"", `"s"`, begun, "")}, {"surrogate", act(`"a"`, `"\udfff"`, begun, "")},
		{"of RFC 8693 alone", `{"sub":"a"}`}, {"in a list", "[" + act(`"a"`, `"s"`, begun, "") + "]"},
	} {
		bad("act "+tt.name, "act is exactly sub, sid and begun of a session that had begun", payload(claim{"act", tt.value}))
	}
	for _, tt := range []struct{ name, value string }{{"acr", `"aal2"`}, {"amr", `["pwd"]`}, {"act", act(`"a"`, `"s"`, begun, "")}} {
		bad(tt.name+" twice", "a claim twice, the same", strings.TrimSuffix(payload(claim{tt.name, tt.value}), "}")+fmt.Sprintf(",%q:%s}", tt.name, tt.value))
		bad(tt.name+" twice escaped", "a claim twice, once in escapes", strings.TrimSuffix(payload(claim{tt.name, tt.value}), "}")+fmt.Sprintf(`,"\u%04x%s":%s}`, tt.name[0], tt.name[1:], tt.value))
	}
}

func digest(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }

// otherS returns the s of the other valid ES256 signature with the same r.
func otherS(s []byte) []byte {
	order := new(big.Int).SetBytes(mustHex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"))
	return order.Sub(order, new(big.Int).SetBytes(s)).FillBytes(make([]byte, 32))
}

func mustHex(s string) []byte {
	n, _ := new(big.Int).SetString(s, 16)
	return n.Bytes()
}

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}

func mustSet(t testing.TB, pub ...*keys.PublicKey) *keys.Set {
	set, err := keys.NewSet(pub...)
	require.NoError(t, err)
	return set
}
