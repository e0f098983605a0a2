package keys

// Algorithm names the signature algorithm of a key, as its JWK and the headers
// of its tokens spell it (RFC 7518 section 3.1, RFC 8037 section 3.1). An
// algorithm belongs to a key for as long as the key lives; a token's header is
// only ever compared with it.
type Algorithm string

// The algorithms on offer. There is no "none" and no HMAC: a verifier of these
// can never issue.
const (
	// ES256 is ECDSA on P-256 with SHA-256, the default: most off-the-shelf
	// verifiers take it, some only when told, and its signatures are short
	// (64 bytes). The JWT authorizer of AWS HTTP APIs takes RSA alone.
	ES256 Algorithm = "ES256"
	// EdDSA is Ed25519, which fewer verifiers take. The RFC 9864 spelling "Ed25519" is accepted when such
	// a key or token is read; "EdDSA" is what is written.
	EdDSA Algorithm = "EdDSA"
	// PS256 is RSASSA-PSS with SHA-256, MGF1 and a salt of 32 bytes.
	PS256 Algorithm = "PS256"
	// RS256 is RSASSA-PKCS1-v1_5 with SHA-256, for gateways that take nothing
	// else.
	RS256 Algorithm = "RS256"
)

// rsaBits is the modulus of the RSA keys that are generated here.
const rsaBits = 2048

func (a Algorithm) valid() bool {
	switch a {
	case ES256, EdDSA, PS256, RS256:
		return true
	}
	return false
}
