//go:build unix

package gate_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

const feedToken = "0123456789abcdefghijklmnopqrstuvwxyzABCD"

var secret = []byte("a secret of the tests of the gate, of 32 bytes and more")

// folder has the command while the tests run.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "sessiontoken-gate-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// buildCommand builds the command once.
var buildCommand = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(folder, "sessiontoken")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Dir = filepath.Join("..", "..", "cmd", "sessiontoken")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return bin, nil
})

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

// taken are the ports that the tests have given out.
var taken sync.Map

func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := l.Addr().String()
		require.NoError(t, l.Close())
		if _, again := taken.LoadOrStore(addr, true); !again {
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// process is a program of the test, which ends with it.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	if cmd.Stderr == nil {
		cmd.Stderr = t.Output()
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { defer close(p.done); _ = cmd.Wait() }()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process and those that it has started, at once.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// answers waits until an address accepts connections.
func answers(t *testing.T, addr string) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, time.Minute, 20*time.Millisecond, addr)
}

type state struct {
	Role   string `json:"role"`
	Secret string `json:"secret"`
}

// site is an authority in this process, which can be stopped and started again
// on the same store and address.
type site struct {
	addr, dir string
	limits    authority.Limits
	stop      func()
	*authority.Authority[state]
}

func (s *site) start(t *testing.T) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(s.dir, "store"))
	require.NoError(t, err)
	a, err := authority.New(authority.Config[state]{
		Issuer: "http://" + s.addr, Audience: []string{"site", "service"}, Store: store, Secrets: [][]byte{secret}, Limits: s.limits,
		Load: func(_ context.Context, old *sessiontoken.Claims[state]) (state, error) {
			return stateOf(old.Subject), nil
		},
		HTTP:       sessionhttp.Config[state]{TLSInFront: true, TrustedOrigins: []string{origin}},
		FeedTokens: []string{feedToken}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	s.Authority = a
	mux := http.NewServeMux()
	mux.HandleFunc("POST /session/sign-in", func(w http.ResponseWriter, r *http.Request) {
		subject := r.FormValue("subject")
		if _, err := a.Sessions().SignIn(w, r, sessiontoken.Start{Subject: subject}, stateOf(subject)); err != nil {
			a.Sessions().Refuse(w, r, err)
		}
	})
	mux.HandleFunc("POST /session/sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Sessions().SignOut(w, r); err != nil {
			a.Sessions().Refuse(w, r, err)
		}
	})
	mux.Handle("/session/renew", a.RenewHandler())
	mux.Handle("/.well-known/", a.WellKnown())
	var l net.Listener
	require.Eventually(t, func() bool { // the port may be in use for a moment
		l, err = net.Listen("tcp", s.addr)
		return err == nil
	}, time.Minute, 20*time.Millisecond)
	server := &http.Server{Handler: mux}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = a.Run(ctx) }()
	go server.Serve(l)
	s.stop = sync.OnceFunc(func() {
		_ = server.Close()
		cancel()
		<-ran
		_ = store.Close()
	})
	t.Cleanup(s.stop)
}

func stateOf(subject string) state {
	return state{Role: "role of " + subject, Secret: "not for the service"}
}

// origin is that of the pages of the site: browsers see https.
const origin = "https://app.example"

// request is one that the service has had.
type request struct {
	Method, URL, Tag, Body string
	Headers                []string // names and values
}

// values returns the values of a header, by any spelling of its name that a
// service may read.
func (r request) values(name string) (values []string) {
	for i := 0; i+1 < len(r.Headers); i += 2 {
		if strings.EqualFold(strings.ReplaceAll(r.Headers[i], "_", "-"), name) {
			values = append(values, r.Headers[i+1])
		}
	}
	return values
}

// service is the Node service behind the proxy.
type service struct {
	mu  sync.Mutex
	had []request
}

