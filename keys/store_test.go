package keys_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

func TestStores(t *testing.T) {
	tests := []struct {
		name     string
		newStore func(t *testing.T) func() keys.Store
	}{
		{
			name: "MemStore",
			newStore: func(*testing.T) func() keys.Store {
				var s keys.MemStore
				return func() keys.Store { return &s }
			},
		},
		{
			name: "FileStore",
			newStore: func(t *testing.T) func() keys.Store {
				path := filepath.Join(t.TempDir(), "keys.json")
				return func() keys.Store {
					s, err := keys.NewFileStore(path)
					require.NoError(t, err)
					return s
				}
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			testStore(t, tt.newStore)
		})
	}
}

// testStore checks the contract of keys.Store. It calls newStore once for each
// part, for a document that does not exist yet; the function that newStore
// returns opens that document, and each call may give another handle to it.
func testStore(t *testing.T, newStore func(t *testing.T) (open func() keys.Store)) {
	const maxDocument = 1 << 20

	t.Run("absent document", func(t *testing.T) {
		s := newStore(t)()
		for range 2 { // loading must not create it
			doc, rev, err := load(t.Context(), s)
			require.NoError(t, err)
			require.Nil(t, doc)
			require.Empty(t, rev)
		}
	})

	t.Run("create, then replace", func(t *testing.T) {
		open := newStore(t)
		rev := ""
		for _, doc := range [][]byte{
			[]byte("one"),
			[]byte("two, longer than one"),
			[]byte("3"),
			{0},
			{0x00, 0xff, '\r', '\n', 0xc3, 0x28, '\n'}, // neither text nor trimmed
			bytes.Repeat([]byte{0xa5}, maxDocument),
			[]byte("small again"),
		} {
			newRev, err := open().Save(t.Context(), "", doc, rev)
			require.NoError(t, err)
			require.NotEmpty(t, newRev)
			require.NotEqual(t, rev, newRev)
			rev = newRev
			requireDocument(t, open(), doc, rev)
		}
	})

	t.Run("saving the same bytes again", func(t *testing.T) {
		s := newStore(t)()
		rev := mustSave(t, s, "same", "")
		rev = mustSave(t, s, "same", rev)
		requireDocument(t, s, []byte("same"), rev)
	})

	t.Run("conflict on create", func(t *testing.T) {
		open := newStore(t)
		rev := mustSave(t, open(), "first", "")
		requireConflict(t, open(), "second", "")
		requireDocument(t, open(), []byte("first"), rev)
	})

	t.Run("conflict on a revision of a document that is absent", func(t *testing.T) {
		open, other := newStore(t), newStore(t)
		rev := mustSave(t, other(), "elsewhere", "")
		requireConflict(t, open(), "doc", rev)
		doc, got, err := load(t.Context(), open())
		require.NoError(t, err)
		require.Nil(t, doc)
		require.Empty(t, got)
	})

	t.Run("conflict on a stale revision", func(t *testing.T) {
		open := newStore(t)
		stale := mustSave(t, open(), "one", "")
		rev := mustSave(t, open(), "two", stale)
		requireConflict(t, open(), "three", stale)
		requireConflict(t, open(), "two", stale) // not idempotent
		requireDocument(t, open(), []byte("two"), rev)
		mustSave(t, open(), "three", rev) // a conflict leaves the store usable
	})

	t.Run("conflict on a made-up revision", func(t *testing.T) {
		s := newStore(t)()
		rev := mustSave(t, s, "doc", "")
		for _, bad := range []string{" ", "0", rev + " ", rev + "\x00", "-1", "' OR '1'='1", "*", string(bytes.Repeat([]byte("f"), 4096))} {
			requireConflict(t, s, "other", bad)
		}
		requireDocument(t, s, []byte("doc"), rev)
	})

	t.Run("documents of a refused size", func(t *testing.T) {
		s := newStore(t)()
		refused := func(rev string) {
			for _, doc := range [][]byte{nil, {}, make([]byte, maxDocument+1)} {
				newRev, err := s.Save(t.Context(), "", doc, rev)
				require.Error(t, err)
				require.NotErrorIs(t, err, keys.ErrConflict)
				require.Empty(t, newRev)
			}
		}
		refused("")
		doc, _, err := load(t.Context(), s)
		require.NoError(t, err)
		require.Nil(t, doc)
		rev := mustSave(t, s, "doc", "")
		refused(rev)
		requireDocument(t, s, []byte("doc"), rev)
	})

	t.Run("slices are copied", func(t *testing.T) {
		s := newStore(t)()
		saved := []byte("document")
		rev, err := s.Save(t.Context(), "", saved, "")
		require.NoError(t, err)
		clear(saved)
		requireDocument(t, s, []byte("document"), rev)

		loaded, _, err := load(t.Context(), s)
		require.NoError(t, err)
		clear(loaded)
		_ = append(loaded[:0], "overwritten"...)
		requireDocument(t, s, []byte("document"), rev)
	})

	t.Run("cancelled context", func(t *testing.T) {
		s := newStore(t)()
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		unchanged := func(rev string) {
			doc, gotRev, err := load(cancelled, s)
			require.ErrorIs(t, err, context.Canceled)
			require.Nil(t, doc)
			require.Empty(t, gotRev)
			gotRev, err = s.Save(cancelled, "", []byte("cancelled"), rev)
			require.ErrorIs(t, err, context.Canceled)
			require.NotErrorIs(t, err, keys.ErrConflict)
			require.Empty(t, gotRev)
		}
		unchanged("")
		rev := mustSave(t, s, "doc", "") // still absent
		unchanged(rev)
		requireDocument(t, s, []byte("doc"), rev)
	})

	t.Run("one winner of concurrent saves", func(t *testing.T) {
		const rounds, writers = 10, 32
		open := newStore(t)
		rev := ""
		for round := range rounds {
			var (
				wg    sync.WaitGroup
				start = make(chan struct{})
				revs  [writers]string
				errs  [writers]error
			)
			for i := range writers {
				s := open()
				wg.Go(func() {
					<-start
					revs[i], errs[i] = s.Save(t.Context(), "", fmt.Appendf(nil, "%d by %d", round, i), rev)
				})
			}
			close(start)
			wg.Wait()

			winner := -1
			for i, err := range errs {
				if err == nil {
					require.Equal(t, -1, winner, "a second winner")
					winner = i
					continue
				}
				require.ErrorIs(t, err, keys.ErrConflict)
				require.Empty(t, revs[i])
			}
			require.NotEqual(t, -1, winner, "no winner")
			rev = revs[winner]
			requireDocument(t, open(), fmt.Appendf(nil, "%d by %d", round, winner), rev)
		}
	})

	t.Run("readers see whole documents in order", func(t *testing.T) {
		const saves, readers = 40, 4
		// Document n is the byte n, as often as makes every size different
		// from the one before.
		document := func(n int) []byte {
			return bytes.Repeat([]byte{byte(n)}, 1+(n*7919)%20000)
		}
		open := newStore(t)
		writer := open()
		rev, err := writer.Save(t.Context(), "", document(1), "")
		require.NoError(t, err)

		var wg sync.WaitGroup
		done := make(chan struct{})
		problems := make([]string, readers)
		for i := range readers {
			s := open()
			wg.Go(func() {
				last := 0
				for final := false; !final; {
					select {
					case <-done:
						final = true // one more, which must see the last
					default:
					}
					doc, _, err := load(t.Context(), s)
					if err != nil || len(doc) == 0 {
						problems[i] = fmt.Sprintf("no document after %d: %v", last, err)
						return
					}
					n := int(doc[0])
					if n < last || !bytes.Equal(doc, document(n)) {
						problems[i] = fmt.Sprintf("after document %d: %d, or a part of it", last, n)
						return
					}
					last = n
				}
				if last != saves {
					problems[i] = fmt.Sprintf("the last one seen is %d", last)
				}
			})
		}
		for n := 2; n <= saves; n++ {
			if rev, err = writer.Save(t.Context(), "", document(n), rev); err != nil {
				break
			}
		}
		close(done)
		wg.Wait()
		require.NoError(t, err)
		for _, p := range problems {
			require.Empty(t, p)
		}
	})
}

