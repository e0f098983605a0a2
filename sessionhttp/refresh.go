package sessionhttp

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
)

// maxForm is the longest body of a refresh request, in bytes.
const maxForm = 8 << 10

// RefreshHandler exchanges refresh tokens (RFC 6749 section 6): a POST of the
// form grant_type=refresh_token, refresh_token and, if the token is bound to a
// client, client_id. It answers with [Tokens], or with an error of section 5.2;
// 503 means that the same refresh token can be sent again. Each refresh token
// works once; see package refresh.
//
// Without client_id in the form, the client is that of a Basic Authorization
// header (section 2.3.1). A client_id in the form takes precedence, since the
// header can be that of a gateway. This handler does not check the password of
// the header. A handler around it can: that one must also refuse a form whose
// client_id is not the client whose password it checked.
//
// With Config.RefreshPath, a POST of the same origin without a form is that of
// a browser, which sends the refresh token and its binder in cookies. The
// answer is 204 and sets the cookies; no body holds a token. 401 means that the
// user has to sign in again. It removes no cookie: the answer may arrive after
// that of a new sign-in, and would remove the new cookies.
func (s *Sessions[T]) RefreshHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		form, ok := s.tokenForm(w, r, s.cfg.RefreshPath != "")
		switch {
		case !ok:
		case form == nil:
			s.refreshBrowser(w, r)
		case form.Get("grant_type") != "refresh_token":
			s.failJSON(w, r, http.StatusBadRequest, "unsupported_grant_type", ErrBadRequest)
		case !s.isSecure(r):
			s.failJSON(w, r, http.StatusForbidden, "invalid_request", errInsecure)
		default:
			s.refreshNative(w, r, form)
		}
	})
}

// tokenForm sets the headers of the answer of an OAuth endpoint and reads the
// form. The form is nil if there is none and none is required. It answers a
// request that is malformed.
func (s *Sessions[T]) tokenForm(w http.ResponseWriter, r *http.Request, orNone bool) (form url.Values, ok bool) {
	h := w.Header()
	noStore(h)
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case s.cfg.Refresh == nil:
		s.failJSON(w, r, http.StatusNotFound, "invalid_request", errNoRefresh)
		return nil, false
	case r.Method != http.MethodPost:
		h.Set("Allow", http.MethodPost)
		s.failJSON(w, r, http.StatusMethodNotAllowed, "invalid_request", ErrBadRequest)
		return nil, false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isForm := err == nil && kind == "application/x-www-form-urlencoded"
	if isForm {
		if form, err = readForm(w, r); err == nil && (!orNone || form.Has("grant_type") || form.Has("refresh_token")) {
			return form, true
		}
	}
	if orNone && (!isForm || err == nil) {
		return nil, true
	}
	s.failJSON(w, r, http.StatusBadRequest, "invalid_request", ErrBadRequest)
	return nil, false
}

// readForm reads the body alone, never the query, and each parameter at most
// once (RFC 6749 section 3.2).
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if r.Body == nil { // as no server of net/http makes it
		r.Body = http.NoBody
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

// clientOf returns the client of a form, or of a Basic header (RFC 6749 section
// 2.3.1). ok is false if the form names no client and the header is malformed.
func clientOf(r *http.Request, form url.Values) (id string, ok bool) {
	if form.Has("client_id") {
		return form.Get("client_id"), true
	}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", true
	}
	name, _, ok := r.BasicAuth()
	if !ok {
		return "", false
	}
	id, err := url.QueryUnescape(name)
	return id, err == nil
}

func (s *Sessions[T]) refreshNative(w http.ResponseWriter, r *http.Request, form url.Values) {
	client, ok := clientOf(r, form)
	if !ok {
		s.failClient(w, r, ErrBadRequest)
		return
	}
	p := refresh.Presented{Token: form.Get("refresh_token"), ClientID: client}
	out, err := s.exchange(r.Context(), opLimit, p, sessiontoken.NotRenewable, keepUnset)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.MarshalWrite(w, tokensOf(out.token, out.claims, out.next))
	case errors.Is(err, refresh.ErrClient) && client == "":
		s.failClient(w, r, err)
	case isRefused(err):
		s.failJSON(w, r, http.StatusBadRequest, "invalid_grant", err)
	default:
		s.failServer(w, r, err)
	}
}

// failClient answers that the client must authenticate.
func (s *Sessions[T]) failClient(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("WWW-Authenticate", `Basic realm="refresh"`)
	s.failJSON(w, r, http.StatusUnauthorized, "invalid_client", err)
}

// failServer answers an error of the server.
func (s *Sessions[T]) failServer(w http.ResponseWriter, r *http.Request, err error) {
	if isPermanent(err) {
		s.failJSON(w, r, http.StatusInternalServerError, "server_error", err)
		return
	}
	w.Header().Set("Retry-After", "1")
	s.failJSON(w, r, http.StatusServiceUnavailable, "temporarily_unavailable", err)
}

// failJSON answers an error as RFC 6749 section 5.2 requires.
func (s *Sessions[T]) failJSON(w http.ResponseWriter, r *http.Request, status int, code string, err error) {
	s.report(r, err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, struct {
		Error string `json:"error"`
	}{code})
}

func isRefused(err error) bool {
	return isVerdict(err, refresh.ErrInvalid, sessiontoken.ErrInvalid, ErrSessionOver)
}

// exchanged holds the new tokens of an exchange.
type exchanged[T any] struct {
	token  string
	claims *sessiontoken.Claims[T]
	next   string
	family refresh.Family
}

// resumptionOf returns the record of a session that its family holds.
func resumptionOf(f refresh.Family, renewal sessiontoken.Renewal) sessiontoken.Resumption {
	r := sessiontoken.Resumption{
		SessionID: f.SessionID, Subject: f.Subject, Began: f.Began, AuthTime: f.AuthTime,
		ACR: f.ACR, AMR: f.AMR, Context: f.Context, Renewal: renewal,
	}
	if f.ActorSessionID != "" {
		r.Actor = &sessiontoken.Actor{Subject: f.ActorSubject, SessionID: f.ActorSessionID, Began: f.ActorBegan}
	}
	return r
}

// exchange uses up a refresh token and issues a session token with the current
// state. Every step that can fail comes before the refresh token is used up.
func (s *Sessions[T]) exchange(ctx context.Context, atMost time.Duration, p refresh.Presented, renewal sessiontoken.Renewal, k keeping) (exchanged[T], error) {
	return within(ctx, &s.loading, atMost, func(ctx context.Context) (out exchanged[T], err error) {
		out.next, out.family, err = s.cfg.Refresh.Exchange(ctx, p, func(ctx context.Context, f refresh.Family) error {
			if out.token, out.claims, err = s.cfg.Issuer.Resume(ctx, resumptionOf(f, renewal), s.load); err != nil {
				return err
			}
			if renewal == sessiontoken.Renewable {
				return s.fits(out.token, k)
			}
			return nil
		})
		if err == nil {
			s.counted.refreshes.Add(1)
		}
		return out, err
	})
}
