package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// ContextSigner is a [crypto.Signer] with a context, such as the client of a
// KMS. SignContext is Sign with the context of the request that waits for the
// signature, which ends after 5 s at the latest.
type ContextSigner interface {
	crypto.Signer
	SignContext(ctx context.Context, rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

const (
	// maxSigning is how many calls of one external signer may be under way.
	maxSigning = 256
	// signingLimit is how long one call may take.
	signingLimit = 5 * time.Second
)

// Sign returns the signature of a message in the form of JWS (RFC 7518 section
// 3). For ES256 it is r and s of 32 bytes each, with the smaller of the two
// valid s.
//
// A software key signs at once, even if ctx has ended. For any other key, Sign
// waits until ctx ends and for at most 5 s, even if the signer hangs, and drops
// a later result. At most 256 calls of a signer are under way. A signature that
// the public half does not verify is an error. Sign does not keep message.
func (k *SigningKey) Sign(ctx context.Context, message []byte) ([]byte, error) {
	switch {
	case k == nil || k.signer == nil:
		return nil, errors.New("keys: the signing key was not made by NewSigningKey")
	case k.signing != nil:
		return k.signElsewhere(ctx, bytes.Clone(message))
	}
	sig, err := jws.Sign(string(k.public.alg), k.signer, message)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return sig, nil
}

// signElsewhere signs with a KMS or an HSM, which may hang.
func (k *SigningKey) signElsewhere(ctx context.Context, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, signingLimit, errSlowSigner)
	defer cancel()
	select {
	case k.signing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("keys: %d signatures are under way: %w", maxSigning, context.Cause(ctx))
	}
	type outcome struct {
		sig []byte
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		o := outcome{err: errSignerPanic}
		defer func() {
			<-k.signing
			_ = recover() // the value may hold what must not be logged
			done <- o
		}()
		o.sig, o.err = jws.SignWith(string(k.public.alg), k.public.key, message, func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
			if s, ok := k.signer.(ContextSigner); ok {
				return s.SignContext(ctx, rand.Reader, digest, opts)
			}
			return k.signer.Sign(rand.Reader, digest, opts)
		})
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, fmt.Errorf("keys: %w", o.err)
		}
		return o.sig, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("keys: %w", context.Cause(ctx))
	}
}

var (
	errSlowSigner  = fmt.Errorf("the signer takes longer than %v", signingLimit)
	errSignerPanic = errors.New("the signer panicked")
)
