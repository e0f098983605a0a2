package sessionhttp

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
)

// check returns an error for a configuration that cannot work.
func (cfg *Config[T]) check() error {
	switch {
	case cfg.Verifier == nil:
		return errors.New("sessionhttp: Config.Verifier is required")
	case cfg.Verifier.Config().Issuer == "":
		return errors.New("sessionhttp: Config.Verifier was not made by sessiontoken.NewVerifier")
	case cfg.Issuer != nil && cfg.Issuer.Config().Issuer == "":
		return errors.New("sessionhttp: Config.Issuer was not made by sessiontoken.NewIssuer")
	case cfg.Revocations != nil && cfg.Revocations.RetainFor() == 0:
		return errors.New("sessionhttp: Config.Revocations was not made by revoke.NewList")
	case cfg.Refresh != nil && cfg.Refresh.Config().IdleTimeout == 0:
		return errors.New("sessionhttp: Config.Refresh was not made by refresh.NewManager")
	case cfg.Unauthorized != nil && arg.IsNil(cfg.Unauthorized):
		return errors.New("sessionhttp: Config.Unauthorized holds a nil handler")
	case cfg.Issuer != nil && cfg.Load == nil:
		return errors.New("sessionhttp: Config.Load is required with Issuer")
	case cfg.Issuer != nil && cfg.Revocations == nil:
		return errors.New("sessionhttp: Config.Revocations is required with Issuer: a sign-out has to revoke the session")
	case cfg.Refresh != nil && cfg.Issuer == nil:
		return errors.New("sessionhttp: Config.Refresh needs Issuer")
	case cfg.RefreshPath != "" && cfg.Refresh == nil:
		return errors.New("sessionhttp: Config.RefreshPath needs Refresh")
	case cfg.RefreshPath != "" && (cfg.RefreshPath[0] != '/' || cfg.RefreshPath == "/"):
		return errors.New("sessionhttp: Config.RefreshPath must be a path below /, so that not every request carries the refresh token")
	case cfg.SameSite == http.SameSiteNoneMode && !cfg.InsecureSameSiteNone:
		return errors.New("sessionhttp: Config.SameSite is None; set InsecureSameSiteNone to let other sites' requests carry the cookie")
	case cfg.SameSite != 0 && cfg.SameSite != http.SameSiteLaxMode && cfg.SameSite != http.SameSiteStrictMode && cfg.SameSite != http.SameSiteNoneMode:
		return errors.New("sessionhttp: Config.SameSite is none of Lax, Strict and None")
	case cfg.Partitioned && cfg.SameSite != http.SameSiteNoneMode:
		return errors.New("sessionhttp: Config.Partitioned needs a SameSite of None: it is for pages that other sites embed")
	}
	return cfg.checkWiring()
}

// checkWiring checks that verifier, issuer and manager have one list, one
// issuer name, one audience and one ring, and that their times fit together.
// Otherwise a sign-out would revoke nothing.
func (cfg *Config[T]) checkWiring() error {
	v := cfg.Verifier.Config()
	if cfg.Revocations != nil && !same(v.Revocations, cfg.Revocations) {
		return errors.New("sessionhttp: Config.Verifier does not ask Config.Revocations: VerifierConfig.Revocations must be the same list")
	}
	if cfg.Issuer == nil {
		return nil
	}
	i := cfg.Issuer.Config()
	kept := cfg.Revocations.RetainFor()
	switch {
	case !same(i.Revocations, cfg.Revocations):
		return errors.New("sessionhttp: Config.Issuer does not ask Config.Revocations: IssuerConfig.Revocations must be the same list")
	case i.Issuer != v.Issuer:
		return errors.New("sessionhttp: Config.Issuer and Config.Verifier differ in IssuerConfig.Issuer and VerifierConfig.Issuer")
	case !slices.Contains(i.Audience, v.Audience):
		return errors.New("sessionhttp: Config.Issuer and Config.Verifier differ: IssuerConfig.Audience does not name VerifierConfig.Audience")
	case !same(i.Keys, v.Keys):
		return errors.New("sessionhttp: Config.Issuer and Config.Verifier differ in IssuerConfig.Keys and VerifierConfig.Keys: both must have one ring")
	case i.TTL > v.MaxTTL:
		return fmt.Errorf("sessionhttp: Config.Verifier refuses what Config.Issuer writes: IssuerConfig.TTL is %v, VerifierConfig.MaxTTL is %v", i.TTL, v.MaxTTL)
	case i.MaxBytes > v.MaxBytes:
		return fmt.Errorf("sessionhttp: Config.Verifier refuses what Config.Issuer writes: IssuerConfig.MaxBytes is %d, VerifierConfig.MaxBytes is %d", i.MaxBytes, v.MaxBytes)
	case i.MaxSession > identifiedFor(i.Keys, i.MaxSession):
		return fmt.Errorf("sessionhttp: Config.Issuer: IssuerConfig.MaxSession is %v, but IssuerConfig.Keys knows a key only for %v after its last signature: a sign-out with an older token would revoke nothing; set RingConfig.IdentifyFor", i.MaxSession, identifiedFor(i.Keys, 0))
	case i.MaxSession > kept:
		return fmt.Errorf("sessionhttp: Config.Issuer: IssuerConfig.MaxSession is %v, but Config.Revocations forgets after %v", i.MaxSession, kept)
	}
	if cfg.Refresh == nil {
		return nil
	}
	m := cfg.Refresh.Config()
	switch {
	case m.Revocations != cfg.Revocations:
		return errors.New("sessionhttp: Config.Refresh does not ask Config.Revocations: refresh.Config.Revocations must be the same list")
	case m.MaxSession > i.MaxSession:
		return fmt.Errorf("sessionhttp: Config.Refresh: refresh.Config.MaxSession is %v; it must not exceed IssuerConfig.MaxSession, which is %v", m.MaxSession, i.MaxSession)
	case m.MaxSession > kept:
		return fmt.Errorf("sessionhttp: Config.Refresh: refresh.Config.MaxSession is %v, but Config.Revocations forgets after %v", m.MaxSession, kept)
	}
	return nil
}

// identifiedFor returns how long a source identifies a key after its last
// signature. A source that does not say so, such as a fixed set, drops no key.
func identifiedFor(source any, untold time.Duration) time.Duration {
	if r, ok := source.(interface{ IdentifyFor() time.Duration }); ok {
		return r.IdentifyFor()
	}
	return untold
}

// same reports whether two interfaces hold the same object. A value that cannot
// be compared is the same as no other.
func same(a, b any) bool {
	if a == nil || b == nil || !reflect.TypeOf(a).Comparable() || !reflect.TypeOf(b).Comparable() {
		return false
	}
	return a == b
}
