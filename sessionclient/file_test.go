package sessionclient_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/sessionclient"
)

func newFile(t testing.TB, path string) sessionclient.Keeper {
	t.Helper()
	k, err := sessionclient.File(path)
	require.NoError(t, err)
	return k
}

// save saves a record as a client does, with the lock.
func save(t testing.TB, k sessionclient.Keeper, record string) {
	t.Helper()
	unlock, err := k.Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	require.NoError(t, k.Save(t.Context(), []byte(record)))
}

func TestFile(t *testing.T) {
	_, err := sessionclient.File("")
	require.Error(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "session")
	k := newFile(t, path)
	require.NoFileExists(t, path)
	got, err := k.Load(t.Context())
	require.NoError(t, err)
	require.Empty(t, got)
	for _, record := range []string{"one", "two", ""} {
		require.NoError(t, os.WriteFile(path+".tmp", []byte("left by a process that was killed"), 0o644))
		save(t, k, record)
		got, err = k.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, record, string(got))
		require.NoFileExists(t, path+".tmp")
		if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" {
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		}
	}
	require.NoFileExists(t, path)
	save(t, k, "") // deleting what is not there
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, k.Save(ended, []byte("x")), context.Canceled)
	_, err = k.Load(ended)
	require.ErrorIs(t, err, context.Canceled)
	require.Error(t, newFile(t, filepath.Join(dir, "absent", "session")).Save(t.Context(), []byte("x")))
}

// TestFileRefuses: a file that others may have read, or that is no file, is an
// error, and not a missing record.
func TestFileRefuses(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows makes up permission bits")
	}
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	require.NoError(t, os.WriteFile(good, []byte(marker), 0o600))
	for name, make := range map[string]func(path string) error{
		"group":     func(p string) error { return os.WriteFile(p, []byte(marker), 0o640) },
		"others":    func(p string) error { return os.WriteFile(p, []byte(marker), 0o604) },
		"link":      func(p string) error { return os.Symlink(good, p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, make(path), name)
		_, err := newFile(t, path).Load(t.Context())
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), marker)
	}
}

// TestFileLock: one of many callers has the lock, and a wait ends with its
// context.
func TestFileLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session")
	var wg sync.WaitGroup
	var inside, overlaps atomic.Int64
	for range 20 {
		wg.Go(func() {
			unlock, err := newFile(t, path).Lock(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if inside.Add(1) > 1 {
				overlaps.Add(1)
			}
			runtime.Gosched()
			inside.Add(-1)
			unlock()
		})
	}
	wg.Wait()
	require.Zero(t, overlaps.Load())

	bubble(t, func(t *testing.T) {
		k := newFile(t, path)
		unlock, err := k.Lock(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = k.Lock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		unlock()
		unlock, err = k.Lock(t.Context())
		require.NoError(t, err)
		unlock()
	})
}

const processVariable = "SESSIONTOKEN_CLIENT_PROCESS"

// TestTwoProcesses: processes that share a file and find its token due at the same
// moment make one successor. All of them use it, for 25 generations, and no
// refresh token is presented twice. The test runs itself as the processes.
func TestTwoProcesses(t *testing.T) {
	if server := os.Getenv(processVariable); server != "" {
		beProcess(t, server)
		return
	}
	s := newSite(t)
	s.wrap(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if _, twice := s.presented.LoadOrStore(r.PostForm.Get("refresh_token"), true); twice {
			t.Error("a refresh token was presented twice")
		}
		next.ServeHTTP(w, r)
	})
	server := httptest.NewServer(s.mux)
	defer server.Close()
	path := filepath.Join(t.TempDir(), "session")
	c, err := sessionclient.New(processConfig(t, server.URL, path))
	require.NoError(t, err)
	require.NoError(t, c.SignIn(t.Context(), signIn(t, server.Client(), server.URL+"/in")))

	type process struct {
		ask    func(line string)
		answer *bufio.Scanner
	}
	var processes []process
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTwoProcesses$")
		cmd.Env = append(os.Environ(), processVariable+"="+server.URL+" "+path)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		cmd.Stderr = t.Output()
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
		processes = append(processes, process{func(line string) { fmt.Fprintln(in, line) }, bufio.NewScanner(out)})
	}
	for n := int64(1); n <= 25; n++ {
		for _, p := range processes {
			p.ask((time.Duration(n) * 10 * time.Minute).String())
		}
		var tokens []string
		for _, p := range processes {
			require.True(t, p.answer.Scan())
			require.Regexp(t, "^token eyJ", p.answer.Text())
			tokens = append(tokens, p.answer.Text())
		}
		require.Equal(t, tokens[0], tokens[1])
		require.Equal(t, n, s.exchanges.Load())
	}
	require.Zero(t, s.metric(t, "refresh_reuse_detections_total"))
}

func processConfig(t testing.TB, server, path string) sessionclient.Config {
	return sessionclient.Config{TokenURL: server + "/token", ClientID: "app", Origins: []string{server}, Keeper: newFile(t, path)}
}

// beProcess sets its clock ahead as each line says, and answers with its token.
func beProcess(t *testing.T, variable string) {
	server, path, _ := strings.Cut(variable, " ")
	here := new(clock.Clock)
	var c *sessionclient.Client
	clock.As(here, func() {
		var err error
		c, err = sessionclient.New(processConfig(t, server, path))
		require.NoError(t, err)
	})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		ahead, err := time.ParseDuration(lines.Text())
		require.NoError(t, err)
		here.SetAhead(ahead)
		token, _, err := c.Token(t.Context())
		fmt.Println("token", token, err)
	}
}
