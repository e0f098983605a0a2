//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package sessionclient

import (
	"errors"
	"os"
	"syscall"
)

const (
	// openSafely follows no symbolic link and does not hang on a named pipe.
	openSafely = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

	// modesProtect: permission bits decide who can read a file.
	modesProtect = true
)

// tryLock reports whether it got the exclusive lock on f, which is that of the
// open file: it excludes other goroutines and processes. The kernel releases it
// when the process ends.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	}
}

// releaseLock releases the lock even if a process that was just forked still has
// a copy of f.
func releaseLock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// syncDir flushes the directory, and with it what was renamed or removed in it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
