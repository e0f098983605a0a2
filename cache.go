package sessiontoken

import (
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/sessiontoken/sessiontoken/keys"
)

// cache remembers tokens that passed every check, so that the next request with
// the same one costs a lookup instead of a signature.
//
// It is keyed by the whole token, compared in full after its hash (which is
// seeded for each process). What can change about a token is checked at each
// hit: its times, its key, its revocation. Only tokens that passed every check
// enter, so garbage never does; and of valid ones, those seen once do not push
// out those seen often (W-TinyLFU admission).
//
// No goroutine sweeps it. A token past its end is refused and removed when it is
// presented, and otherwise leaves with what is no longer asked for.
type cache[T any] struct {
	tokens *otter.Cache[string, *cached[T]]
	// flat: T holds no pointer, slice, map or interface, so a copy shares
	// nothing that can be changed. Any other is decoded afresh for each caller.
	flat bool
}

// cached is one verified token. Only its generation changes.
type cached[T any] struct {
	payload    payload // State is the JSON to decode, unless T is flat
	claims     Claims[T]
	key        *keys.PublicKey
	generation atomic.Pointer[keys.Set] // in which the key was seen last
	weight     uint32
}

// cachedOverhead is what an entry costs beside the token and its state: the
// entry, the cache's own node and its place in the table, rounded up.
const cachedOverhead = 768

func newCache[T any](bytes int) *cache[T] {
	return &cache[T]{
		flat: isFlat(reflect.TypeFor[T]()),
		tokens: otter.Must(&otter.Options[string, *cached[T]]{
			MaximumWeight: uint64(bytes),
			Weigher:       func(_ string, c *cached[T]) uint32 { return c.weight },
			// Maintenance runs on the caller that made it necessary.
			Executor: func(task func()) { task() },
		}),
	}
}

// put remembers what was read from a token. The token is copied: it is often a
// part of a longer header.
func (c *cache[T]) put(token string, p *payload, claims *Claims[T], f found) {
	e := &cached[T]{payload: *p, claims: *claims, key: f.key}
	e.generation.Store(f.set)
	// A decoded state is hardly larger than its JSON and the size of its type.
	weight := len(token) + len(p.State) + int(reflect.TypeFor[T]().Size()) + cachedOverhead
	e.weight = uint32(min(weight, 1<<31))
	if c.flat {
		e.payload.State = nil // which would keep the whole payload alive
	} else {
		e.payload.State = []byte(string(p.State))
		var none T
		e.claims.State = none // the caller has the only one
	}
	c.tokens.Set(strings.Clone(token), e)
}

// isOf says whether the key that verified the token is one of the set's. A set
// that was made anew and still holds the same key is another generation of it.
func (e *cached[T]) isOf(set *keys.Set) bool {
	if e.generation.Load() == set {
		return true
	}
	k, ok := set.Key(e.key.KeyID())
	if !ok || !k.Equal(e.key) {
		return false
	}
	e.generation.Store(set)
	return true
}

var timeType = reflect.TypeFor[time.Time]()

// isFlat says whether a copy of a value of type t shares nothing that can be
// changed with it. Strings cannot be; a time's zone is not.
func isFlat(t reflect.Type) bool {
	if t == timeType {
		return true
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		return true
	case reflect.Array:
		return isFlat(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !isFlat(t.Field(i).Type) {
				return false
			}
		}
		return true
	}
	return false
}
