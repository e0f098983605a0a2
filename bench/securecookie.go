package bench

import (
	"context"
	"time"

	"github.com/gorilla/securecookie"
)

// openSecureCookie is a signed cookie: HMAC-SHA-256 under a secret that every
// reader must hold, and could write with. JSON and no encryption, so that it
// does what the tokens do; its own default is gob.
func openSecureCookie(_ Servers, subjects []string, life time.Duration) (*Opened, error) {
	type session struct {
		Subject string
		State   State
	}
	codec := securecookie.New(securecookie.GenerateRandomKey(32), nil)
	codec.SetSerializer(securecookie.JSONEncoder{})
	codec.MaxAge(int(life / time.Second))
	o := &Opened{Close: func() {}}
	for _, subject := range subjects {
		cookie, err := codec.Encode("session", session{subject, SampleState()})
		if err != nil {
			return nil, err
		}
		o.Presented = append(o.Presented, cookie)
	}
	o.Read = func(_ context.Context, cookie string) (string, State, error) {
		var s session
		err := codec.Decode("session", cookie, &s)
		return s.Subject, s.State, err
	}
	return o, nil
}
