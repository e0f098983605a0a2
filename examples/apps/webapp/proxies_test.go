package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// frontTTL is so long that the end of a token is not taken for a sign-out, which
// the list of another replica has within a second.
const frontTTL = 16 * time.Second

// front is a proxy with two replicas of the site behind it.
type front struct {
	url, addr string // of the proxy
	cert      *x509.Certificate
	pem       string // the file with the certificate and its key

	mu       sync.Mutex
	requests []request
}

// request is one that has reached a replica.
type request struct {
	replica, what string
	began, ended  time.Time // ended is zero while it is being answered
}

// proxy is a program that can stand in front.
type proxy struct {
	name, file string
	hits       []string // paths that its cache stores
	start      func(t *testing.T, f *front, file string)
}

var proxies = []proxy{
	{"nginx", "nginx.conf", []string{"/kept", "/.well-known/jwks.json"}, startNginx},
	{"HAProxy", "haproxy.cfg", []string{"/.well-known/jwks.json"}, startHAProxy},
	{"Caddy", "Caddyfile", nil, startCaddy},
}

// TestProxies has a browser use the site through each proxy, with the file that
// the project shows.
func TestProxies(t *testing.T) {
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, p, nil)
			ctx := neighbour(t)

			// The sign-in's cookies arrive.
			signIn(t, ctx, f.url, "ada")
			becomes(t, ctx, "#subject", "ada")
			becomes(t, ctx, "#live", "Live")
			set := cookies(t, ctx, f.url+"/session/")
			require.Len(t, set, 3, "session, refresh token and binder")
			for _, c := range set {
				require.True(t, c.HTTPOnly && c.Secure, c.Name)
			}
			session, first := text(t, ctx, "#session"), cookie(t, ctx, f.url, "__Host-session").Value
			grace := f.client(t)
			f.signIn(t, grace, "grace")
			f.testOrigins(t, grace)
			f.testCache(t, ctx, grace, p.hits)

			// The token is renewed while its user writes. The session stays.
			for deadline := time.Now().Add(2 * time.Minute); cookie(t, ctx, f.url, "__Host-session").Value == first; time.Sleep(200 * time.Millisecond) {
				require.Less(t, time.Now(), deadline, "the token was not renewed")
				do(t, ctx, chromedp.SendKeys("#note", "A"))
			}
			becomes(t, ctx, "#session", session)
			becomes(t, ctx, "#live", "Live")

			// An event reaches the page while its stream stays open.
			admin := f.client(t)
			f.signIn(t, admin, "margaret")
			stream := f.stream(t)
			code, _, _ := f.ask(t, admin, "POST", "/people/roles", url.Values{"user": {"ada"}, "role": {"reader"}}, nil)
			require.Equal(t, http.StatusSeeOther, code)
			becomes(t, ctx, "#roles", "reader")
			becomes(t, ctx, "#changed", "Your roles have changed.")
			becomes(t, ctx, "#session", session)
			require.Zero(t, f.log()[stream].ended, "the stream has ended")
			for _, replica := range []string{"A", "B"} {
				require.True(t, slices.ContainsFunc(f.log(), func(r request) bool { return r.replica == replica }), "no request has reached %s", replica)
			}

			f.testSignOut(t, ctx)
			require.Empty(t, cookies(t, ctx, f.url+"/session/"))
			require.Equal(t, 401, status(t, ctx, "GET", "/api/me"))
			require.Equal(t, "grace", f.who(t, grace, "/api/me"))
		})
	}
}

