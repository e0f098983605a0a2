package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/oidclogin"
)

// oidcPath is below the path of the refresh cookie, so that the sign-out finds
// the session also when the session cookie is gone.
const oidcPath = "/session/oidc/"

// newLogin returns the sign-in with the provider.
func (r *replica) newLogin() (*oidclogin.Provider[State], error) {
	p := r.shared.provider
	return oidclogin.New(oidclogin.Config[State]{
		Sessions: r.sessions, Revocations: r.authority.Revocations(), Secrets: [][]byte{r.shared.secret},
		Issuer: p.issuer, ClientID: p.client, ClientSecret: p.secret, RedirectURL: p.callback,
		User: r.user, AfterSignOut: "/sign-in",
	})
}

// user finds the user of a login: the one of the same name, since the provider
// has the same people. A real site keeps the provider's issuer and subject with
// each of its users.
func (r *replica) user(_ context.Context, l *oidclogin.Login) (string, State, error) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	u := r.shared.users[l.Subject]
	if u == nil || u.Blocked {
		return "", State{}, oidclogin.ErrNoUser
	}
	return l.Subject, u.State, nil
}

// isFromProvider reports whether a session began with the provider: it is in the
// groups of the provider's session and subject.
func isFromProvider(c *sessiontoken.Claims[State]) bool { return strings.Contains(c.SessionID, ".") }

// needsProof reports whether a session was refused because its user has to prove
// anew who they are.
func needsProof(w http.ResponseWriter) bool {
	return strings.Contains(w.Header().Get("WWW-Authenticate"), "insufficient_user_authentication")
}

func (r *replica) payments(w http.ResponseWriter, _ *http.Request, c *sessiontoken.Claims[State]) {
	render(w, http.StatusOK, "payments.html", r.view(c, "/payments", nil))
}
