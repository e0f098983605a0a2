package bench_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/bench"
)

// The server of the HTTP benchmark is this test binary, started again with this
// variable: its CPU time is then its own, and not the load generator's.
const serveVariable = "SESSIONTOKEN_BENCH_SERVE"

const (
	httpSessions    = 1000
	httpConnections = 16
	httpTurn        = 150 * time.Millisecond
	noCheck         = "no-check"
)

// served is what the server tells its parent.
type served struct {
	Addr  string
	Lines []servedLine
}

type servedLine struct {
	Name      string
	Presented []string
}

// serveHTTP serves one handler for each way of reading a session, until its
// standard input ends. All do the same with it: they write the subject.
func serveHTTP() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var s bench.Servers
	fail(json.Unmarshal([]byte(os.Getenv(serveVariable)), &s))
	subjects := make([]string, httpSessions)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("user-%08d", i)
	}
	mux := http.NewServeMux()
	write := func(w http.ResponseWriter, subject string) {
		h := w.Header()
		h["Content-Type"] = []string{"text/plain"}
		h["Content-Length"] = []string{strconv.Itoa(len(subject))}
		_, _ = io.WriteString(w, subject)
	}
	out := served{Lines: []servedLine{{Name: noCheck}}}
	mux.HandleFunc("/"+noCheck, func(w http.ResponseWriter, r *http.Request) { write(w, subjects[0]) })
	for _, way := range bench.Readers() {
		if way.Needs == "redis" && s.Redis == "" || way.Needs == "postgres" && s.Postgres == "" {
			continue
		}
		o, err := way.Open(s, subjects, bench.TokenTTL)
		fail(err)
		out.Lines = append(out.Lines, servedLine{way.Name, o.Presented})
		if len(out.Lines) == 2 {
			out.Lines[0].Presented = o.Presented // no check has as much to receive
		}
		mux.HandleFunc("/"+way.Name, func(w http.ResponseWriter, r *http.Request) {
			presented, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			subject, _, err := o.Read(r.Context(), presented)
			if err != nil {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			write(w, subject)
		})
	}
	mux.HandleFunc("/cpu", func(w http.ResponseWriter, r *http.Request) { write(w, strconv.FormatInt(int64(cpuTime()), 10)) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	out.Addr = l.Addr().String()
	fail(json.NewEncoder(os.Stdout).Encode(out))
	go func() { fail(http.Serve(l, mux)) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// cpuTime is what this process has used, in user and system mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHTTP: a net/http server on loopback that reads the session of each
// request in one of the ways, and a load generator beside it on the same
// machine: 16 connections, 1,000 sessions. The ways take turns of 150 ms, in a
// new order each round; one operation is one round. It reports
//
//	<way>/no-check   the median over the rounds of the way's requests per
//	                 second divided by those without any check
//	<way>-cpu-ns     the server's CPU time per request (median), in nanoseconds,
//	                 without that of Redis or PostgreSQL
//	<way>-req/s      the median of its requests per second
func BenchmarkHTTP(b *testing.B) {
	s := newServers(b)
	env, err := json.Marshal(s)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"="+string(env))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}()
	var at served
	if err := json.NewDecoder(stdout).Decode(&at); err != nil {
		b.Fatal(err)
	}
	lines := make([]*load, len(at.Lines))
	for i, line := range at.Lines {
		lines[i] = newLoad(b, at.Addr, line)
		lines[i].turn(b, httpTurn) // warms it up
	}
	order := make([]int, len(lines))
	for i := range order {
		order[i] = i
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rates, ratios, cpu := make([][]float64, len(lines)), make([][]float64, len(lines)), make([][]float64, len(lines))
	control := newLoad(b, at.Addr, servedLine{Name: "cpu", Presented: at.Lines[0].Presented})
	b.ResetTimer()
	for range b.N {
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		now := make([]float64, len(lines))
		for _, i := range order {
			before := control.cpu(b)
			n, took := lines[i].turn(b, httpTurn)
			cpu[i] = append(cpu[i], (control.cpu(b)-before)/float64(n))
			now[i] = float64(n) / took.Seconds()
			rates[i] = append(rates[i], now[i])
		}
		for i := range lines {
			ratios[i] = append(ratios[i], now[i]/now[0])
		}
	}
	b.StopTimer()
	b.ReportMetric(0, "ns/op")
	for i, line := range at.Lines {
		b.ReportMetric(median(rates[i]), line.Name+"-req/s")
		b.ReportMetric(median(cpu[i]), line.Name+"-cpu-ns")
		if i > 0 {
			b.ReportMetric(median(ratios[i]), line.Name+"/"+noCheck)
		}
	}
}

// load sends the requests of one line over connections of its own.
type load struct {
	requests [][]byte
	conns    []*loadConn
}

type loadConn struct {
	net.Conn
	buf  []byte
	size int // of a response, all of which have one length
}

func newLoad(b *testing.B, addr string, line servedLine) *load {
	b.Helper()
	l := &load{}
	for _, presented := range line.Presented {
		l.requests = append(l.requests, fmt.Appendf(nil, "GET /%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", line.Name, addr, presented))
	}
	for range httpConnections {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		l.conns = append(l.conns, &loadConn{Conn: c, buf: make([]byte, 4096)})
	}
	return l
}

// turn sends requests over all connections for d and returns how many were
// answered, and in what time.
func (l *load) turn(b *testing.B, d time.Duration) (int, time.Duration) {
	var wg sync.WaitGroup
	var answered atomic.Int64
	start := time.Now()
	for i, c := range l.conns {
		wg.Go(func() {
			n := 0
			for next := i; time.Since(start) < d; next += len(l.conns) {
				if err := c.roundTrip(l.requests[next%len(l.requests)]); err != nil {
					b.Error(err)
					return
				}
				n++
			}
			answered.Add(int64(n))
		})
	}
	wg.Wait()
	return int(answered.Load()), time.Since(start)
}

// roundTrip sends a request and waits for its answer. The first one is parsed;
// the others must begin in the same way and be as long.
func (c *loadConn) roundTrip(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	n := 0
	for {
		m, err := c.Read(c.buf[n:])
		if err != nil {
			return err
		}
		n += m
		if c.size == 0 && bytes.Contains(c.buf[:n], []byte("\r\n\r\n")) {
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.buf[:n])), nil)
			if err != nil {
				return err
			}
			c.size = bytes.Index(c.buf[:n], []byte("\r\n\r\n")) + 4 + int(resp.ContentLength)
		}
		if c.size != 0 && n >= c.size {
			break
		}
	}
	if n != c.size || !bytes.HasPrefix(c.buf, []byte("HTTP/1.1 200 OK\r\n")) {
		return fmt.Errorf("the server answered %q", c.buf[:min(n, 40)])
	}
	return nil
}

// cpu is the server's CPU time in nanoseconds.
func (l *load) cpu(b *testing.B) float64 {
	c := l.conns[0]
	c.size = 0 // its length changes
	if err := c.roundTrip(l.requests[0]); err != nil {
		b.Fatal(err)
	}
	text := c.buf[:c.size]
	n, err := strconv.ParseFloat(string(text[bytes.LastIndexByte(text, '\n')+1:]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
