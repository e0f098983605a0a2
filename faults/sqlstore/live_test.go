package sqlstore_test

import (
	"database/sql"
	"os"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/sqlstore"
)

func TestHowSoonLive(t *testing.T) {
	beside(t)
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at, _ := place(t, d)
		n := 5_000
		if d == sqlstore.SQLite { // which is slow with the race detector
			n = 2_000
		}
		faults.HowSoonLive(t, at, 20*time.Millisecond, n)
	})
}

func TestLiveFaultsPostgres(t *testing.T) {
	beside(t)
	server := start(t)
	dsn := servers.PostgresDSN(server.Addr)
	createSchema(t, sqlstore.Postgres, dsn)
	proxy := must(servers.StartProxy(server.Addr))
	t.Cleanup(proxy.Close)
	faults.LiveFaults(t, "postgres "+dsn, "postgres "+servers.PostgresDSN(proxy.Addr), append(faults.Network(proxy), faults.Briefly(proxy), faults.Killed(server), faults.Frozen(server))...)
}

// TestLiveFaultsSQLite: another process holds the lock for 3 s, and nothing can
// be revoked.
func TestLiveFaultsSQLite(t *testing.T) {
	beside(t)
	at, path := place(t, sqlstore.SQLite)
	db := openAt(sqlstore.SQLite, path)
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	var tx *sql.Tx
	faults.LiveFaults(t, at, at, faults.Fault{
		Name: "another process holds the lock for 3 s", Lasts: 3 * time.Second,
		Begin: func() (err error) {
			if tx, err = db.Begin(); err == nil {
				_, err = tx.Exec(insertOne, digest("x"), 1, none)
			}
			return err
		},
		End: func() error { return tx.Rollback() },
	})
}

// beside runs a test beside the others of this file, which wait more than they
// work, but in full size.
func beside(t *testing.T) {
	if os.Getenv("SESSIONTOKEN_FULL") != "1" {
		t.Parallel()
	}
}
