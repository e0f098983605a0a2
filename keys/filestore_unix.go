//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package keys

import (
	"errors"
	"os"
	"syscall"
)

const (
	// openSafely does not follow a symbolic link as the last part of a path,
	// and does not hang on a named pipe.
	openSafely = openMounted | syscall.O_NOFOLLOW

	// openMounted does not hang either, and follows links.
	openMounted = syscall.O_NONBLOCK

	// modesProtect: permission bits decide who can read a file.
	modesProtect = true

	// readNeedsLock: rename replaces a file that others have open.
	readNeedsLock = false
)

// tryLock reports whether it got the exclusive lock on f. The lock belongs to
// the open file, not to the process, so it keeps out other goroutines as well;
// the kernel releases it when the process ends.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, err
		}
	}
}

// releaseLock gives the lock back at once. Closing f would too, except while
// a process just forked still has a copy of it. An error leaves it to Close.
func releaseLock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
}

// syncDir flushes the directory, and with it the rename of a file in it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
