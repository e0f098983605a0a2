package revoke

import (
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// readOnlyStore is a Store that its readers cannot write to, such as the feed
// of an authority. Its Append always fails.
//
// A list over it writes nothing: RevokeSession and the like fail at once and
// leave no entry owed. It makes no birth mark, and does not write back what the
// store has lost: the lists that can write do. What the store has lost may
// include entries that this list has not read. So after a loss only the birth
// marks count that are in the store.
type readOnlyStore interface {
	Store
	// ReadOnly marks the type.
	ReadOnly()
}

// errReadOnly matches [errors.ErrUnsupported].
var errReadOnly = fmt.Errorf("revoke: the list only reads its store, and nothing was written: %w", errors.ErrUnsupported)

func (l *List) isReadOnly() bool {
	_, ok := l.cfg.Store.(readOnlyStore)
	return ok
}

// followBirths sets the birth of the next state of a list that only reads. now
// is the store's time at the reading. Until the store has a birth mark, Check
// fails for the sessions that began before the reading.
func (l *List) followBirths(next, before *state, now time.Time, asked clock.Instant) {
	if len(l.births) == 0 {
		next.birth, next.since = now.UnixMilli(), asked
		return
	}
	next.birth = l.births.oldest().at
	if before != nil && next.birth > before.birth { // the store has lost entries
		next.since = asked
	}
}
