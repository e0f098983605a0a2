package bench

import (
	"context"
	"fmt"
	"time"

	"aidanwoods.dev/go-paseto"
)

// openPaseto is PASETO v4.public with go-paseto, as its documentation shows it:
// a parser with rules, made once, and a typed claim. Its signature is Ed25519.
// The footer names the key, so that keys can rotate.
func openPaseto(_ Servers, subjects []string, life time.Duration) (*Opened, error) {
	const keyID = "k4.pid.bench"
	secret := paseto.NewV4AsymmetricSecretKey()
	public := map[string]paseto.V4AsymmetricPublicKey{keyID: secret.Public()}
	parser := paseto.NewParser() // which wants an expiry in the future
	parser.AddRule(paseto.IssuedBy(Issuer), paseto.ForAudience(Audience))

	o := &Opened{Close: func() {}}
	for _, subject := range subjects {
		r := newFresh()
		token := paseto.NewToken()
		token.SetIssuer(Issuer)
		token.SetAudience(Audience)
		token.SetSubject(subject)
		token.SetJti(r.tokenID)
		token.SetIssuedAt(r.now)
		token.SetExpiration(r.now.Add(life))
		token.SetString("sid", r.sessionID)
		token.SetTime("auth_time", r.now)
		if err := token.Set("state", SampleState()); err != nil {
			return nil, fmt.Errorf("bench: paseto: %w", err)
		}
		token.SetFooter([]byte(keyID))
		o.Presented = append(o.Presented, token.V4Sign(secret, nil))
	}
	o.Read = func(_ context.Context, presented string) (string, State, error) {
		footer, err := parser.UnsafeParseFooter(paseto.V4Public, presented)
		if err != nil {
			return "", State{}, err
		}
		key, ok := public[string(footer)]
		if !ok {
			return "", State{}, ErrRefused
		}
		token, err := parser.ParseV4Public(key, presented, nil)
		if err != nil {
			return "", State{}, err
		}
		var state State
		if err := token.Get("state", &state); err != nil {
			return "", State{}, err
		}
		subject, err := token.GetSubject()
		return subject, state, err
	}
	return o, nil
}
