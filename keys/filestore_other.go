//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package keys

import (
	"errors"
	"os"
)

const (
	openSafely    = 0
	openMounted   = 0
	modesProtect  = false
	readNeedsLock = true
)

// tryLock fails: without a lock between processes there is no FileStore.
func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }

func releaseLock(*os.File) {}

func syncDir(string) error { return nil }
