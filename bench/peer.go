package bench

import (
	"crypto/rand"
	"time"
)

// Algorithm is a JWS algorithm name as it stands in the "alg" header
// parameter (RFC 7518 section 3.1, RFC 8037 section 3.1).
type Algorithm string

// The algorithms that are compared. Not every peer offers each of them.
const (
	ES256 Algorithm = "ES256"
	EdDSA Algorithm = "EdDSA"
	RS256 Algorithm = "RS256"
	PS256 Algorithm = "PS256"
)

// Algorithms returns the compared algorithms in the order of the reports.
func Algorithms() []Algorithm { return []Algorithm{ES256, EdDSA, RS256, PS256} }

// What every token of this package says, and every peer must check.
const (
	Issuer    = "https://issuer.example"
	Audience  = "api"
	TokenType = "session+jwt"
	TokenTTL  = 5 * time.Minute
)

// State is the application's part of a session: about 400 bytes of JSON, the
// size of a signed-in user with roles and permissions.
type State struct {
	UserID      string   `json:"user_id"`
	Tenant      string   `json:"tenant"`
	Name        string   `json:"name"`
	Locale      string   `json:"locale"`
	Roles       []string `json:"roles"`
	Permissions []string `json:"permissions"`
	PlanLevel   int      `json:"plan_level"`
	SeatCount   int      `json:"seat_count"`
	SchemaRev   int64    `json:"schema_rev"`
	MFA         bool     `json:"mfa"`
	Staff       bool     `json:"staff"`
}

// Subject is the "sub" claim of every token of this package.
const Subject = "user-48151623"

// SampleState returns the state that is issued and read, a new copy at each
// call.
func SampleState() State {
	return State{
		UserID:      "usr_7Q2M9K4XA1",
		Tenant:      "acme-manufacturing-eu",
		Name:        "Renée Östergård",
		Locale:      "sv-SE",
		Roles:       []string{"member", "editor", "billing", "auditor", "release-manager"},
		Permissions: []string{"doc:read", "doc:write", "doc:share", "invoice:read", "invoice:pay", "user:invite", "audit:read", "deploy:approve"},
		PlanLevel:   3,
		SeatCount:   240,
		SchemaRev:   20260917,
		MFA:         true,
		Staff:       false,
	}
}

// Session is what every peer must return for a good token. The times are
// seconds since the Unix epoch, as in the claims, unless they say otherwise.
type Session struct {
	Issuer    string
	Subject   string
	TokenID   string
	SessionID string
	Began     int64 // milliseconds
	AuthTime  int64
	IssuedAt  int64
	Expires   int64
	State     State
}

// Contender is one library set up for one algorithm. Its methods are safe for
// concurrent use.
type Contender interface {
	// Issue signs a token for a session that begins now, with a fresh "jti"
	// and "sid", under the current key of the algorithm, and names the key
	// in "kid".
	Issue(subject string, state State) (string, error)

	// Verify chooses the key by "kid" out of the whole key set, checks the
	// signature, "iss", "aud", "nbf" if there is one, and "exp", which it
	// requires, and decodes the claims into a Session. It allows whatever
	// clock leeway the library has by default.
	Verify(token string) (Session, error)
}

// Peer is a library under comparison.
type Peer struct {
	// Name is the library's name in reports and benchmark names.
	Name string

	// Algorithms are those that the library offers.
	Algorithms []Algorithm

	// New sets the library up for the key set of f. The contender issues
	// with alg and accepts tokens of each algorithm in Algorithms, like a
	// verifier whose set holds keys of more than one kind. What can be
	// prepared once is prepared here, outside of what is timed.
	New func(f *Fixture, alg Algorithm) (Contender, error)
}

// Peers returns the libraries under comparison, in the order of the reports.
func Peers() []Peer {
	return []Peer{
		sessiontokenPeer(),
		golangJWTPeer(),
		jwxV2Peer(),
		jwxV3Peer(),
		goJOSEPeer(),
		katarasPeer(),
		tinkPeer(),
	}
}

// fresh holds the claims that each issue makes anew. Peers that leave them to
// the caller get them from newFresh, so that all pay for the clock and for the
// random identifiers.
type fresh struct {
	now       time.Time
	expires   time.Time
	tokenID   string
	sessionID string
}

func newFresh() fresh {
	now := time.Now().Truncate(time.Second)
	return fresh{now: now, expires: now.Add(TokenTTL), tokenID: rand.Text(), sessionID: rand.Text()}
}
