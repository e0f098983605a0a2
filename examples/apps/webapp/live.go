package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// commentEvery is how often an idle stream writes a comment, by which the server
// notices that the client has gone.
const commentEvery = 20 * time.Second

// live streams the session to the page: an event "session" at the beginning and
// when the state has changed. The last event is:
//
//   - "ended", with the reason: the page asks for a sign-in.
//   - "undecided": the server does not know. The page tries again later.
//
// The page closes the stream after either, since an EventSource reconnects by
// itself.
func (r *replica) live(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	l, err := r.sessions.Live(req.Context(), c, sessionhttp.LiveOptions{})
	if err != nil {
		r.sessions.Refuse(w, req, err)
		return
	}
	defer l.Stop()
	s := stream(w)
	renewed := l.Renewed() // before the claims are read
	shown := *l.Claims()
	err = s.send("session", r.about(&shown))
	comments := time.NewTicker(commentEvery)
	defer comments.Stop()
	for err == nil {
		select {
		case <-renewed:
			renewed = l.Renewed()
			if now := l.Claims().State; !reflect.DeepEqual(now, shown.State) {
				shown.State = now
				err = s.send("session", r.about(&shown))
			}
		case <-comments.C:
			err = s.comment()
		case <-l.Done():
			if kind, data := lastEvent(context.Cause(l)); kind != "" {
				_ = s.send(kind, data)
			}
			return
		}
	}
}

// lastEvent returns the event for the end of a session. kind is empty if the
// client has gone.
func lastEvent(cause error) (kind, data string) {
	switch {
	case errors.Is(cause, sessionhttp.ErrUndecided):
		return "undecided", "retry"
	case errors.Is(cause, revoke.ErrRevoked), errors.Is(cause, sessionhttp.ErrSessionOver):
		return "ended", "revoked"
	case errors.Is(cause, sessionhttp.ErrIdle):
		return "ended", "idle"
	case errors.Is(cause, sessionhttp.ErrMaxSession):
		return "ended", "longest"
	case errors.Is(cause, sessiontoken.ErrExpired), errors.Is(cause, revoke.ErrChanged): // a Bearer token
		return "ended", "expired"
	}
	return "", ""
}

// events is a stream of server-sent events.
type events struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func stream(w http.ResponseWriter) events {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would buffer the events
	return events{w, http.NewResponseController(w)}
}

// send writes an event with data as JSON, which has no line breaks.
func (s events) send(kind string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", kind, text))
}

func (s events) comment() error { return s.write(":\n\n") }

func (s events) write(text string) error {
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.c.Flush()
}
