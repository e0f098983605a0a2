package refresh

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func (s *MemStore) sizes() []int {
	return []int{len(s.records), len(s.sessions), len(s.subjects), len(s.minutes)}
}

func stored(id, sessionID, subject string, until time.Time) Record {
	return Record{Namespace: "n", ID: id, SessionID: sessionID, Subject: subject, Version: 1, Until: until}
}

// What the store in memory keeps is as large as what lives.
func TestMemStoreKeepsWhatLives(t *testing.T) {
	var s MemStore
	until := time.Now().Add(time.Hour)
	for i := range 2000 {
		r := stored(fmt.Sprint(i), fmt.Sprint("sid-", i), "ada", until.Add(time.Duration(i)*time.Second))
		require.NoError(t, s.Create(t.Context(), r))
		r.Version, r.Until = 2, r.Until.Add(time.Hour)
		require.NoError(t, s.Swap(t.Context(), r))
		switch i % 3 {
		case 0:
			require.NoError(t, s.Delete(t.Context(), "n", r.ID))
		case 1:
			require.NoError(t, s.DeleteSession(t.Context(), "n", r.SessionID))
		case 2:
			require.NoError(t, s.DeleteSubject(t.Context(), "n", "ada", ""))
		}
	}
	require.Equal(t, []int{0, 0, 0, 0}, s.sizes())
}

// A process that hardly writes sweeps as well: by time, at any call.
func TestMemStoreSweepsByTime(t *testing.T) {
	for _, c := range []struct {
		name string
		step time.Duration
	}{{"call by call", 30 * time.Second}, {"after a long pause", 10 * time.Hour}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s MemStore
				began := time.Now()
				for i := range 3 {
					require.NoError(t, s.Create(t.Context(), stored(fmt.Sprint(i), "sid", "ada", began.Add(time.Hour+time.Duration(i)*time.Millisecond))))
				}
				require.NoError(t, s.Create(t.Context(), stored("over", "sid", "ada", began.Add(-time.Hour))))
				moved := stored("moved", "sid", "ada", began.Add(30*time.Minute))
				require.NoError(t, s.Create(t.Context(), moved))
				moved.Version, moved.Until = 2, began.Add(24*time.Hour)
				require.NoError(t, s.Swap(t.Context(), moved))
				for time.Since(began) < 10*time.Hour {
					time.Sleep(c.step)
					list, err := s.List(t.Context(), "n", "ada")
					require.NoError(t, err)
					switch since := time.Since(began); {
					case since < time.Hour:
						require.GreaterOrEqual(t, len(list), 4, "a record was forgotten before its end")
					case since >= time.Hour+2*time.Minute:
						require.Len(t, list, 1)
					}
				}
				_, err := s.Find(t.Context(), "n", "moved")
				require.NoError(t, err)
				require.Equal(t, []int{1, 1, 1, 1}, s.sizes())
			})
		})
	}
}

// A session's records and a subject's are found without a look at others.
func TestMemStoreFindsBySessionAndSubject(t *testing.T) {
	var s MemStore
	until := time.Now().Add(time.Hour)
	for i := range 1000 {
		require.NoError(t, s.Create(t.Context(), stored(fmt.Sprint(i), fmt.Sprint("sid-", i/2), fmt.Sprint("user-", i/10), until)))
	}
	require.Len(t, s.sessions[name{"n", "sid-7"}], 2)
	require.Len(t, s.subjects[name{"n", "user-7"}], 10)
	require.NoError(t, s.DeleteSession(t.Context(), "n", "sid-35"))
	require.Len(t, s.subjects[name{"n", "user-7"}], 8)
	require.NoError(t, s.DeleteSubject(t.Context(), "n", "user-7", "sid-36"))
	require.Len(t, s.subjects[name{"n", "user-7"}], 2)
	require.Equal(t, 992, len(s.records))
}
