package authority_test

import (
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
)

// TestFeedMetrics: each answer of the feed is counted once, and an authority
// without a feed has none of the names.
func TestFeedMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"feed_waiting", "feed_pages_total", "feed_news_total", "feed_unauthorized_total", "feed_plain_http_total", "feed_unavailable_total", "feed_busy_total"}
		plain := newReplica(t, authority.Memory()).Metrics()
		for _, name := range names {
			require.NotContains(t, plain, name)
		}
		n := newNetwork()
		r := newReplica(t, n, with(secret(1)), withFeed(feedToken))
		stop := r.run(t)
		time.Sleep(2 * time.Second)
		counts := func() map[string]float64 {
			all, feed := r.Metrics(), map[string]float64{}
			require.Len(t, all, len(plain)+len(names))
			for _, name := range names {
				require.Contains(t, all, name)
				if all[name] != 0 {
					feed[name] = all[name]
				}
			}
			return feed
		}
		require.Empty(t, counts())

		p := feedPage(t, r, "")
		require.Equal(t, map[string]float64{"feed_pages_total": 1}, counts())
		require.Equal(t, 401, r.status(request("GET", feedPath+"?nonce=n")))
		http := httptest.NewRequest("GET", "http://auth.example"+feedPath+"?nonce=n", nil)
		http.Header.Set("Authorization", "Bearer "+feedToken)
		require.Equal(t, 403, r.status(http))
		want := map[string]float64{"feed_pages_total": 1, "feed_unauthorized_total": 1, "feed_plain_http_total": 1}
		require.Equal(t, want, counts())

		answered := make(chan int)
		go func() { answered <- r.status(feedRequest("wait=5000&cursor=" + p.Next)) }()
		synctest.Wait()
		want["feed_waiting"] = 1
		require.Equal(t, want, counts())
		require.Equal(t, 200, <-answered)
		delete(want, "feed_waiting")
		want["feed_news_total"] = 1
		require.Equal(t, want, counts())

		stop()
		time.Sleep(time.Minute)
		n.down.Store(true)
		require.Equal(t, 503, r.status(feedRequest("cursor="+p.Next+"&age=0")))
		want["feed_unavailable_total"] = 1
		require.Equal(t, want, counts())
	})
}
