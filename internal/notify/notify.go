// Package notify sends events to the function of an application.
package notify

import (
	"context"
	"encoding/hex"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/digest"
	"github.com/sessiontoken/sessiontoken/internal/loud"
)

// Sender sends the events of one object. A nil Sender sends none.
type Sender struct {
	send  event.Func
	plain bool // names are sent as they are
	loud  *loud.Log
}

// New returns a Sender, or nil if send is nil.
func New(send event.Func, insecureNames bool, log *loud.Log) *Sender {
	if send == nil {
		return nil
	}
	return &Sender{send, insecureNames, log}
}

// Send sends an event with the names as they are: it hashes them. A panic of
// the function is logged and goes no further.
func (s *Sender) Send(ctx context.Context, e event.Event) {
	if s == nil {
		return
	}
	if !s.plain {
		e.Subject, e.Actor = hash("subject", e.Subject), hash("subject", e.Actor)
		e.Session = hash("session", e.Session)
	}
	defer func() {
		if recover() != nil { // its value may hold what must not be logged
			s.loud.Warn("event_panic", "OnEvent panicked, and the call that it reports went on; what it panicked with is not logged: mend the function", "kind", string(e.Kind))
		}
	}()
	s.send(context.WithoutCancel(ctx), e)
}

func hash(scope, value string) string {
	if value == "" {
		return ""
	}
	d := digest.Of(scope, value)
	return hex.EncodeToString(d[:])
}
