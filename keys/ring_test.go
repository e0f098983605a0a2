package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

const day = 24 * time.Hour

// network is a store that a ring must take for a shared one, and that can fail.
type network struct {
	mu        sync.Mutex
	mem       *keys.MemStore
	err       error // of every call
	lostReply error // of Save, after it was done
	hang      bool
}

// store is what is behind the network.
func (n *network) store() *keys.MemStore {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mem == nil {
		n.mem = new(keys.MemStore)
	}
	return n.mem
}

// shared is no MemStore.
type shared struct{ n *network }

func (s shared) Load(ctx context.Context, name string) (keys.Stored, error) {
	if err := s.n.fault(ctx); err != nil {
		return keys.Stored{}, err
	}
	return s.n.store().Load(ctx, name)
}

func (s shared) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if err := s.n.fault(ctx); err != nil {
		return "", err
	}
	newRev, err := s.n.store().Save(ctx, name, doc, rev)
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if err == nil && s.n.lostReply != nil {
		return "", s.n.lostReply
	}
	return newRev, err
}

func (n *network) fault(ctx context.Context) error {
	n.mu.Lock()
	err, hang := n.err, n.hang
	n.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (n *network) set(f func()) { n.mu.Lock(); defer n.mu.Unlock(); f() }

// put replaces the document of the name "" behind the rings' backs.
func (n *network) put(t *testing.T, doc []byte) {
	t.Helper()
	stored, err := n.store().Load(t.Context(), "")
	require.NoError(t, err)
	_, err = n.store().Save(t.Context(), "", doc, stored.Rev)
	require.NoError(t, err)
}

func (n *network) get(t *testing.T) []byte {
	t.Helper()
	stored, err := n.store().Load(t.Context(), "")
	require.NoError(t, err)
	return stored.Doc
}

// logBuffer keeps what is logged from any goroutine.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var quiet = slog.New(slog.DiscardHandler)

func newRing(t *testing.T, n *network, change ...func(*keys.RingConfig)) *keys.Ring {
	t.Helper()
	cfg := keys.RingConfig{Store: shared{n}, InsecureUnsealed: true, Logger: quiet}
	for _, f := range change {
		f(&cfg)
	}
	r, err := keys.NewRing(cfg)
	require.NoError(t, err)
	return r
}

// running is a ring with Run under way, until the test ends.
func running(t *testing.T, n *network, change ...func(*keys.RingConfig)) *keys.Ring {
	t.Helper()
	r := newRing(t, n, change...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	synctest.Wait()
	return r
}

func current(t *testing.T, r *keys.Ring) string {
	t.Helper()
	k, err := r.SigningKey(t.Context())
	require.NoError(t, err)
	return k.Public().KeyID()
}

func phases(r *keys.Ring) (out []string) {
	for _, k := range r.Status().Keys {
		out = append(out, k.Phase)
	}
	return out
}

func published(t *testing.T, r *keys.Ring, kid string) bool {
	t.Helper()
	set, err := r.KeySet(t.Context(), kid)
	require.NoError(t, err)
	_, ok := set.Key(kid)
	return ok
}

func TestRingLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r := running(t, n, func(c *keys.RingConfig) { c.SyncEvery = 4 * time.Minute })
		first := current(t, r)
		require.Equal(t, []string{"current", "next"}, phases(r))
		next := r.Status().Keys[1].KeyID
		require.Equal(t, 2, bytes.Count(n.get(t), []byte(`"private"`)))

		time.Sleep(30*day - time.Minute)
		require.Equal(t, first, current(t, r))
		time.Sleep(time.Minute + time.Second)
		require.Equal(t, next, current(t, r), "it took its turn")
		time.Sleep(5 * time.Minute)
		require.Equal(t, []string{"retired", "current", "next"}, phases(r))
		require.Equal(t, 2, bytes.Count(n.get(t), []byte(`"private"`)), "the retired key has lost its private half")
		require.True(t, published(t, r, first))
		time.Sleep(day + 5*time.Minute) // and a reading or two
		require.False(t, published(t, r, first), "gone")
		require.Equal(t, []string{"current", "next"}, phases(r))
	})
}

func TestRingRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r, other := running(t, n), running(t, n)
		first := current(t, r)
		require.Equal(t, first, current(t, other))

		at, err := r.Rotate(t.Context())
		require.NoError(t, err)
		require.Equal(t, day, time.Until(at).Round(time.Minute), "the next key has only just been published")
		again, err := r.Rotate(t.Context())
		require.NoError(t, err)
		require.True(t, at.Equal(again), "repeating changes nothing")
		require.Equal(t, first, current(t, r))
		time.Sleep(time.Until(at))
		second := current(t, r)
		require.NotEqual(t, first, second)
		require.Equal(t, second, current(t, other))

		time.Sleep(2 * day)
		at, err = other.Rotate(t.Context())
		require.NoError(t, err)
		require.False(t, at.After(time.Now()), "at once")
		third := current(t, other)
		require.NotEqual(t, second, third)
		require.True(t, published(t, other, second))
		time.Sleep(time.Minute)
		require.Equal(t, third, current(t, r), "the other replica follows")
		time.Sleep(13*time.Hour + day)
		require.False(t, published(t, r, second), "kept only while a replica may not know, and its tokens live")
	})
}

func TestRingRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r, other := running(t, n), running(t, n)
		set, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)

		require.ErrorIs(t, r.Revoke(t.Context(), set.Keys()[0].KeyID(), "unknown"), keys.ErrUnknownKey)
		require.True(t, published(t, r, set.Keys()[0].KeyID()), "nothing was revoked")

		first, next := r.Status().Keys[0].KeyID, r.Status().Keys[1].KeyID
		require.NoError(t, r.Revoke(t.Context(), first))
		fresh := current(t, r)
		require.NotContains(t, []string{first, next}, fresh, "new to everyone")
		require.False(t, published(t, r, first))
		time.Sleep(time.Second) // the other one has read the store only just now
		require.True(t, published(t, other, fresh), "an unknown key makes the other replica look")
		require.False(t, published(t, other, first))
		require.NoError(t, r.Revoke(t.Context(), first), "repeating is no error")
		require.NoError(t, other.Revoke(t.Context(), first))

		require.NoError(t, r.Revoke(t.Context(), next))
		require.Equal(t, fresh, current(t, r))
		require.Equal(t, []string{"current", "next"}, phases(r))

		var all []string
		for _, k := range r.Status().Keys {
			all = append(all, k.KeyID)
		}
		require.NoError(t, r.Revoke(t.Context(), all...))
		require.NotContains(t, all, current(t, r))
		for _, kid := range all {
			require.False(t, published(t, r, kid))
			require.NotContains(t, string(n.get(t)), `"jwk":{"kty":"EC","kid":"`+kid)
		}
		require.Equal(t, []string{"current", "next"}, phases(r))
		require.GreaterOrEqual(t, time.Until(r.Status().Keys[1].SignsFrom), day-time.Minute, "the next is published for long enough all the same")
	})
}

func TestRingStoreFails(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name string
		fail func(*network)
	}{
		{"with an error", func(n *network) { n.err = boom }},
		{"by hanging", func(n *network) { n.hang = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logged logBuffer
				n := new(network)
				r := running(t, n, func(c *keys.RingConfig) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
				first := current(t, r)
				n.set(func() { tt.fail(n) })
				time.Sleep(11 * time.Hour)
				require.Equal(t, first, current(t, r), "it goes on")
				require.True(t, published(t, r, first))
				require.Error(t, r.Status().Err)
				require.LessOrEqual(t, strings.Count(logged.String(), "the ring's store cannot be read"), 11*60, "at most once a minute")
				require.GreaterOrEqual(t, strings.Count(logged.String(), "the ring's store cannot be read"), 5*60)
				_, err := r.KeySet(t.Context(), "unknown")
				require.Error(t, err, "whether there is such a key cannot be told")
				require.Error(t, r.Revoke(t.Context(), first))
				time.Sleep(time.Hour + time.Minute)
				_, err = r.SigningKey(t.Context())
				require.Error(t, err, "beyond MaxStale")
				_, err = r.KeySet(t.Context(), first)
				require.Error(t, err)

				n.set(func() { n.err, n.hang = nil, false })
				time.Sleep(2 * time.Minute)
				require.Equal(t, first, current(t, r), "nothing was lost")
				require.NoError(t, r.Status().Err)
				require.Equal(t, 1, strings.Count(logged.String(), "the ring's store can be read again"))
			})
		})
	}
}

