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

// FileStore is a [Store] with one file for each name, shared by the processes
// of one host. Make it with [NewFileStore]: every call of a zero FileStore
// fails.
//
// It is not for network file systems (NFS, SMB and the like), nor for a volume
// that several hosts mount. It needs a lock that every writer sees and an
// atomic rename, which these do not guarantee between hosts.
//
// The document of the name "" is the file at path. That of another name is the
// file at path + "." + the name in the form of [net/url.QueryEscape], with its
// dots escaped too, or the SHA-256 of a long name. On a file system that
// ignores case, names that differ only in case have one file. Beside each such
// file the store uses two more, here for the first:
//
//   - path + ".lock" is empty and locked during Save. It is never deleted. If
//     it is deleted while a process uses the store, two writers can write at
//     once.
//   - path + ".tmp" is the next document while it is being written.
//
// After a process was killed during Save, by kill -9 or by a power cut, the
// file holds the old document or the new one, whole, and the lock is released.
// path + ".tmp" may be left, which holds private keys as the document does; the
// next Save by any process removes it.
//
// On Unix the files are created with mode 0600. A file to which its group or
// others have any access is an error, and so is one that is not a regular file,
// such as a symbolic link. The store does not check the directory: a user who
// can write to it can replace the keys. On Windows the access list of the
// directory must protect the file.
//
// A ring that is VerifyOnly writes nothing. Its file may come from elsewhere,
// such as a secret that is mounted into a container: the path may be a symbolic
// link, the directory may be read-only, and the group and others may read the
// file (mode 0440 or 0444). If they may write it, that is still an error, since
// the file decides which keys are trusted. The issuer's ring should be
// [Sealed], so that the file holds no private key in the clear. On Windows the
// directory must be writable, for the lock.
//
// Unless the document is sealed, every backup or snapshot of the file holds
// private keys that can sign until they retire. Restoring an old file brings
// back keys that were retired or revoked since, unless a running process knows
// of that: revoke them again.
type FileStore struct {
	path    string
	mounted bool // for a ring that only reads: see readOnly
}

var _ Store = (*FileStore)(nil)

var errNoPath = errors.New("keys: FileStore: path is empty")

// NewFileStore returns the store in the file at path. The file need not exist
// yet; its directory must exist when the first document is saved. A relative
// path is relative to the working directory at each call. The only error is an
// empty path. NewFileStore does no I/O.
func NewFileStore(path string) (*FileStore, error) {
	if path == "" {
		return nil, errNoPath
	}
	return &FileStore{path: path}, nil
}

// readOnly returns the store for a ring that is VerifyOnly.
func readOnly(s Store) Store {
	switch s := s.(type) {
	case *FileStore:
		return &FileStore{path: s.path, mounted: true}
	case *sealedStore:
		return &sealedStore{readOnly(s.Store), s.aead}
	}
	return s
}

// Load implements [Store]. No file means no document. A file is an error if it
// is empty, is larger than 1 MiB, is not a regular file, or (on Unix) is open
// to its group or to others. For a ring that is VerifyOnly, [FileStore] says
// which of these are permitted.
//
// Time is zero: a FileStore has no clock of its own.
func (s *FileStore) Load(ctx context.Context, name string) (Stored, error) {
	if err := ctx.Err(); err != nil {
		return Stored{}, err
	}
	f, err := s.file(name)
	if err != nil {
		return Stored{}, err
	}
	if readNeedsLock {
		// Without a file no lock is needed, and there may be no directory for
		// one.
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

// Save implements [Store]. A revision is the SHA-256 of the document, in hex,
// so that the same bytes have the same revision. Save waits for other writers
// until ctx is done. It returns when the document is on disk: the file and,
// except on Windows, its directory are flushed.
func (s *FileStore) Save(ctx context.Context, name string, doc []byte, rev string) (newRev string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkDocument(doc); err != nil {
		return "", err
	}
	if s.mounted {
		return "", errors.New("keys: FileStore: a ring that is VerifyOnly does not save")
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
type documentFile struct {
	path    string
	mounted bool
}

// file returns the file of a name. No two names have one file, and no name has
// the lock file or the temporary file of another.
func (s *FileStore) file(name string) (documentFile, error) {
	if s.path == "" {
		return documentFile{}, errNoPath
	}
	if name == "" {
		return documentFile{s.path, s.mounted}, nil
	}
	escaped := strings.ReplaceAll(url.QueryEscape(name), ".", "%2E")
	if escaped == "lock" || escaped == "tmp" {
		escaped = fmt.Sprintf("%%%02X", name[0]) + escaped[1:]
	}
	if len(escaped) > maxEscaped {
		sum := sha256.Sum256([]byte(name))
		escaped = "%sha256-" + hex.EncodeToString(sum[:]) // not the escaped form of any name
	}
	return documentFile{s.path + "." + escaped, s.mounted}, nil
}

// maxEscaped is the longest escaped name in a file name, which mostly may have
// 255 bytes.
const maxEscaped = 160

func contentRevision(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

// read returns the document in the file and its revision.
func (s documentFile) read() (doc []byte, rev string, err error) {
	// This check gives a clear error for a link and the like. checkFile
	// decides, on the opened file.
	info, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("keys: FileStore: %w", err)
	}
	open := openSafely
	if s.mounted {
		open = openMounted
	} else if err := s.checkFile(info); err != nil {
		return nil, "", err
	}

	f, err := os.OpenFile(s.path, os.O_RDONLY|open, 0)
	if err != nil {
		// Also if the file is absent now: Save never removes it, so that this
		// is an error and not absence.
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

// checkFile refuses a file of a kind or a mode that FileStore does not permit.
func (s documentFile) checkFile(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("keys: FileStore: %s is not a regular file (mode %v)", s.path, info.Mode())
	}
	perm := info.Mode().Perm()
	switch {
	case !modesProtect:
	case s.mounted && perm&0o022 != 0:
		return fmt.Errorf("keys: FileStore: %s has mode %04o, which lets its group or others write the keys that are trusted; chmod 444 it", s.path, perm)
	case !s.mounted && perm&0o077 != 0:
		return fmt.Errorf("keys: FileStore: %s has mode %04o, which lets its group or others at the keys; chmod 600 it, and rotate the keys if they may have been read", s.path, perm)
	}
	return nil
}

// replace replaces the file by one with doc. The caller holds the lock.
func (s documentFile) replace(doc []byte) (err error) {
	tmp := s.path + ".tmp"
	// Remove the file of a writer that was killed. It is not reused: it could
	// have another mode, or be open in another process.
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
		os.Remove(tmp) // it holds keys; err is the error to return
		return err
	}
	return syncDir(filepath.Dir(s.path))
}

const (
	lockFirstWait = time.Millisecond
	lockMaxWait   = 32 * time.Millisecond
)

// lock takes the lock that excludes other writers, in this process and in
// others, and returns a function that releases it. It polls, since ctx cannot
// end a wait in the kernel.
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
