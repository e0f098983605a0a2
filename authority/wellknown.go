package authority

import (
	"net/http"
	"net/url"

	"github.com/sessiontoken/sessiontoken"
)

// addWellKnown makes the documents below the issuer's URL.
func (a *Authority[T]) addWellKnown(cfg *Config[T]) error {
	jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{
		Keys: a.ring, InsecurePlainHTTP: cfg.HTTP.TLSInFront, Logger: cfg.Logger,
	})
	if err != nil {
		return within("the key set", err)
	}
	u, err := url.Parse(cfg.Issuer)
	if err != nil {
		return within("Config.Issuer", err)
	}
	feedURL := ""
	if cfg.servesFeed() {
		feedURL = cfg.Issuer + feedPath
	}
	discovery, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{
		Issuer: cfg.Issuer, RevocationFeed: feedURL, Keys: a.ring, InsecurePlainHTTP: cfg.HTTP.TLSInFront || u.Scheme == "http", Logger: cfg.Logger,
	})
	if err != nil {
		return within("Config.Issuer", err)
	}
	a.wellKnown = map[string]http.Handler{
		u.Path + "/.well-known/jwks.json":                  jwks,
		u.Path + "/.well-known/openid-configuration":       discovery,
		"/.well-known/oauth-authorization-server" + u.Path: discovery,
	}
	if !cfg.servesFeed() {
		return nil
	}
	feed, err := newFeedHandler(cfg, a.feed)
	if err != nil {
		return within("the feed", err)
	}
	a.feedHandler = feed
	a.wellKnown[u.Path+feedPath] = feed
	return nil
}

// WellKnown returns the handler for the documents below the issuer's URL: the
// key set at /.well-known/jwks.json, and the discovery document at
// /.well-known/openid-configuration. For clients of RFC 8414 that document is
// also at /.well-known/oauth-authorization-server, which stands between the
// host and the path of the issuer. With Config.FeedTokens or FeedCheck, the
// feed of revocations is at /.well-known/session-revocations, and the discovery
// document names it. Mount the handler at "/.well-known/" and, if the issuer
// has a path, below that path too. It answers 404 to all other paths. See
// [sessiontoken.JWKSHandler] and [sessiontoken.DiscoveryHandler].
//
// A request for the feed may wait for up to 25 s: a proxy in front, and the
// WriteTimeout of the server, must allow for that. A replica serves 20,000 such
// requests at once.
//
// The handler answers requests over https, requests from this host and, with
// HTTP.TLSInFront, requests through a proxy.
func (a *Authority[T]) WellKnown() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, ok := a.wellKnown[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
