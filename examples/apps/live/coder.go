package live

import (
	"context"
	"net/http"

	"github.com/coder/websocket"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Coder answers each message of a WebSocket, with github.com/coder/websocket.
func Coder[T any](s *sessionhttp.Sessions[T], answer func(subject, message string) string) http.Handler {
	return withLive(s, func(w http.ResponseWriter, r *http.Request, l *sessionhttp.Live[T]) {
		conn, err := websocket.Accept(w, r, nil) // with the headers of w, such as a renewed cookie
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		// Close sends the code. If Read or Write were given l, its end would close
		// the connection without one.
		stop := atEnd(l, func(code int, text string) { _ = conn.Close(websocket.StatusCode(code), text) })
		defer stop()
		ctx := context.WithoutCancel(l)
		for {
			_, message, err := conn.Read(ctx)
			if err != nil {
				return
			}
			l.Used()
			if err := conn.Write(ctx, websocket.MessageText, []byte(answer(l.Claims().Subject, string(message)))); err != nil {
				return
			}
		}
	})
}
