//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package keys_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

func newFileStore(t testing.TB) (s *keys.FileStore, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys.json")
	s, err := keys.NewFileStore(path)
	require.NoError(t, err)
	return s, path
}

func TestNewFileStore(t *testing.T) {
	s, err := keys.NewFileStore("")
	require.Error(t, err)
	require.Nil(t, s)

	// The zero value must not pass for a store without a document.
	var zero keys.FileStore
	_, _, err = load(t.Context(), &zero)
	require.Error(t, err)
	_, err = zero.Save(t.Context(), "", []byte("doc"), "")
	require.Error(t, err)
	require.NotErrorIs(t, err, keys.ErrConflict)

	// No I/O: the directory need not be there until the first Save.
	dir := t.TempDir()
	s, err = keys.NewFileStore(filepath.Join(dir, "missing", "keys.json"))
	require.NoError(t, err)
	doc, rev, err := load(t.Context(), s)
	require.NoError(t, err)
	require.Nil(t, doc)
	require.Empty(t, rev)
	_, err = s.Save(t.Context(), "", []byte("doc"), "")
	require.ErrorIs(t, err, fs.ErrNotExist)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestFileStoreModes(t *testing.T) {
	s, path := newFileStore(t)
	rev := mustSave(t, s, "one", "")
	mustSave(t, s, "two", rev)
	for _, name := range []string{path, path + ".lock"} {
		info, err := os.Lstat(name)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode(), name)
	}
	require.NoFileExists(t, path+".tmp")
}

func TestFileStoreRefusesModes(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o644, 0o620, 0o602, 0o666, 0o610, 0o601, 0o777} {
		t.Run(fmt.Sprintf("%04o", mode), func(t *testing.T) {
			s, path := newFileStore(t)
			rev := mustSave(t, s, "doc", "")
			require.NoError(t, os.Chmod(path, mode))

			doc, gotRev, err := load(t.Context(), s)
			require.Error(t, err)
			require.Nil(t, doc)
			require.Empty(t, gotRev)
			for _, r := range []string{rev, ""} {
				_, err = s.Save(t.Context(), "", []byte("other"), r)
				require.Error(t, err)
				require.NotErrorIs(t, err, keys.ErrConflict)
			}

			// It was the mode, and nothing was written.
			require.NoError(t, os.Chmod(path, 0o600))
			requireDocument(t, s, []byte("doc"), rev)
		})
	}
	t.Run("0400 can be read", func(t *testing.T) {
		s, path := newFileStore(t)
		rev := mustSave(t, s, "doc", "")
		require.NoError(t, os.Chmod(path, 0o400))
		requireDocument(t, s, []byte("doc"), rev)
	})
}

func TestFileStoreRefusesFiles(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string)
	}{
		{"directory", func(t *testing.T, path string) {
			require.NoError(t, os.Mkdir(path, 0o700))
		}},
		{"symlink to a good file", func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "target")
			require.NoError(t, os.WriteFile(target, []byte("doc"), 0o600))
			require.NoError(t, os.Symlink(target, path))
		}},
		{"symlink to nothing", func(t *testing.T, path string) {
			require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "missing"), path))
		}},
		{"named pipe", func(t *testing.T, path string) {
			require.NoError(t, syscall.Mkfifo(path, 0o600))
		}},
		{"device", func(t *testing.T, path string) {
			require.NoError(t, os.Symlink(os.DevNull, path))
		}},
		{"empty", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
		}},
		{"larger than 1 MiB", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, make([]byte, 1<<20+1), 0o600))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, path := newFileStore(t)
			tt.make(t, path)
			before, err := os.Lstat(path)
			require.NoError(t, err)

			doc, rev, err := load(t.Context(), s)
			require.Error(t, err)
			require.Nil(t, doc)
			require.Empty(t, rev)
			_, err = s.Save(t.Context(), "", []byte("other"), "")
			require.Error(t, err)
			require.NotErrorIs(t, err, keys.ErrConflict)

			after, err := os.Lstat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
			require.Equal(t, before.Size(), after.Size())
		})
	}
}

