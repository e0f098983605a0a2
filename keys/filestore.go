package keys

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// FileStore is a [Store] in one file a name, shared by the processes of one
// host. [NewFileStore] makes one; the zero value only returns errors.
//
// It is not for network file systems (NFS, SMB and the like), nor for a
// volume that several hosts mount: it relies on a lock that every writer sees
// and on a rename that is atomic, and those promise neither between hosts.
//
// The document of the name "" is the file at path. That of any other name is
// the file at path + "." + the name as [net/url.QueryEscape] has it, with its
// dots escaped too; of a long one, its SHA-256. Names that differ only in upper
// and lower case are not apart on a file system that ignores case. Beside each
// such file it uses two more, here for the first:
//
//   - path + ".lock" is empty and locked during Save. It stays where it is.
//     Deleting it while a process uses the store lets two writers in at once.
//   - path + ".tmp" is the next document while it is being written.
//
// A process that is killed during Save, by kill -9 or by a power cut, leaves
// the old document or the new one, whole. Its lock ends with it. It may leave
// path + ".tmp" behind, which holds private keys as the document does; the
// next Save by any process removes it.
//
// On Unix the files are created with mode 0600, and a document that its group
// or others have any access to is refused, as is anything that is not a
// regular file, a symbolic link included. That says nothing about the
// directory: a user who can write to it can replace the keys. On Windows modes
// mean little, and the access list of the directory has to protect the file.
//
// Unless the document is sealed, every backup or snapshot of the file holds
// private keys that can sign until they retire. Restoring an old one brings
// back keys that were retired or revoked since, unless a process that runs knows
// of it: revoke them again.
type FileStore struct {
	path string
}

var _ Store = (*FileStore)(nil)

var errNoPath = errors.New("keys: FileStore: path is empty")

// NewFileStore returns the store in the file at path. The file need not exist
// yet; its directory must exist when the first document is saved. A relative
// path is relative to the working directory at each call. An empty path is
// the only error: nothing is read or written here.
func NewFileStore(path string) (*FileStore, error) {
	if path == "" {
		return nil, errNoPath
	}
	return &FileStore{path: path}, nil
}

// Load implements [Store]. No file means no document; a file that is empty,
// is larger than 1 MiB, is not a regular file, or (on Unix) is open to its
// group or to others, is an error.
//
// Time is zero: the clock is that of the process itself.
func (s *FileStore) Load(ctx context.Context, name string) (Stored, error) {
	if err := ctx.Err(); err != nil {
		return Stored{}, err
	}
	f, err := s.file(name)
	if err != nil {
		return Stored{}, err
	}
	if readNeedsLock {
		// Without a file there is nothing to lock out, and perhaps no directory
		// to put a lock file into.
		if _, err := os.Lstat(f.path); !errors.Is(err, fs.ErrNotExist) {
			unlock, err := f.lock(ctx)
			if err != nil {
				return Stored{}, err
			}
			defer unlock()
		}
	}
	doc, rev, err := f.read()
	return Stored{Doc: doc, Rev: rev}, err
}

// Save implements [Store]. Revisions are the SHA-256 of the document, in hex,
// so the same bytes have the same revision. Save waits for other writers
// until ctx is done, and returns once the document is on disk: the file and,
// except on Windows, its directory are flushed.
func (s *FileStore) Save(ctx context.Context, name string, doc []byte, rev string) (newRev string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkDocument(doc); err != nil {
		return "", err
	}
	f, err := s.file(name)
	if err != nil {
		return "", err
	}
	unlock, err := f.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()

	_, current, err := f.read()
	if err != nil {
		return "", err
	}
	if current != rev {
		return "", ErrConflict
	}
	if err := f.replace(doc); err != nil {
		return "", fmt.Errorf("keys: FileStore: saving: %w", err)
	}
	return contentRevision(doc), nil
}

// documentFile is the file of one document.
type documentFile struct{ path string }

