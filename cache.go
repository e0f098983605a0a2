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

// Cache is a cache of verified tokens whose memory several verifiers share: see
// [VerifierConfig]. A token that one verifier has verified is not in the cache
// for another. It is safe for concurrent use. Make it with [NewCache].
type Cache struct {
	made      bool
	tokens    *otter.Cache[cacheKey, any] // of *cached[T]; nil if it keeps no token
	verifiers atomic.Uint64               // how many use it
}

// cacheKey is a token and the number of the verifier that verified it. The token
// is first: the hash of the other order costs twice as much.
type cacheKey struct {
	token    string
	verifier uint64
}

// NewCache returns a Cache that takes at most that many bytes of memory. 0 means
// 16 MiB, which holds about 7,000 tokens of 1 KB. With a negative value it keeps
// no token.
func NewCache(bytes int) *Cache {
	c := &Cache{made: true}
	if bytes == 0 {
		bytes = defaultCacheBytes
	}
	if bytes > 0 {
		c.tokens = otter.Must(&otter.Options[cacheKey, any]{
			MaximumWeight: uint64(bytes),
			Weigher:       func(_ cacheKey, c any) uint32 { return c.(weighted).weighs() },
			// Maintenance runs in the call that made it necessary.
			Executor: func(task func()) { task() },
		})
	}
	return c
}

type weighted interface{ weighs() uint32 }

// cache remembers tokens that passed every check of one verifier, so that the
// next request with the same one costs a lookup instead of a signature.
//
// The key is the verifier and the whole token, which is compared in full after
// its hash; the hash is seeded for each process. Three checks are made again at
// each hit: the times, the key and the revocation. A token that fails a check
// never enters. A token that was seen once does not replace one that is seen
// often (W-TinyLFU admission).
//
// No goroutine sweeps the cache. An expired token is refused and removed when
// it is presented; one that is not presented again is evicted in time.
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

// cachedOverhead is the memory of an entry without its token and state: the
// entry, the cache's node and the slot in the table, rounded up.
const cachedOverhead = 960

// newCache returns the cache of one verifier in shared, or nil if shared keeps no
// token.
func newCache[T any](shared *Cache) *cache[T] {
	if shared.tokens == nil {
		return nil
	}
	return &cache[T]{tokens: shared.tokens, verifier: shared.verifiers.Add(1), copies: newCopier[T]()}
}

// get returns the entry of a token.
func (c *cache[T]) get(token string) (*cached[T], bool) {
	v, ok := c.tokens.GetIfPresent(cacheKey{token, c.verifier})
	if !ok {
		return nil, false
	}
	e, ok := v.(*cached[T])
	return e, ok
}

// drop removes the entry of a token.
func (c *cache[T]) drop(token string) { c.tokens.Invalidate(cacheKey{token, c.verifier}) }

func (e *cached[T]) weighs() uint32 { return e.weight }

// put stores a verified token with the set that holds its key. The token is
// copied: it is often a substring of a longer header. e.claims stays the
// caller's.
func (c *cache[T]) put(token string, e *cached[T], set *keys.Set) {
	e.generation.Store(set)
	// What a decoded state holds beside its slices is hardly larger than its
	// JSON and the size of its type.
	weight := len(token) + len(e.payload.State) + int(reflect.TypeFor[T]().Size()) + cachedOverhead
	// Until here the caller has the only copy of the state.
	if c.copies.able {
		e.payload.State = nil // which would keep the whole payload alive
		state := e.claims.State
		weight += c.copies.unshare(&e.claims.State, &state)
	} else {
		e.payload.State = []byte(string(e.payload.State))
		var none T
		e.claims.State = none
	}
	e.weight = uint32(min(weight, 1<<31))
	c.tokens.Set(cacheKey{strings.Clone(token), c.verifier}, e)
}

// isOf reports whether a set holds the key that verified the token. The set may
// be newer than the one that the token was verified with.
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

// timesHold reports whether the times of the token, which were valid when it
// was stored, are valid now.
func (e *cached[T]) timesHold(now time.Time) bool {
	return !now.Before(e.from) && now.Before(e.until)
}

// copier copies states of a type T that permits it. A copy shares no memory
// that a caller can change. States of other types are decoded for each caller.
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

// unshare replaces the slices of to, which was assigned from from, by copies. It
// returns their size in bytes.
func (c *copier[T]) unshare(to, from *T) (size int) {
	if len(c.slices) == 0 {
		return 0
	}
	return c.copySlices(to, from)
}

func (c *copier[T]) copySlices(to, from *T) (size int) {
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

// isFlat reports whether an assignment copies a value of type t completely. A
// string and the zone of a time are shared, and neither can be changed.
func isFlat(t reflect.Type) bool {
	if t == timeType {
		return true
	}
	if plain := plainOf(t); plain != nil { // copies share it, and it is never changed
		return isFlat(plain)
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
