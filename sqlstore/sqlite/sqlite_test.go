package sqlite_test

import (
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	modernc "modernc.org/sqlite"

	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// opened opens a store, as programs do.
func opened(t *testing.T, path string) *sqlstore.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func entry(value string) revoke.Entry {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return revoke.Entry{Scope: revoke.Session, Digest: revoke.Session.Digest(value), Before: now, Until: now.Add(time.Hour)}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The file of a SQLite, and those beside it, are its owner's alone: new ones,
// one that another program made before, and through a link.
func TestSQLiteFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct {
		name, path string
		prepare    func(path string)
	}{
		{"a new file", filepath.Join(dir, "new.db"), func(string) {}},
		{"an old file", filepath.Join(dir, "old.db"), func(path string) {
			db := must(sql.Open("sqlite", path))
			defer db.Close()
			must(db.Exec("PRAGMA journal_mode = WAL; CREATE TABLE x (y)"))
			require.NoError(t, os.Chmod(path, 0o644))
		}},
		{"a link", filepath.Join(dir, "link.db"), func(path string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "target.db"), nil, 0o666))
			require.NoError(t, os.Symlink("target.db", path))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.prepare(row.path)
			s := opened(t, row.path)
			require.NoError(t, s.Append(t.Context(), entry("x")))
			file := must(filepath.EvalSymlinks(row.path))
			for _, name := range []string{file, file + "-wal", file + "-shm"} {
				info, err := os.Stat(name)
				require.NoError(t, err)
				require.Equal(t, fs.FileMode(0o600), info.Mode(), name)
			}
		})
	}
	t.Run("a file that is open", func(t *testing.T) {
		path := filepath.Join(dir, "opened.db")
		a := opened(t, path)
		require.NoError(t, a.Append(t.Context(), entry("x")))
		for _, name := range []string{path, path + "-wal", path + "-shm"} {
			require.NoError(t, os.Chmod(name, 0o664))
		}
		b := opened(t, path)
		require.NoError(t, b.Append(t.Context(), entry("y")))
		for _, name := range []string{path, path + "-wal", path + "-shm"} {
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o600), info.Mode(), name)
		}
	})
	t.Run("a link to nothing", func(t *testing.T) {
		path := filepath.Join(dir, "dangling.db")
		require.NoError(t, os.Symlink("none.db", path))
		_, err := sqlite.Open(t.Context(), path)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoFileExists(t, filepath.Join(dir, "none.db"))
	})
}

// Each connection of a SQLite has what durability needs.
func TestSQLiteSettings(t *testing.T) {
	db := must(sqlite.DB(filepath.Join(t.TempDir(), "x.db")))
	defer db.Close()
	for range 3 {
		conn := must(db.Conn(t.Context()))
		defer conn.Close()
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000"} {
			var got string
			require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
			require.Equal(t, want, got, pragma)
		}
	}
}

// A file that was restored under a reader, and has grown past its cursor since,
// is read again from the beginning.
func TestRestoredFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	db := must(sqlite.DB(path))
	defer db.Close()
	s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite}))
	require.NoError(t, s.CreateSchema(t.Context()))
	require.NoError(t, s.Append(t.Context(), entry("old")))
	backup := path + ".backup"
	must(db.Exec("VACUUM INTO '" + backup + "'"))
	for i := range 5 {
		require.NoError(t, s.Append(t.Context(), entry(fmt.Sprint("lost-", i))))
	}
	cursor := must(s.Since(t.Context(), "")).Next

	restore(t, db, backup)
	for i := range 8 {
		require.NoError(t, s.Append(t.Context(), entry(fmt.Sprint("new-", i))))
	}
	page := must(s.Since(t.Context(), cursor))
	require.True(t, page.Reset)
	require.Len(t, page.Entries, 9)
	require.False(t, must(s.Since(t.Context(), page.Next)).Reset)
}

// restore copies a file into a database that is open, as SQLite's own tools do.
func restore(t *testing.T, db *sql.DB, from string) {
	t.Helper()
	conn := must(db.Conn(t.Context()))
	defer conn.Close()
	require.NoError(t, conn.Raw(func(c any) error {
		b, err := c.(interface {
			NewRestore(string) (*modernc.Backup, error)
		}).NewRestore(from)
		if err != nil {
			return err
		}
		if _, err := b.Step(-1); err != nil {
			return err
		}
		return b.Finish()
	}))
}
