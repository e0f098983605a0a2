package authority

import (
	"maps"
	"sync/atomic"
)

// feedCounters count the answers of a feed.
type feedCounters struct {
	pages, news, unauthorized, plainHTTP, unavailable, busy atomic.Uint64
}

// metrics returns the metrics of the feed.
func (h *feedHandler) metrics() map[string]float64 {
	c := &h.counted
	return map[string]float64{
		"feed_waiting":            float64(h.waiters.Load()),
		"feed_pages_total":        float64(c.pages.Load()),
		"feed_news_total":         float64(c.news.Load()),
		"feed_unauthorized_total": float64(c.unauthorized.Load()),
		"feed_plain_http_total":   float64(c.plainHTTP.Load()),
		"feed_unavailable_total":  float64(c.unavailable.Load()),
		"feed_busy_total":         float64(c.busy.Load()),
	}
}

// Metrics returns the metrics of all parts in one map: those of [keys.Ring],
// [revoke.List], [refresh.Manager], [sessiontoken.Issuer], [sessiontoken.Verifier]
// and [sessionhttp.Sessions], whose names differ. With a feed of revocations, it
// has these too, and those that end in _total only grow:
//
//	feed_waiting             requests that wait for news
//	feed_pages_total         pages that were served
//	feed_news_total          requests that have waited and were answered
//	feed_unauthorized_total  requests without a credential of the feed
//	feed_plain_http_total    requests from other hosts over plain http
//	feed_unavailable_total   requests that were 503, since the store could not
//	                         be read
//	feed_busy_total          requests that were 503, since too many were served
//
// Metrics does no I/O. The map is the caller's: [expvar.Func] can publish it as
// it is.
func (a *Authority[T]) Metrics() map[string]float64 {
	m := a.ring.Metrics()
	for _, part := range []map[string]float64{a.revocations.Metrics(), a.refresh.Metrics(), a.issuer.Metrics(), a.verifier.Metrics(), a.sessions.Metrics()} {
		maps.Copy(m, part)
	}
	if a.feedHandler != nil {
		maps.Copy(m, a.feedHandler.metrics())
	}
	return m
}
