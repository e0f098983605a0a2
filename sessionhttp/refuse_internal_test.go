package sessionhttp

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestReasonsOfRefusals: an event of a refusal names the most exact reason, an
// error of the server that wraps one of a token does not, and package event
// lists each word that takes the place of invalid_credentials.
func TestReasonsOfRefusals(t *testing.T) {
	comment, err := os.ReadFile("../event/event.go")
	require.NoError(t, err)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{sessiontoken.ErrChanged, "changed"},
		{sessiontoken.ErrState, "state"},
		{sessiontoken.ErrAudience, "audience"},
		{sessiontoken.ErrClaims, "claims"},
		{sessiontoken.ErrExpired, "expired"},
		{sessiontoken.ErrRevoked, "revoked"},
		{ErrSessionOver, "over"},
		{sessiontoken.ErrMalformed, "malformed"},
		{sessiontoken.ErrSignature, "signature"},
		{refresh.ErrReused, "reused"},
		{refresh.ErrExpired, "expired"},
		{refresh.ErrClient, "client"},
		{refresh.ErrBinder, "binder"},
		{refresh.ErrInvalid, "refresh_token"},
		{ErrBadRequest, "request"},
		{&staleSignIn{time.Minute}, "step_up"},
		{&otherACR{"x"}, "step_up"},
		{ErrCrossOrigin, "cross_origin"},
		{errInsecure, "insecure"},
		{revoke.ErrOwed, "revocation_owed"},
		{undecided{"Load", sessiontoken.ErrExpired}, "cannot_tell"},
		{errPanic, "panic"},
		{errOpLate, "late"},
		{errNoIssuer, "not_configured"},
		{errors.New("the store is down"), "cannot_tell"},
	} {
		t.Run(tt.want+": "+tt.err.Error(), func(t *testing.T) {
			for _, err := range []error{tt.err, fmt.Errorf("wrapped: %w", tt.err)} {
				f := faultOf(err)
				require.Equal(t, tt.want, refusedFor(f, err))
				if f == faultClient {
					require.Contains(t, string(comment), `"`+tt.want+`"`)
				}
			}
		})
	}
}
