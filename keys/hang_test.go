package keys_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// deaf is a store whose calls hang, whatever their context says.
type deaf struct {
	shared
	load, save atomic.Bool
	release    chan struct{}
	loads      atomic.Int64
}

func (d *deaf) Load(ctx context.Context, name string) (keys.Stored, error) {
	d.loads.Add(1)
	if d.load.Load() {
		<-d.release
	}
	return d.shared.Load(ctx, name)
}

func (d *deaf) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if d.save.Load() {
		<-d.release
	}
	return d.shared.Save(ctx, name, doc, rev)
}

func newDeaf(t *testing.T, n *network) *deaf {
	d := &deaf{shared: shared{n}, release: make(chan struct{})}
	t.Cleanup(func() { close(d.release) })
	return d
}

func took(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

// The table of waits: what is known is answered at once, what is not within 2 s,
// and what fails at once again.
func TestHungStoreHoldsUpNothing(t *testing.T) {
	for _, run := range []bool{false, true} {
		t.Run(fmt.Sprintf("Run %v", run), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				d := newDeaf(t, n)
				change := func(c *keys.RingConfig) { c.Store = d }
				var r *keys.Ring
				if run {
					r = running(t, n, change)
				} else {
					r = newRing(t, n, change)
				}
				kid := current(t, r)
				d.load.Store(true)
				require.Zero(t, took(func() { require.True(t, published(t, r, kid)) }))
				require.LessOrEqual(t, took(func() {
					_, err := r.KeySet(t.Context(), "unknown")
					require.Error(t, err)
				}), 2*time.Second)
				require.LessOrEqual(t, took(func() { require.Error(t, r.Revoke(t.Context(), kid)) }), 5*time.Second)
				if !run {
					time.Sleep(3 * time.Minute)
					require.LessOrEqual(t, took(func() { require.True(t, published(t, r, kid)) }), 2*time.Second, "nobody asked")
				}
				for end := time.Now().Add(11 * time.Hour); time.Now().Before(end); time.Sleep(7 * time.Second) {
					require.LessOrEqual(t, took(func() { require.True(t, published(t, r, kid)); current(t, r) }), 200*time.Millisecond)
				}
				require.Less(t, runtime.NumGoroutine(), 100)
				time.Sleep(2 * time.Hour)
				for range 2 {
					require.LessOrEqual(t, took(func() {
						_, err := r.KeySet(t.Context(), kid)
						require.Error(t, err, "past MaxStale")
					}), 2*time.Second)
				}
				require.Zero(t, took(func() {
					_, err := r.KeySet(t.Context(), kid)
					require.Error(t, err)
				}))
			})
		})
	}
}

// Runs that never return do not stop the next, and what they bring in the end
// replaces nothing.
func TestHungRunsAreAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		d := newDeaf(t, n)
		r := running(t, n, func(c *keys.RingConfig) { c.Store = d })
		kid := current(t, r)
		d.load.Store(true)
		time.Sleep(55 * time.Second) // one or two hang
		d.load.Store(false)
		time.Sleep(20 * time.Second)
		require.NoError(t, r.Status().Err)
		require.NoError(t, r.Revoke(t.Context(), kid))
		require.False(t, published(t, r, kid))
	})
}

// A write that hangs holds up no reading: a revocation is adopted meanwhile.
func TestHungSaveHoldsUpNoReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		d := newDeaf(t, n)
		a := running(t, n, func(c *keys.RingConfig) { c.SyncEvery = 10 * time.Minute })
		r := running(t, n, func(c *keys.RingConfig) { c.Store, c.SyncEvery = d, 10*time.Minute })
		leaked := current(t, r)
		d.save.Store(true)
		require.LessOrEqual(t, took(func() { require.Error(t, r.Revoke(t.Context(), leaked)) }), 5*time.Second)
		require.NoError(t, a.Revoke(t.Context(), leaked))
		time.Sleep(10 * time.Minute)
		require.False(t, published(t, r, leaked))
		require.Equal(t, current(t, a), current(t, r))
		time.Sleep(40 * day)
		require.NoError(t, r.Status().Err)
		require.Equal(t, current(t, a), current(t, r))
	})
}

