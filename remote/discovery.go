package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// discovery finds the URL of the key set in the document of an issuer (OpenID
// Connect Discovery 1.0 section 4).
type discovery struct {
	issuer string
	url    *url.URL // of the document
	plain  bool     // the key set may be http on a loopback host

	found   atomic.Pointer[foundURL] // from the last valid document, or nil
	failure atomic.Pointer[error]    // of the last reading; nil before the first
}

// foundURL is a jwks_uri with the start of the reading that returned it.
type foundURL struct {
	url   *url.URL
	began clock.Instant
}

// newDiscovery checks the URL of an issuer. The error does not repeat the URL.
func newDiscovery(issuer string, plain bool) (*discovery, error) {
	u, err := checkURL(issuer, plain)
	switch {
	case err != nil:
		return nil, err
	case u.RawQuery != "" || u.ForceQuery:
		return nil, errors.New("must not have a query")
	}
	document, err := url.Parse(strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration")
	if err != nil {
		return nil, errors.New("is not an absolute URL with a host")
	}
	// The jwks_uri of an https issuer must be https.
	return &discovery{issuer: issuer, url: document, plain: u.Scheme == "http"}, nil
}

// document is what a discovery document names.
type document struct {
	jwks *url.URL
	feed string // session_revocation_feed, which is not checked; empty: none
}

// read fetches the document.
func (d *discovery) read(ctx context.Context, c client, noCache bool) (*document, error) {
	body, _, err := c.get(ctx, d.url, request{accept: "application/json", noCache: noCache, maxBody: maxDiscoveryBody})
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	found, err := d.parse(body)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	return found, nil
}

// parse returns what a document names, if the document is the issuer's. Other
// members are ignored.
func (d *discovery) parse(body []byte) (*document, error) {
	var doc struct {
		Issuer  string         `json:"issuer"`
		JWKSURI string         `json:"jwks_uri"`
		Feed    jsontext.Value `json:"session_revocation_feed"`
	}
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if strictjson.TooDeep(body) || json.Unmarshal(body, &doc) != nil {
		return nil, errors.New("the document is malformed")
	}
	switch {
	case doc.Issuer == d.issuer:
	case strings.TrimSuffix(doc.Issuer, "/") == strings.TrimSuffix(d.issuer, "/"):
		return nil, fmt.Errorf("the document's issuer is %.100q, which differs from Config.Issuer by a slash at the end alone: Config.Issuer must be the iss of the tokens", doc.Issuer)
	default:
		return nil, fmt.Errorf("the document's issuer is %.100q, and not Config.Issuer", doc.Issuer)
	}
	if doc.JWKSURI == "" {
		return nil, errors.New("the document has no jwks_uri")
	}
	u, err := checkURL(doc.JWKSURI, d.plain)
	if err != nil {
		return nil, fmt.Errorf("the document's jwks_uri %w", err)
	}
	found := &document{jwks: u}
	if len(doc.Feed) > 0 && json.Unmarshal(doc.Feed, &found.feed) != nil {
		found.feed = "malformed" // the keys can be used all the same
	}
	return found, nil
}
