package keys_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

var algorithms = []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256}

// newSigner returns a key of the standard library.
func newSigner(t testing.TB, alg keys.Algorithm) (key crypto.Signer) {
	t.Helper()
	var err error
	switch alg {
	case keys.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keys.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	require.NoError(t, err)
	return key
}

// withContext is a KMS whose client takes a context.
type withContext struct {
	hsm
	sign func(ctx context.Context) error
}

func (w withContext) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("without a context")
}

func (w withContext) SignContext(ctx context.Context, r io.Reader, d []byte, o crypto.SignerOpts) ([]byte, error) {
	if err := w.sign(ctx); err != nil {
		return nil, err
	}
	return w.hsm.Sign(r, d, o)
}

type contextKey struct{}

// TestSign: a software key, a KMS and a KMS that takes a context sign what the
// public half verifies, in the one form of JWS.
func TestSign(t *testing.T) {
	for _, alg := range algorithms {
		inner := newSigner(t, alg)
		asked := false
		for _, tt := range []struct {
			name   string
			signer crypto.Signer
		}{
			{"software", inner}, {"external", hsm{inner}},
			{"with a context", withContext{hsm{inner}, func(ctx context.Context) error {
				asked = ctx.Value(contextKey{}) == "request"
				return nil
			}}},
		} {
			t.Run(string(alg)+" "+tt.name, func(t *testing.T) {
				key, err := keys.NewSigningKey(alg, tt.signer)
				require.NoError(t, err)
				for range 10 {
					message := []byte("message")
					sig, err := key.Sign(context.WithValue(t.Context(), contextKey{}, "request"), message)
					require.NoError(t, err)
					require.True(t, jws.IsCanonical(string(alg), sig))
					require.NoError(t, jws.Verify(string(alg), key.Public().Key(), "message", sig))
					require.Equal(t, "message", string(message))
				}
			})
		}
		require.True(t, asked, "the context is that of the call")
	}
	var zero keys.SigningKey
	_, err := zero.Sign(t.Context(), nil)
	require.ErrorContains(t, err, "NewSigningKey")
	_, err = (*keys.SigningKey)(nil).Sign(t.Context(), nil)
	require.Error(t, err)
}

// TestSignWithAContext: the context that a signer is given ends with the
// caller's, and after 5 s at the latest.
func TestSignWithAContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := keys.NewSigningKey(keys.EdDSA, withContext{hsm{newSigner(t, keys.EdDSA)}, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		require.NoError(t, err)
		began := time.Now()
		_, err = key.Sign(t.Context(), []byte("message"))
		require.Error(t, err)
		require.Equal(t, 5*time.Second, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = key.Sign(ctx, []byte("message"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		synctest.Wait() // nothing is left behind
	})
}

// TestLateSignerDoesNotSeeTheBuffer: a signer that comes back after its caller
// has gone signs the message that it was given, whatever became of the buffer.
func TestLateSignerDoesNotSeeTheBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, seen := make(chan struct{}), make(chan string, 1)
		key, err := keys.NewSigningKey(keys.EdDSA, slow{newSigner(t, keys.EdDSA), release, seen})
		require.NoError(t, err)
		message := []byte("message")
		_, err = key.Sign(t.Context(), message)
		require.ErrorContains(t, err, "the signer takes longer than 5s")
		copy(message, "another")
		close(release)
		require.Equal(t, "message", <-seen)
	})
}

type slow struct {
	crypto.Signer
	release chan struct{}
	seen    chan string
}

func (s slow) Sign(r io.Reader, message []byte, o crypto.SignerOpts) ([]byte, error) {
	<-s.release
	s.seen <- string(message)
	return s.Signer.Sign(r, message, o)
}

// TestSignerThatReturnsNothing: no signature and no error is an error.
func TestSignerThatReturnsNothing(t *testing.T) {
	for _, alg := range algorithms {
		key, err := keys.NewSigningKey(alg, nothing{newSigner(t, alg)})
		require.NoError(t, err)
		sig, err := key.Sign(t.Context(), []byte("message"))
		require.Error(t, err, alg)
		require.Empty(t, sig)
	}
}

type nothing struct{ crypto.Signer }

func (nothing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }

type withoutPublic struct{ crypto.Signer }

func (withoutPublic) Public() crypto.PublicKey { return nil }

// TestNothingToSignWith: what cannot sign is refused by the constructors.
func TestNothingToSignWith(t *testing.T) {
	for _, tt := range []struct {
		name   string
		signer crypto.Signer
	}{
		{"nil", nil}, {"nil ECDSA key", (*ecdsa.PrivateKey)(nil)}, {"nil RSA key", (*rsa.PrivateKey)(nil)}, {"nil Ed25519 key", ed25519.PrivateKey(nil)},
		{"nil pointer of another type", (*hsm)(nil)}, {"zero ECDSA key", new(ecdsa.PrivateKey)}, {"zero RSA key", new(rsa.PrivateKey)},
		{"no public half", withoutPublic{}},
	} {
		for _, alg := range algorithms {
			_, err := keys.NewSigningKey(alg, tt.signer)
			require.Error(t, err, "%s %s", tt.name, alg)
		}
	}
	for _, tt := range []struct {
		name   string
		public crypto.PublicKey
	}{
		{"nil", nil}, {"nil ECDSA key", (*ecdsa.PublicKey)(nil)}, {"nil RSA key", (*rsa.PublicKey)(nil)}, {"nil Ed25519 key", ed25519.PublicKey(nil)},
		{"zero ECDSA key", new(ecdsa.PublicKey)}, {"zero RSA key", new(rsa.PublicKey)}, {"by value", ecdsa.PublicKey{}},
	} {
		for _, alg := range algorithms {
			_, err := keys.NewPublicKey(alg, tt.public)
			require.Error(t, err, "%s %s", tt.name, alg)
		}
	}
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"zero signing key", second(keys.NewStatic(new(keys.SigningKey)))},
		{"zero public key", second(keys.NewSet(new(keys.PublicKey)))},
	} {
		require.Error(t, tt.err, tt.name)
	}
}

// TestChangeOfAlgorithm: after RingConfig.Algorithm has changed, two rotations
// bring the new one, one PublishBefore after they were asked for, and every token
// of the old one stays valid.
func TestChangeOfAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		before := newRing(t, n)
		old := current(t, before)
		time.Sleep(2 * day)
		change := func(c *keys.RingConfig) { c.Algorithm = keys.EdDSA }
		r, other := running(t, n, change), running(t, n, change)
		algorithm := func(r *keys.Ring) keys.Algorithm {
			k, err := r.SigningKey(t.Context())
			require.NoError(t, err)
			return k.Public().Algorithm()
		}
		at, err := r.Rotate(t.Context())
		require.NoError(t, err)
		require.False(t, at.After(time.Now()), "at once")
		require.Equal(t, keys.ES256, algorithm(r), "as it was announced")
		require.NotEqual(t, old, current(t, r))
		announced := current(t, r)
		at, err = r.Rotate(t.Context())
		require.NoError(t, err)
		require.Equal(t, day, time.Until(at).Round(time.Minute), "PublishBefore")
		time.Sleep(time.Until(at))
		require.Equal(t, keys.EdDSA, algorithm(r))
		require.Equal(t, keys.EdDSA, algorithm(other))
		require.True(t, published(t, r, announced))
	})
}