// load returns what is stored under the empty name.
func load(ctx context.Context, s keys.Store) (doc []byte, rev string, err error) {
	stored, err := s.Load(ctx, "")
	return stored.Doc, stored.Rev, err
}

func mustSave(t *testing.T, s keys.Store, doc, rev string) (newRev string) {
	t.Helper()
	newRev, err := s.Save(t.Context(), "", []byte(doc), rev)
	require.NoError(t, err)
	require.NotEmpty(t, newRev)
	return newRev
}

func requireConflict(t *testing.T, s keys.Store, doc, rev string) {
	t.Helper()
	newRev, err := s.Save(t.Context(), "", []byte(doc), rev)
	require.ErrorIs(t, err, keys.ErrConflict)
	require.Empty(t, newRev)
}

func requireDocument(t *testing.T, s keys.Store, want []byte, wantRev string) {
	t.Helper()
	doc, rev, err := load(t.Context(), s)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, doc), "not the document that was saved")
	require.Equal(t, wantRev, rev)
}

// MemStore is fast enough for a race that the suite would have to be lucky to
// hit: every increment that reported success must be there in the end.
func TestMemStoreLosesNoUpdate(t *testing.T) {
	const writers, increments = 8, 5000
	var s keys.MemStore
	mustSave(t, &s, "0", "")
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			for done := 0; done < increments; {
				doc, rev, err := load(t.Context(), &s)
				if err != nil {
					errs[i] = err
					return
				}
				n, _ := strconv.Atoi(string(doc))
				_, err = s.Save(t.Context(), "", strconv.AppendInt(nil, int64(n+1), 10), rev)
				switch {
				case err == nil:
					done++
				case !errors.Is(err, keys.ErrConflict):
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	requireDocument(t, &s, strconv.AppendInt(nil, writers*increments, 10), strconv.Itoa(writers*increments+1))
}

func TestMemStorePrintsNoDocument(t *testing.T) {
	var s keys.MemStore
	mustSave(t, &s, "private key", "")
	doc := []byte("private key")
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		text := fmt.Sprintf(format, &s)
		for _, spelled := range []string{string(doc), fmt.Sprintf("%x", doc), fmt.Sprint(doc[:4])[1:10]} {
			require.NotContains(t, text, spelled, format)
		}
	}
}
