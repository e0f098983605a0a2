package sqlstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/sqlstore"
)

func TestProviderLogouts(t *testing.T) {
	beside(t)
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		connect := connector(t, d)
		admin := connect()
		require.NoError(t, must(sqlstore.New(sqlstore.Config{DB: admin, Dialect: d})).CreateSchema(t.Context()))
		open := func() authority.Store {
			return must(sqlstore.New(sqlstore.Config{DB: connect(), Dialect: d}))
		}
		faults.ProviderLogouts(t, open, func() (all int) {
			for _, table := range []string{"rings", "revocations", "families"} {
				var n int
				require.NoError(t, admin.QueryRow("SELECT count(*) FROM sessiontoken_"+table).Scan(&n))
				all += n
			}
			return all
		})
	})
}

// kill -9 at each step of an offline refresh.
func TestGrantsKilled(t *testing.T) {
	beside(t)
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at, _ := place(t, d)
		faults.GrantsKilled(t, at)
	})
}
