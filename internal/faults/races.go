//go:build unix

package faults

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/refresh"
)

// ExchangeVariable tells a test binary that it is a process of [RefreshRaces], and
// where its store is. Its TestMain then calls [ServeExchange].
const ExchangeVariable = "SESSIONTOKEN_FAULTS_EXCHANGE"

func manager(s refresh.Store) (*refresh.Manager, error) {
	return refresh.NewManager(refresh.Config{
		Store: s, Secrets: [][]byte{bytes.Repeat([]byte{1}, 32)}, InsecureSessionsLiveOn: true, Logger: slog.New(slog.DiscardHandler),
	})
}

// ServeExchange exchanges the tokens that come as lines, until there are no more,
// and writes each successor as a line.
func ServeExchange(s refresh.Store) {
	m, err := manager(s)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		next, _, err := m.Exchange(context.Background(), in.Text(), "", func(context.Context, refresh.Family) error { return nil })
		if err != nil {
			next = "error: " + err.Error()
		}
		fmt.Println(next)
	}
}

// RefreshRaces has two processes exchange the same token at the same moment, 500
// times or as often as SESSIONTOKEN_TRIALS says: both must get the one successor.
// place is what [ExchangeVariable] says to the processes.
func RefreshRaces(t *testing.T, s refresh.Store, place string) {
	races := 500
	if s := os.Getenv("SESSIONTOKEN_TRIALS"); s != "" {
		var err error
		if races, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	m, err := manager(s)
	if err != nil {
		t.Fatal(err)
	}
	type process struct {
		in  io.Writer
		out *bufio.Scanner
	}
	var processes []process
	for range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), ExchangeVariable+"="+place)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = in.Close()
			_ = cmd.Wait()
		})
		processes = append(processes, process{in, bufio.NewScanner(out)})
	}
	token := ""
	begin := time.Now()
	for i := range races {
		if i%100 == 0 { // before two parties who take turns are found out
			if token, _, err = m.Start(t.Context(), refresh.Family{Subject: "ada", SessionID: fmt.Sprint("sid-", i), Created: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range processes {
			if _, err := fmt.Fprintln(p.in, token); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, p := range processes {
			if !p.out.Scan() {
				t.Fatal("a process ended")
			}
			got = append(got, p.out.Text())
		}
		if strings.HasPrefix(got[0], "error") || got[0] != got[1] || got[0] == token {
			t.Fatalf("race %d: %.20s… and %.20s…", i, got[0], got[1])
		}
		token = got[0]
	}
	t.Logf("%d races in %v: one successor each", races, time.Since(begin).Round(time.Millisecond))
}
