//go:build unix

package gate_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
)

// TestLoad compares nginx with the gate to nginx alone, in turns, and looks at
// what the gate holds. It runs for 5 s, and for a minute with
// SESSIONTOKEN_FULL=1.
func TestLoad(t *testing.T) {
	long := 5 * time.Second
	if os.Getenv("SESSIONTOKEN_FULL") != "" {
		long = time.Minute
	}
	const turns = 12 // the first of each kind warms up
	turn := long / turns
	w := newWorld(t, proxies[0], authority.Limits{}, "QUIET=1")

	alone := w.addrs
	alone.proxy = freeAddr(t)
	text := config(t, "nginx.conf", alone, allPorts...)
	require.Contains(t, text, "auth_request /.gate;")
	startNginxWith(t, alone, strings.Replace(text, "auth_request /.gate;", "", 1))
	answers(t, alone.proxy)

	const users = 100
	var requests [users]string
	for i := range requests {
		b := w.signIn(fmt.Sprint("user", i))
		requests[i] = "GET / HTTP/1.1\r\nHost: app.example\r\nCookie: theme=dark; __Host-session=" + b.cookie["__Host-session"] + "\r\n\r\n"
	}
	var rates [2][]float64
	var before map[string]float64
	var rss int
	var cpu time.Duration
	for i := range turns {
		addr := []string{alone.proxy, w.addrs.proxy}[i%2]
		rate := load(t, addr, turn, requests[:])
		if i >= 2 {
			rates[i%2] = append(rates[i%2], rate)
		}
		if i == 3 {
			before, rss, cpu = w.metrics(), rssOf(t, w.gate.cmd.Process.Pid), cpuOf(t, w.gate.cmd.Process.Pid)
		}
	}
	after, rssAfter := w.metrics(), rssOf(t, w.gate.cmd.Process.Pid)
	cpu = cpuOf(t, w.gate.cmd.Process.Pid) - cpu
	slices.Sort(rates[0])
	slices.Sort(rates[1])
	aloneRate, gateRate := rates[0][len(rates[0])/2], rates[1][len(rates[1])/2]
	answered := after["sessiontoken_serve_answers_200_total"]
	asked := answered - before["sessiontoken_serve_answers_200_total"]
	t.Logf("in %v on %d processors: %.0f requests/s with the gate, %.0f/s without it: %.0f %%; the gate took %.0f µs of a processor for each; goroutines %.0f then %.0f; resident %d KiB then %d KiB",
		long, runtime.GOMAXPROCS(0), gateRate, aloneRate, 100*gateRate/aloneRate, float64(cpu.Microseconds())/asked,
		before["sessiontoken_serve_goroutines"], after["sessiontoken_serve_goroutines"], rss, rssAfter)
	require.Positive(t, asked)
	require.Zero(t, after["sessiontoken_serve_answers_503_total"])
	require.Zero(t, after["sessiontoken_serve_answers_500_total"])
	require.LessOrEqual(t, after["sessiontoken_serve_goroutines"], before["sessiontoken_serve_goroutines"]+64)
	require.LessOrEqual(t, rssAfter, rss+32<<10)
}

// load sends requests on 8 connections for a while, and returns how many were
// answered with 200 in a second. Any other answer fails the test.
func load(t *testing.T, addr string, d time.Duration, requests []string) float64 {
	t.Helper()
	var done, failed atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for c := range 8 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				failed.Add(1)
				return
			}
			defer conn.Close()
			r := newReader(conn)
			for i := c; time.Since(began) < d; i++ {
				if _, err := conn.Write([]byte(requests[i%len(requests)])); err != nil || !r.next() {
					failed.Add(1)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	require.Zero(t, failed.Load())
	return float64(done.Load()) / time.Since(began).Seconds()
}

// rssOf returns the resident memory of a process in KiB.
func rssOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("NOT RUN: there is no /proc")
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	require.NoError(t, err)
	return kib
}

// cpuOf returns how long a process has used a processor.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip("NOT RUN: there is no /proc")
	}
	_, after, _ := strings.Cut(string(text), ") ")
	var ticks int // utime and stime, of 10 ms each
	for _, field := range strings.Fields(after)[11:13] {
		n, err := strconv.Atoi(field)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
