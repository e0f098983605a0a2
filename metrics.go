package sessiontoken

import (
	"errors"
	"sync/atomic"

	"github.com/sessiontoken/sessiontoken/internal/tally"
)

// outcomes counts the calls of Verify by their result. Each call is counted
// once.
type outcomes struct {
	hits      tally.Counter // most calls, and each takes well under a microsecond
	firsts    atomic.Uint64
	refused   [len(reasons)]atomic.Uint64
	undecided atomic.Uint64
}

// reasons are the errors that refuse a token, with their names in Metrics.
var reasons = [...]struct {
	err  error
	name string
}{
	{ErrMalformed, "refused_malformed_total"},
	{ErrSignature, "refused_signature_total"},
	{ErrClaims, "refused_claims_total"},
	{ErrExpired, "refused_expired_total"},
	{ErrRevoked, "refused_revoked_total"},
}

// failed counts a call of Verify that fails with err, and returns err.
func (o *outcomes) failed(err error) error {
	for i := range reasons {
		if errors.Is(err, reasons[i].err) {
			o.refused[i].Add(1)
			return err
		}
	}
	o.undecided.Add(1)
	return err
}

// Metrics returns the counts since the verifier was made. Each call of Verify
// is counted in exactly one of verifications_total, the refused_*_total and
// undecided_total. The names are fixed, and those that end in _total only grow:
//
//	verifications_total        tokens that were accepted
//	cache_hits_total           those of them that the cache knew
//	refused_malformed_total    tokens refused with ErrMalformed
//	refused_signature_total    with ErrSignature
//	refused_claims_total       with ErrClaims, ErrAudience among them
//	refused_expired_total      with ErrExpired, ErrChanged among them
//	refused_revoked_total      with ErrRevoked
//	undecided_total            other errors: the server could not decide
//	state_old_secret_total     first verifications of tokens whose sealed fields
//	                           needed another secret than the first: while it
//	                           grows, that secret must stay
//	cache_entries              tokens in the cache, about; 0 if it is off. Of a
//	                           shared Cache: those of all that share it
//	cache_bytes                their memory, about, as CacheBytes bounds it
//
// Metrics does no I/O. Every value is finite, and none names a user or a token.
// The map is the caller's: [expvar.Func] can publish it as it is.
func (v *Verifier[T]) Metrics() map[string]float64 {
	hits := v.outcomes.hits.Load() // first: never more than verifications_total
	m := map[string]float64{
		"verifications_total":    float64(hits + v.outcomes.firsts.Load()),
		"cache_hits_total":       float64(hits),
		"undecided_total":        float64(v.outcomes.undecided.Load()),
		"state_old_secret_total": float64(v.states.oldSecrets.Load()),
		"cache_entries":          0,
		"cache_bytes":            0,
	}
	for i := range reasons {
		m[reasons[i].name] = float64(v.outcomes.refused[i].Load())
	}
	if v.cache != nil {
		m["cache_entries"] = float64(v.cache.tokens.EstimatedSize())
		m["cache_bytes"] = float64(v.cache.tokens.WeightedSize())
	}
	return m
}
