package oidclogin

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

const (
	keysFor       = 10 * time.Minute // keys are fetched again after that
	keysLookEvery = 5 * time.Second  // keys are fetched at most that often for unknown ids
	maxKeyCount   = 100
	minRSA        = 256 // bytes of a modulus
)

const errKeyUnknown refusal = "the key of the token is not one that the provider publishes"

var errKeyTooSoon = errors.New("they were fetched a moment ago, and lack the key of a token")

// keySet verifies signatures with the keys that the provider publishes. It is
// an oidc.KeySet. A key that the provider no longer publishes is used for
// keysFor at most.
type keySet struct {
	client   *http.Client
	metadata func(context.Context) (*metadata, error)
	clock    *clock.Clock
	fetches  *flight.Group
	log      *loud.Log

	mu    sync.Mutex
	keys  []jose.JSONWebKey
	since clock.Instant
}

func newKeySet(client *http.Client, get func(context.Context) (*metadata, error), log *loud.Log) *keySet {
	k := &keySet{client: client, metadata: get, clock: clock.Here(), log: log}
	k.fetches = flight.New(flight.Config{
		Limit: fetchLimit, Cooldown: keysLookEvery, Pause: firstPause, MaxPause: longestPause,
		Ended: func(err error) {
			if err != nil && !errors.Is(err, errUnavailable) { // which discovery has logged
				log.Warn("keys", "oidclogin: the provider's keys cannot be fetched; check that this machine reaches the jwks_uri of its metadata", "err", err)
			}
		},
	}, k.fetch)
	return k
}

// VerifySignature returns the payload of a token whose signature is valid. The
// other parts of the token are not checked. An error matches errRefused, or
// errUnavailable if the keys cannot be had.
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	parsed := make([]jose.SignatureAlgorithm, len(signatureAlgorithms))
	for i, a := range signatureAlgorithms {
		parsed[i] = jose.SignatureAlgorithm(a)
	}
	token, err := jose.ParseSignedCompact(jwt, parsed)
	if err != nil || len(token.Signatures) != 1 {
		return nil, errForm
	}
	known, read, err := k.current(ctx)
	if err != nil {
		return nil, err
	}
	payload, err := verifyWith(known, token)
	if read || !errors.Is(err, errKeyUnknown) {
		return payload, err
	}
	// Another caller may have fetched them since, or fetches them now.
	looked, err := k.fetches.Try(ctx, fetchLimit)
	if err != nil {
		return nil, unavailable("the provider's keys", err)
	}
	payload, err = verifyWith(k.now(), token)
	if errors.Is(err, errKeyUnknown) && !looked {
		k.log.Warn("key_unknown", "oidclogin: a token names a key that the provider did not publish a moment ago; its keys are fetched again 5 s after they were last")
		return nil, unavailable("the provider's keys", errKeyTooSoon)
	}
	return payload, err
}

func (k *keySet) now() []jose.JSONWebKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys
}

// current returns the keys, which were fetched within keysFor. read reports
// whether they were fetched during the call.
func (k *keySet) current(ctx context.Context) (known []jose.JSONWebKey, read bool, err error) {
	k.mu.Lock()
	known, age := k.keys, k.clock.Age(k.since)
	k.mu.Unlock()
	if known != nil && age < keysFor {
		return known, false, nil
	}
	if pause, err := k.fetches.Failing(); pause > 0 {
		return nil, false, unavailable("the provider's keys", err)
	}
	if err := k.fetches.Do(ctx, fetchLimit); err != nil {
		return nil, false, unavailable("the provider's keys", err)
	}
	return k.now(), true, nil
}

func (k *keySet) fetch(ctx context.Context, run *flight.Run) error {
	m, err := k.metadata(ctx)
	if err != nil {
		return err
	}
	began := k.clock.Read()
	body, err := getBody(ctx, k.client, m.KeysURL, maxKeys)
	if err != nil {
		return err
	}
	found, err := parseKeys(body)
	if err != nil {
		return err
	}
	run.Commit(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.keys, k.since = found, began
	})
	return nil
}

// parseKeys reads a JWK set (RFC 7517 section 5). A key of a kind that is not
// known here, or that is not for signatures, is left out. A set without a usable
// key is an error: it would end all logins.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	if strictjson.TooDeep(body) {
		return nil, errors.New("the key set is nested too deeply")
	}
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the key set is not valid JSON")
	}
	if len(set.Keys) > maxKeyCount {
		return nil, errors.New("the key set has too many keys")
	}
	var usable []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && isUsable(&key) {
			usable = append(usable, key)
		}
	}
	if len(usable) == 0 {
		return nil, errors.New("the key set has no key that can be used")
	}
	return usable, nil
}

// isUsable reports whether a key is a public one that verifies signatures.
// Secret and private keys are not used: they should not be published.
func isUsable(key *jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" || !key.Valid() {
		return false
	}
	switch pub := key.Key.(type) {
	case *rsa.PublicKey:
		return pub.Size() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// verifyWith verifies a token with the keys of its kid. A token without a kid
// may be of any key.
func verifyWith(known []jose.JSONWebKey, token *jose.JSONWebSignature) ([]byte, error) {
	header := token.Signatures[0].Header
	var verdict error = errKeyUnknown
	for i := range known {
		key := &known[i]
		if header.KeyID != "" && key.KeyID != header.KeyID {
			continue
		}
		if header.KeyID != "" {
			verdict = errSignature
		}
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := token.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, verdict
}