// hungKMS is an AEAD that hangs.
type hungKMS struct {
	keys.AEAD
	hang    atomic.Bool
	release chan struct{}
}

func (h *hungKMS) Encrypt(p, ad []byte) ([]byte, error) {
	if h.hang.Load() {
		<-h.release
	}
	return h.AEAD.Encrypt(p, ad)
}

func (h *hungKMS) Decrypt(c, ad []byte) ([]byte, error) {
	if h.hang.Load() {
		<-h.release
	}
	return h.AEAD.Decrypt(c, ad)
}

// A KMS that hangs keeps no known key from verifying, nor the known current one
// from signing, nor a revocation from being adopted.
func TestHungKMSHoldsUpNoVerifying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		aead, err := keys.NewAESGCM(make([]byte, 32))
		require.NoError(t, err)
		kms := &hungKMS{AEAD: aead, release: make(chan struct{})}
		defer close(kms.release)
		healthy := func(c *keys.RingConfig) { c.Store, c.SyncEvery = keys.Sealed(shared{n}, aead), 10*time.Minute }
		a := running(t, n, healthy)
		hung := func(c *keys.RingConfig) { c.Store, c.SyncEvery = keys.Sealed(shared{n}, kms), 10*time.Minute }
		r := running(t, n, hung)
		kid := current(t, r)
		kms.hang.Store(true)
		late := newRing(t, n, hung)
		require.Zero(t, took(func() { require.True(t, published(t, late, kid)) }))
		require.LessOrEqual(t, took(func() {
			_, err := late.SigningKey(t.Context())
			require.Error(t, err)
		}), 2*time.Second)
		time.Sleep(31 * day)
		second := current(t, a)
		require.NotEqual(t, kid, second)
		require.Zero(t, took(func() { require.True(t, published(t, r, second)) }))
		require.NoError(t, r.Status().Err)
		require.NoError(t, a.Revoke(t.Context(), second))
		time.Sleep(10 * time.Minute)
		require.False(t, published(t, r, second))
		require.True(t, published(t, r, current(t, a)))
		require.LessOrEqual(t, took(func() {
			_, err := r.SigningKey(t.Context())
			require.Error(t, err)
		}), 2*time.Second)
	})
}

// A flood of made-up ids makes one reading a second, and each caller gets the
// answer of a reading that began after its call, or an error.
func TestFloodOfUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		d := newDeaf(t, n)
		r := newRing(t, n, func(c *keys.RingConfig) { c.Store = d })
		a := newRing(t, n)
		leaked := current(t, a)
		require.True(t, published(t, r, leaked))
		d.loads.Store(0)
		var wg sync.WaitGroup
		for i := range 1000 { // for 10 s
			wg.Go(func() {
				begin := time.Now()
				_, err := r.KeySet(t.Context(), fmt.Sprint("made up ", i))
				if err != nil {
					t.Error(err)
				}
				if time.Since(begin) > 2*time.Second {
					t.Error("it took too long")
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		require.NoError(t, a.Revoke(t.Context(), leaked))
		fresh := current(t, a)
		require.LessOrEqual(t, took(func() { require.True(t, published(t, r, fresh), "never an older answer") }), 2*time.Second)
		wg.Wait()
		require.LessOrEqual(t, d.loads.Load(), int64(13))
		require.Zero(t, took(func() { require.False(t, published(t, r, leaked)) }), "what is known to be revoked needs no reading")

		last := current(t, a)
		require.NoError(t, a.Revoke(t.Context(), last))
		require.True(t, published(t, r, last), "from memory")
		require.LessOrEqual(t, took(func() { require.NoError(t, r.Look(t.Context())) }), time.Second)
		require.False(t, published(t, r, last))

		d.load.Store(true)
		var errs atomic.Int64
		for i := range 100 {
			wg.Go(func() {
				if _, err := r.KeySet(t.Context(), fmt.Sprint("made up again ", i)); err != nil {
					errs.Add(1)
				}
			})
		}
		time.Sleep(3 * time.Second)
		wg.Wait()
		require.EqualValues(t, 100, errs.Load(), "never the old set")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := r.KeySet(ctx, "one more")
		require.Error(t, err)
	})
}
