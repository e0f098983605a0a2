//go:build windows

package keys

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

const (
	// openSafely has nothing to add on Windows; checkFile refuses links.
	openSafely = 0

	// openMounted has nothing to add either.
	openMounted = 0

	// modesProtect: permission bits are made up from the read-only flag.
	modesProtect = false

	// readNeedsLock: a file cannot be replaced while a reader has it open.
	readNeedsLock = true
)

const (
	lockfileFailImmediately = 1
	lockfileExclusiveLock   = 2

	errorLockViolation syscall.Errno = 33
)

// kernel32.dll is a known DLL: Windows never looks for it beside the program.
var (
	kernel32         = syscall.NewLazyDLL("kernel32.dll")
	procLockFileEx   = kernel32.NewProc("LockFileEx")
	procUnlockFileEx = kernel32.NewProc("UnlockFileEx")
)

// tryLock reports whether it got the exclusive lock on the first byte of f.
// The lock belongs to the handle, so it keeps out other goroutines as well;
// Windows releases it when the process ends.
func tryLock(f *os.File) (bool, error) {
	var at syscall.Overlapped
	ok, _, err := procLockFileEx.Call(f.Fd(),
		lockfileExclusiveLock|lockfileFailImmediately, 0, 1, 0,
		uintptr(unsafe.Pointer(&at)))
	switch {
	case ok != 0:
		return true, nil
	case errors.Is(err, errorLockViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return false, nil
	default:
		return false, err
	}
}

// releaseLock gives the lock back at once; Windows promises no moment at
// which closing f would. An error leaves it to Close all the same.
func releaseLock(f *os.File) {
	var at syscall.Overlapped
	_, _, _ = procUnlockFileEx.Call(f.Fd(), 0, 1, 0, uintptr(unsafe.Pointer(&at)))
}

// syncDir does nothing: Windows has no flush of a directory.
func syncDir(string) error { return nil }
