package keys

// Algorithm names the signature algorithm of a key, as its JWK and the headers
// of its tokens spell it (RFC 7518 section 3.1, RFC 8037 section 3.1). An
// algorithm belongs to a key and never changes. A token's header is only
// compared with it.
type Algorithm string

// The algorithms. There is no "none" and no HMAC: with these, a verifier cannot
// issue.
const (
	// ES256 is ECDSA on P-256 with SHA-256, the default. Most verifiers accept
	// it, some only if configured to. Its signatures are short (64 bytes). The
	// JWT authorizer of AWS HTTP APIs accepts RSA alone.
	ES256 Algorithm = "ES256"
	// EdDSA is Ed25519, which fewer verifiers accept. The name "Ed25519" of RFC
	// 9864 is accepted in a key or a token that is read, and "EdDSA" is
	// written.
	EdDSA Algorithm = "EdDSA"
	// PS256 is RSASSA-PSS with SHA-256, MGF1 and a salt of 32 bytes.
	PS256 Algorithm = "PS256"
	// RS256 is RSASSA-PKCS1-v1_5 with SHA-256, for gateways that accept no
	// other.
	RS256 Algorithm = "RS256"
)

// rsaBits is the size of the modulus of generated RSA keys.
const rsaBits = 2048

func (a Algorithm) valid() bool {
	switch a {
	case ES256, EdDSA, PS256, RS256:
		return true
	}
	return false
}