// A lock file that points elsewhere is not followed.
// A replica that only verifies reads a secret as it is mounted into a container: a
// link to a file that its group may read, in a folder that is not written.
func TestVerifyOnlyReadsMountedSecret(t *testing.T) {
	aead, err := keys.NewAESGCM(make([]byte, 32))
	require.NoError(t, err)
	issued := filepath.Join(t.TempDir(), "ring")
	source, err := keys.NewFileStore(issued)
	require.NoError(t, err)
	issuer, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(source, aead), Logger: quiet})
	require.NoError(t, err)
	kid := current(t, issuer)

	dir := t.TempDir()
	path := filepath.Join(dir, "ring")
	require.NoError(t, os.Symlink(filepath.Join("..data", "ring"), path))
	// mount puts another version of the secret in place, as a container's host does.
	mount := func(version string, mode fs.FileMode) {
		t.Helper()
		doc, err := os.ReadFile(issued)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(dir, 0o755))
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o755))
		file := filepath.Join(dir, version, "ring")
		require.NoError(t, os.WriteFile(file, doc, mode))
		require.NoError(t, os.Chmod(file, mode)) // whatever the umask
		next := filepath.Join(dir, "..next")
		require.NoError(t, os.Symlink(version, next))
		require.NoError(t, os.Rename(next, filepath.Join(dir, "..data")))
		require.NoError(t, os.Chmod(dir, 0o555))
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	names := func() (names []string) {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	ring := func(change ...func(*keys.RingConfig)) *keys.Ring {
		t.Helper()
		s, err := keys.NewFileStore(path)
		require.NoError(t, err)
		cfg := keys.RingConfig{Store: s, VerifyOnly: true, Logger: quiet}
		for _, f := range change {
			f(&cfg)
		}
		r, err := keys.NewRing(cfg)
		require.NoError(t, err)
		return r
	}

	mount("..1", 0o440)
	before := names()
	require.True(t, published(t, ring(), kid))
	require.True(t, published(t, ring(func(c *keys.RingConfig) { c.Store = keys.Sealed(c.Store, aead) }), kid))
	require.Equal(t, before, names(), "nothing is written beside it")
	_, err = ring(func(c *keys.RingConfig) { c.VerifyOnly = false }).SigningKey(t.Context())
	require.ErrorContains(t, err, "not a regular file", "a ring that writes does not follow links")

	require.NoError(t, issuer.Revoke(t.Context(), kid))
	mount("..2", 0o444)
	require.True(t, published(t, ring(), current(t, issuer)))
	require.False(t, published(t, ring(), kid))

	for i, mode := range []fs.FileMode{0o460, 0o446, 0o660, 0o666} {
		mount(fmt.Sprint("..", 3+i), mode)
		_, err = ring().KeySet(t.Context(), "")
		require.ErrorContains(t, err, "write the keys that are trusted", "mode %04o", mode)
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Remove(filepath.Join(dir, "..data")))
	_, err = ring().KeySet(t.Context(), "")
	require.ErrorIs(t, err, fs.ErrNotExist, "a link to nothing is not a store without a document")
}

func TestFileStoreRefusesLockSymlink(t *testing.T) {
	s, path := newFileStore(t)
	target := filepath.Join(t.TempDir(), "target")
	require.NoError(t, os.Symlink(target, path+".lock"))
	_, err := s.Save(t.Context(), "", []byte("doc"), "")
	require.Error(t, err)
	require.NoFileExists(t, target)
	require.NoFileExists(t, path)
}

// Errors may name the file, but never what is in it.
func TestFileStoreErrorsHoldNoDocument(t *testing.T) {
	s, path := newFileStore(t)
	const secret = "SECRET-DOCUMENT"
	rev := mustSave(t, s, secret, "")
	_, err := s.Save(t.Context(), "", []byte(secret+"2"), "")
	require.NotContains(t, err.Error(), secret)
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = s.Save(t.Context(), "", []byte(secret+"2"), rev)
	require.NotContains(t, err.Error(), secret)
	_, _, err = load(t.Context(), s)
	require.NotContains(t, err.Error(), secret)
}

