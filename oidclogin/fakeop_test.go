package oidclogin_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

const (
	opURL    = "https://op.example"
	siteURL  = "https://site.example"
	clientID = "our-client"
	secret   = "the client's secret, with : and %"
)

// fakeOP is an OpenID provider that a test can make misbehave. It needs no
// network: see client. Its fields are set before a request, or under mu.
type fakeOP struct {
	t   *testing.T
	mux *http.ServeMux

	mu       sync.Mutex
	requests map[string]int // by path
	key      *ecdsa.PrivateKey
	keyID    string
	forger   *ecdsa.PrivateKey         // signs in place of key, with its kid
	set      func(jose.JSONWebKey) any // replaces the keys that it publishes
	codes    map[string]grant
	used     map[string]bool // client assertions
	tokens   []string        // all ID tokens, access tokens and codes that it made
	logouts  []url.Values    // requests to the end_session_endpoint
	asked    url.Values      // the last authorization request
	sessions int

	down      map[string]bool           // paths that answer 500
	ahead     time.Duration             // of its clock
	iss       string                    // in the answer; "-" means none
	session   string                    // sid of its session with the browser
	authTime  time.Time                 // of that session; zero: none yet
	acr       string                    // of the next ID token
	ignores   bool                      // max_age
	failure   string                    // the error that it answers with
	metadata  func(map[string]any)      // changes the metadata
	claims    func(map[string]any)      // changes the ID token
	onToken   func()                    // runs during a request to the token endpoint
	clientKey crypto.PublicKey          // of private_key_jwt
	answer    func(http.ResponseWriter) // replaces the answer of the token endpoint
}

// grant is what a code stands for.
type grant struct {
	redirectURI, challenge, nonce, sid, acr string
	authTime                                time.Time
	issued                                  time.Time
}

func newOP(t *testing.T) *fakeOP {
	p := &fakeOP{t: t, mux: http.NewServeMux(), requests: map[string]int{}, codes: map[string]grant{}, used: map[string]bool{}, down: map[string]bool{}, iss: opURL}
	p.rotate()
	p.mux.HandleFunc("GET /.well-known/openid-configuration", p.serveMetadata)
	p.mux.HandleFunc("GET /jwks", p.serveKeys)
	p.mux.HandleFunc("GET /authorize", p.authorize)
	p.mux.HandleFunc("POST /token", p.token)
	p.mux.HandleFunc("GET /end", p.end)
	return p
}

func (p *fakeOP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests[r.URL.Path]++
	down := p.down[r.URL.Path] || p.down["*"]
	p.mu.Unlock()
	if down {
		http.Error(w, "down", http.StatusInternalServerError)
		return
	}
	p.mux.ServeHTTP(w, r)
}

// client returns a client whose requests the provider answers without a network.
func (p *fakeOP) client() *http.Client { return &http.Client{Transport: handlerTransport{p}} }

// handlerTransport answers requests with a handler.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := httptest.NewRequest(r.Method, r.URL.String(), r.Body)
	in.Header = r.Header.Clone()
	out := httptest.NewRecorder()
	h.ServeHTTP(out, in)
	resp := out.Result()
	resp.Request = r
	return resp, nil
}

func (p *fakeOP) count(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[path]
}

func (p *fakeOP) setDown(path string, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[path] = down
}

func (p *fakeOP) now() time.Time { return time.Now().Add(p.ahead) }

// rotate replaces the key. The old one is no longer published.
func (p *fakeOP) rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(p.t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.keyID = key, rand.Text()
}

func (p *fakeOP) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	m := map[string]any{
		"issuer": opURL, "authorization_endpoint": opURL + "/authorize", "token_endpoint": opURL + "/token",
		"jwks_uri": opURL + "/jwks", "end_session_endpoint": opURL + "/end",
		"id_token_signing_alg_values_supported":          []string{"ES256", "HS256"},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post", "private_key_jwt"},
		"authorization_response_iss_parameter_supported": true,
		"backchannel_logout_supported":                   true,
		"something_else":                                 map[string]any{"x": 1},
	}
	if p.metadata != nil {
		p.metadata(m)
	}
	writeJSON(w, m)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (p *fakeOP) serveKeys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var set any = []any{map[string]any{"kty": "quantum", "kid": "unknown"}, p.published()}
	if p.set != nil {
		set = p.set(p.published())
	}
	writeJSON(w, map[string]any{"keys": set})
}

