package main

import (
	"context"
	"net/http"

	"github.com/sessiontoken/sessiontoken/remote"
)

// newAPI returns a server that reads the sessions of the site. It knows the
// site's URL alone: it has neither its database nor its secret. It accepts the
// token of a user who has signed out until the token expires.
func newAPI(ctx context.Context, site string) (http.Handler, error) {
	r, err := remote.New[State](remote.Config{
		Issuer: site, Audience: apiAudience,
		InsecurePlainHTTP: true, // for http on loopback
		// It needs no e-mail addresses, so it gets no StateSecrets. An attacker who
		// has broken into it then reads none in the tokens that come by.
		LeaveSealed: true,
	})
	if err != nil {
		return nil, err
	}
	go func() { _ = r.Run(ctx) }()
	mux := http.NewServeMux()
	mux.Handle("GET /badge", r.Sessions().Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, ok := r.Sessions().FromContext(req.Context())
		if !ok {
			http.Error(w, "no session", http.StatusInternalServerError)
			return
		}
		mail, err := c.State.Mail.Open()
		if err != nil { // sessiontoken.ErrSealed
			mail = "not readable here"
		}
		answer(w, map[string]any{"name": c.State.Name, "roles": c.State.Roles, "mail": mail})
	})))
	return mux, nil
}
