package sessionclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// File returns a keeper in the file at path, such as for a command-line program.
// The file need not exist yet; its directory must exist when the first record is
// saved. The only error is an empty path. File does no I/O.
//
// The processes of one host can share the file: path + ".lock" is locked while
// one of them uses the record. It is never deleted. Network file systems do not
// guarantee that lock between hosts. path + ".tmp" is the next record while it
// is being written.
//
// A record is replaced in one step. After a crash or a power cut the file holds
// the old record or the new one, whole. On Unix it has mode 0600. A file to
// which its group or others have access, or that is not a regular file, such as
// a symbolic link, is an error. On Windows the access list of the directory must
// protect the file. The record is not encrypted.
func File(path string) (Keeper, error) {
	if path == "" {
		return nil, errors.New("sessionclient: File: the path is empty")
	}
	return file(path), nil
}

type file string

// Lock implements [Keeper]. It polls, since ctx cannot end a wait in the kernel.
func (p file) Lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(string(p)+".lock", os.O_CREATE|os.O_RDWR|openSafely, 0o600)
	if err != nil {
		return nil, err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 32*time.Millisecond) {
		held, err := tryLock(f)
		if err == nil && !held && !sleep(ctx, wait) {
			err = context.Cause(ctx)
			if err == nil { // it ends within wait
				err = context.DeadlineExceeded
			}
			err = fmt.Errorf("another process has the lock: %w", err)
		}
		switch {
		case err != nil:
			f.Close()
			return nil, err
		case held:
			return func() { unlockFile(f) }, nil
		}
	}
}

func unlockFile(f *os.File) {
	releaseLock(f)
	f.Close()
}

// Load implements [Keeper].
func (p file) Load(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// This check gives a clear error for a link. The one on the opened file
	// decides.
	info, err := os.Lstat(string(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = p.check(info)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(string(p), os.O_RDONLY|openSafely, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := p.check(info); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxRecord+1))
}

// check refuses a file of a kind or a mode that File does not permit.
func (p file) check(info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", string(p))
	case modesProtect && info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s has mode %04o, which lets others read the tokens; delete it, or sign out if they may have been read", string(p), info.Mode().Perm())
	}
	return nil
}

// Save implements [Keeper].
func (p file) Save(ctx context.Context, record []byte) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	tmp := string(p) + ".tmp"
	// A process that was killed may have left one, with another mode.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(record) == 0 {
		if err := os.Remove(string(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(filepath.Dir(string(p)))
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(record)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, string(p))
	}
	if err != nil {
		os.Remove(tmp) // err is the error to return
		return err
	}
	return syncDir(filepath.Dir(string(p)))
}
