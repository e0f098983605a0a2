package arg_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/arg"
)

func TestSecrets(t *testing.T) {
	a, b := bytes.Repeat([]byte("a"), 32), bytes.Repeat([]byte("b"), 40)
	require.NoError(t, arg.Secrets("p: Config.Secrets", nil))
	require.NoError(t, arg.Secrets("p: Config.Secrets", [][]byte{a, b}))
	require.EqualError(t, arg.Secrets("p: Config.Secrets", [][]byte{a, b[:31]}),
		"p: Config.Secrets[1] has 31 bytes; it must have at least 32 random ones, such as 'openssl rand -base64 32' prints")
	require.EqualError(t, arg.Secrets("p: Config.Secrets", [][]byte{b, a, bytes.Clone(b)}), "p: Config.Secrets[2] is the same as Config.Secrets[0]")
}
