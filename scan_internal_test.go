package sessiontoken

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

const scanGood = `{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"auth_time":1,"state":{"x":[1,"]}"]}}`

// FuzzScan: what the one-pass reader accepts, the strict one reads as the same.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		scanGood, `{}`, `{"iss":"i"}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":253402300799999,"auth_time":1,"rnw":true,"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":253402300800000,"auth_time":1,"rnw":false,"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":0,"auth_time":1,"rnw":true,"rnw":true,"state":{}}`,
		`{"iss":"i","sub":"s","aud":["a","b"],"exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"auth_time":1,"state":null}`,
		`{"iss":"i","sub":"s","aud":["a"],"exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"auth_time":1,"state":"\"}"}`,
		`{"iss":"i","sub":"s","aud":[],"exp":0300,"iat":1,"jti":"j","sid":"d","begun":1000,"auth_time":1,"state":1}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"auth_time":1,"state":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"acr":"x","amr":["pwd","otp"],"act":{"sub":"a","sid":"b","begun":1000},"rnw":true,"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"amr":["a","a","a","a","a","a","a","a","a","a","a"],"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"act":{"sub":"a","sid":"b","begun":1000,"x":1},"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"act":{"sid":"b","sub":"a","begun":1000},"acr":"","amr":[],"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"rnw":true,"chg":1000,"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"chg":0,"chg":253402300799999,"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"chg":253402300800000,"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"stv":[1000000,0],"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"stv":[1,2],"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"stv":[0,0],"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"state":{},"sld":"/a"}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"sld":["/a","/b/0"],"state":{}}`,
		`{"iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"sld":[],"state":{},"sld":""}`,
		`{"iss":"i","iss":"i","sub":"s","aud":"a","exp":300,"iat":1,"jti":"j","sid":"d","begun":1000,"auth_time":1,"state":[}]}`,
	} {
		f.Add([]byte(s))
	}
	ours := []string{"a", "b", "c"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s scanned
		if !scanPayload(raw, &s) {
			return
		}
		got := s.payload("i", ours)
		want, fault := parsePayload(raw)
		if fault != "" {
			// Only the state may be at fault, and then it decodes into nothing.
			var v jsontext.Value
			require.Error(t, json.Unmarshal(got.State, &v))
			return
		}
		named := want.Audience
		want.Audience = narrow(ours, func(a string) bool {
			for _, n := range named {
				if n == a {
					return true
				}
			}
			return false
		})
		require.NoError(t, (*jsontext.Value)(&got.State).Compact())
		require.NoError(t, (*jsontext.Value)(&want.State).Compact())
		require.Equal(t, want, got)
	})
}

// TestScanTakesWhatIsWritten: what an issuer writes takes the fast way, with any
// of the claims that may be absent, and both ways read it as it was.
func TestScanTakesWhatIsWritten(t *testing.T) {
	full := payload{
		Issuer: "i", Subject: "s", Audience: []string{"a", "b"}, Expires: 300, IssuedAt: 1, TokenID: "j", SessionID: "d", Began: 999,
		AuthTime: 1, ACR: "aal2", AMR: methods{"pwd", "otp"}, Actor: actorClaim{"admin", "e", 998}, Renewable: true, Changed: 997,
		Version: versionClaim{12, 10}, Sealed: audience{"/a", "/b/0"},
	}
	drop := []func(*payload){
		func(p *payload) { p.Audience = audience{"a"} },
		func(p *payload) { p.AuthTime = 0 },
		func(p *payload) { p.ACR = "" },
		func(p *payload) { p.AMR = nil },
		func(p *payload) { p.AMR = methods{"pwd"} },
		func(p *payload) { p.Actor = actorClaim{} },
		func(p *payload) { p.Renewable = false },
		func(p *payload) { p.Changed = 0 },
		func(p *payload) { p.Version = versionClaim{} },
		func(p *payload) { p.Version = versionClaim{1, 0} },
		func(p *payload) { p.Sealed = nil },
		func(p *payload) { p.Sealed = audience{"/a"} },
	}
	for set := range 1 << len(drop) {
		p := full
		for i, f := range drop {
			if set&(1<<i) != 0 {
				f(&p)
			}
		}
		raw, err := p.append(nil)
		require.NoError(t, err)
		raw, err = appendSealed(append(raw, `{"x":1}`...), p.Sealed)
		require.NoError(t, err)
		raw = append(raw, '}')
		var s scanned
		require.True(t, scanPayload(raw, &s))
		p.State = []byte(`{"x":1}`)
		require.Equal(t, p, s.payload("i", []string{"a", "b"}))
		slow, fault := parsePayload(raw)
		require.Empty(t, fault)
		require.Equal(t, p, slow)
	}
	raw, err := full.append(nil)
	require.NoError(t, err)
	require.Equal(t, `{"iss":"i","sub":"s","aud":["a","b"],"exp":300,"iat":1,"jti":"j","sid":"d","begun":999,"auth_time":1,`+
		`"acr":"aal2","amr":["pwd","otp"],"act":{"sub":"admin","sid":"e","begun":998},"rnw":true,"chg":997,"stv":[12,10],"state":`, string(raw), "in one order")
}