// file returns the file of a name. No two names have one file, and none has
// the file that another one needs beside it.
func (s *FileStore) file(name string) (documentFile, error) {
	if s.path == "" {
		return documentFile{}, errNoPath
	}
	if name == "" {
		return documentFile{s.path}, nil
	}
	escaped := strings.ReplaceAll(url.QueryEscape(name), ".", "%2E")
	if escaped == "lock" || escaped == "tmp" {
		escaped = fmt.Sprintf("%%%02X", name[0]) + escaped[1:]
	}
	if len(escaped) > maxEscaped {
		sum := sha256.Sum256([]byte(name))
		escaped = "%sha256-" + hex.EncodeToString(sum[:]) // not what any name is escaped to
	}
	return documentFile{s.path + "." + escaped}, nil
}

// maxEscaped leaves room for the rest in a file name, which mostly may have 255
// bytes.
const maxEscaped = 160

func contentRevision(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

// read returns what is in the file now, and its revision.
func (s documentFile) read() (doc []byte, rev string, err error) {
	// The look before the open is for a clear answer about links and the
	// like; the one that counts is checkFile on the file that was opened.
	info, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("keys: FileStore: %w", err)
	}
	if err := s.checkFile(info); err != nil {
		return nil, "", err
	}

	f, err := os.OpenFile(s.path, os.O_RDONLY|openSafely, 0)
	if err != nil {
		// Also if the file is gone by now: Save never removes one, so
		// this is not the absence that Load reports.
		return nil, "", fmt.Errorf("keys: FileStore: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, "", fmt.Errorf("keys: FileStore: %w", err)
	}
	if err := s.checkFile(info); err != nil {
		return nil, "", err
	}
	doc, err = io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, "", fmt.Errorf("keys: FileStore: %w", err)
	}
	if len(doc) == 0 {
		return nil, "", fmt.Errorf("keys: FileStore: %s is empty; restore it, or remove it to begin with new keys", s.path)
	}
	if len(doc) > maxDocument {
		return nil, "", fmt.Errorf("keys: FileStore: %s is larger than %d bytes", s.path, maxDocument)
	}
	return doc, contentRevision(doc), nil
}

// checkFile refuses a file that cannot be the document of a careful owner.
func (s documentFile) checkFile(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("keys: FileStore: %s is not a regular file (mode %v)", s.path, info.Mode())
	}
	if perm := info.Mode().Perm(); modesProtect && perm&0o077 != 0 {
		return fmt.Errorf("keys: FileStore: %s has mode %04o, which lets its group or others at the keys; chmod 600 it, and rotate the keys if they may have been read", s.path, perm)
	}
	return nil
}

// replace puts doc in place of the file. The caller holds the lock.
func (s documentFile) replace(doc []byte) (err error) {
	tmp := s.path + ".tmp"
	// What is left of a writer that was killed. Ours must be a new file:
	// an old one could have another mode, or be open elsewhere.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(doc)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, s.path)
	}
	if err != nil {
		os.Remove(tmp) // it holds keys; err already says what went wrong
		return err
	}
	return syncDir(filepath.Dir(s.path))
}

const (
	lockFirstWait = time.Millisecond
	lockMaxWait   = 32 * time.Millisecond
)

// lock takes the lock that keeps other writers out, in this process and in
// others, and returns what releases it. It asks again and again rather than
// block in the kernel, where ctx could not end the wait.
func (s documentFile) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR|openSafely, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keys: FileStore: opening the lock file: %w", err)
	}
	for wait := lockFirstWait; ; wait = min(2*wait, lockMaxWait) {
		held, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("keys: FileStore: locking: %w", err)
		}
		if held {
			return func() {
				releaseLock(f)
				f.Close()
			}, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			f.Close()
			return nil, fmt.Errorf("keys: FileStore: waiting for another writer: %w", ctx.Err())
		case <-timer.C:
		}
	}
}