// authorize signs the browser in without a question, and sends it back.
func (p *fakeOP) authorize(w http.ResponseWriter, r *http.Request) {
	time.Sleep(5 * time.Millisecond) // the user's browser and the provider take a while
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	p.asked = q
	maxAge, err := strconv.Atoi(q.Get("max_age"))
	stale := err == nil && p.now().Sub(p.authTime) > time.Duration(maxAge)*time.Second
	if p.session == "" || stale && !p.ignores || q.Get("prompt") == "login" {
		if p.session == "" {
			p.sessions++
			p.session = fmt.Sprintf("op-session-%d", p.sessions)
		}
		p.authTime = p.now()
	}
	back := url.Values{"state": {q.Get("state")}}
	if p.iss != "-" {
		back.Set("iss", p.iss)
	}
	if p.failure != "" {
		back.Set("error", p.failure)
		back.Set("error_description", "why")
	} else {
		code := "code-" + rand.Text()
		p.tokens = append(p.tokens, code)
		p.codes[code] = grant{
			redirectURI: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), nonce: q.Get("nonce"),
			sid: p.session, acr: p.acr, authTime: p.authTime, issued: p.now(),
		}
		back.Set("code", code)
	}
	if q.Get("response_mode") == "form_post" {
		var fields strings.Builder
		for name := range back {
			fmt.Fprintf(&fields, "<input name=\"%s\" value=\"%s\">", name, back.Get(name))
		}
		fmt.Fprintf(w, "<form method=post action=\"%s\">%s</form>", q.Get("redirect_uri"), fields.String())
		return
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (p *fakeOP) token(w http.ResponseWriter, r *http.Request) {
	if p.onToken != nil {
		p.onToken()
	}
	if p.answer != nil {
		p.answer(w)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fail := func(status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"error":"`+code+`","error_description":"says `+r.PostFormValue("code")+`"}`)
	}
	if err := p.authenticate(r); err != nil {
		fail(http.StatusUnauthorized, "invalid_client")
		return
	}
	g, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || p.now().Sub(g.issued) > time.Minute || g.redirectURI != r.PostFormValue("redirect_uri") ||
		g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		fail(http.StatusBadRequest, "invalid_grant")
		return
	}
	access := "access-" + rand.Text()
	half := sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": opURL, "sub": "subject-1", "aud": clientID, "sid": g.sid, "nonce": g.nonce,
		"iat": p.now().Unix(), "exp": p.now().Add(5 * time.Minute).Unix(), "auth_time": g.authTime.Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(half[:16]), "email": "ada@example.com",
	}
	if g.acr != "" {
		claims["acr"] = g.acr
	}
	if p.claims != nil {
		p.claims(claims)
	}
	id := p.sign(claims)
	p.tokens = append(p.tokens, access, id)
	writeJSON(w, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": id})
}

// published returns the key as the provider publishes it. mu is held.
func (p *fakeOP) published() jose.JSONWebKey {
	return jose.JSONWebKey{Key: p.key.Public(), KeyID: p.keyID, Algorithm: "ES256", Use: "sig"}
}

// sign returns an ID token. mu is held.
func (p *fakeOP) sign(claims map[string]any) string {
	key := p.key
	if p.forger != nil {
		key = p.forger
	}
	return signAs(p.t, "JWT", p.keyID, key, claims)
}

func signAs(t *testing.T, typ, keyID string, key *ecdsa.PrivateKey, claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: keyID}}, new(jose.SignerOptions).WithType(jose.ContentType(typ)))
	require.NoError(t, err)
	body, err := json.Marshal(claims)
	require.NoError(t, err)
	signed, err := signer.Sign(body)
	require.NoError(t, err)
	token, err := signed.CompactSerialize()
	require.NoError(t, err)
	return token
}

// authenticate checks who sends a code. mu is held.
func (p *fakeOP) authenticate(r *http.Request) error {
	if p.clientKey == nil {
		id, pass, ok := r.BasicAuth()
		id, err1 := url.QueryUnescape(id)
		pass, err2 := url.QueryUnescape(pass)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if !ok {
			id, pass = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
		}
		if id != clientID || pass != secret {
			return errors.New("not the client")
		}
		return nil
	}
	raw := r.PostFormValue("client_assertion")
	token, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return err
	}
	body, err := token.Verify(p.clientKey)
	if err != nil {
		return err
	}
	var c struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
		ID       string `json:"jti"`
		Expires  int64  `json:"exp"`
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	left := time.Unix(c.Expires, 0).Sub(p.now())
	if c.Issuer != clientID || c.Subject != clientID || c.Audience != opURL || c.ID == "" || p.used[c.ID] || left <= 0 || left > 2*time.Minute ||
		r.PostFormValue("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || r.PostFormValue("client_secret") != "" {
		return errors.New("not an assertion for this provider")
	}
	p.used[c.ID] = true
	return nil
}

// end ends the provider's session and sends the browser back.
func (p *fakeOP) end(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	p.logouts = append(p.logouts, maps.Clone(q))
	p.session = ""
	http.Redirect(w, r, q.Get("post_logout_redirect_uri")+"?state="+url.QueryEscape(q.Get("state")), http.StatusFound)
}

// secrets returns all that no log line may hold.
func (p *fakeOP) secrets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{secret, url.QueryEscape(secret)}, p.tokens...)
}

// lockedBuffer takes the lines of a logger.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