// What a killed writer leaves behind does not stop, or leak into, the next.
func TestFileStoreLeftovers(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, tmp string)
	}{
		{"half a document", func(t *testing.T, tmp string) {
			require.NoError(t, os.WriteFile(tmp, []byte("half a doc"), 0o600))
		}},
		{"readable by all", func(t *testing.T, tmp string) {
			require.NoError(t, os.WriteFile(tmp, nil, 0o600))
			require.NoError(t, os.Chmod(tmp, 0o666))
		}},
		{"symlink", func(t *testing.T, tmp string) {
			target := filepath.Join(t.TempDir(), "target")
			require.NoError(t, os.WriteFile(target, []byte("untouched"), 0o600))
			require.NoError(t, os.Symlink(target, tmp))
			t.Cleanup(func() {
				got, err := os.ReadFile(target)
				require.NoError(t, err)
				require.Equal(t, "untouched", string(got))
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, path := newFileStore(t)
			rev := mustSave(t, s, "one", "")
			tt.make(t, path+".tmp")
			requireDocument(t, s, []byte("one"), rev)
			rev = mustSave(t, s, "two", rev)
			requireDocument(t, s, []byte("two"), rev)
			require.NoFileExists(t, path+".tmp")
			info, err := os.Lstat(path)
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o600), info.Mode())
		})
	}
}

// A write that fails leaves the old document and no copy of the new one.
func TestFileStoreFailedWrite(t *testing.T) {
	s, path := newFileStore(t)
	rev := mustSave(t, s, "one", "")
	// Something that cannot be removed stands where the new file would go.
	require.NoError(t, os.MkdirAll(filepath.Join(path+".tmp", "x"), 0o700))
	_, err := s.Save(t.Context(), "", []byte("two"), rev)
	require.Error(t, err)
	require.NotErrorIs(t, err, keys.ErrConflict)
	requireDocument(t, s, []byte("one"), rev)
	require.NoError(t, os.RemoveAll(path+".tmp"))
	mustSave(t, s, "two", rev)
}

func TestFileStoreLockHonoursContext(t *testing.T) {
	s, path := newFileStore(t)
	rev := mustSave(t, s, "one", "")

	// Another writer, as the kernel sees it.
	f, err := os.OpenFile(path+".lock", os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))

	// The kernel's lock is outside of any synctest bubble: a real deadline.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = s.Save(ctx, "", []byte("two"), rev)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, keys.ErrConflict)

	requireDocument(t, s, []byte("one"), rev) // readers do not wait

	// A writer that waits gets its turn.
	saved := make(chan error, 1)
	go func() {
		_, err := s.Save(t.Context(), "", []byte("two"), rev)
		saved <- err
	}()
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_UN))
	require.NoError(t, <-saved)
}

// The tests below start this test binary again, as another process that runs
// TestFileStoreChild and nothing else. The two talk over the child's standard
// input and output, in lines.

const (
	childRoleEnv = "KEYS_TEST_FILESTORE_ROLE"
	childPathEnv = "KEYS_TEST_FILESTORE_PATH"
)

type childProcess struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func startChild(t *testing.T, role, path string) *childProcess {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestFileStoreChild$", "-test.count=1", "-test.v=false")
	cmd.Env = append(os.Environ(), childRoleEnv+"="+role, childPathEnv+"="+path)
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return &childProcess{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
}

func (c *childProcess) send(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(c.stdin, line+"\n")
	require.NoError(t, err)
}

func (c *childProcess) receive(t *testing.T) string {
	t.Helper()
	require.True(t, c.lines.Scan(), "the child ended early: %v", c.lines.Err())
	return c.lines.Text()
}

func TestFileStoreChild(t *testing.T) {
	role := os.Getenv(childRoleEnv)
	if role == "" {
		return // an ordinary run of the tests
	}
	s, err := keys.NewFileStore(os.Getenv(childPathEnv))
	require.NoError(t, err)
	if role == "killed" {
		saveUntilKilled(t, s)
		return
	}
	raceRounds(t, s, role)
}

// raceRounds loads at "load" and saves at "save", until its input ends. The
// document is a count and the names of those who counted.
func raceRounds(t *testing.T, s *keys.FileStore, name string) {
	var doc []byte
	var rev string
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "load":
			var err error
			doc, rev, err = load(t.Context(), s)
			require.NoError(t, err)
			fmt.Println(rev)
		case "save":
			count, log, _ := strings.Cut(string(doc), " ")
			n, err := strconv.Atoi(count)
			require.NoError(t, err)
			_, err = s.Save(t.Context(), "", fmt.Appendf(nil, "%d %s%s", n+1, log, name), rev)
			if err == nil {
				fmt.Println("won")
				continue
			}
			require.ErrorIs(t, err, keys.ErrConflict)
			fmt.Println("lost")
		}
	}
}