// testOrigins asks as browsers do that send no Sec-Fetch-Site, whose Origin is
// compared with Host, and as pages of other sites make a browser ask.
func (f *front) testOrigins(t *testing.T, c *http.Client) {
	t.Helper()
	note := func(header http.Header) int {
		code, _, _ := f.ask(t, c, "POST", "/note", url.Values{"note": {"x"}}, header)
		return code
	}
	require.Equal(t, http.StatusSeeOther, note(nil))
	require.Equal(t, http.StatusForbidden, note(http.Header{"Origin": {"https://evil.a.example"}}))
	require.Equal(t, http.StatusForbidden, note(http.Header{"Sec-Fetch-Site": {"same-site"}}))
	// A client's own X-Forwarded-Host and Forwarded change nothing.
	require.Equal(t, http.StatusForbidden, note(http.Header{
		"Origin": {"https://evil.a.example"}, "X-Forwarded-Host": {"evil.a.example"}, "Forwarded": {"host=evil.a.example"},
	}))
	code, _, _ := f.ask(t, c, "GET", "/", nil, linkFromElsewhere)
	require.Equal(t, http.StatusOK, code, "a link from another site opens a page")
}

var linkFromElsewhere = http.Header{"Origin": nil, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}

// testCache holds that each user gets their own answer, and a client without a
// session none, also of paths that the proxy's cache has stored.
func (f *front) testCache(t *testing.T, ctx context.Context, grace *http.Client, hits []string) {
	t.Helper()
	ada, none := f.client(t), f.client(t)
	at, err := url.Parse(f.url)
	require.NoError(t, err)
	for _, c := range cookies(t, ctx, f.url) {
		ada.Jar.SetCookies(at, []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/", Secure: true}})
	}
	isHit := func(path string) bool {
		_, header, _ := f.ask(t, ada, "GET", path, nil, nil)
		return header.Get("X-Cache-Status") == "HIT"
	}
	for _, path := range hits {
		require.Eventually(t, func() bool { return isHit(path) }, time.Minute, time.Millisecond, "the cache does not store %s", path)
	}
	for range 4 { // each replica, and what the answer before has left in the cache
		for _, path := range []string{"/kept", "/api/me"} {
			require.Equal(t, "ada", f.who(t, ada, path))
			require.Equal(t, "grace", f.who(t, grace, path))
			require.Empty(t, f.who(t, none, path))
			require.Equal(t, slices.Contains(hits, path), isHit(path), path)
		}
	}
}

// testSignOut signs out on one replica while the page's stream is on the other.
// The proxy chooses: it is tried until it does so.
func (f *front) testSignOut(t *testing.T, ctx context.Context) {
	t.Helper()
	other := tab(t, ctx)
	do(t, other, chromedp.Navigate(f.url+"/style.css")) // has no stream
	for range 20 {
		becomes(t, ctx, "#live", "Live")
		stream := f.stream(t)
		there := f.log()[stream].replica
		// The next request after one on the stream's replica is the other's.
		require.Eventually(t, func() bool {
			var replica string
			do(t, other, chromedp.Evaluate(`fetch("/api/me").then((r) => r.json()).then((me) => me.replica)`, &replica, awaited))
			return replica == there
		}, time.Minute, time.Millisecond)
		before := len(f.log())
		require.Zero(t, status(t, other, "POST", "/session/sign-out"), "a redirect")
		holds(t, ctx, `ended && !el("gone").hidden && document.querySelector("main").hidden`)
		all := f.log()
		out := before + slices.IndexFunc(all[before:], func(r request) bool { return r.what == "POST /session/sign-out" })
		require.GreaterOrEqual(t, out, before)
		require.Eventually(t, func() bool { return !f.log()[stream].ended.IsZero() }, time.Minute, 20*time.Millisecond)
		took := f.log()[stream].ended.Sub(all[out].began)
		require.Less(t, took, frontTTL/2-2*time.Second, "the list ends the stream within a second or so, and a renewal after half of the token's life")
		if all[out].replica != there {
			t.Logf("signed out on the other replica: the stream ended after %v", took)
			return
		}
		signIn(t, ctx, f.url, "ada")
	}
	require.Fail(t, "each sign-out was on the stream's own replica")
}

// stream waits until a single stream is open, and returns its number in the log.
func (f *front) stream(t *testing.T) int {
	t.Helper()
	var open []int
	require.Eventually(t, func() bool {
		open = nil
		for n, r := range f.log() {
			if r.what == "GET /live" && r.ended.IsZero() {
				open = append(open, n)
			}
		}
		return len(open) == 1
	}, time.Minute, 20*time.Millisecond, "%v", open)
	return open[0]
}

// The lines of nginx.conf without which nginx does not fit in front.
func TestProxyMistakes(t *testing.T) {
	for _, tt := range []struct {
		name, line, instead string
		header              http.Header // of a request that works with the line
		method, path        string
	}{
		{"Host is that of the upstream", "proxy_set_header Host $http_host;", "", nil, "POST", "/note"},
		{"every connection is upgraded", `""      "";`, `""      upgrade;`, linkFromElsewhere, "GET", "/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, proxies[0], func(file string) string {
				require.Contains(t, file, tt.line)
				return strings.Replace(file, tt.line, tt.instead, 1)
			})
			c := f.client(t)
			// A browser of today signs in all the same.
			code, _, _ := f.ask(t, c, "POST", "/sign-in", url.Values{"user": {"ada"}, "password": {"demo"}}, http.Header{"Sec-Fetch-Site": {"same-origin"}})
			require.Equal(t, http.StatusSeeOther, code)
			code, _, _ = f.ask(t, c, tt.method, tt.path, url.Values{}, tt.header)
			require.Equal(t, http.StatusForbidden, code)
		})
	}
}

