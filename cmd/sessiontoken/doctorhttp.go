package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

const (
	maxDocument = 1 << 20
	// maxClock is half of how far a clock may be from the store's (MaxSkew).
	maxClock = 30 * time.Second
	// tlsLeft is when a certificate should have been replaced.
	tlsLeft = 14 * 24 * time.Hour
	// longestMaxAge is when a max-age is too long for any plan by default.
	longestMaxAge = 24 * time.Hour
	// longestShared is how long a shared cache may keep the key set.
	longestShared = time.Minute
)

// fetched is an answer of the issuer.
type fetched struct {
	status int
	header http.Header
	body   []byte
	tls    *tls.ConnectionState
	sent   time.Time
	got    time.Time
}

func fetch(ctx context.Context, client *http.Client, at string) (*fetched, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	f := &fetched{sent: time.Now()}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	f.got, f.status, f.header, f.tls = time.Now(), resp.StatusCode, resp.Header, resp.TLS
	f.body, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	return f, err
}

// isJSON reports whether the answer says that it is JSON.
func (f *fetched) isJSON() bool {
	kind, _, err := mime.ParseMediaType(f.header.Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// seconds returns a directive of Cache-Control, and reports whether it is there.
func (f *fetched) seconds(directive string) (time.Duration, bool) {
	for _, part := range strings.Split(strings.Join(f.header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(name, directive) {
			n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
			return time.Duration(n) * time.Second, err == nil && n >= 0
		}
	}
	return 0, false
}

func (f *fetched) directive(name string) bool {
	for _, part := range strings.Split(strings.Join(f.header.Values("Cache-Control"), ","), ",") {
		if strings.EqualFold(strings.TrimSpace(part), name) {
			return true
		}
	}
	return false
}

// discovery is the part of the document that verifiers need.
type discovery struct {
	Issuer  string   `json:"issuer"`
	JWKSURI string   `json:"jwks_uri"`
	Feed    string   `json:"session_revocation_feed"`
	Algs    []string `json:"id_token_signing_alg_values_supported"`
}

// checkIssuer checks what the issuer publishes. ring is the state of the ring in
// the store, or nil if that is not known.
func checkIssuer(ctx context.Context, client *http.Client, issuer string, ring *keys.Status, u *checkup) {
	base, err := url.Parse(issuer)
	if err != nil || base.Host == "" {
		u.found("discovery", "set the issuer to an https URL, the same in the program and in every verifier", "the issuer is not a URL with a host, so that no verifier finds its keys by discovery")
		return
	}
	if base.Scheme != "https" {
		u.found("tls", "serve the issuer by https, and set its URL to https", "the issuer is not an https URL: who is on the way can replace the keys")
	}
	paths, err := sessiontoken.DiscoveryPaths(issuer)
	if err != nil {
		u.found("discovery", "set the issuer to an https URL, the same in the program and in every verifier", "the issuer has no discovery paths: %v", err)
		return
	}
	var doc *discovery
	for i, path := range paths {
		at := base.Scheme + "://" + base.Host + strings.TrimPrefix(path, "GET ")
		found := checkDiscovery(ctx, client, at, issuer, i == 0, u)
		if i == 0 {
			doc = found
		}
	}
	if doc == nil {
		return
	}
	if doc.Feed != "" {
		checkFeed(doc.Feed, base, u)
	}
	checkJWKS(ctx, client, doc.JWKSURI, ring, u)
}

// checkDiscovery checks the document at one path, and returns it if its key set
// can be looked at.
func checkDiscovery(ctx context.Context, client *http.Client, at, issuer string, first bool, u *checkup) *discovery {
	f, err := fetch(ctx, client, at)
	if err != nil {
		if !first && u.has("tls") {
			return nil
		}
		checkTransport(err, u)
		return nil
	}
	if first {
		checkTLS(f.tls, time.Now(), u)
		checkDate(f, u)
	}
	const serve = "serve the document at both of DiscoveryPaths, as WellKnown of an authority does, and let each proxy in front pass them on"
	var doc discovery
	switch {
	case f.status != http.StatusOK:
		u.found("discovery", serve, "%s answers %d", at, f.status)
		return nil
	case len(f.body) > maxDocument || json.Unmarshal(f.body, &doc) != nil:
		u.found("discovery", serve+"; look at what answers there instead", "what %s answers is not a discovery document", at)
		return nil
	case doc.Issuer != issuer:
		u.found("discovery", "make Config.Issuer, the iss of the tokens and what each verifier expects the same, byte for byte: a slash at the end is another issuer", "%s names the issuer %s, and %s was expected", at, shown(doc.Issuer), shown(issuer))
	case doc.JWKSURI == "":
		u.found("discovery", "set DiscoveryConfig.JWKSURI", "%s has no jwks_uri", at)
		return nil
	case !strings.HasPrefix(doc.JWKSURI, "https://"):
		u.found("discovery", "set DiscoveryConfig.JWKSURI to an https URL", "jwks_uri in %s is not https: who is on the way can replace the keys", at)
	case !f.isJSON():
		u.found("discovery", "let no proxy change the Content-Type, which is application/json", "%s is sent as %s, which some verifiers refuse", at, shown(f.header.Get("Content-Type")))
	default:
		u.ok("discovery", "%s names the issuer and its key set", at)
	}
	if doc.JWKSURI == "" {
		return nil
	}
	return &doc
}

func checkFeed(feed string, base *url.URL, u *checkup) {
	f, err := url.Parse(feed)
	if err != nil || f.Scheme != base.Scheme || f.Host != base.Host {
		u.found("feed", "serve the feed at the host and port of the issuer", "the feed of revocations has another origin than the issuer: readers do not send their credential there, and refuse every session after 30 s")
		return
	}
	u.ok("feed", "it has the origin of the issuer")
}

// checkTransport names what is wrong with a connection.
func checkTransport(err error, u *checkup) {
	var (
		invalid  x509.CertificateInvalidError
		host     x509.HostnameError
		unknown  x509.UnknownAuthorityError
		verify   *tls.CertificateVerificationError
		alert    tls.AlertError
		record   tls.RecordHeaderError
		plain    = errors.As(err, &record)
		cause    = rootOf(err)
		renewCmd = "renew the certificate, install it with its chain, and let the server load it"
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		u.found("tls", renewCmd+"; if it is not expired, set the clock of this machine", "the certificate of the issuer is expired or not valid yet: verifiers fetch no keys")
	case errors.As(err, &host):
		u.found("tls", "install a certificate for the host of the issuer", "the certificate is for another host: verifiers fetch no keys")
	case errors.As(err, &unknown):
		u.found("tls", "install the certificate with its chain; for a private authority name its file in --ca here, and in the trust of each verifier", "the certificate is signed by an authority that is not trusted here")
	case errors.As(err, &verify), errors.As(err, &alert), plain:
		u.found("tls", "let the issuer's server speak TLS 1.2 or 1.3 with a certificate for its host", "no TLS connection is made: %v", cause)
	default:
		u.found("discovery", "check that the issuer's server runs, its name in DNS, and the way to it", "the issuer cannot be reached: %v", cause)
	}
}

func rootOf(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// checkTLS checks how long the certificate is valid.
func checkTLS(state *tls.ConnectionState, now time.Time, u *checkup) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return
	}
	cert := state.PeerCertificates[0]
	least := min(tlsLeft, cert.NotAfter.Sub(cert.NotBefore)/3)
	if cert.NotAfter.Sub(now) < least {
		u.found("tls", "renew the certificate, and look at why it was not renewed by itself", "the certificate of the issuer ends %s: after that verifiers fetch no keys", relative(cert.NotAfter, now))
		return
	}
	u.ok("tls", "the certificate ends %s", relative(cert.NotAfter, now))
}

// checkDate compares the clock of the issuer's server with this machine's.
func checkDate(f *fetched, u *checkup) {
	date, err := http.ParseTime(f.header.Get("Date"))
	if err != nil {
		return
	}
	// Date is in whole seconds, of any moment between sent and got.
	switch early, late := f.sent.Sub(date.Add(time.Second)), date.Sub(f.got); {
	case early > maxClock:
		u.found("clock", "run NTP on both, and set the clock that is off", "the clock of the issuer's server is %s behind this machine's", spoken(early))
	case late > maxClock:
		u.found("clock", "run NTP on both, and set the clock that is off", "the clock of the issuer's server is %s ahead of this machine's", spoken(late))
	default:
		u.ok("clock", "that of the issuer's server agrees with this machine's")
	}
}

// checkJWKS checks the key set and how it is sent.
func checkJWKS(ctx context.Context, client *http.Client, at string, ring *keys.Status, u *checkup) {
	f, err := fetch(ctx, client, at)
	if err != nil {
		u.found("jwks", "check that jwks_uri can be reached from where the verifiers are", "the key set at %s cannot be fetched: %v", shown(at), rootOf(err))
		return
	}
	if f.status != http.StatusOK {
		u.found("jwks", "503 means that the issuer has no key to publish: look at 'sessiontoken keys status' and at its store; otherwise let the proxy in front pass the path on", "%s answers %d", shown(at), f.status)
		return
	}
	before := len(u.all)
	if !f.isJSON() {
		u.found("jwks", "let no proxy change the Content-Type, which is application/jwk-set+json", "the key set is sent as %s, which some verifiers refuse", shown(f.header.Get("Content-Type")))
	}
	checkCaching(f, u)
	set, err := keys.ParseSet(f.body)
	switch {
	case len(f.body) > maxDocument:
		u.found("jwks", "publish fewer keys", "the key set has more than %d bytes", maxDocument)
		return
	case err != nil && holdsPrivate(f.body):
		u.found("jwks", "publish the public halves alone, with JWKSHandler; revoke these keys with 'sessiontoken keys revoke', since they are known now", "the key set holds a private or secret key")
		return
	case err != nil:
		u.found("jwks", "serve the key set with JWKSHandler, and look at what answers there instead", "the key set cannot be used: %v", err)
		return
	case len(set.Skipped()) > 0:
		u.found("jwks", "publish keys of this library alone, or give the others a kid of their own, alg and use", "verifiers of this library skip %d keys of the set, such as: %s", len(set.Skipped()), set.Skipped()[0])
	}
	checkPublished(set, ring, u)
	if len(u.all) == before {
		u.ok("jwks", "%d keys, with Cache-Control %s", len(set.Keys()), shown(f.header.Get("Cache-Control")))
	}
}

func checkCaching(f *fetched, u *checkup) {
	const pass = "serve it with JWKSHandler, and let each proxy in front pass Cache-Control on and obey it"
	maxAge, hasMaxAge := f.seconds("max-age")
	shared, hasShared := f.seconds("s-maxage")
	age, _ := strconv.ParseInt(f.header.Get("Age"), 10, 32)
	switch {
	case f.directive("no-store") || f.directive("private"):
		u.found("jwks", pass, "Cache-Control is %s: every verifier fetches the key set for each token", shown(f.header.Get("Cache-Control")))
	case !hasMaxAge:
		u.found("jwks", pass, "the key set has no max-age: each verifier keeps it for as long as it likes")
	case maxAge > longestMaxAge:
		u.found("jwks", "lower JWKSConfig.MaxAge; the default is 10 min", "max-age is %s: a revoked key lives for that long in verifiers that obey it", spoken(maxAge))
	case !hasShared && maxAge > longestShared || hasShared && shared > longestShared:
		u.found("jwks", pass, "a shared cache may keep the key set for %s: a revoked key lives for that long behind it, and a new key is not seen", spoken(max(shared, pickDuration(hasShared, 0, maxAge))))
	}
	if limit := max(shared, longestShared); age > int64(limit/time.Second) {
		u.found("jwks", "let the cache in front obey Cache-Control: its own times (nginx proxy_cache_valid, a CDN's least TTL) must not apply here", "a cache in front has sent a key set that is %s old", spoken(time.Duration(age)*time.Second))
	}
}

func pickDuration(is bool, yes, no time.Duration) time.Duration {
	if is {
		return yes
	}
	return no
}

// holdsPrivate reports whether a JWK set has a member of a private or secret
// key.
func holdsPrivate(data []byte) bool {
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &set) != nil {
		return false
	}
	return slices.ContainsFunc(set.Keys, func(k map[string]json.RawMessage) bool { return k["d"] != nil || k["k"] != nil || k["p"] != nil })
}

// checkPublished compares the key set with the ring in the store.
func checkPublished(set *keys.Set, ring *keys.Status, u *checkup) {
	if ring == nil {
		return
	}
	known := map[string]bool{}
	var missing []string
	for _, k := range ring.Keys {
		known[k.KeyID] = true
		if _, ok := set.Key(k.KeyID); !ok && (k.Phase == "current" || k.Phase == "next" && time.Since(k.Published) > 2*time.Minute) {
			missing = append(missing, k.Phase+" "+shown(k.KeyID))
		}
	}
	if len(missing) > 0 {
		u.found("lag", "check that the issuer's replicas reach the store (their logs name ring_read), that --store is theirs, and that no cache in front keeps an old set", "the key set lacks keys of the ring: %s", strings.Join(missing, ", "))
	}
	for _, k := range set.Keys() {
		if !known[k.KeyID()] {
			u.found("lag", "if the key was revoked, look for a cache in front that keeps an old set, and for replicas that do not reach the store; otherwise check that --store and --namespace are those of this issuer", "the key set has the key %s, which the ring in the store has not, or no longer", shown(k.KeyID()))
		}
	}
}
