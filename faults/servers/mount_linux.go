package servers

import (
	"fmt"
	"syscall"
)

func mount(dir string, mib int) error {
	return syscall.Mount("sessiontoken", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=755", mib))
}

func unmount(dir string) { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }
