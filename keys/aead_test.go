package keys_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// aeadKey is a key for tests: 32 bytes that differ for each n.
func aeadKey(n byte) []byte {
	sum := sha256.Sum256([]byte{n})
	return sum[:]
}

func mustAESGCM(t testing.TB, list ...[]byte) keys.AEAD {
	t.Helper()
	a, err := keys.NewAESGCM(list...)
	require.NoError(t, err)
	return a
}

// aesGCMBlob makes a blob as the format is written down, and not by calling
// the code under test. Blobs of this format are stored: they must stay
// readable.
func aesGCMBlob(t testing.TB, key, plaintext, ad []byte) []byte {
	t.Helper()
	gcm := aesGCM(t, key)
	id := sha256.Sum256(slices.Concat([]byte("sessiontoken/keys: AES-256-GCM key id\x00"), key))
	header := append([]byte{1}, id[:4]...)
	var framed []byte
	framed = binary.BigEndian.AppendUint64(framed, 5)
	framed = append(framed, header...)
	framed = binary.BigEndian.AppendUint64(framed, uint64(len(ad)))
	framed = append(framed, ad...)
	return gcm.Seal(header, nil, plaintext, framed)
}

// aesGCM writes a random nonce before the ciphertext: FIPS 140-3 permits no
// nonce of the caller's.
func aesGCM(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	require.NoError(t, err)
	return gcm
}

func TestAESGCMRoundTrip(t *testing.T) {
	a := mustAESGCM(t, aeadKey(1))
	tests := []struct {
		name          string
		plaintext, ad []byte
	}{
		{"both", []byte("private key"), []byte("ring kid ES256")},
		{"no associated data", []byte("private key"), nil},
		{"no plaintext", nil, []byte("ring")},
		{"neither", nil, nil},
		{"one block", make([]byte, 16), make([]byte, 16)},
		{"large", bytes.Repeat([]byte("0123456789abcdef"), 1<<14), bytes.Repeat([]byte{7}, 5000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plaintext, ad := bytes.Clone(tt.plaintext), bytes.Clone(tt.ad)
			blob, err := a.Encrypt(plaintext, ad)
			require.NoError(t, err)
			require.Len(t, blob, 1+4+12+len(tt.plaintext)+16)
			require.Equal(t, tt.plaintext, plaintext)
			require.Equal(t, tt.ad, ad)

			clear(plaintext) // the blob does not depend on it any more
			kept := bytes.Clone(blob)
			got, err := a.Decrypt(blob, ad)
			require.NoError(t, err)
			require.True(t, bytes.Equal(tt.plaintext, got))
			require.Equal(t, kept, blob)
		})
	}
}

func TestAESGCMFormat(t *testing.T) {
	key := aeadKey(1)
	blob := aesGCMBlob(t, key, []byte("private key"), []byte("ad"))
	got, err := mustAESGCM(t, key).Decrypt(blob, []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, "private key", string(got))
}

func TestAESGCMNonceIsFresh(t *testing.T) {
	a := mustAESGCM(t, aeadKey(1))
	seen := make(map[string]bool)
	for range 1000 {
		blob, err := a.Encrypt([]byte("same"), []byte("same"))
		require.NoError(t, err)
		seen[string(blob[5:17])] = true
	}
	require.Len(t, seen, 1000)
}