// newFront starts two replicas and the proxy, with its file as change has
// changed it.
func newFront(t *testing.T, p proxy, change func(file string) string) *front {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	dir := t.TempDir()
	f := &front{addr: freeAddr(t), pem: filepath.Join(dir, "app.pem")}
	_, port, err := net.SplitHostPort(f.addr)
	require.NoError(t, err)
	f.url = "https://app.a.example:" + port
	f.writeCertificate(t)
	shared, err := newShared(ctx, f.url, "sqlite:"+filepath.Join(dir, "webapp.db"), filepath.Join(dir, "secret"))
	require.NoError(t, err)
	t.Cleanup(shared.close)

	raw, err := os.ReadFile(filepath.Join("proxies", p.file))
	require.NoError(t, err)
	file := string(raw)
	for name, placeholder := range map[string]string{"A": "127.0.0.1:9001", "B": "127.0.0.1:9002"} {
		r, err := newReplica(ctx, name, shared, frontTTL)
		require.NoError(t, err)
		mux := http.NewServeMux()
		mux.Handle("/", r.routes())
		// A handler that lets every cache store its answer.
		mux.Handle("GET /kept", r.sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			c, _ := r.sessions.FromContext(req.Context())
			w.Header().Set("Cache-Control", "public, max-age=600")
			_ = json.NewEncoder(w).Encode(map[string]string{"subject": c.Subject})
		})))
		at, err := serve(ctx, "127.0.0.1:0", f.watch(name, mux))
		require.NoError(t, err)
		require.Contains(t, file, placeholder)
		file = strings.ReplaceAll(file, placeholder, at.Host)
	}
	if change != nil {
		file = change(file)
	}
	p.start(t, f, file)
	client := f.client(t)
	require.Eventually(t, func() bool {
		resp, err := client.Get(f.url + "/ready")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, time.Minute, 50*time.Millisecond, "no answer through %s", p.name)
	return f
}

// watch keeps a log of the requests that reach a replica.
func (f *front) watch(replica string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		n := len(f.requests)
		f.requests = append(f.requests, request{replica: replica, what: r.Method + " " + r.URL.Path, began: time.Now()})
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.requests[n].ended = time.Now()
		}()
		next.ServeHTTP(w, r)
	})
}

func (f *front) log() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// client is a browser without Sec-Fetch-Site.
func (f *front) client(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(f.cert)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, f.addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask sends a request with the origin of the site, unless header has another.
func (f *front) ask(t *testing.T, c *http.Client, method, path string, form url.Values, header http.Header) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", f.url)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, string(body)
}