func TestRingStoreLosesDocument(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(old []byte) []byte
	}{
		{"rolled back", func(old []byte) []byte { return old }},
		{"emptied", func([]byte) []byte { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				r := running(t, n)
				leaked := current(t, r)
				old := n.get(t)
				require.NoError(t, r.Revoke(t.Context(), leaked))
				fresh := current(t, r)
				if doc := tt.lose(old); doc != nil {
					n.put(t, doc)
				} else {
					n.set(func() { n.mem = new(keys.MemStore) })
				}
				time.Sleep(2 * time.Minute)
				require.Equal(t, fresh, current(t, r))
				other := newRing(t, n)
				require.Equal(t, fresh, current(t, other), "the newest document is back")
				require.False(t, published(t, other, leaked))
			})
		})
	}
}

func TestRingCorruptDocument(t *testing.T) {
	for _, tt := range []struct{ name, doc string }{
		{"garbage", "\x00\x01"}, {"empty object", "{}"}, {"no keys", `{"version":1,"serial":9,"ring":"x","keys":[]}`}, {"another version", `{"version":2,"serial":9,"ring":"x","keys":[]}`},
		{"deep", strings.Repeat("[", 1000)}, {"key without times", `{"version":1,"serial":9,"ring":"x","keys":[{"jwk":{}}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				r := running(t, n)
				first := current(t, r)
				n.put(t, []byte(tt.doc))
				time.Sleep(2 * time.Minute)
				require.Equal(t, first, current(t, r), "it goes on with what it has")
				require.Error(t, r.Status().Err)
				require.Equal(t, tt.doc, string(n.get(t)), "and overwrites nothing that it does not understand")
				_, err := newRing(t, n).SigningKey(t.Context())
				require.Error(t, err)
			})
		})
	}
}

func TestRingSaveTimesOutButWasApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{lostReply: errors.New("no answer")}
		r := newRing(t, n)
		_, err := r.SigningKey(t.Context())
		require.Error(t, err, "nothing was read back")
		n.set(func() { n.lostReply = nil })
		time.Sleep(time.Minute)
		kid := current(t, r)
		require.Equal(t, kid, current(t, newRing(t, n)))
		require.Len(t, r.Status().Keys, 2, "the first write is the one that counts")
	})
}

func TestRingNeglected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		first := current(t, newRing(t, n))
		next := newRing(t, n)
		require.Equal(t, first, current(t, next))
		time.Sleep(60*day + time.Hour) // nobody ran for longer than both keys' time
		r := newRing(t, n)
		kid := current(t, r)
		require.Equal(t, next.Status().Keys[1].KeyID, kid, "the last key that everyone knows signs on")
		at := r.Status().Keys
		require.LessOrEqual(t, time.Until(at[len(at)-2].SignsUntil), day, "until its successor has been published for long enough")
		time.Sleep(200 * day)
		r = newRing(t, n)
		require.NotEqual(t, kid, current(t, r), "none is left: a new one signs at once")
	})
}

func TestRingWithoutStoreRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r := newRing(t, n, func(c *keys.RingConfig) {
			c.RotateEvery, c.PublishBefore, c.MaxStale = 4*time.Hour, 3*time.Hour+30*time.Minute, time.Hour
		})
		_, err := r.SigningKey(t.Context())
		require.NoError(t, err)
		n.set(func() { n.err = errors.New("boom") })
		time.Sleep(8*time.Hour + time.Minute)
		_, err = r.SigningKey(t.Context())
		require.Error(t, err)
	})
}

func TestRingVerifyOnlyAndSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
		seal := func(list ...[]byte) keys.Store {
			aead, err := keys.NewAESGCM(list...)
			require.NoError(t, err)
			return keys.Sealed(shared{n}, aead)
		}
		with := func(s keys.Store, name string) func(*keys.RingConfig) {
			return func(c *keys.RingConfig) { c.Store, c.InsecureUnsealed, c.Name = s, false, name }
		}
		r := newRing(t, n, with(seal(k1), "a"))
		kid := current(t, r)
		stored, err := n.store().Load(t.Context(), "a")
		require.NoError(t, err)
		_, err = n.store().Save(t.Context(), "b", stored.Doc, "") // moved
		require.NoError(t, err)

		reader := newRing(t, n, func(c *keys.RingConfig) { c.InsecureUnsealed, c.VerifyOnly, c.Name = false, true, "a" })
		require.True(t, published(t, reader, kid), "it needs no secret")
		_, err = reader.SigningKey(t.Context())
		require.Error(t, err)
		require.Error(t, reader.Revoke(t.Context(), kid))
		_, err = reader.Rotate(t.Context())
		require.Error(t, err)

		for _, tt := range []struct {
			name   string
			change func(*keys.RingConfig)
		}{
			{"another sealing key", with(seal(k2), "a")},
			{"another name", with(seal(k1), "b")},
			{"not sealed", func(c *keys.RingConfig) { c.Name = "a" }},
		} {
			wrong := newRing(t, n, tt.change)
			require.True(t, published(t, wrong, kid), tt.name)
			_, err := wrong.SigningKey(t.Context())
			require.Error(t, err, tt.name)
		}
		require.Equal(t, kid, current(t, newRing(t, n, with(seal(k2, k1), "a"))), "the old sealing key still opens")
	})
}

// TestSealedIsBound: a sealed private key cannot be moved to another entry.
func TestSealedIsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		aead, err := keys.NewAESGCM(make([]byte, 32))
		require.NoError(t, err)
		sealed := func(c *keys.RingConfig) { c.Store = keys.Sealed(shared{n}, aead) }
		current(t, newRing(t, n, sealed))
		var doc map[string]any
		require.NoError(t, json.Unmarshal(n.get(t), &doc))
		list := doc["keys"].([]any)
		a, b := list[0].(map[string]any), list[1].(map[string]any)
		a["private"], b["private"] = b["private"], a["private"]
		out, err := json.Marshal(doc)
		require.NoError(t, err)
		n.put(t, out)
		_, err = newRing(t, n, sealed).SigningKey(t.Context())
		require.Error(t, err)
	})
}

func TestRingConfig(t *testing.T) {
	for _, tt := range []struct {
		name   string
		field  string
		change func(*keys.RingConfig)
	}{
		{"no store", "Store", func(c *keys.RingConfig) { c.Store = nil }},
		{"nil store", "Store", func(c *keys.RingConfig) { c.Store = (*keys.MemStore)(nil) }},
		{"shared, unsealed", "InsecureUnsealed", func(c *keys.RingConfig) { c.Store = shared{new(network)} }},
		{"has a MemStore", "InsecureUnsealed", func(c *keys.RingConfig) { c.Store = &struct{ keys.MemStore }{} }},
		{"has a FileStore", "InsecureUnsealed", func(c *keys.RingConfig) { c.Store = struct{ *keys.FileStore }{new(keys.FileStore)} }},
		{"sealed nothing", "Store", func(c *keys.RingConfig) { c.Store = keys.Sealed(nil, nil) }},
		{"sealed nil", "Store", func(c *keys.RingConfig) { c.Store, c.VerifyOnly = keys.Sealed((*keys.FileStore)(nil), nil), true }},
		{"algorithm", "Algorithm", func(c *keys.RingConfig) { c.Algorithm = "none" }},
		{"HMAC", "Algorithm", func(c *keys.RingConfig) { c.Algorithm = "HS256" }},
		{"negative", "RetainFor", func(c *keys.RingConfig) { c.RetainFor = -1 }},
		{"overflow", "MaxSkew", func(c *keys.RingConfig) { c.MaxSkew = 1 << 62 }},
		{"sync beyond stale", "SyncEvery", func(c *keys.RingConfig) { c.SyncEvery = 12 * time.Hour }},
		{"published too late", "PublishBefore", func(c *keys.RingConfig) { c.PublishBefore = 14 * time.Hour }},
		{"stale for too long", "PublishBefore", func(c *keys.RingConfig) { c.MaxStale = 22 * time.Hour }},
		{"rotates too fast", "RotateEvery", func(c *keys.RingConfig) { c.RotateEvery = 24 * time.Hour }},
		{"too many keys", "RetainFor", func(c *keys.RingConfig) { c.RotateEvery, c.RetainFor = 25*time.Hour, 27*day }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := keys.RingConfig{Store: new(keys.MemStore)}
			tt.change(&cfg)
			_, err := keys.NewRing(cfg)
			require.ErrorContains(t, err, "keys: RingConfig."+map[bool]string{true: "Store", false: tt.field}[tt.field == "InsecureUnsealed"])
			require.ErrorContains(t, err, tt.field)
		})
	}
}

func TestRingGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r := running(t, n)
		a, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		time.Sleep(day)
		b, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		require.Same(t, a, b, "the same keys are the same generation")
		require.NoError(t, r.Revoke(t.Context(), a.Keys()[1].KeyID()))
		c, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		require.NotSame(t, a, c)
	})
}

// TestNoSecretIsPrinted looks for the stored private keys in all that a ring
// says, and in what its keys print.
func TestNoSecretIsPrinted(t *testing.T) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out logBuffer
				n := new(network)
				r := running(t, n, func(c *keys.RingConfig) {
					c.Algorithm = alg
					c.Logger = slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				key, err := r.SigningKey(t.Context())
				require.NoError(t, err)
				doc := n.get(t)
				var parsed struct {
					Keys []struct {
						Private []byte `json:"private"`
					} `json:"keys"`
				}
				require.NoError(t, json.Unmarshal(doc, &parsed))
				require.NotEmpty(t, parsed.Keys[0].Private)
				n.put(t, append(bytes.Clone(doc), '}'))
				time.Sleep(5 * time.Minute)
				fmt.Fprintf(&out, "%v %+v %#v %s %q %x %v", key, key, key, key, key, key, r.Status())
				_, err = json.Marshal(key)
				fmt.Fprint(&out, err, r.Status().Err)
				secret := parsed.Keys[0].Private
				for _, form := range []string{base64.StdEncoding.EncodeToString(secret), fmt.Sprintf("%x", secret), fmt.Sprint(secret), string(secret)} {
					for i := 0; i+24 <= len(form); i += 8 {
						if strings.Contains(out.String(), form[i:i+24]) && !strings.Contains(string(publicPart(t, r)), form[i:i+24]) {
							t.Fatal("a part of a private key is in the output")
						}
					}
				}
			})
		})
	}
}

func publicPart(t *testing.T, r *keys.Ring) []byte {
	set, err := r.KeySet(t.Context(), "")
	require.NoError(t, err)
	b, err := set.MarshalJSON()
	require.NoError(t, err)
	return b
}

// hsm is a key that cannot be got at.
type hsm struct{ crypto.Signer }

func (h hsm) Sign(r io.Reader, d []byte, o crypto.SignerOpts) ([]byte, error) {
	return h.Signer.Sign(r, d, o)
}

func TestStaticWithHiddenKey(t *testing.T) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		key, err := keys.NewSigningKey(alg, hsm{newSigner(t, alg)})
		require.NoError(t, err)
		next, err := keys.GenerateKey(alg)
		require.NoError(t, err)
		source, err := keys.NewStatic(key, next.Public())
		require.NoError(t, err)
		set, err := source.KeySet(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, set.Keys(), 2)
		pub, ok := set.Key(key.Public().KeyID())
		require.True(t, ok)
		got, err := source.SigningKey(t.Context())
		require.NoError(t, err)
		sig, err := got.Sign(t.Context(), []byte("input"))
		require.NoError(t, err)
		require.NoError(t, jws.Verify(string(alg), pub.Key(), "input", sig))
	}
	_, err := keys.NewStatic(nil)
	require.Error(t, err)
}

func TestKeysAndSetsRefuse(t *testing.T) {
	ec, modulus := newSigner(t, keys.ES256), newSigner(t, keys.RS256)
	es, err := keys.NewSigningKey(keys.ES256, ec)
	require.NoError(t, err)
	rs, err := keys.NewSigningKey(keys.RS256, modulus)
	require.NoError(t, err)
	ps, err := keys.NewSigningKey(keys.PS256, modulus)
	require.NoError(t, err)
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"empty set", second(keys.NewSet())},
		{"nil key", second(keys.NewSet(nil))},
		{"one id twice", second(keys.NewSet(es.Public(), es.Public()))},
		{"one key under two algorithms", second(keys.NewSet(rs.Public(), ps.Public()))},
		{"no signer", second(keys.NewSigningKey(keys.ES256, nil))},
		{"another algorithm's key", second(keys.NewSigningKey(keys.EdDSA, ec))},
		{"none", second(keys.GenerateKey("none"))},
		{"HMAC", second(keys.NewSigningKey("HS256", ec))},
		{"private key as a public one", second(keys.NewPublicKey(keys.ES256, ec))},
		{"a document that is not one", second(keys.ParseSet([]byte("x")))},
		{"a document without usable key", second(keys.ParseSet([]byte(`{"keys":[]}`)))},
	} {
		require.Error(t, tt.err, tt.name)
	}
	set, err := keys.NewSet(es.Public(), rs.Public())
	require.NoError(t, err)
	document, err := set.MarshalJSON()
	require.NoError(t, err)
	parsed, err := keys.ParseSet(document)
	require.NoError(t, err)
	require.True(t, set.Equal(parsed))
	turned, err := keys.NewSet(rs.Public(), es.Public())
	require.NoError(t, err)
	require.True(t, set.Equal(turned))
	smaller, err := keys.NewSet(rs.Public())
	require.NoError(t, err)
	require.False(t, set.Equal(smaller))
	require.False(t, set.Equal(nil))
}

func second[T any](_ T, err error) error { return err }

// A ring that nobody runs keeps its promise too: what it was told of revocations
// is never older than SyncEvery when it is asked after a pause.
func TestRingIdleWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		a, b := newRing(t, n), newRing(t, n)
		gone := current(t, a)
		require.True(t, published(t, b, gone))
		require.NoError(t, a.Revoke(t.Context(), gone))
		time.Sleep(time.Minute)

		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				set, err := b.KeySet(t.Context(), gone)
				if err != nil {
					t.Error(err)
					return
				}
				if _, ok := set.Key(gone); ok {
					t.Error("an idle ring serves a revoked key")
				}
			})
		}
		wg.Wait()
		require.Equal(t, current(t, a), current(t, b))
	})
}

// While the store hangs, a ring that was idle waits for it once, and a ring that
// is used or run does not.
func TestRingWaitsOnceForAHungStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		r := newRing(t, n)
		kid := current(t, r)
		n.set(func() { n.hang = true })
		wait := func() time.Duration {
			begin := time.Now()
			require.True(t, published(t, r, kid))
			return time.Since(begin)
		}
		time.Sleep(time.Hour)
		require.Equal(t, 2*time.Second, wait())
		for range 600 { // in the background from here on
			require.Zero(t, wait())
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		require.Equal(t, 2*time.Second, wait())
		n.set(func() { n.hang = false })
		time.Sleep(2 * time.Minute)
		require.Zero(t, wait())
		require.NoError(t, r.Status().Err)
	})

	for _, every := range []time.Duration{time.Second, 5 * time.Second, time.Minute, time.Hour} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{}
				r := running(t, n, func(c *keys.RingConfig) { c.SyncEvery = every })
				kid := current(t, r)
				time.Sleep(3 * every)
				n.set(func() { n.hang = true })
				waited := time.Duration(0)
				for end := time.Now().Add(min(100*every, 11*time.Hour)); time.Now().Before(end); time.Sleep(every / 20) {
					begin := time.Now()
					require.True(t, published(t, r, kid))
					waited += time.Since(begin)
				}
				require.LessOrEqual(t, waited, 2*time.Second, "only for the reading that met the failure")
				n.set(func() { n.hang = false })
				time.Sleep(2 * every)
				require.NoError(t, r.Status().Err)
			})
		})
	}
}
