package sessionclient

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// FuzzParseTokens: the answer of a token endpoint is an error without any part of
// it, or tokens that can be sent in a header and that expire.
func FuzzParseTokens(f *testing.F) {
	f.Add([]byte(`{"access_token":"a","token_type":"Bearer","expires_in":300,"refresh_token":"b"}`))
	f.Add([]byte(`{"access_token":"a\n","token_type":"bearer","expires_in":1e3,"refresh_token":"b"}`))
	f.Add([]byte(`{"error":"invalid_grant"}`))
	f.Add([]byte("\ufeffnull"))
	f.Add([]byte(strings.Repeat("[", 1000)))
	f.Fuzz(func(t *testing.T, body []byte) {
		tokens, err := parseTokens(body)
		if err != nil {
			require.Zero(t, tokens)
			var failed *failure
			require.True(t, errors.As(err, &failed))
			require.True(t, failed.lost, "the server may have exchanged the token")
			require.Less(t, len(err.Error()), 60)
			return
		}
		require.Regexp(t, `^[!-~]+$`, tokens.AccessToken)
		require.Regexp(t, `^[!-~]+$`, tokens.RefreshToken)
		g := newGrant(tokens, new(clock.Clock).Read())
		require.GreaterOrEqual(t, g.life, time.Second)
		require.Greater(t, g.renewAt, time.Duration(0))
		require.Less(t, g.renewAt, g.life)
	})
}

// FuzzDecode: a record is an error that asks to sign in, or a grant whose record
// is read back.
func FuzzDecode(f *testing.F) {
	const server = "https://id.example:443"
	here := new(clock.Clock)
	g := newGrant(Tokens{"a", "Bearer", 300, "b"}, here.Read())
	good, err := g.encode(server)
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte(`{"version":1,"server":"https://other.example:443","access_token":"a","refresh_token":"b","life":-1}`))
	f.Add([]byte(`{"version":1,"server":"` + server + `","access_token":"a","refresh_token":"b","life":1000,"received":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := decode(data, server, here.Read())
		if err != nil {
			require.ErrorIs(t, err, ErrSignIn)
			require.Less(t, len(err.Error()), 150)
			return
		}
		require.GreaterOrEqual(t, g.age, time.Duration(0))
		again, err := g.encode(server)
		require.NoError(t, err)
		back, err := decode(again, server, here.Read())
		require.NoError(t, err)
		require.Equal(t, []string{g.access, g.refresh}, []string{back.access, back.refresh})
		require.Equal(t, g.life, back.life)
	})
}
