package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// ErrRefused is what a [Reader] returns for something it does not accept.
var ErrRefused = errors.New("bench: refused")

// Servers is where the stores are. An empty field means that there is none.
type Servers struct {
	Redis    string // host:port
	Postgres string // a connection string
}

// Reader is one way in which an API knows whose request it has before it: from
// what the client presents to the user's id and the session's state. Tokens are
// one way among others here; a session store is what most programs have.
type Reader struct {
	// Name is the way's name in reports and benchmark names.
	Name string

	// Needs says which server Open needs: "redis", "postgres" or "".
	Needs string

	// Open begins a session of a lifetime for each subject, all with the state
	// of [SampleState], and returns what their clients present, in order.
	Open func(s Servers, subjects []string, life time.Duration) (*Opened, error)
}

// Opened is a Reader at work.
type Opened struct {
	Presented []string
	// Read returns the subject and the state of a session, or an error for what
	// is no session, or no longer one. It is safe for concurrent use.
	Read  func(ctx context.Context, presented string) (subject string, state State, err error)
	Close func()
}

// Readers returns the ways under comparison, in the order of the reports.
func Readers() []Reader {
	return []Reader{
		{Name: "sessiontoken-repeated", Open: openSessiontoken(0)},
		{Name: "sessiontoken-first", Open: openSessiontoken(-1)},
		{Name: "golang-jwt-v5", Open: openGolangJWT},
		{Name: "paseto-v4", Open: openPaseto},
		{Name: "securecookie", Open: openSecureCookie},
		{Name: "scs-memory", Open: openSCSMemory},
		{Name: "scs-redis", Needs: "redis", Open: openSCSRedis},
		{Name: "postgres-row", Needs: "postgres", Open: openPostgres},
	}
}

// openSessiontoken is the library as a user has it, with ES256: with its cache
// (cacheBytes 0, the default), or without.
func openSessiontoken(cacheBytes int) func(Servers, []string, time.Duration) (*Opened, error) {
	return func(_ Servers, subjects []string, life time.Duration) (*Opened, error) {
		issuer, verifier, err := SessiontokenPair[State](keys.ES256, life, cacheBytes)
		if err != nil {
			return nil, err
		}
		o := &Opened{Close: func() {}}
		for _, subject := range subjects {
			token, _, err := issuer.Issue(context.Background(), subject, SampleState())
			if err != nil {
				return nil, fmt.Errorf("bench: issuing: %w", err)
			}
			o.Presented = append(o.Presented, token)
		}
		o.Read = func(ctx context.Context, token string) (string, State, error) {
			claims, err := verifier.Verify(ctx, token)
			if err != nil {
				return "", State{}, err
			}
			return claims.Subject, claims.State, nil
		}
		return o, nil
	}
}

// SessiontokenPair returns an issuer and a verifier of states of type T with a
// key of their own.
func SessiontokenPair[T any](alg keys.Algorithm, life time.Duration, cacheBytes int) (*sessiontoken.Issuer[T], *sessiontoken.Verifier[T], error) {
	key, err := keys.GenerateKey(alg)
	if err != nil {
		return nil, nil, err
	}
	source, err := keys.NewStatic(key)
	if err != nil {
		return nil, nil, err
	}
	issuer, err := sessiontoken.NewIssuer[T](sessiontoken.IssuerConfig{Issuer: Issuer, Audience: []string{Audience}, Keys: source, TTL: life})
	if err != nil {
		return nil, nil, err
	}
	verifier, err := sessiontoken.NewVerifier[T](sessiontoken.VerifierConfig{Issuer: Issuer, Audience: Audience, Keys: source, CacheBytes: cacheBytes})
	return issuer, verifier, err
}

// openGolangJWT is the contender of the first comparison, with ES256.
func openGolangJWT(_ Servers, subjects []string, life time.Duration) (*Opened, error) {
	f, err := NewFixture()
	if err != nil {
		return nil, err
	}
	c, err := newGolangJWT(f, ES256)
	if err != nil {
		return nil, err
	}
	o := &Opened{Close: func() {}}
	key := f.Current(ES256)
	for _, subject := range subjects {
		p := GoodPayload()
		p.Subject = subject
		exp := time.Now().Add(life).Unix()
		p.Expires = &exp
		token, err := Sign(key, Header{Algorithm: ES256, KeyID: key.ID, Type: TokenType}, p)
		if err != nil {
			return nil, err
		}
		o.Presented = append(o.Presented, token)
	}
	o.Read = func(_ context.Context, token string) (string, State, error) {
		s, err := c.Verify(token)
		return s.Subject, s.State, err
	}
	return o, nil
}
