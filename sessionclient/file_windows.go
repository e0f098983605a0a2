//go:build windows

package sessionclient

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

const (
	openSafely   = 0     // check refuses links
	modesProtect = false // permission bits are made up
)

const (
	lockExclusive       = 2
	lockFailImmediately = 1

	errLockViolation syscall.Errno = 33
)

var (
	kernel32     = syscall.NewLazyDLL("kernel32.dll") // a known DLL: never looked for beside the program
	lockFileEx   = kernel32.NewProc("LockFileEx")
	unlockFileEx = kernel32.NewProc("UnlockFileEx")
)

// tryLock reports whether it got the exclusive lock on the first byte of f,
// which is that of the handle. Windows releases it when the process ends.
func tryLock(f *os.File) (bool, error) {
	var at syscall.Overlapped
	ok, _, err := lockFileEx.Call(f.Fd(), lockExclusive|lockFailImmediately, 0, 1, 0, uintptr(unsafe.Pointer(&at)))
	switch {
	case ok != 0:
		return true, nil
	case errors.Is(err, errLockViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return false, nil
	}
	return false, err
}

func releaseLock(f *os.File) {
	var at syscall.Overlapped
	_, _, _ = unlockFileEx.Call(f.Fd(), 0, 1, 0, uintptr(unsafe.Pointer(&at)))
}

// syncDir does nothing: Windows does not flush directories.
func syncDir(string) error { return nil }
