package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
)

// Tokens are what a native client gets: the JSON of RFC 6749 section 5.1.
type Tokens struct {
	AccessToken  string `json:"access_token"` // the session token
	TokenType    string `json:"token_type"`   // "Bearer"
	ExpiresIn    int64  `json:"expires_in"`   // seconds
	RefreshToken string `json:"refresh_token"`
}

// maxForm is the longest body of a refresh request, in bytes.
const maxForm = 8 << 10

// SignInNative begins a session for a client without cookies: it issues a session
// token and a refresh token. Call it after the user has proven who they are.
// clientID, if not empty, binds the refresh token to a client; label is how the
// user's list of devices shows it.
func (s *Sessions[T]) SignInNative(ctx context.Context, clientID, label, subject string, state T) (Tokens, error) {
	if s.cfg.Refresh == nil {
		return Tokens{}, errors.New("sessionhttp: SignInNative: Config.Refresh is not set")
	}
	token, c, err := s.cfg.Issuer.Issue(ctx, subject, state)
	if err != nil {
		return Tokens{}, err
	}
	next, _, err := s.cfg.Refresh.Start(ctx, refresh.Family{Subject: c.Subject, SessionID: c.SessionID, ClientID: clientID, Label: label, Created: c.AuthTime})
	if err != nil {
		return Tokens{}, err
	}
	return tokensOf(token, c, next), nil
}

func tokensOf[T any](token string, c *sessiontoken.Claims[T], next string) Tokens {
	return Tokens{token, "Bearer", int64(time.Until(c.Expires).Round(time.Second) / time.Second), next}
}

// RefreshHandler exchanges refresh tokens (RFC 6749 section 6): a POST of the
// form grant_type=refresh_token, refresh_token and, if the token is bound to a
// client, client_id. It answers with [Tokens], or with an error of section 5.2;
// 503 means that the same refresh token can be sent again. Each refresh token
// works once; see package refresh.
//
// With Config.RefreshPath, a POST of the same origin without refresh_token in
// its body is a browser's, which has it in a cookie: the answer is 204 and sets
// both cookies, 401 clears them, and no token is in any body.
func (s *Sessions[T]) RefreshHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "application/json")
		h.Set("X-Content-Type-Options", "nosniff")
		fail := func(status int, code string, err error) {
			s.tell(r, err)
			w.WriteHeader(status)
			_ = json.MarshalWrite(w, struct {
				Error string `json:"error"`
			}{code})
		}
		if s.cfg.Refresh == nil {
			fail(http.StatusNotFound, "invalid_request", errors.New("sessionhttp: Config.Refresh is not set"))
			return
		}
		if r.Method != http.MethodPost {
			h.Set("Allow", http.MethodPost)
			fail(http.StatusMethodNotAllowed, "invalid_request", ErrBadRequest)
			return
		}
		if s.isBrowserRefresh(r) {
			h.Del("Content-Type")
			s.refreshBrowser(w, r)
			return
		}
		form, err := readForm(w, r)
		if err != nil {
			fail(http.StatusBadRequest, "invalid_request", err)
			return
		}
		if form.Get("grant_type") != "refresh_token" {
			fail(http.StatusBadRequest, "unsupported_grant_type", ErrBadRequest)
			return
		}
		token, claims, next, _, err := s.exchange(r.Context(), form.Get("refresh_token"), form.Get("client_id"))
		switch {
		case err == nil:
			_ = json.MarshalWrite(w, tokensOf(token, claims, next))
		case isRefused(err):
			fail(http.StatusBadRequest, "invalid_grant", err)
		default:
			h.Set("Retry-After", "1")
			fail(http.StatusServiceUnavailable, "temporarily_unavailable", err)
		}
	})
}

// isBrowserRefresh says whether a request may only mean the cookie: it has one,
// and no body.
func (s *Sessions[T]) isBrowserRefresh(r *http.Request) bool {
	return s.cfg.RefreshPath != "" && r.ContentLength == 0 && len(r.CookiesNamed(s.refreshCookie("").Name)) > 0
}

func (s *Sessions[T]) refreshBrowser(w http.ResponseWriter, r *http.Request) {
	cookies := r.CookiesNamed(s.refreshCookie("").Name)
	switch {
	case len(cookies) != 1:
		s.refuse(w, r, fmt.Errorf("%w: more than one refresh cookie", ErrBadRequest))
		return
	case s.origins.Check(r) != nil:
		s.refuse(w, r, ErrCrossOrigin)
		return
	case !s.isSecure(r):
		s.refuse(w, r, ErrInsecure)
		return
	}
	token, _, next, family, err := s.exchange(r.Context(), cookies[0].Value, "")
	if err == nil {
		err = s.fits(token)
	}
	if isRefused(err) {
		s.clearRefresh(w)
		s.refuse(s.clear(w), r, ErrSessionOver)
		return
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.setRefresh(w, next, family.Ends)
	s.set(w, token).WriteHeader(http.StatusNoContent)
}

func isRefused(err error) bool {
	return errors.Is(err, refresh.ErrInvalid) || errors.Is(err, sessiontoken.ErrInvalid) || errors.Is(err, ErrSessionOver)
}

// exchange uses a refresh token up for a session token with the state of now.
func (s *Sessions[T]) exchange(ctx context.Context, refreshToken, clientID string) (token string, claims *sessiontoken.Claims[T], next string, f refresh.Family, err error) {
	next, f, err = s.cfg.Refresh.Exchange(ctx, refreshToken, clientID, func(ctx context.Context, f refresh.Family) error {
		old := &sessiontoken.Claims[T]{Subject: f.Subject, SessionID: f.SessionID, AuthTime: f.Created}
		state, err := s.cfg.Load(ctx, old)
		if errors.Is(err, ErrSessionOver) {
			if err := s.end(ctx, old); err != nil {
				return err
			}
			return ErrSessionOver
		}
		if err != nil {
			return err
		}
		token, claims, err = s.cfg.Issuer.Resume(ctx, f.Subject, f.SessionID, f.Created, state)
		return err
	})
	return token, claims, next, f, err
}

// readForm reads the body alone, never the query, and each parameter at most
// once (RFC 6749 section 3.2).
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, ErrBadRequest
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, ErrBadRequest
	}
	for _, values := range r.PostForm {
		if len(values) != 1 {
			return nil, ErrBadRequest
		}
	}
	return r.PostForm, nil
}
