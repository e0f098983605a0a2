//go:build unix

package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// question is what OPERATING.md has on one situation.
type question struct {
	title string
	lines []string // its commands
}

// questions reads the section of OPERATING.md.
func questions(t *testing.T) (all []question) {
	text, err := os.ReadFile("../../OPERATING.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "\n## When something has happened\n")
	require.True(t, found)
	section, _, _ := strings.Cut(rest, "\n## ")
	for _, part := range strings.Split(section, "\n### ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		_, fence, found := strings.Cut(body, "```sh\n")
		require.True(t, found, title)
		lines, _, _ := strings.Cut(fence, "```")
		all = append(all, question{title, strings.Split(strings.TrimSpace(lines), "\n")})
	}
	return all
}

// scene is a situation, and what holds after the commands were run.
type scene struct {
	env   func(s *played) []string
	found bool // the first command may exit with 1, since it has found something
	check func(s *played, out []string)
}

// played is one question that is played at one engine.
type played struct {
	*testing.T
	*place
	*program
	ada, bob signedIn
	target   *place
}

func (s *played) over(session signedIn) { s.Helper(); s.is(session, revoke.ErrRevoked) }
func (s *played) live(session signedIn) { s.Helper(); s.is(session, nil) }

func (s *played) is(session signedIn, want error) {
	s.Helper()
	require.ErrorIs(s, check(s.Context(), s.Authority, session), want)
	if want != nil {
		require.ErrorIs(s, exchange(s.Context(), s.Authority, session.refresh), refresh.ErrInvalid)
	}
}

// file writes a file that the command reads.
func (s *played) file(text string) string {
	name := filepath.Join(s.TempDir(), "file")
	require.NoError(s, os.WriteFile(name, []byte(text), 0o600))
	return name
}

var scenes = map[string]scene{
	"A key has leaked": {
		env: func(s *played) []string { return []string{"KID=" + s.ada.claims.KeyID} },
		check: func(s *played, out []string) {
			require.Contains(s, out[0], s.ada.claims.KeyID)
			require.NoError(s, s.Revocations().Sync(s.Context()))
			require.NoError(s, s.Ring().Sync(s.Context()))
			_, err := s.Verifier().Verify(s.Context(), s.ada.token)
			require.ErrorIs(s, err, sessiontoken.ErrInvalid)
			again, err := s.signIn(s.Context(), "ada")
			require.NoError(s, err)
			require.NotEqual(s, s.ada.claims.KeyID, again.claims.KeyID)
			_, err = s.Verifier().Verify(s.Context(), again.token)
			require.NoError(s, err)
		},
	},
	"A phone was stolen": {
		env: func(s *played) []string { return []string{"DEVICE=" + s.devices(s.T, "ada")[0]} },
		check: func(s *played, out []string) {
			require.Contains(s, out[0], s.ada.claims.SessionID)
			require.Empty(s, s.devices(s.T, "ada"))
			s.over(s.ada)
			s.live(s.bob)
		},
	},
	"One session, or one user, has to be out": {
		env: func(s *played) []string { return []string{"SID=" + s.bob.claims.SessionID} },
		check: func(s *played, _ []string) {
			s.over(s.bob)
			s.over(s.ada)
		},
	},
	"All users have to sign in again": {
		check: func(s *played, _ []string) {
			s.over(s.ada)
			s.over(s.bob)
		},
	},
	"A role has changed": {
		check: func(s *played, _ []string) {
			s.live(s.ada)
			_, err := s.Verifier().Verify(s.Context(), s.ada.token)
			require.ErrorIs(s, err, sessiontoken.ErrChanged)
			_, err = s.Verifier().Verify(s.Context(), s.bob.token)
			require.NoError(s, err)
		},
	},
	"A person asks to be forgotten": {
		check: func(s *played, _ []string) {
			require.Empty(s, s.devices(s.T, "ada"))
			s.over(s.ada)
			s.live(s.bob)
		},
	},
	"The store has lost its data": {
		found: true,
		check: func(s *played, out []string) {
			require.Contains(s, out[0], "revocations")
			s.over(s.ada)
			s.over(s.bob)
		},
	},
	"A clock is off": {
		found: true,
		check: func(s *played, out []string) { require.Contains(s, out[0], "clock") },
	},
	"A secret has to be replaced": {
		check: func(s *played, out []string) {
			require.Contains(s, out[1], "secret 1 of SESSIONTOKEN_SECRETS seals 2 private keys")
			s.live(s.ada)
		},
	},
	"The JWKS answers 503": {
		found: true,
		check: func(s *played, out []string) {
			require.Contains(s, out[0], s.ada.claims.KeyID)
			require.Contains(s, out[1], "ring")
		},
	},
	"A token is over its budget": {
		env:   func(s *played) []string { return []string{"FILE=" + s.file(s.ada.token)} },
		found: true, // without an issuer that answers, it is not verified
		check: func(s *played, out []string) {
			require.Contains(s, out[0], "NOT VERIFIED")
			require.Contains(s, out[0], "state")
			require.Contains(s, out[0], "iss")
		},
	},
	"A deploy changes the state": {
		env:   func(s *played) []string { return []string{"FILE=" + s.file(s.ada.token)} },
		found: true,
		check: func(s *played, out []string) { require.Contains(s, out[0], s.ada.claims.SessionID) },
	},
	"The store moves to another engine": {
		env: func(s *played) []string {
			return []string{"SESSIONTOKEN_FROM=" + s.url, "SESSIONTOKEN_TO=" + s.target.url}
		},
		check: func(s *played, _ []string) {
			there := &program{replica(s.T, s.target.open(s.T)), nil}
			_, err := there.Verifier().Verify(s.Context(), s.bob.token)
			require.NoError(s, err)
			require.NoError(s, exchange(s.Context(), there.Authority, s.bob.refresh))
			require.ErrorIs(s, check(s.Context(), there.Authority, s.ada), revoke.ErrRevoked, "revoked before")
		},
	},
	"A proxy stands in front": {
		env: func(s *played) []string {
			return []string{"COOKIE=" + s.file("__Host-session="+s.ada.token+"; other="+strings.Repeat("x", 9000))}
		},
		found: true,
		check: func(s *played, out []string) { require.Regexp(s, `FOUND +cookie size`, out[0]) },
	},
	"Gateways and other people's verifiers": {
		found: true,
		check: func(s *played, out []string) {
			require.Contains(s, out[0], "envoy")
			require.Contains(s, out[0], "istio")
		},
	},
}

// TestQuestions: the commands of each question of OPERATING.md, as they stand
// there, do on each engine what it says. There are at most two.
func TestQuestions(t *testing.T) {
	all := questions(t)
	require.Len(t, all, len(scenes), "each question has a scene")
	path := filepath.Dir(binary) + ":" + os.Getenv("PATH")
	for kind, open := range engines {
		t.Run(kind, func(t *testing.T) {
			for _, q := range all {
				t.Run(q.title, func(t *testing.T) {
					t.Parallel()
					scene, ok := scenes[q.title]
					require.True(t, ok)
					require.LessOrEqual(t, len(q.lines), 2)
					s := &played{T: t, place: open(t)}
					s.program = s.begin(t)
					var err error
					s.ada, err = s.signIn(t.Context(), "ada")
					require.NoError(t, err)
					s.bob, err = s.signIn(t.Context(), "bob")
					require.NoError(t, err)
					time.Sleep(2 * time.Millisecond) // what is revoked now began before
					env := s.env()
					if q.title == "The store moves to another engine" {
						s.target = newSQLite(t)
						s.target.open(t)
						require.NoError(t, s.Revocations().RevokeSession(t.Context(), s.ada.claims.SessionID))
					}
					if scene.env != nil {
						env = append(env, scene.env(s)...)
					}
					var out []string
					for i, line := range q.lines {
						require.True(t, strings.HasPrefix(line, "sessiontoken "), line)
						cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
						cmd.Env = append([]string{"HOME=" + os.TempDir(), "PATH=" + path}, env...)
						text, err := cmd.CombinedOutput()
						out = append(out, string(text))
						if code := cmd.ProcessState.ExitCode(); !(scene.found && code == 1) {
							require.NoError(t, err, "command %d: %s", i, text)
						}
						require.NotContains(t, string(text), password)
					}
					scene.check(s, out)
				})
			}
		})
	}
}
