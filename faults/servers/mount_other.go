//go:build unix && !linux

package servers

import "errors"

func mount(string, int) error { return errors.ErrUnsupported }

func unmount(string) {}
