//go:build unix

package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Disk is a small file system of its own, which can be full.
type Disk struct {
	Dir string

	quit chan struct{} // ends the filling
	done chan error
}

// ErrNoDisk means that this user may not mount anything.
var ErrNoDisk = errors.New("servers: no file system can be mounted here")

// MountDisk mounts a disk of that many MiB.
func MountDisk(mib int) (*Disk, error) {
	dir, err := os.MkdirTemp("", "sessiontoken-disk-")
	if err != nil {
		return nil, err
	}
	if err := mount(dir, mib); err != nil {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("%w: %w", ErrNoDisk, err)
	}
	return &Disk{Dir: dir}, nil
}

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill takes all the room that is left, and what becomes free, until Free.
func (d *Disk) Fill() error {
	f, err := os.Create(d.filler())
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		f.Close()
		return err
	}
	d.quit, d.done = make(chan struct{}), make(chan error, 1)
	go func() {
		defer f.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-d.quit:
				d.done <- nil
				return
			case <-tick.C:
			}
			if err := fill(f); err != nil {
				d.done <- err
				return
			}
		}
	}()
	return nil
}

func fill(f *os.File) error {
	for size := 1 << 20; size >= 1; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Free gives it back.
func (d *Disk) Free() error {
	close(d.quit)
	return errors.Join(<-d.done, os.Remove(d.filler()))
}

// Unmount removes the disk with all that is on it.
func (d *Disk) Unmount() {
	unmount(d.Dir)
	_ = os.Remove(d.Dir)
}