func TestAESGCMAssociatedData(t *testing.T) {
	a := mustAESGCM(t, aeadKey(1))
	blob, err := a.Encrypt([]byte("private key"), []byte("ring1/kid/ES256"))
	require.NoError(t, err)
	tests := []struct {
		name string
		ad   []byte
	}{
		{"missing", nil},
		{"other", []byte("ring2/kid/ES256")},
		{"shorter", []byte("ring1/kid/ES25")},
		{"longer", []byte("ring1/kid/ES256\x00")},
		{"after the header", slices.Concat(blob[:5], []byte("ring1/kid/ES256"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := a.Decrypt(blob, tt.ad)
			require.Error(t, err)
			require.Nil(t, got)
		})
	}
}

// What is in a blob cannot be passed off as associated data, nor the reverse.
func TestAESGCMFraming(t *testing.T) {
	key, ad := aeadKey(1), []byte("ad")
	good, gcm := aesGCMBlob(t, key, []byte("p"), ad), aesGCM(t, key)
	for _, framed := range [][]byte{ad, slices.Concat(good[:5], ad), nil} {
		blob := gcm.Seal(slices.Clone(good[:5]), nil, []byte("p"), framed)
		_, err := mustAESGCM(t, key).Decrypt(blob, ad)
		require.Error(t, err)
	}
}

func TestAESGCMAltered(t *testing.T) {
	// Two keys, so that a changed key id has somewhere to go.
	a := mustAESGCM(t, aeadKey(1), aeadKey(2))
	ad := []byte("ad")
	blob, err := a.Encrypt([]byte("private key"), ad)
	require.NoError(t, err)
	_, sameErr := a.Decrypt(nil, ad)
	require.Error(t, sameErr)
	refused := func(t *testing.T, b []byte) {
		t.Helper()
		got, err := a.Decrypt(b, ad)
		require.Equal(t, sameErr, err, "one error for everything")
		require.Nil(t, got)
	}

	t.Run("every bit flipped", func(t *testing.T) {
		for i := range len(blob) * 8 {
			b := bytes.Clone(blob)
			b[i/8] ^= 1 << (i % 8)
			refused(t, b)
		}
	})
	t.Run("every shorter length", func(t *testing.T) {
		for n := range len(blob) {
			refused(t, blob[:n])
			refused(t, blob[n+1:])
		}
	})
	t.Run("longer", func(t *testing.T) {
		refused(t, append(bytes.Clone(blob), 0))
		refused(t, slices.Concat(blob, blob))
	})
	t.Run("key id of the other key", func(t *testing.T) {
		other, err := mustAESGCM(t, aeadKey(2)).Encrypt(nil, nil)
		require.NoError(t, err)
		b := bytes.Clone(blob)
		copy(b[:5], other[:5])
		refused(t, b)
	})
}

func TestAESGCMRotation(t *testing.T) {
	ad := []byte("ad")
	k1, k2, k3 := aeadKey(1), aeadKey(2), aeadKey(3)
	old, err := mustAESGCM(t, k1).Encrypt([]byte("old"), ad)
	require.NoError(t, err)

	tests := []struct {
		name  string
		keys  [][]byte
		reads bool
	}{
		{"new key appended", [][]byte{k1, k2}, true},
		{"new key in front", [][]byte{k2, k1}, true},
		{"third of three", [][]byte{k3, k2, k1}, true},
		{"old key removed", [][]byte{k2}, false},
		{"old key removed of several", [][]byte{k2, k3}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := mustAESGCM(t, tt.keys...)
			got, err := a.Decrypt(old, ad)
			if tt.reads {
				require.NoError(t, err)
				require.Equal(t, "old", string(got))
			} else {
				require.Error(t, err)
				require.Nil(t, got)
			}

			// The first key, and only it, encrypts.
			blob, err := a.Encrypt([]byte("new"), ad)
			require.NoError(t, err)
			got, err = mustAESGCM(t, tt.keys[0]).Decrypt(blob, ad)
			require.NoError(t, err)
			require.Equal(t, "new", string(got))
			for _, k := range tt.keys[1:] {
				_, err = mustAESGCM(t, k).Decrypt(blob, ad)
				require.Error(t, err)
			}
		})
	}
}

