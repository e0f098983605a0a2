package sessionhttp

import (
	"context"
	"errors"
	"net/http"

	"github.com/sessiontoken/sessiontoken/refresh"
)

// RevokeHandler lets native clients sign out with either of their tokens (RFC
// 7009): a POST of the form token and, if the refresh token is bound to a client,
// client_id, which is read as [Sessions.RefreshHandler] does. It revokes the
// session and its refresh tokens.
//
// 200 means that the store has acknowledged the revocation, or that the token
// names no session. 503 means that the server could not decide: the same
// request can be sent again. A refresh token of another client, or of a
// browser, is 400.
func (s *Sessions[T]) RevokeHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		form, ok := s.tokenForm(w, r, false)
		if !ok {
			return
		}
		client, ok := clientOf(r, form)
		switch {
		case !ok:
			s.failClient(w, r, ErrBadRequest)
			return
		case form.Get("token") == "":
			s.failJSON(w, r, http.StatusBadRequest, "invalid_request", ErrBadRequest)
			return
		}
		_, err := within(r.Context(), &s.leaving, opLimit, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, s.revokeToken(ctx, form.Get("token"), client)
		})
		switch {
		case err == nil:
			s.counted.signOuts.Add(1)
			w.WriteHeader(http.StatusOK)
		case errors.Is(err, refresh.ErrClient) && client == "":
			s.failClient(w, r, err)
		case errors.Is(err, refresh.ErrClient), errors.Is(err, refresh.ErrBinder):
			s.failJSON(w, r, http.StatusBadRequest, "invalid_grant", err)
		default:
			s.failServer(w, r, err)
		}
	})
}

// revokeToken revokes the session that a refresh token or a session token names.
func (s *Sessions[T]) revokeToken(ctx context.Context, token, client string) error {
	f, err := s.findFamily(ctx, refresh.Presented{Token: token, ClientID: client})
	switch {
	case err == nil:
		return s.revoke(ctx, f.SessionID)
	case errors.Is(err, refresh.ErrClient), errors.Is(err, refresh.ErrBinder), !errors.Is(err, refresh.ErrInvalid):
		return err
	}
	n, err := s.identify(ctx, token)
	if n == nil || err != nil {
		return err
	}
	return s.revoke(ctx, n.id)
}