// TestCacheIsBounded fills a cache with more than it may hold.
func TestCacheIsBounded(t *testing.T) {
	const room = 100 << 10
	c := newCache[string](NewCache(room))
	for i := range 1000 {
		c.put(fmt.Sprintf("token %d", i), &cached[string]{payload: payload{State: []byte(`"x"`)}}, nil)
	}
	c.tokens.CleanUp()
	require.LessOrEqual(t, c.tokens.WeightedSize(), uint64(room))
	require.NotZero(t, c.tokens.EstimatedSize())
}

// TestGarbageNeverEnters: many tokens that do not verify leave nothing.
func TestGarbageNeverEnters(t *testing.T) {
	many := 100_000
	if os.Getenv("SESSIONTOKEN_LONG") != "" {
		many = 1_000_000
	}
	key, err := keys.GenerateKey(keys.EdDSA)
	require.NoError(t, err)
	source, err := keys.NewStatic(key)
	require.NoError(t, err)
	issuer, err := NewIssuer[string](IssuerConfig{Issuer: "i", Audience: []string{"a"}, Keys: source})
	require.NoError(t, err)
	v, err := NewVerifier[string](VerifierConfig{Issuer: "i", Audience: "a", Keys: source})
	require.NoError(t, err)
	token, _, err := issuer.Issue(t.Context(), "s", "state")
	require.NoError(t, err)
	at := strings.LastIndexByte(token, '.')
	for i := range many {
		// Most fall at the form; every hundredth costs a signature.
		garbage := fmt.Sprintf("%s.%d", token[:at], i)
		if i%100 == 0 {
			garbage = token[:at+1] + fmt.Sprintf("%084dAA", i)
		}
		if _, err := v.Verify(t.Context(), garbage); err == nil {
			t.Fatal("garbage was accepted")
		}
	}
	v.cache.tokens.CleanUp()
	require.Zero(t, v.cache.tokens.EstimatedSize())
	_, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
	v.cache.tokens.CleanUp()
	require.Equal(t, 1, v.cache.tokens.EstimatedSize())
}

func TestIsFlat(t *testing.T) {
	type flat struct {
		A string
		B [2]int
		C struct{ D float64 }
		E time.Time
	}
	require.True(t, isFlat(reflect.TypeFor[flat]()))
	require.True(t, isFlat(reflect.TypeFor[string]()))
	for _, no := range []reflect.Type{
		reflect.TypeFor[[]int](), reflect.TypeFor[map[string]int](), reflect.TypeFor[*int](), reflect.TypeFor[any](),
		reflect.TypeFor[struct{ A []byte }](), reflect.TypeFor[[1]*int](), reflect.TypeFor[func()](), reflect.TypeFor[struct{ A struct{ b map[int]int } }](),
	} {
		require.False(t, isFlat(no), "%v", no)
	}
}

// TestSixBytes: each milliDate comes back, the largest too.
func TestSixBytes(t *testing.T) {
	for _, d := range []milliDate{0, 1, 255, 256, 1<<40 + 1, 1764000000000, maxMilliDate} {
		require.Equal(t, d, sixBytesOf(d).date())
	}
	require.Less(t, int64(maxMilliDate), int64(1)<<48)
}
