// Package sqlite opens a [sqlstore.Store] in a SQLite file, for the processes
// of one machine. It links the driver modernc.org/sqlite, which needs no C
// compiler.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	modernc "modernc.org/sqlite"

	"github.com/sessiontoken/sessiontoken/sqlstore"
)

// Open opens the store in the file at path. It creates the file and the tables
// if there are none. Close closes the store. Any number of processes may open
// one file. Its folder must exist, on a local disk.
//
// A write is acknowledged when it is on disk (a write-ahead log,
// synchronous=FULL). It waits up to 5 s for writes of other processes. At most
// 10 connections are open. On Unix the file and those that SQLite keeps beside
// it (path + "-wal" and path + "-shm") have mode 0600: Open takes other rights
// away, and fails if it cannot.
func Open(ctx context.Context, path string) (*sqlstore.Store, error) {
	db, err := DB(path)
	if err != nil {
		return nil, err
	}
	s, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite})
	if err == nil {
		err = s.CreateSchema(ctx)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return s, nil
}

// maxConns is how many connections a handle has, for concurrent readers. There
// is one writer at a time.
const maxConns = 10

// DB returns the handle that Open uses. Pass it to sqlstore.New in a program
// that creates the tables by a migration, or changes the handle's settings. DB
// does no I/O. An error names the fault of path.
func DB(path string) (*sql.DB, error) {
	switch path {
	case "":
		return nil, errors.New("sqlstore/sqlite: path is empty")
	case ":memory:":
		return nil, errors.New("sqlstore/sqlite: path is :memory:, which each connection would have to itself; the packages' MemStores keep what one process needs")
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"},
		"_txlock": {"immediate"},
	}.Encode()}
	c, err := modernc.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(&connector{c, path})
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	return db, nil
}

// connector makes the file private before SQLite opens it.
type connector struct {
	driver.Connector
	path string
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := private(c.path); err != nil {
		return nil, err
	}
	return c.Connector.Connect(ctx)
}

// creating is held while a file is created: closing a file releases all locks
// of the process on it, also those of SQLite.
var creating sync.Mutex

// private creates the file with mode 0600, or removes the rights of its group
// and of others. SQLite gives the files beside it the same mode.
func private(path string) error {
	creating.Lock()
	defer creating.Unlock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, name := range []string{file, file + "-wal", file + "-shm"} {
		if err := narrow(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// narrow removes the rights of the group and of others on a file. It does not
// open the file.
func narrow(name string) error {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(name, info.Mode().Perm()&0o700)
}
