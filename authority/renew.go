package authority

import "net/http"

// RenewHandler returns the handler that renews the cookie of a browser. It
// accepts a POST of the same or a trusted origin, and answers 204 with the new
// cookie, or as [sessionhttp.Sessions.Refuse] does. It is for pages whose API
// only reads sessions and cannot renew them: the page calls it before the token
// expires, and when the API has answered 401. It renews a token within
// IdleTimeout of its iat, with the state that Load returns.
//
// A page on another origin also needs CORS middleware around this handler.
func (a *Authority[T]) RenewHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "POST only", http.StatusMethodNotAllowed)
			return
		}
		if _, err := a.sessions.Renew(w, r); err != nil {
			a.sessions.Refuse(w, r, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