func TestFileStoreTwoProcesses(t *testing.T) {
	rounds := 100
	if os.Getenv("SESSIONTOKEN_LONG") != "" {
		rounds = 300
	}
	s, path := newFileStore(t)
	mustSave(t, s, "0 ", "")
	names := []string{"a", "b"}
	children := []*childProcess{startChild(t, "a", path), startChild(t, "b", path)}

	var winners strings.Builder
	for range rounds {
		for _, c := range children {
			c.send(t, "load")
		}
		// Both hold the same revision before either may save.
		require.Equal(t, children[0].receive(t), children[1].receive(t))
		for _, c := range children {
			c.send(t, "save")
		}
		won := 0
		for i, c := range children {
			if c.receive(t) == "won" {
				won++
				winners.WriteString(names[i])
			}
		}
		require.Equal(t, 1, won, "winners of one round")
	}
	for _, c := range children {
		require.NoError(t, c.stdin.Close())
		for c.lines.Scan() { // the verdict of the testing package
		}
		require.NoError(t, c.cmd.Wait())
	}

	doc, _, err := load(t.Context(), s)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%d %s", rounds, winners.String()), string(doc))
	t.Logf("a won %d of %d rounds", strings.Count(winners.String(), "a"), rounds)
}

// checkedDocument has n bytes after the checksum over them.
func checkedDocument(n int) []byte {
	body := bytes.Repeat([]byte{byte('a' + n%26)}, n)
	sum := sha256.Sum256(body)
	return append([]byte(hex.EncodeToString(sum[:])), body...)
}

func requireChecked(t *testing.T, doc []byte) {
	t.Helper()
	require.GreaterOrEqual(t, len(doc), 64)
	sum := sha256.Sum256(doc[64:])
	require.Equal(t, hex.EncodeToString(sum[:]), string(doc[:64]))
}

// saveUntilKilled says "w" before each write.
func saveUntilKilled(t *testing.T, s *keys.FileStore) {
	for {
		_, rev, err := load(t.Context(), s)
		require.NoError(t, err)
		doc := checkedDocument(1 + rand.IntN(16<<10))
		fmt.Println("w")
		_, err = s.Save(t.Context(), "", doc, rev)
		require.NoError(t, err)
	}
}

func TestFileStoreKilled(t *testing.T) {
	kills := 20
	if os.Getenv("SESSIONTOKEN_LONG") != "" {
		kills = 100
	}
	s, path := newFileStore(t)
	rev, err := s.Save(t.Context(), "", checkedDocument(1), "")
	require.NoError(t, err)

	leftovers, changed := 0, 0
	for range kills {
		c := startChild(t, "killed", path)
		for range 1 + rand.IntN(5) {
			require.Equal(t, "w", c.receive(t))
		}
		// Somewhere in the write, which takes about as long as this.
		block := make([]byte, 1024)
		for range rand.IntN(4000) {
			sum := sha256.Sum256(block)
			copy(block, sum[:])
		}
		require.NoError(t, c.cmd.Process.Kill())
		for c.lines.Scan() {
			require.Equal(t, "w", c.lines.Text())
		}
		_ = c.cmd.Wait()
		status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
		require.True(t, status.Signaled(), "the child ended by itself")
		require.Equal(t, syscall.SIGKILL, status.Signal())

		if _, err := os.Lstat(path + ".tmp"); err == nil {
			leftovers++
		}
		doc, current, err := load(t.Context(), s)
		require.NoError(t, err)
		requireChecked(t, doc)
		if current != rev {
			changed++
		}
		doc = checkedDocument(1 + rand.IntN(16<<10))
		rev, err = s.Save(t.Context(), "", doc, current)
		require.NoError(t, err)
		requireDocument(t, s, doc, rev)
		require.NoFileExists(t, path+".tmp")
	}
	// Otherwise the kills missed the writes.
	require.Positive(t, changed)
	t.Logf("%d kills: %d left a half-written file behind, %d came after a finished write", kills, leftovers, changed)
}