func (f *front) signIn(t *testing.T, c *http.Client, user string) {
	t.Helper()
	code, _, _ := f.ask(t, c, "POST", "/sign-in", url.Values{"user": {user}, "password": {"demo"}}, nil)
	require.Equal(t, http.StatusSeeOther, code)
}

// who is the user whom an answer is for; empty if it is for none.
func (f *front) who(t *testing.T, c *http.Client, path string) string {
	t.Helper()
	code, _, body := f.ask(t, c, "GET", path, nil, nil)
	if code == http.StatusUnauthorized {
		require.NotContains(t, body, "subject")
		return ""
	}
	require.Equal(t, http.StatusOK, code)
	var answer struct{ Subject string }
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	return answer.Subject
}

// writeCertificate makes the certificate of the site.
func (f *front) writeCertificate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	f.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"app.a.example"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, f.cert, f.cert, &key.PublicKey, key)
	require.NoError(t, err)
	f.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	require.NoError(t, os.WriteFile(f.pem, both, 0o600))
}

// inTest returns a file with the values of the test. It fails if the file lacks
// one of those that they replace.
func inTest(t *testing.T, file string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		require.Contains(t, file, oldnew[i])
	}
	return strings.NewReplacer(oldnew...).Replace(file)
}

func startNginx(t *testing.T, f *front, file string) {
	bin, dir := tool(t, "nginx"), t.TempDir()
	file = inTest(t, file, "listen 443", "listen "+f.addr, "/etc/ssl/private/app.example.pem", f.pem, "server_name app.example", "server_name app.a.example", "/var/cache/nginx", dir+"/cache")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // who may write to the folder
	}
	writeFile(t, filepath.Join(dir, "site.conf"), file)
	writeFile(t, filepath.Join(dir, "nginx.conf"), user+fmt.Sprintf(`
daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr crit;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	include %[1]s/site.conf;
}
`, dir))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "cache"), 0o700))
	startProxy(t, exec.Command(bin, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", filepath.Join(dir, "nginx.conf")))
}

func startHAProxy(t *testing.T, f *front, file string) {
	bin, path := tool(t, "haproxy"), filepath.Join(t.TempDir(), "haproxy.cfg")
	writeFile(t, path, inTest(t, file, "bind :443", "bind "+f.addr, "/etc/ssl/private/app.example.pem", f.pem))
	startProxy(t, exec.Command(bin, "-db", "-q", "-f", path))
}

func startCaddy(t *testing.T, f *front, file string) {
	bin := os.Getenv("SESSIONTOKEN_CADDY")
	if bin == "" {
		var err error
		if bin, err = exec.LookPath("caddy"); err != nil {
			t.Skip("NOT RUN: Caddy cannot be had")
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "Caddyfile")
	site := fmt.Sprintf("%s {\n\tbind 127.0.0.1\n\ttls %[2]s %[2]s\n", f.url, f.pem)
	writeFile(t, path, "{\n\tadmin off\n\tpersist_config off\n\tauto_https disable_redirects\n\tlog {\n\t\tlevel ERROR\n\t}\n}\n"+
		inTest(t, file, "app.example {\n", site))
	cmd := exec.Command(bin, "run", "--config", path, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	startProxy(t, cmd)
}

// tool returns the path of a program. It skips the test where there is none, but
// in CI.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if bin, err := exec.LookPath(path); err == nil {
			return bin
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("NOT RUN: %s is not installed", name)
	return ""
}

// startProxy starts a program, which ends with the test, as do those that it
// starts.
func startProxy(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
	})
}

// freeAddr returns an address on which nothing listens. Its port is below those
// that systems give to outgoing connections, so that none takes it meanwhile.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12000+mathrand.N(20000)))
		if err == nil {
			require.NoError(t, l.Close())
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}
