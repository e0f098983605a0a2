package oidclogin

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	// maxLogoutBody is how many bytes the body of a logout request has at most.
	maxLogoutBody = maxLogoutToken + 1<<10
	// syncLimit is how long a logout waits for the store to be read first.
	syncLimit = time.Second
)

const errBody refusal = "the request is not a form with one logout_token"

// logoutReceiver is the handler of back-channel logout (OpenID Connect
// Back-Channel Logout 1.0). It writes entries into the list of revocations, and
// looks up no session.
type logoutReceiver struct {
	// provider returns the provider's keys, and the rules without their now. Its
	// error is that the provider's metadata cannot be had.
	provider    func(context.Context) (oidc.KeySet, logoutRules, error)
	revocations *revoke.List
	loud        *loud.Log
	counted     *counters
	clock       *clock.Clock
}

// ServeHTTP answers 200 when the store has acknowledged the logout, 400 to a
// token that is refused, and 503 when the keys or the store cannot be had. The
// provider may then send the token again.
func (l *logoutReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	err := l.receive(w, r)
	var why refusal
	switch {
	case err == nil:
		l.counted.logouts.Add(1)
		w.WriteHeader(http.StatusOK)
	case errors.As(err, &why):
		l.counted.logoutsRefused.Add(1)
		l.loud.Warn("logout: "+string(why), "oidclogin: a logout token was refused: see reason")
		respondError(w, http.StatusBadRequest, "invalid_request", string(why))
	default:
		l.counted.logoutsUnavailable.Add(1)
		l.loud.Warn("logout_unavailable", "oidclogin: a logout of the provider is not done yet, since the provider's keys or the store cannot be had; check that both can be reached", "err", err)
		w.Header().Set("Retry-After", "1")
		respondError(w, http.StatusServiceUnavailable, "temporarily_unavailable", "try again")
	}
}

// respondError writes the body of section 2.8.
func respondError(w http.ResponseWriter, status int, code, description string) {
	body, _ := json.Marshal(struct { // strings can be written
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{code, description})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the provider has gone
}

func (l *logoutReceiver) receive(w http.ResponseWriter, r *http.Request) error {
	raw, err := readLogoutToken(w, r)
	if err != nil {
		return err
	}
	keys, rules, err := l.provider(r.Context())
	if err != nil {
		return err
	}
	// While the store cannot be read, its time is not known. The entry is owed
	// then: a logout that was only turned away could be lost.
	if rules.now, err = l.revocations.Now(r.Context()); err != nil {
		rules.now = l.clock.Now()
	}
	token, err := verifyLogoutToken(r.Context(), keys, raw, rules)
	if err != nil {
		return err
	}
	return l.revoke(r.Context(), token)
}

// readLogoutToken reads the form of section 2.5. A parameter of the URL does not
// count.
func readLogoutToken(w http.ResponseWriter, r *http.Request) (string, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", errBody
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLogoutBody))
	if err != nil {
		return "", errBody
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["logout_token"]) != 1 {
		return "", errBody
	}
	return form["logout_token"][0], nil
}

// revoke makes entries of a logout token. That of the sessions is written
// first, and then that of the token: a crash in between loses no logout. Two
// requests with one token at the same moment, at one replica or at two, both
// revoke: a session that began between the two is revoked too.
func (l *logoutReceiver) revoke(ctx context.Context, t *logoutToken) error {
	token := logoutID(t.issuer, t.tokenID)
	used := l.isUsed(ctx, token)
	if !used {
		// Another replica may have received it.
		reading, cancel := context.WithTimeout(ctx, syncLimit)
		_ = l.revocations.Sync(reading) // after a failure the token counts as unused: revoking twice is better than not at all
		cancel()
		used = l.isUsed(ctx, token)
	}
	if !used {
		group := subjectGroup(t.issuer, t.subject)
		if t.sessionID != "" {
			group = sessionGroup(t.issuer, t.sessionID)
		}
		if err := l.revocations.RevokeGroup(ctx, string(group)); err != nil {
			return err
		}
	}
	// If the store has acknowledged that already, nothing is written.
	return l.revocations.RevokeSession(ctx, token)
}

// isUsed reports whether the list knows a logout token: its entry is there, or
// owed. It asks for a session with the id of the token, as if it began now: only
// an entry of that id revokes it. False can mean that the list does not know.
func (l *logoutReceiver) isUsed(ctx context.Context, token string) bool {
	now, err := l.revocations.Now(ctx)
	if err != nil {
		return false
	}
	err = l.revocations.Check(ctx, &revoke.Question{SessionID: token, Began: now.Add(time.Millisecond)})
	return err == revoke.ErrRevoked || errors.Is(err, revoke.ErrOwed)
}