func startService(t *testing.T, addr string, env ...string) *service {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	cmd := exec.Command(tool(t, "node"), filepath.Join("testdata", "service.js"))
	cmd.Env = append(append(os.Environ(), "PORT="+port), env...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	start(t, cmd)
	s, ready := &service{}, make(chan struct{})
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if lines.Text() == `"ready"` {
				close(ready)
				continue
			}
			var r request
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				r.Tag = "not JSON: " + lines.Text()
			}
			s.mu.Lock()
			s.had = append(s.had, r)
			s.mu.Unlock()
		}
	}()
	select {
	case <-ready:
	case <-time.After(time.Minute):
		t.Fatal("the service is not ready")
	}
	return s
}

// with returns the requests with a tag.
func (s *service) with(tag string) (found []request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.had {
		if r.Tag == tag {
			found = append(found, r)
		}
	}
	return found
}

// world is an authority, a gate, a service, and a proxy in front.
type world struct {
	t       *testing.T
	site    *site
	service *service
	gate    *process
	addrs   addrs
	command func() *exec.Cmd
	client  *http.Client
}

type addrs struct{ gate, admin, service, authority, proxy string }

// proxy starts a proxy that the test has found, with the file that the project
// shows.
type proxy struct {
	name  string
	start func(t *testing.T, a addrs)
}

func newWorld(t *testing.T, p proxy, limits authority.Limits, env ...string) *world {
	t.Helper()
	bin, err := buildCommand()
	require.NoError(t, err)
	a := addrs{freeAddr(t), freeAddr(t), freeAddr(t), freeAddr(t), freeAddr(t)}
	w := &world{t: t, addrs: a, site: &site{addr: a.authority, dir: t.TempDir(), limits: limits}}
	w.site.start(t)
	w.service = startService(t, a.service, env...)
	w.command = func() *exec.Cmd {
		cmd := exec.Command(bin, "serve", "--issuer", "http://"+a.authority, "--insecure-plain-http", "--audience", "service",
			"--state", "role", "--renew", "http://"+a.authority+"/session/renew", "--trusted-origin", origin,
			"--listen", a.gate, "--admin", a.admin)
		cmd.Env = append(os.Environ(), "SESSIONTOKEN_FEED_TOKEN="+feedToken)
		return cmd
	}
	w.startGate()
	p.start(t, a)
	answers(t, a.proxy)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	w.client = &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return w
}

func (w *world) startGate() {
	w.gate = start(w.t, w.command())
	answers(w.t, w.addrs.gate)
}

// browser is a client with cookies. A jar of net/http would keep those that are
// Secure from the plain http of this test.
type browser struct {
	w      *world
	mu     sync.Mutex
	cookie map[string]string
}

func (w *world) newBrowser() *browser { return &browser{w: w, cookie: map[string]string{}} }

// send sends a request to the proxy, and keeps the cookies of the answer. Each
// header is one line, as "Name: value".
func (b *browser) send(method, path, body string, headers ...string) (*http.Response, string, error) {
	r, err := http.NewRequest(method, "http://"+b.w.addrs.proxy+path, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	r.Host = "app.example"
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	b.mu.Lock()
	for name, value := range b.cookie {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	b.mu.Unlock()
	resp, err := b.w.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookie, c.Name)
		} else {
			b.cookie[c.Name] = c.Value
		}
	}
	return resp, string(text), err
}

func (b *browser) must(method, path, body string, headers ...string) (*http.Response, string) {
	b.w.t.Helper()
	resp, text, err := b.send(method, path, body, headers...)
	require.NoError(b.w.t, err)
	return resp, text
}

// signIn signs a user in through the proxy.
func (w *world) signIn(subject string) *browser {
	w.t.Helper()
	b := w.newBrowser()
	resp, text := b.must("POST", "/session/sign-in", "subject="+subject, "Content-Type: application/x-www-form-urlencoded", "Origin: "+origin)
	require.Equal(w.t, 200, resp.StatusCode, text)
	require.NotEmpty(w.t, b.cookie["__Host-session"])
	return b
}

// copyOf returns a browser with the same cookies, as a thief has them.
func (b *browser) copyOf() *browser {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.w.newBrowser()
	for name, value := range b.cookie {
		c.cookie[name] = value
	}
	return c
}

