package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// TestForget: no column of any table names a person who was forgotten.
func TestForget(t *testing.T) {
	suite := func(t *testing.T, at string, open func(context.Context, string) (*sqlstore.Store, error), connect func(string) (*sql.DB, error)) {
		var stores []*sqlstore.Store
		for range 2 {
			s, err := open(t.Context(), at)
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			stores = append(stores, s)
		}
		db, err := connect(at)
		require.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		forget(t, stores[0], stores[1], func() string {
			var all strings.Builder
			for _, table := range []string{"rings", "revocations", "families", "grants"} {
				dump(t, db, "sessiontoken_"+table, &all)
			}
			return all.String()
		})
	}
	t.Run("sqlite", func(t *testing.T) { suite(t, filepath.Join(t.TempDir(), "x.db"), sqlite.Open, sqlite.DB) })
	t.Run("postgres", func(t *testing.T) { suite(t, newSchema(t)(t), postgres.Open, postgres.DB) })
}

// dump writes all columns of a table.
func dump(t *testing.T, db *sql.DB, table string, out *strings.Builder) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table)
	require.NoError(t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(t, err)
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		require.NoError(t, rows.Scan(values...))
		for _, v := range values {
			_, _ = fmt.Fprintf(out, "%s\n", *v.(*any))
		}
	}
	require.NoError(t, rows.Err())
}

// begin begins a session of a subject with a family, whose label and Context
// name a person too.
func begin(t *testing.T, m *refresh.Manager, subject, sessionID string) (token string, began time.Time) {
	t.Helper()
	began, err := m.Config().Revocations.Begin(t.Context(), revoke.Question{Subject: subject})
	require.NoError(t, err)
	token, _, err = m.Start(t.Context(), refresh.Family{Subject: subject, SessionID: sessionID, Label: "phone of " + subject, Context: []byte(subject), Began: began}, "")
	require.NoError(t, err)
	return token, began
}

// forget has one of two replicas forget a subject, and checks that the store
// holds its name nowhere, that its sessions have ended on both, and that another
// subject's go on. names returns all that the store holds.
func forget(t *testing.T, a, b interface {
	refresh.Store
	revoke.Store
}, names func() string) {
	t.Helper()
	const ada, bob = "ada@forgotten.example", "bob@kept.example"
	var managers []*refresh.Manager
	for _, s := range []interface {
		refresh.Store
		revoke.Store
	}{a, b} {
		list, err := revoke.NewList(revoke.Config{Store: s, Namespace: "site"})
		require.NoError(t, err)
		m, err := refresh.NewManager(refresh.Config{Store: s, Namespace: "site", Secrets: [][]byte{make([]byte, 32)}, Revocations: list})
		require.NoError(t, err)
		managers = append(managers, m)
	}
	sync := func() {
		for _, m := range managers {
			require.NoError(t, m.Config().Revocations.Sync(t.Context()))
		}
	}
	first, began := begin(t, managers[0], ada, "sid-1")
	second, _ := begin(t, managers[1], ada, "sid-2")
	other, _ := begin(t, managers[0], bob, "sid-3")
	require.NoError(t, managers[0].Config().Revocations.Changed(t.Context(), ada))
	require.Contains(t, names(), ada)
	require.Contains(t, names(), bob)

	for range 2 {
		require.NoError(t, managers[1].Forget(t.Context(), ada))
		require.NotContains(t, names(), ada)
		require.NotContains(t, names(), "sid-1")
	}
	require.Contains(t, names(), bob)
	sync()
	for _, m := range managers {
		q := revoke.Question{SessionID: "sid-1", Subject: ada, Began: began}
		require.Equal(t, revoke.ErrRevoked, m.Config().Revocations.Check(t.Context(), &q))
		for _, token := range []string{first, second} {
			_, _, err := m.Exchange(t.Context(), refresh.Presented{Token: token}, func(context.Context, refresh.Family) error { return nil })
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
	}
	_, _, err := managers[1].Exchange(t.Context(), refresh.Presented{Token: other}, func(context.Context, refresh.Family) error { return nil })
	require.NoError(t, err)
	again, _ := begin(t, managers[0], ada, "sid-4")
	sync()
	_, _, err = managers[1].Exchange(t.Context(), refresh.Presented{Token: again}, func(context.Context, refresh.Family) error { return nil })
	require.NoError(t, err, "a session that begins afterwards")
}
