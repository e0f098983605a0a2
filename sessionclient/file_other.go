//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package sessionclient

import (
	"errors"
	"os"
)

const (
	openSafely   = 0
	modesProtect = false
)

// tryLock fails: without a lock between processes a file cannot be shared.
func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }

func releaseLock(*os.File) {}

func syncDir(string) error { return nil }