// raw sends bytes to the proxy, and returns the status of the answer, or 0.
func (w *world) raw(text string) int {
	c, err := net.DialTimeout("tcp", w.addrs.proxy, 10*time.Second)
	require.NoError(w.t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = io.WriteString(c, text)
	require.NoError(w.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// metrics returns the metrics of the gate.
func (w *world) metrics() map[string]float64 {
	w.t.Helper()
	resp, err := w.client.Get("http://" + w.addrs.admin + "/metrics")
	require.NoError(w.t, err)
	defer resp.Body.Close()
	all := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		all[name], err = strconv.ParseFloat(value, 64)
		require.NoError(w.t, err)
	}
	return all
}

// config returns a file of the folder that the project shows, with the addresses
// of the test. It fails if the file lacks one of the ports.
func config(t *testing.T, name string, a addrs, ports ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "cmd", "sessiontoken", "proxies", name))
	require.NoError(t, err)
	text := string(raw)
	of := map[string]string{"4180": a.gate, "3000": a.service, "8080": a.proxy, "9000": a.authority}
	for _, port := range ports {
		require.Contains(t, text, ":"+port, name)
		_, used, err := net.SplitHostPort(of[port])
		require.NoError(t, err)
		text = strings.ReplaceAll(text, ":"+port, ":\x00"+used) // so that it is not replaced again
	}
	return strings.ReplaceAll(text, "\x00", "")
}

var allPorts = []string{"4180", "3000", "8080", "9000"}

func startNginx(t *testing.T, a addrs) { startNginxWith(t, a, config(t, "nginx.conf", a, allPorts...)) }

func startNginxWith(t *testing.T, a addrs, site string) {
	bin, dir := tool(t, "nginx"), t.TempDir()
	write(t, filepath.Join(dir, "site.conf"), site)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // who may write to the folder
	}
	write(t, filepath.Join(dir, "nginx.conf"), user+fmt.Sprintf(`
daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log crit;
events {}
http {
	access_log off;
	keepalive_requests 1000000;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	include %[1]s/site.conf;
}
`, dir))
	start(t, exec.Command(bin, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", filepath.Join(dir, "nginx.conf")))
}

func startHAProxy(t *testing.T, a addrs) {
	bin, dir := tool(t, "haproxy"), t.TempDir()
	write(t, filepath.Join(dir, "gate.lua"), config(t, "gate.lua", a, "4180"))
	write(t, filepath.Join(dir, "haproxy.cfg"), config(t, "haproxy.cfg", a, allPorts[1:]...))
	cmd := exec.Command(bin, "-db", "-f", "haproxy.cfg")
	cmd.Dir = dir
	start(t, cmd)
}

// caddyVersion is what the tests install if they are asked to.
const caddyVersion = "v2.10.2"

// findCaddy returns the path of Caddy: that of SESSIONTOKEN_CADDY, or the one that
// is installed, or with SESSIONTOKEN_FULL one that it builds.
var findCaddy = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("SESSIONTOKEN_CADDY"); bin != "" {
		return bin, nil
	}
	if bin, err := exec.LookPath("caddy"); err == nil {
		return bin, nil
	}
	if os.Getenv("SESSIONTOKEN_FULL") == "" {
		return "", errors.New("it is not installed, and is built with SESSIONTOKEN_FULL=1 alone")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", "github.com/caddyserver/caddy/v2/cmd/caddy@"+caddyVersion)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "GOBIN="+folder, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install: %w: %s", err, out[max(0, len(out)-500):])
	}
	return filepath.Join(folder, "caddy"), nil
})

func startCaddy(t *testing.T, a addrs) {
	bin, err := findCaddy()
	if err != nil {
		t.Skipf("NOT RUN: Caddy cannot be had: %v", err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "Caddyfile")
	write(t, path, "{\n\tadmin off\n\tpersist_config off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\n"+config(t, "Caddyfile", a, allPorts...))
	cmd := exec.Command(bin, "run", "--config", path, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	start(t, cmd)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

var proxies = []proxy{{"nginx", startNginx}, {"HAProxy", startHAProxy}, {"Caddy", startCaddy}}

// withProxies runs a test with each proxy that can be had, beside the others:
// they wait more than they work.
func withProxies(t *testing.T, limits authority.Limits, f func(t *testing.T, w *world)) {
	t.Parallel()
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t, p, limits))
		})
	}
}
