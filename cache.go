package sessiontoken

import (
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Cache is memory for verified tokens that several verifiers share: see
// [VerifierConfig]. A token that one of them has verified is not known to the
// others. It is safe for concurrent use; make it with [NewCache].
type Cache struct {
	made      bool
	tokens    *otter.Cache[cacheKey, any] // of *cached[T]; nil if it keeps nothing
	verifiers atomic.Uint64               // that use it
}

// cacheKey is a token and the number of the verifier that verified it. It holds no
// pointer but the token's: a lookup of such a key allocates nothing.
type cacheKey struct {
	verifier uint64
	token    string
}

// NewCache returns a Cache that takes at most that many bytes of memory. 0 means
// 16 MiB, room for some 7,000 tokens of 1 KB; a negative value keeps no token.
func NewCache(bytes int) *Cache {
	c := &Cache{made: true}
	if bytes == 0 {
		bytes = defaultCacheBytes
	}
	if bytes > 0 {
		c.tokens = otter.Must(&otter.Options[cacheKey, any]{
			MaximumWeight: uint64(bytes),
			Weigher:       func(_ cacheKey, c any) uint32 { return c.(weighted).weighs() },
			// Maintenance runs on the caller that made it necessary.
			Executor: func(task func()) { task() },
		})
	}
	return c
}

type weighted interface{ weighs() uint32 }

// cache remembers tokens that passed every check of one verifier, so that the
// next request with the same one costs a lookup instead of a signature.
//
// It is keyed by the verifier and the whole token, compared in full after its hash
// (which is seeded for each process). What can change about a token is checked at
// each hit: its times, its key, its revocation. Only tokens that passed every
// check enter, so garbage never does; and of valid ones, those seen once do not
// push out those seen often (W-TinyLFU admission).
//
// No goroutine sweeps it. A token past its end is refused and removed when it is
// presented, and otherwise leaves with what is no longer asked for.
type cache[T any] struct {
	tokens   *otter.Cache[cacheKey, any]
	verifier uint64
	copies   copier[T]
}

// cached is one verified token. Only its generation changes.
type cached[T any] struct {
	payload    payload // State is the JSON to decode, unless T can be copied
	claims     Claims[T]
	session    *revoke.Question // made once: a hit hashes nothing; nil without a list
	actor      *revoke.Question // nil without an actor too
	from       time.Time        // from here
	until      time.Time        // to before here, the times are right
	key        *keys.PublicKey
	generation atomic.Pointer[keys.Set] // in which the key was seen last
	weight     uint32
}

// cachedOverhead is what an entry costs beside the token and its state: the
// entry, the cache's own node and its place in the table, rounded up.
const cachedOverhead = 960

// newCache returns what one verifier keeps in shared; nil if that keeps nothing.
func newCache[T any](shared *Cache) *cache[T] {
	if shared.tokens == nil {
		return nil
	}
	return &cache[T]{tokens: shared.tokens, verifier: shared.verifiers.Add(1), copies: newCopier[T]()}
}

// get returns what is remembered of a token.
func (c *cache[T]) get(token string) (*cached[T], bool) {
	v, ok := c.tokens.GetIfPresent(cacheKey{c.verifier, token})
	if !ok {
		return nil, false
	}
	e, ok := v.(*cached[T])
	return e, ok
}

// drop forgets a token.
func (c *cache[T]) drop(token string) { c.tokens.Invalidate(cacheKey{c.verifier, token}) }

func (e *cached[T]) weighs() uint32 { return e.weight }

// put remembers what was read from a token, with the set that its key is of. The
// token is copied: it is often a part of a longer header. The caller keeps what
// e.claims holds.
func (c *cache[T]) put(token string, e *cached[T], set *keys.Set) {
	e.generation.Store(set)
	e.claims.unshare()
	// What a decoded state holds beside its slices is hardly larger than its
	// JSON and the size of its type.
	weight := len(token) + len(e.payload.State) + int(reflect.TypeFor[T]().Size()) + cachedOverhead
	// The caller has the only state, so far.
	if c.copies.able {
		e.payload.State = nil // which would keep the whole payload alive
		state := e.claims.State
		weight += c.copies.copy(&e.claims.State, &state)
	} else {
		e.payload.State = []byte(string(e.payload.State))
		var none T
		e.claims.State = none
	}
	e.weight = uint32(min(weight, 1<<31))
	c.tokens.Set(cacheKey{c.verifier, strings.Clone(token)}, e)
}

// isOf reports whether the key that verified the token is one of the set's. A set
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

// timesHold reports whether the times of the token, which have passed, still do.
func (e *cached[T]) timesHold(now time.Time) bool {
	return !now.Before(e.from) && now.Before(e.until)
}

// copier copies states, if T allows it, so that no copy shares anything that
// can be changed. States of other types are decoded afresh for each caller.
type copier[T any] struct {
	able   bool    // T holds nothing that can be changed, or only slices of such
	slices [][]int // where they are
}

func newCopier[T any]() (c copier[T]) {
	c.able = c.find(reflect.TypeFor[T](), nil)
	return c
}

func (c *copier[T]) find(t reflect.Type, at []int) bool {
	switch {
	case isFlat(t):
		return true
	case t.Kind() == reflect.Slice && isFlat(t.Elem()) && len(at) > 0:
		c.slices = append(c.slices, slices.Clone(at))
		return true
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if !isFlat(f.Type) && (!f.IsExported() || !c.find(f.Type, append(at, i))) {
				return false
			}
		}
		return true
	}
	return false
}

// copy makes to a copy of from, and returns the size in bytes of its slices.
func (c *copier[T]) copy(to, from *T) (size int) {
	*to = *from
	if len(c.slices) == 0 {
		return 0
	}
	v, shared := reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem()
	for _, field := range c.slices {
		f := v.FieldByIndex(field)
		n := f.Len()
		if n == 0 && f.Cap() == 0 {
			continue // nil or empty; either has nothing to share
		}
		f.SetZero()
		f.Grow(max(n, 1)) // an empty slice is not nil
		f.SetLen(n)
		reflect.Copy(f, shared.FieldByIndex(field))
		size += f.Cap() * int(f.Type().Elem().Size())
	}
	return size
}

var timeType = reflect.TypeFor[time.Time]()

// isFlat reports whether a copy of a value of type t shares nothing that can be
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
