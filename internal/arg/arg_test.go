package arg_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/arg"
)

type (
	mapReader   map[string]string
	funcReader  func()
	chanReader  chan int
	valueReader struct{}
)

func (mapReader) Read([]byte) (int, error)   { return 0, nil }
func (funcReader) Read([]byte) (int, error)  { return 0, nil }
func (chanReader) Read([]byte) (int, error)  { return 0, nil }
func (valueReader) Read([]byte) (int, error) { return 0, nil }

func TestIsNil(t *testing.T) {
	for name, c := range map[string]struct {
		v    io.Reader
		want bool
	}{
		"nil": {nil, true}, "nil pointer": {(*bytes.Buffer)(nil), true}, "nil map": {mapReader(nil), true},
		"nil func": {funcReader(nil), true}, "nil chan": {chanReader(nil), true},
		"pointer": {new(bytes.Buffer), false}, "map": {mapReader{}, false}, "func": {funcReader(func() {}), false},
		"chan": {make(chanReader), false}, "value": {valueReader{}, false},
	} {
		require.Equal(t, c.want, arg.IsNil(c.v), name)
	}
}

func TestDuration(t *testing.T) {
	for _, d := range []time.Duration{0, time.Second, time.Hour} {
		require.NoError(t, arg.Duration("Config.X", d, time.Second))
	}
	require.NoError(t, arg.Duration("Config.X", 10*time.Millisecond, 10*time.Millisecond))
	for d, want := range map[time.Duration]string{
		-1:                    "Config.X is -1ns; it must not be negative",
		3600:                  "Config.X is 3.6µs; it must be at least 1s (did you mean 3600 * time.Second?)",
		90 * 24 * 3600:        "Config.X is 7.776ms; it must be at least 1s (did you mean 7776000 * time.Second?)",
		10 * time.Millisecond: "Config.X is 10ms; it must be at least 1s",
		time.Second - 1:       "Config.X is 999.999999ms; it must be at least 1s",
	} {
		require.EqualError(t, arg.Duration("Config.X", d, time.Second), want)
	}
}

func TestIsToken68(t *testing.T) {
	for _, s := range []string{"a", "A-._~+/9", "abc=", "abc=="} {
		require.True(t, arg.IsToken68(s), "%q", s)
	}
	for _, s := range []string{"", "=", "==", "a b", "a=b", " a", "a ", "a,b", "é", "a\n", "a\x00"} {
		require.False(t, arg.IsToken68(s), "%q", s)
	}
}

func TestIsLocalPeer(t *testing.T) {
	for _, s := range []string{"127.0.0.1:1", "127.8.8.8:443", "[::1]:1", "[::ffff:127.0.0.1]:1"} {
		require.True(t, arg.IsLocalPeer(s), "%q", s)
	}
	for _, s := range []string{"", "127.0.0.1", "@", "10.0.0.1:1", "[2001:db8::1]:1", "localhost:1", "[::1%lo]:1"} {
		require.False(t, arg.IsLocalPeer(s), "%q", s)
	}
}
