package sessiontoken_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// kms is a signer that answers when it likes.
type kms struct {
	crypto.Signer
	wait func()
}

func (k *kms) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.wait != nil {
		k.wait()
	}
	return k.Signer.Sign(r, digest, opts)
}

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

func kmsSource(t testing.TB, alg keys.Algorithm) (*kms, *keys.Static) {
	t.Helper()
	k := &kms{Signer: newSigner(t, alg)}
	key, err := keys.NewSigningKey(alg, k)
	require.NoError(t, err)
	source, err := keys.NewStatic(key)
	require.NoError(t, err)
	return k, source
}

// TestSlowSigner: a signature is waited for as long as the caller's context
// lasts, and no longer than the limit, whatever the signer does.
func TestSlowSigner(t *testing.T) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256} {
		t.Run(string(alg), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signer, source := kmsSource(t, alg)
				issuer, v := newIssuer[attackState](t, source), newVerifier[attackState](t, source)
				token, first, err := issuer.Issue(t.Context(), "user-1", attackState{})
				require.NoError(t, err)
				release := make(chan struct{})
				signer.wait = func() { <-release }
				calls := map[string]func(context.Context) error{
					"Issue": func(ctx context.Context) error { return errorOf(issuer.Issue(ctx, "user-1", attackState{})) },
					"Renew": func(ctx context.Context) error { return errorOf(issuer.Renew(ctx, token, always(attackState{}))) },
					"Resume": func(ctx context.Context) error {
						return errorOf(issuer.Resume(ctx, sessiontoken.Resumption{Subject: "user-1", SessionID: first.SessionID, Began: first.Began}, always(attackState{})))
					},
				}
				for name, call := range calls {
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					began := time.Now()
					err := call(ctx)
					cancel()
					require.ErrorIs(t, err, context.DeadlineExceeded, name)
					require.NotErrorIs(t, err, sessiontoken.ErrInvalid, name)
					require.Equal(t, 100*time.Millisecond, time.Since(began), name)

					began = time.Now()
					err = call(t.Context())
					require.ErrorContains(t, err, "the signer takes longer than 5s", name)
					require.NotErrorIs(t, err, sessiontoken.ErrInvalid, name)
					require.Equal(t, 5*time.Second, time.Since(began), name)
				}
				close(release)
				synctest.Wait()

				signer.wait = func() { time.Sleep(3 * time.Second) }
				token, c, err := issuer.Issue(t.Context(), "user-1", attackState{})
				require.NoError(t, err)
				require.Equal(t, time.Now().Add(5*time.Minute-3*time.Second).Truncate(time.Second).UTC(), c.Expires)
				_, err = v.Verify(t.Context(), token)
				require.NoError(t, err)
			})
		})
	}
}

// TestNoTokenThatIsOver: what a signer returns after the token's exp is not
// handed out.
func TestNoTokenThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, source := kmsSource(t, keys.ES256)
		short := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.TTL = 2 * time.Second })
		v := newVerifier[attackState](t, source)
		for _, tt := range []struct {
			wait time.Duration
			over bool
		}{{2*time.Second - 1, false}, {2 * time.Second, true}, {4 * time.Second, true}} {
			signer.wait = func() { time.Sleep(tt.wait) }
			token, c, err := short.Issue(t.Context(), "user-1", attackState{})
			if tt.over {
				require.Error(t, err)
				require.NotErrorIs(t, err, sessiontoken.ErrInvalid, "it is not the token's fault")
				require.Empty(t, token)
				require.Nil(t, c)
			} else {
				require.NoError(t, err)
				require.NoError(t, failure(v.Verify(t.Context(), token)))
			}
			time.Sleep(time.Second - time.Duration(time.Now().Nanosecond()))
		}
		// The same of a session that ends meanwhile, and of a load that takes long.
		signer.wait = nil
		ending := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxSession, c.TTL = 3*time.Second, 2*time.Second })
		token, _, err := ending.Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		signer.wait = func() { time.Sleep(3 * time.Second) }
		require.ErrorIs(t, errorOf(ending.Renew(t.Context(), token, always(attackState{}))), sessiontoken.ErrExpired)
		signer.wait = nil
		token, _, err = short.Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		err = errorOf(short.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			time.Sleep(10 * time.Second)
			return attackState{}, nil
		}))
		require.Error(t, err)
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	})
}

// TestHungSignersAreBounded: a signer that never returns does not fill the
// memory with goroutines, and does not stop the next call as soon as it does.
func TestHungSignersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, source := kmsSource(t, keys.EdDSA)
		issuer := newIssuer[attackState](t, source)
		release := make(chan struct{})
		signer.wait = func() { <-release }
		before := runtime.NumGoroutine()
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			err := errorOf(issuer.Issue(ctx, "user-1", attackState{}))
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.LessOrEqual(t, runtime.NumGoroutine()-before, 300)
		close(release)
		synctest.Wait()
		require.NoError(t, errorOf(issuer.Issue(t.Context(), "user-1", attackState{})))
	})
}

// TestSignerThatPanics: it fails, and what it panicked with is not told.
func TestSignerThatPanics(t *testing.T) {
	signer, source := kmsSource(t, keys.EdDSA)
	issuer := newIssuer[attackState](t, source)
	for _, tt := range []struct {
		name string
		wait func()
	}{{"panic", func() { panic("secret") }}, {"exit", runtime.Goexit}} {
		signer.wait = tt.wait
		err := errorOf(issuer.Issue(t.Context(), "user-1", attackState{}))
		require.Error(t, err, tt.name)
		require.NotContains(t, err.Error(), "secret")
	}
	signer.wait = nil
	require.NoError(t, errorOf(issuer.Issue(t.Context(), "user-1", attackState{})))
}
