package bench_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/bench"
	"github.com/sessiontoken/sessiontoken/faults/servers"
)

var atEnd struct {
	sync.Mutex
	stop []func()
}

func TestMain(m *testing.M) {
	if os.Getenv(serveVariable) != "" {
		serveHTTP()
		return
	}
	code := m.Run()
	for _, stop := range atEnd.stop {
		stop()
	}
	os.Exit(code)
}

var redis, postgres = server(func() (string, func(), error) { return servers.Redis() }), server(servers.Postgres)

// server starts a server when it is first asked for. "" means that it is not
// installed, which is an error where CI is set.
func server(start func() (string, func(), error)) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		where, stop, err := start()
		if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		atEnd.Lock()
		defer atEnd.Unlock()
		atEnd.stop = append(atEnd.stop, stop)
		return where, nil
	})
}

func newServers(t testing.TB) bench.Servers {
	t.Helper()
	r, err := redis()
	require.NoError(t, err)
	p, err := postgres()
	require.NoError(t, err)
	return bench.Servers{Redis: r, Postgres: p}
}

// readers returns the ways whose servers are there.
func readers(t testing.TB) (bench.Servers, []bench.Reader) {
	s := newServers(t)
	return s, slices.DeleteFunc(bench.Readers(), func(r bench.Reader) bool {
		missing := r.Needs == "redis" && s.Redis == "" || r.Needs == "postgres" && s.Postgres == ""
		if missing {
			t.Logf("NOT RUN: %s, since %s is not installed", r.Name, r.Needs)
		}
		return missing
	})
}

// TestReadersReadTheSame: every way gives the subject and the state of the
// session that was begun, and refuses what was never a session or no longer is.
func TestReadersReadTheSame(t *testing.T) {
	s, ways := readers(t)
	for _, way := range ways {
		t.Run(way.Name, func(t *testing.T) {
			t.Parallel()
			subjects := []string{"user-1", "user-2", "user-3"}
			o, err := way.Open(s, subjects, time.Minute)
			require.NoError(t, err)
			defer o.Close()
			for i, presented := range o.Presented {
				for range 2 {
					subject, state, err := o.Read(t.Context(), presented)
					require.NoError(t, err)
					require.Equal(t, subjects[i], subject)
					require.Equal(t, bench.SampleState(), state)
				}
				for _, at := range []int{1, len(presented) / 2, len(presented) - 3} {
					changed := []byte(presented)
					changed[at] ^= 1
					_, _, err := o.Read(t.Context(), string(changed))
					require.Error(t, err, fmt.Sprintf("byte %d changed", at))
				}
			}
			_, _, err = o.Read(t.Context(), "")
			require.Error(t, err)

			short, err := way.Open(s, subjects[:1], time.Second)
			require.NoError(t, err)
			defer short.Close()
			require.Eventually(t, func() bool {
				_, _, err := short.Read(t.Context(), short.Presented[0])
				return err != nil
			}, 5*time.Second, 50*time.Millisecond, "it ends")
		})
	}
}
