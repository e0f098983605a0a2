package authority

import "net/http"

// RenewHandler returns the handler that renews the cookie of a browser: a POST
// of the same or a trusted origin, which is answered with 204 and the new
// cookie, or as [sessionhttp.Sessions.Refuse] does. It is for pages whose API
// only reads sessions, and so cannot renew them: the page asks it when the API
// has answered 401, and before the token ends. It renews a token that is valid
// or idle for less than IdleTimeout, with the state that Load returns then.
//
// A page on another origin also needs CORS, which goes around this handler.
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
