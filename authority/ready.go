package authority

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
)

// readyLimit is how long Ready waits for a store that was not read yet.
const readyLimit = 500 * time.Millisecond

// health is the body of an answer of Ready.
type health struct {
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons"`
	Warnings []string `json:"warnings"`
}

// Ready returns the handler for a health check. It answers 503 if and only if
// this replica cannot serve now, and 200 otherwise. The body is a JSON object
// without secrets: "ready", the "reasons" of a 503, and "warnings", with which
// the replica still serves. It answers from memory, and waits for a store that
// was not read yet for at most half a second.
//
// The reasons:
//
//   - keys_unread, keys_stale: the store of the keys was never read, or not for
//     12 h
//   - no_signing_key: no key can sign here, since it cannot be unsealed or none
//     could be made
//   - revocations_unread, revocations_stale: the store of the revocations was
//     never read, or not for 30 s
//   - revocations_foreign: the store is not the one that was read before
//
// The warnings:
//
//   - keys_unreadable: the last reading failed
//   - keys_unwritable: a due change of the ring cannot be written
//   - keys_clock: the clock of this machine is not the store's
//   - keys_locked: private keys cannot be unsealed here
//   - revocations_unreadable: the last reading failed
//   - revocations_owed: the store has not acknowledged some revocations
//   - revocations_restoring: the store has lost entries, which are being
//     written back
//   - not_running: no call of Run is under way, so that this replica reads the
//     store only when requests come
func (a *Authority[T]) Ready() http.Handler {
	t := &tenant{ring: a.ring, list: a.revocations}
	return healthHandler(func(ctx context.Context) (bool, any) {
		h := health{Reasons: t.reasons(ctx), Warnings: append(t.warnings(), runWarning(a.running)...)}
		h.Ready = len(h.Reasons) == 0
		return h.Ready, h
	})
}

// runWarning returns the warning that no call of Run is under way.
func runWarning(running *atomic.Int32) []string {
	if running.Load() > 0 {
		return nil
	}
	return []string{"not_running"}
}

// healthHandler answers what ask returns, within readyLimit.
func healthHandler(ask func(ctx context.Context) (ready bool, body any)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			header.Set("Allow", "GET, HEAD")
			http.Error(w, "GET and HEAD only", http.StatusMethodNotAllowed)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), readyLimit)
		defer cancel()
		ready, body := ask(ctx)
		header.Set("Content-Type", "application/json")
		header.Set("X-Content-Type-Options", "nosniff")
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.MarshalWrite(w, body) // a client that went away
	})
}

// reasons returns the reasons why this replica cannot serve the tenant now.
func (t *tenant) reasons(ctx context.Context) (reasons []string) {
	var signing, listing error
	var asking sync.WaitGroup
	asking.Go(func() { _, signing = t.ring.SigningKey(ctx) })
	asking.Go(func() { _, listing = t.list.Now(ctx) })
	asking.Wait()
	if signing != nil {
		switch {
		case t.ring.Status().Synced.IsZero():
			reasons = append(reasons, "keys_unread")
		case t.ring.Metrics()["ring_age_seconds"] >= maxStaleKeys.Seconds():
			reasons = append(reasons, "keys_stale")
		default:
			reasons = append(reasons, "no_signing_key")
		}
	}
	switch st := t.list.Status(); {
	case listing != nil && st.Synced.IsZero():
		reasons = append(reasons, "revocations_unread")
	case listing != nil:
		reasons = append(reasons, "revocations_stale")
	case st.Foreign:
		reasons = append(reasons, "revocations_foreign")
	}
	return reasons
}

// warnings returns the conditions with which this replica still serves the
// tenant.
func (t *tenant) warnings() (warnings []string) {
	ring, list := t.ring.Status(), t.list.Status()
	for _, w := range []struct {
		name string
		is   bool
	}{
		{"keys_unreadable", ring.Err != nil},
		{"keys_unwritable", ring.WriteErr != nil},
		{"keys_clock", ring.ClockErr != nil},
		{"keys_locked", ring.UnsealErr != nil},
		{"revocations_unreadable", list.Err != nil},
		{"revocations_owed", list.Owed > 0},
		{"revocations_restoring", list.Restoring},
	} {
		if w.is {
			warnings = append(warnings, w.name)
		}
	}
	return warnings
}
