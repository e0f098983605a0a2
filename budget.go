package sessiontoken

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sessiontoken/sessiontoken/internal/loud"
)

// budget watches how large the tokens of an issuer are.
type budget struct {
	loud    *loud.Log
	issued  atomic.Uint64
	near    atomic.Uint64
	over    atomic.Uint64
	largest atomic.Int64 // bytes of the token that report is of

	mu     sync.Mutex
	report SizeReport
}

// isNear reports whether a token takes over nine tenths of its limit.
func (r *SizeReport) isNear() bool { return 10*r.Bytes > 9*r.Limit }

// count counts a token, whose payload has the claims. It fills in the claims of
// r if no token was as large.
func (b *budget) count(r *SizeReport, payload []byte) {
	isOver := r.Bytes > r.Limit
	if isOver {
		b.over.Add(1)
	} else {
		b.issued.Add(1)
	}
	if int64(r.Bytes) > b.largest.Load() {
		b.keep(r, payload)
	}
	if isOver || !r.isNear() {
		return
	}
	b.near.Add(1)
	var heaviest []string
	claims := b.seen().Claims
	for _, c := range claims[:min(3, len(claims))] {
		heaviest = append(heaviest, c.String())
	}
	b.loud.Warn("near_budget", "sessiontoken: a token takes over 90 % of IssuerConfig.MaxBytes, and a larger one is not issued; make the state smaller", "bytes", r.Bytes, "limit", r.Limit, "heaviest", heaviest)
}

// keep keeps the report of a token if it is still the largest.
func (b *budget) keep(r *SizeReport, payload []byte) {
	if len(r.Claims) == 0 {
		r.weigh(payload)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Bytes > b.report.Bytes {
		b.report = *r
		b.largest.Store(int64(r.Bytes))
	}
}

func (b *budget) seen() SizeReport {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.report
}

// Largest returns the report of the largest token since NewIssuer, also of one
// that was over the limit and not issued. Before the first token it is zero.
func (i *Issuer[T]) Largest() SizeReport {
	r := i.budget.seen()
	r.Claims = slices.Clone(r.Claims)
	return r
}

// Metrics returns the counts since NewIssuer, and the sizes of tokens. The names
// are fixed, and those that end in _total only grow:
//
//	issued_total              tokens that were issued
//	issued_near_budget_total  those of them over 90 % of MaxBytes
//	refused_size_total        tokens that were over it, and not issued
//	token_bytes_largest       the largest token, of both kinds
//	token_bytes_heaviest      the heaviest claim of that token; Largest has the
//	                          names
//	token_bytes_limit         IssuerConfig.MaxBytes
//
// Metrics does no I/O. Every value is finite, and none names a user or a token.
// The map is the caller's: [expvar.Func] can publish it as it is.
func (i *Issuer[T]) Metrics() map[string]float64 {
	largest, heaviest := i.budget.seen(), 0
	if len(largest.Claims) > 0 {
		heaviest = largest.Claims[0].Bytes
	}
	return map[string]float64{
		"issued_total":             float64(i.budget.issued.Load()),
		"issued_near_budget_total": float64(i.budget.near.Load()),
		"refused_size_total":       float64(i.budget.over.Load()),
		"token_bytes_largest":      float64(largest.Bytes),
		"token_bytes_heaviest":     float64(heaviest),
		"token_bytes_limit":        float64(i.cfg.MaxBytes),
	}
}
