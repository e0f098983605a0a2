package sqlstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
)

// The user that a program runs as needs no more than SELECT, INSERT, UPDATE and
// DELETE on the tables.
func TestFourRightsAreEnough(t *testing.T) {
	dsn := newDatabase(t)
	admin := must(postgres.DB(dsn))
	defer admin.Close()
	must(admin.Exec(sqlstore.Schema(sqlstore.Postgres)))
	must(admin.Exec("DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN"))
	must(admin.Exec("GRANT SELECT, INSERT, UPDATE, DELETE ON sessiontoken_schema, sessiontoken_rings, sessiontoken_revocations, sessiontoken_families, sessiontoken_grants TO clerk"))
	db := must(postgres.DB(strings.Replace(dsn, "bench@", "clerk@", 1)))
	defer db.Close()
	s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres}))
	ctx := t.Context()

	rev, err := s.Save(ctx, "orders", []byte("one"), "")
	require.NoError(t, err)
	_, err = s.Save(ctx, "orders", []byte("two"), rev)
	require.NoError(t, err)
	stored, err := s.Load(ctx, "orders")
	require.NoError(t, err)
	require.Equal(t, "two", string(stored.Doc))

	require.NoError(t, s.Append(ctx, entry("x"), entry("y")))
	page, err := s.Since(ctx, "")
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	_, err = s.Since(ctx, page.Next)
	require.NoError(t, err)

	family := refresh.Record{Namespace: "n", ID: "f", Subject: "ada", SessionID: "sid", Version: 1, Until: time.Now().Add(time.Hour), Data: []byte("d")}
	require.NoError(t, s.Create(ctx, family))
	family.Version = 2
	require.NoError(t, s.Swap(ctx, family))
	_, err = s.Find(ctx, "n", "f")
	require.NoError(t, err)
	all, err := s.List(ctx, "n", "ada")
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.NoError(t, s.DeleteSubject(ctx, "n", "ada", "sid"))
	require.NoError(t, s.DeleteSession(ctx, "n", "sid"))
	require.NoError(t, s.Delete(ctx, "n", "f"))

	rev, err = s.SaveGrant(ctx, "n", "key", []byte("one"), "")
	require.NoError(t, err)
	rev, err = s.SaveGrant(ctx, "n", "key", []byte("two"), rev)
	require.NoError(t, err)
	_, _, err = s.LoadGrant(ctx, "n", "key")
	require.NoError(t, err)
	_, err = s.SaveGrant(ctx, "n", "key", nil, rev)
	require.NoError(t, err)
	// What is over is swept with these rights too, or it would stay for ever.
	must(admin.Exec("UPDATE sessiontoken_revocations SET until_ms = 1 WHERE seq = (SELECT min(seq) FROM sessiontoken_revocations)"))
	again := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres}))
	require.NoError(t, again.Append(ctx, entry("z")))
	var n int
	require.NoError(t, admin.QueryRow("SELECT count(*) FROM sessiontoken_revocations").Scan(&n))
	require.Equal(t, 2, n)
}
