package authority

import (
	"context"
	"net/http"
	"slices"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// mostTenants is how many tenants an answer of Host.Ready names.
const mostTenants = 20

// hostHealth is the body of an answer of Host.Ready.
type hostHealth struct {
	Ready    bool           `json:"ready"`
	Reasons  []string       `json:"reasons"`
	Warnings []string       `json:"warnings"`
	Tenants  []tenantHealth `json:"tenants"`
	More     int            `json:"more"` // tenants that would be named too
}

type tenantHealth struct {
	Namespace string   `json:"namespace"`
	Reasons   []string `json:"reasons"`
	Warnings  []string `json:"warnings"`
}

// Ready returns the handler for a health check of a process with many tenants.
// It answers 503 if and only if no tenant can be served here now, and 200
// otherwise: the failure of one tenant does not take the replica away from the
// others. A Host without authorities is ready if its store can be read.
//
// The body is a JSON object without secrets:
//
//   - "ready";
//   - "reasons" and "warnings", as in [Authority.Ready], of all tenants, each
//     once;
//   - "tenants": the namespace, reasons and warnings of up to 20 tenants that
//     have some, those with reasons first;
//   - "more": how many other tenants have some.
//
// A tenant that was not used yet, and whose store has not failed, has none.
//
// It answers from memory, and waits for a store that was not read yet for at
// most half a second.
func (h *Host) Ready() http.Handler {
	return healthHandler(func(ctx context.Context) (bool, any) {
		body := h.health(ctx)
		return body.Ready, body
	})
}

func (h *Host) health(ctx context.Context) (body hostHealth) {
	tenants := h.all()
	var unread []*tenant
	var bad, warned []tenantHealth
	judge := func(t *tenant) {
		th := tenantHealth{t.namespace, t.reasons(ctx), t.warnings()}
		switch {
		case len(th.Reasons) > 0:
			bad = append(bad, th)
		case len(th.Warnings) > 0:
			warned = append(warned, th)
		}
		body.Ready = body.Ready || len(th.Reasons) == 0
	}
	for _, t := range tenants {
		if t.isUnread() {
			unread = append(unread, t)
		} else {
			judge(t)
		}
	}
	for _, t := range unread {
		if body.Ready {
			break // its store is read when it is used
		}
		judge(t)
	}
	if len(tenants) == 0 {
		body.Ready = h.log.await(ctx, clock.Instant{}) == nil
		if !body.Ready {
			body.Reasons = []string{"revocations_unread"}
		}
	}
	body.Warnings = runWarning(&h.running)
	for _, t := range slices.Concat(bad, warned) {
		body.Reasons = appendNew(body.Reasons, t.Reasons)
		body.Warnings = appendNew(body.Warnings, t.Warnings)
		if len(body.Tenants) < mostTenants {
			body.Tenants = append(body.Tenants, t)
		} else {
			body.More++
		}
	}
	return body
}

// isUnread reports whether the store of a tenant was not read yet, and no
// reading has failed.
func (t *tenant) isUnread() bool {
	return t.ring.Metrics()["ring_syncs_total"] == 0 || t.list.Metrics()["revocation_reads_total"] == 0
}

// appendNew appends the strings that a list does not have yet.
func appendNew(to, more []string) []string {
	for _, s := range more {
		if !slices.Contains(to, s) {
			to = append(to, s)
		}
	}
	return to
}
