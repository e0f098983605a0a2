// Package exchange replaces the live sessions of another library by sessions of
// this one, without a sign-in. It is part of an example: copy it, and remove it
// when its time has passed.
//
// Until [Config].From the site works as before. From then on, an old session is
// exchanged at its first request: the request gets a new session, and the old
// one is refused from then on, on every replica. A new session is never
// exchanged for an old one.
//
// What was exchanged is recorded in the authority's list of revocations, as a
// group of the old session's id. The list remembers it for MaxSession, which is
// therefore how long exchanges take place. Old sessions count as begun at From:
// what revokes a user's sessions, such as a sign-out everywhere, ends the old
// ones of the user too.
//
// What this does not do: two requests with one old session that reach two
// replicas before either has recorded the exchange get a session each, of the
// same user.
package exchange

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Old is a live session of the other library.
type Old[T any] struct {
	// ID is different for each old session. A client that changes the spelling
	// of its credential must not get another ID.
	ID string
	// Start says who the user is. AuthTime is zero if it is not known.
	Start sessiontoken.Start
	// State is that of the new session: read from the database, beside what the
	// old session alone held.
	State T
}

// Config configures an Exchange. All fields but Native are required.
type Config[T any] struct {
	Authority *authority.Authority[T]
	// From is when exchanges begin, by the clock of the authority's store. It is
	// the same on every replica, and later than the time at which all replicas
	// run this program. Exchanges end when MaxSession has passed since.
	From time.Time
	// Find returns the old session of a request. It returns false if there is
	// none, or if the user is gone.
	Find func(r *http.Request) (Old[T], bool, error)
	// Drop deletes the old session of a request, and its cookie. It is called
	// after the exchange is recorded.
	Drop func(w http.ResponseWriter, r *http.Request)
	// Before and After are the site without and with package authority.
	Before, After http.Handler
}

// Exchange is the site while both sorts of sessions are read.
type Exchange[T any] struct {
	cfg   Config[T]
	s     *sessionhttp.Sessions[T]
	locks [64]sync.Mutex // by ID: one exchange of a session at a time
}

// New returns the site for a configuration.
func New[T any](cfg Config[T]) *Exchange[T] {
	return &Exchange[T]{cfg: cfg, s: cfg.Authority.Sessions()}
}

// errUsed means that an old session was exchanged before, or that the user's
// sessions were revoked since From.
var errUsed = errors.New("exchange: the old session was exchanged or revoked")

// open reports whether exchanges take place now, and whether they will.
func (x *Exchange[T]) open(ctx context.Context) (now, later bool, err error) {
	list := x.cfg.Authority.Revocations()
	at, err := list.Now(ctx)
	if err != nil {
		return false, false, err
	}
	later = at.Before(x.cfg.From)
	return !later && at.Before(x.cfg.From.Add(list.RetainFor())), later, nil
}

// ServeHTTP serves the site of the time: Before until From, and After since.
func (x *Exchange[T]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now, later, err := x.open(r.Context())
	if now {
		r, err = x.exchanged(w, r)
	}
	switch {
	case err != nil: // it is not known whether the old session is live
		x.s.Refuse(w, r, err)
	case later:
		x.cfg.Before.ServeHTTP(w, r)
	default:
		x.cfg.After.ServeHTTP(w, r)
	}
}

// exchanged returns the request with a new session in place of its old one, and
// as it is if it has none that can be exchanged.
func (x *Exchange[T]) exchanged(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	old, ok, err := x.cfg.Find(r)
	if err != nil || !ok {
		return r, err
	}
	held := headers{}
	begin := func() error {
		if _, err := x.s.Check(headers{}, r); err == nil {
			return nil // the new session stays, and the old one ends
		}
		// The old cookie shows that this browser has signed in, so that a link
		// on another site may lead here. It begins no session that the browser
		// did not have.
		options := []sessionhttp.SignInOption{sessionhttp.AuthTimeUnknown(), sessionhttp.InsecureCrossSiteCallback()}
		_, err := x.s.SignIn(held, r, old.Start, old.State, options...)
		return err
	}
	switch err := x.once(r.Context(), old, begin); {
	case errors.Is(err, sessionhttp.ErrCrossOrigin):
		return r, nil // such as a form on another site: a later request is exchanged
	case errors.Is(err, errUsed):
		x.cfg.Drop(w, r)
		return r, nil
	case err != nil:
		return r, err
	}
	x.cfg.Drop(w, r)
	for name, lines := range held {
		w.Header()[name] = append(w.Header()[name], lines...)
	}
	r = r.Clone(r.Context())
	for _, c := range (&http.Response{Header: http.Header(held)}).Cookies() {
		if c.MaxAge >= 0 {
			r.AddCookie(c) // the handler already sees the new session
		}
	}
	return r, nil
}

// Native answers a client without cookies with the tokens of a new session, in
// exchange for the old session that find returns. The client calls it once, and
// stores the tokens before it uses them.
func (x *Exchange[T]) Native(device sessionhttp.Device, find func(r *http.Request) (Old[T], bool, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var tokens sessionhttp.Tokens
		now, _, err := x.open(r.Context())
		old, ok, findErr := find(r)
		switch {
		case err != nil || findErr != nil:
			err = errors.Join(err, findErr)
		case !now || !ok:
			err = sessionhttp.ErrNoSession
		default:
			err = x.once(r.Context(), old, func() (err error) {
				tokens, err = x.s.SignInNative(r, device, old.Start, old.State)
				return err
			})
		}
		if errors.Is(err, errUsed) {
			err = sessionhttp.ErrNoSession
		}
		if err != nil {
			x.s.Refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(tokens)
	})
}

// once calls begin for an old session that was not exchanged, and records the
// exchange. What begin has made may be handed out only if once returns nil: the
// store has then acknowledged that the old session is refused. If the store
// fails in between, the user may have to sign in again.
func (x *Exchange[T]) once(ctx context.Context, old Old[T], begin func() error) error {
	list := x.cfg.Authority.Revocations()
	group := string(sessiontoken.GroupOf("old session", "", old.ID))
	lock := &x.locks[group[0]%64]
	lock.Lock()
	defer lock.Unlock()
	// Begin reads the store: what another replica has recorded is known.
	_, err := list.Begin(ctx, revoke.Question{SessionID: group + ".old", Subject: old.Start.Subject, Began: x.cfg.From})
	if errors.Is(err, revoke.ErrRevoked) {
		return errUsed
	}
	if err == nil {
		err = begin()
	}
	if err == nil {
		err = list.RevokeGroup(ctx, group)
	}
	return err
}

// headers is a ResponseWriter that keeps the header alone.
type headers http.Header

func (h headers) Header() http.Header         { return http.Header(h) }
func (h headers) Write(b []byte) (int, error) { return len(b), nil }
func (h headers) WriteHeader(int)             {}
