package live

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Events sends messages as server-sent events, over HTTP/1.1 or HTTP/2. The last
// event says why the stream ends. A browser then connects again by itself: a
// session that has ended is answered with 401, at which it gives up.
func Events[T any](s *sessionhttp.Sessions[T], subscribe func(context.Context) <-chan string) http.Handler {
	return withLive(s, func(w http.ResponseWriter, _ *http.Request, l *sessionhttp.Live[T]) {
		w.Header().Set("Content-Type", "text/event-stream")
		out := http.NewResponseController(w)
		send := func(event, data string) {
			_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, data)
			_ = out.Flush()
		}
		messages := subscribe(l)
		send("open", l.Claims().Subject)
		for {
			select {
			case m := <-messages:
				send("message", m)
			case <-l.Done():
				_, text := Reason(context.Cause(l))
				send("end", text)
				return
			}
		}
	})
}
