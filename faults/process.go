//go:build unix

package faults

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// variable tells a test binary that it is a process of one of these tests, and
// which.
const variable = "SESSIONTOKEN_FAULTS"

// Role says what a process does.
type Role struct {
	Place string // where its store is: what the open function of Main is given

	SyncEvery, MaxStale time.Duration // of its list
	TTL                 time.Duration // of the tokens it issues
	Rotates             bool          // its keys rotate every 10 s
	Verifies            bool          // it only verifies, with the keys
	KeysFrom            string        // of this URL; empty: of the store
	Serves              string        // it serves a site, with the roles of its users in this folder

	Listens string // where it serves an authority's documents; empty: it is no authority
	Follows string // the issuer of that; without Listens it is an API that follows its feed

	Grants string // it acts for users at this provider, and does nothing else
}

// request and answer are lines that a process reads and writes.
type request struct {
	ID                        int
	Op                        string
	Token, Subject, Sess, Key string
	Role                      int           `json:",omitempty"`
	From, N                   int           `json:",omitempty"` // of begin: the first session, and how many
	Tokens                    []string      `json:",omitempty"`
	Ahead                     time.Duration `json:",omitempty"` // of its clock, for grants
}

type answer struct {
	ID         int
	Error      string        `json:",omitempty"` // the call failed
	Verdict    string        `json:",omitempty"` // of verify: see verdictOf
	Token      string        `json:",omitempty"`
	Sess       string        `json:",omitempty"`
	Subject    string        `json:",omitempty"`
	At         int64         `json:",omitempty"` // when it was done, in Unix nanoseconds
	Stale      bool          `json:",omitempty"` // the last reading of the store failed
	URL        string        `json:",omitempty"`
	Rotations  int           `json:",omitempty"`
	Goroutines int           `json:",omitempty"`
	Site       string        `json:",omitempty"` // the URL of the site that it serves
	Loads      int64         `json:",omitempty"` // of the site
	Took       time.Duration `json:",omitempty"`
	Tokens     []string      `json:",omitempty"`
	Lives      *lives        `json:",omitempty"`
}

// Process is a process that was started.
type Process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{} // closed when the process has ended

	mu      sync.Mutex
	waiting map[int]chan answer
	last    int
	gone    bool
}

// Start starts a process, which ends with the test at the latest.
func Start(t *testing.T, r Role) *Process {
	t.Helper()
	encoded, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+string(encoded))
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
	p := &Process{cmd: cmd, in: in, done: make(chan struct{}), waiting: map[int]chan answer{}}
	go func() {
		defer close(p.done)
		p.read(out)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-p.done
	})
	return p
}

// Kill ends the process at once, as kill -9 does.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// killAndWait is Kill, and returns when the process has ended.
func (p *Process) killAndWait() {
	p.Kill()
	<-p.done
}

func (p *Process) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			fmt.Fprintln(os.Stderr, "a process says:", lines.Text())
			continue
		}
		p.mu.Lock()
		c := p.waiting[a.ID]
		delete(p.waiting, a.ID)
		p.mu.Unlock()
		c <- a
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, c := range p.waiting {
		c <- answer{Error: "the process ended"}
	}
	clear(p.waiting)
}

// call has the process do something. It is safe for concurrent use.
func (p *Process) call(r request) answer {
	c := make(chan answer, 1)
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return answer{Error: "the process ended"}
	}
	p.last++
	r.ID = p.last
	p.waiting[r.ID] = c
	line, err := json.Marshal(r)
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	if err != nil {
		delete(p.waiting, r.ID)
		p.mu.Unlock()
		return answer{Error: err.Error()}
	}
	p.mu.Unlock()
	return <-c
}

// must is call where nothing may fail.
func (p *Process) must(t *testing.T, r request) answer {
	t.Helper()
	a := p.call(r)
	if a.Error != "" {
		t.Fatalf("%s: %s", r.Op, a.Error)
	}
	return a
}

func (p *Process) issue(t *testing.T, subject string) (token, sess string) {
	t.Helper()
	a := p.must(t, request{Op: "issue", Subject: subject})
	return a.Token, a.Sess
}

func (p *Process) revoke(sess string) (at time.Time, err error) {
	a := p.call(request{Op: "revoke", Sess: sess})
	if a.Error != "" {
		return time.Time{}, errors.New(a.Error)
	}
	return time.Unix(0, a.At), nil
}

func (p *Process) verify(token string) string {
	a := p.call(request{Op: "verify", Token: token})
	if a.Error != "" {
		return a.Error
	}
	return a.Verdict
}

// wait calls f every 10 ms until it is true, and says what took how long.
func wait(t *testing.T, d time.Duration, what string, f func() bool) {
	t.Helper()
	begin := time.Now()
	for !f() {
		if time.Since(begin) > d {
			t.Fatalf("%s: not within %v", what, d)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%s: %v", what, time.Since(begin).Round(time.Millisecond))
}
