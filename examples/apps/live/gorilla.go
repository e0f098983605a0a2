package live

import (
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// goodbye is how long a client has to answer a close message.
const goodbye = 5 * time.Second

// Gorilla answers each message of a WebSocket, with github.com/gorilla/websocket.
func Gorilla[T any](s *sessionhttp.Sessions[T], answer func(subject, message string) string) http.Handler {
	var upgrader websocket.Upgrader
	return withLive(s, func(w http.ResponseWriter, r *http.Request, l *sessionhttp.Live[T]) {
		// Upgrade does not send the headers of w, such as a renewed cookie.
		conn, err := upgrader.Upgrade(w, r, http.Header{"Set-Cookie": w.Header()["Set-Cookie"]})
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		stop := atEnd(l, func(code int, text string) {
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(goodbye))
			_ = conn.NetConn().SetReadDeadline(time.Now().Add(goodbye))
		})
		defer stop()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil {
				return
			}
			l.Used()
			if err := conn.WriteMessage(kind, []byte(answer(l.Claims().Subject, string(message)))); err != nil {
				return
			}
		}
	})
}