func TestNewAESGCMRefuses(t *testing.T) {
	k1, k2 := aeadKey(1), aeadKey(2)
	tests := []struct {
		name string
		keys [][]byte
	}{
		{"no key", nil},
		{"nil key", [][]byte{nil}},
		{"empty key", [][]byte{{}}},
		{"AES-128", [][]byte{k1[:16]}},
		{"AES-192", [][]byte{k1[:24]}},
		{"31 bytes", [][]byte{k1[:31]}},
		{"33 bytes", [][]byte{append(bytes.Clone(k1), 0)}},
		{"hex", [][]byte{fmt.Appendf(nil, "%x", k1)}},
		{"second of wrong length", [][]byte{k1, k2[:31]}},
		{"duplicate", [][]byte{k1, k2, bytes.Clone(k1)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := keys.NewAESGCM(tt.keys...)
			require.Error(t, err)
			require.Nil(t, a)
			for _, k := range tt.keys {
				if len(k) > 0 {
					require.NotContains(t, err.Error(), string(k))
					require.NotContains(t, err.Error(), fmt.Sprintf("%x", k))
				}
			}
		})
	}
}

func TestAESGCMKeepsNoSlice(t *testing.T) {
	k1, k2 := aeadKey(1), aeadKey(2)
	list := [][]byte{k1, k2}
	a := mustAESGCM(t, list...)
	before, err := a.Encrypt([]byte("p"), nil)
	require.NoError(t, err)
	clear(k1)
	clear(k2)
	clear(list)

	_, err = a.Decrypt(before, nil)
	require.NoError(t, err)
	after, err := a.Encrypt([]byte("p"), nil)
	require.NoError(t, err)
	_, err = mustAESGCM(t, aeadKey(1)).Decrypt(after, nil)
	require.NoError(t, err)
}

func TestAESGCMPrintsNoKey(t *testing.T) {
	key := aeadKey(1)
	a := mustAESGCM(t, key)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		text := fmt.Sprintf(format, a)
		// A key schedule is 60 words; pointers and names are short.
		require.Less(t, len(text), 200, format)
		require.NotContains(t, text, fmt.Sprintf("%x", key[:4]), format)
		require.NotContains(t, text, fmt.Sprint(binary.BigEndian.Uint32(key)), format)
	}
}

func TestAESGCMConcurrently(t *testing.T) {
	a := mustAESGCM(t, aeadKey(1), aeadKey(2))
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i)}, 100)
			for range 100 {
				blob, err := a.Encrypt(want, want)
				if err == nil {
					var got []byte
					if got, err = a.Decrypt(blob, want); err == nil && !bytes.Equal(got, want) {
						err = fmt.Errorf("not what was encrypted")
					}
				}
				if err != nil {
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
}

func FuzzAESGCMDecrypt(f *testing.F) {
	ad := []byte("ad")
	// Of the keys 1 and 2. They are constants, since each process of the fuzzer
	// must know the same.
	var known [][]byte
	for _, blob := range []string{
		"0180a6aaba7477656c7665206279746573d4df6c0d804bd91267d58ead51b5828215bc7324abb94539c1e662",
		"0115ce95567477656c76652062797465737e40af38bc06a46e1c34a2388ceab10d",
	} {
		raw, err := hex.DecodeString(blob)
		require.NoError(f, err)
		known = append(known, raw)
	}
	for _, blob := range known {
		f.Add(blob, ad)
		f.Add(blob, []byte{})
		f.Add(blob[:len(blob)-1], ad)
		f.Add(blob[:5], ad)
		f.Add(blob[:33-1], ad)
	}
	f.Add(aesGCMBlob(f, aeadKey(3), []byte("unknown key"), ad), ad)
	f.Add([]byte{}, []byte{})
	f.Add([]byte{1}, []byte{})
	f.Add(make([]byte, 33), []byte{})
	a := mustAESGCM(f, aeadKey(1), aeadKey(2))
	f.Fuzz(func(t *testing.T, blob, givenAD []byte) {
		got, err := a.Decrypt(blob, givenAD)
		genuine := bytes.Equal(givenAD, ad) && slices.ContainsFunc(known, func(k []byte) bool { return bytes.Equal(k, blob) })
		if genuine {
			require.NoError(t, err)
			return
		}
		require.Error(t, err)
		require.Nil(t, got)
	})
}
