package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// beat is how often a stream that has nothing to tell writes a comment. A client
// that went away behind a proxy is noticed by it.
const beat = 20 * time.Second

// live streams the session to the page until it ends. The last event tells why:
//
//   - "ended": the session is over. The page asks for a sign-in.
//   - "changed": the state has changed. The page opens the stream again: its
//     request brings the new state, and the browser a new cookie.
//   - "unsure": the server does not know. The page tries again later.
//
// The page closes the stream after each of them, for an EventSource connects
// again by itself.
func (r *replica) live(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	l, err := r.sessions.Live(req.Context(), c, sessionhttp.LiveOptions{EndWhenChanged: true})
	if err != nil {
		r.sessions.Refuse(w, req, err)
		return
	}
	defer l.Stop()
	s := stream(w)
	session, err := json.Marshal(r.about(c))
	if err != nil {
		log.Print(err)
		return
	}
	err = s.send("session", string(session))
	comments := time.NewTicker(beat)
	defer comments.Stop()
	for err == nil {
		select {
		case <-comments.C:
			err = s.comment()
		case <-l.Done():
			if kind, why := ending(context.Cause(l)); kind != "" {
				_ = s.send(kind, why)
			}
			return
		}
	}
}

// ending returns the last event of a stream. kind is empty if the client has
// gone.
func ending(cause error) (kind, why string) {
	switch {
	case errors.Is(cause, sessionhttp.ErrUndecided):
		return "unsure", "unsure"
	case errors.Is(cause, revoke.ErrChanged):
		return "changed", "changed"
	case errors.Is(cause, revoke.ErrRevoked), errors.Is(cause, sessionhttp.ErrSessionOver):
		return "ended", "revoked"
	case errors.Is(cause, sessionhttp.ErrIdle):
		return "ended", "idle"
	case errors.Is(cause, sessionhttp.ErrMaxSession):
		return "ended", "longest"
	case errors.Is(cause, sessiontoken.ErrExpired): // of a native client
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
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep the events
	return events{w, http.NewResponseController(w)}
}

// send writes an event. data has no line breaks.
func (s events) send(kind, data string) error {
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", kind, data))
}

func (s events) comment() error { return s.write(":\n\n") }

func (s events) write(text string) error {
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.c.Flush()
}
