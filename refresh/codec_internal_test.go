package refresh

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var testKey = bytes.Repeat([]byte{3}, 32)

func testEntry() entry {
	at := time.Date(2026, 11, 26, 5, 0, 0, 123456789, time.UTC)
	return entry{
		Family: Family{
			ID: "id", Subject: "ada", SessionID: "sid", ClientID: "app", Label: "Renée's \"phone\" <1>",
			Began: at.Truncate(time.Millisecond), AuthTime: at.Add(-time.Hour), LastUsed: at, Ends: at.Add(time.Hour),
			ACR: "urn:example:gold", AMR: []string{"pwd", "Renée"}, Context: []byte("tenant\x00\xff"),
			ActorSubject: "admin", ActorSessionID: "AAAAAAAAAAAAAAAA.x", ActorBegan: at.Truncate(time.Millisecond).Add(-time.Minute),
		},
		position: position{Counter: 1<<63 + 1, Rotated: at, Retried: true, Streak: at.Add(1), Late: at.Add(2), Spent: true},
		version:  7, binder: hash("binder"),
	}
}

func testRecord(t testing.TB, e entry) Record {
	t.Helper()
	r, err := encode(testKey, "space", e, e.Ends.Truncate(time.Millisecond))
	require.NoError(t, err)
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	want := testEntry()
	got, err := decode([][]byte{bytes.Repeat([]byte{4}, 32), testKey}, testRecord(t, want))
	require.NoError(t, err)
	require.Equal(t, want, got)

	least := entry{Family: Family{ID: "id", Subject: "s", SessionID: "s", Began: want.Began, LastUsed: want.LastUsed, Ends: want.Ends}, position: position{Counter: 1, Rotated: want.Rotated}}
	got, err = decode([][]byte{testKey}, testRecord(t, least))
	require.NoError(t, err)
	require.Equal(t, least, got)
}

// A record in which anything was changed does not authenticate, and that is not
// the token's fault.
func TestChangedRecordIsRefused(t *testing.T) {
	good := testRecord(t, testEntry())
	same := func(r Record) error {
		_, err := decode([][]byte{testKey}, r)
		return err
	}
	require.NoError(t, same(good))
	for _, c := range []struct {
		name   string
		change func(r *Record)
	}{
		{"namespace", func(r *Record) { r.Namespace = "other" }},
		{"id", func(r *Record) { r.ID = "ie" }},
		{"subject", func(r *Record) { r.Subject = "root" }},
		{"session", func(r *Record) { r.SessionID = "die" }},
		{"a byte moved between columns", func(r *Record) { r.Subject, r.SessionID = "adas", "id" }},
		{"version", func(r *Record) { r.Version++ }},
		{"until", func(r *Record) { r.Until = r.Until.Add(time.Millisecond) }},
		{"no data", func(r *Record) { r.Data = nil }},
		{"data cut", func(r *Record) { r.Data = r.Data[:len(r.Data)-1] }},
		{"data longer", func(r *Record) { r.Data = append(r.Data, ' ') }},
		{"data of another form", func(r *Record) { r.Data[0]++ }},
		{"data of the form before", func(r *Record) { r.Data[0] = 1 }},
		{"too much data", func(r *Record) { r.Data = append(r.Data, make([]byte, MaxData)...) }},
		{"a document alone", func(r *Record) { r.Data = r.Data[documentAt:] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			r.Data = bytes.Clone(good.Data)
			c.change(&r)
			err := same(r)
			require.ErrorIs(t, err, errRecord)
			require.NotErrorIs(t, err, ErrInvalid)
		})
	}
	for i := range good.Data {
		r := good
		r.Data = bytes.Clone(good.Data)
		r.Data[i] ^= 1
		require.ErrorIs(t, same(r), errRecord)
	}
	_, err := decode([][]byte{bytes.Repeat([]byte{4}, 32)}, good)
	require.ErrorIs(t, err, errRecord)
	_, err = decode(nil, good)
	require.ErrorIs(t, err, errRecord)
}

// newer adds members to a record's document, as a newer release does.
func newer(t *testing.T, key []byte, r Record, members string) Record {
	t.Helper()
	text := append([]byte("{"+members+","), r.Data[documentAt+1:]...)
	r.Data = append(append([]byte{dataVersion}, recordMAC(key, r, text)...), text...)
	return r
}

// What a newer release wrote survives a change by this one.
func TestUnknownMembersSurvive(t *testing.T) {
	s := new(MemStore)
	m, err := NewManager(Config{Store: s, Secrets: [][]byte{testKey}, InsecureSessionsLiveOn: true})
	require.NoError(t, err)
	token, f, err := m.Start(t.Context(), Family{Subject: "ada", SessionID: "sid", Began: time.Now()}, "")
	require.NoError(t, err)
	r, err := s.Find(t.Context(), "", f.ID)
	require.NoError(t, err)
	require.NoError(t, s.Delete(t.Context(), "", f.ID))
	require.NoError(t, s.Create(t.Context(), newer(t, m.keys[0].record, r, `"tenant":"AAEC","later":{"big":12345678901234567890,"list":[1,"two",null]}`)))
	for range 3 {
		token, _, err = m.Exchange(t.Context(), Presented{Token: token}, func(context.Context, Family) error { return nil })
		require.NoError(t, err)
	}
	r, err = s.Find(t.Context(), "", f.ID)
	require.NoError(t, err)
	require.EqualValues(t, 4, r.Version)
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(r.Data[documentAt:], &members))
	require.Equal(t, `"AAEC"`, string(members["tenant"]))
	require.Equal(t, `{"big":12345678901234567890,"list":[1,"two",null]}`, string(members["later"]))
	require.Equal(t, `4`, string(members["counter"]))
}

// A known record, so that a change of its form is noticed: it has another version
// then.
func TestKnownRecord(t *testing.T) {
	e := testEntry()
	e.binder = nil
	r, err := encode(testKey, "space", e, e.Ends.Truncate(time.Millisecond))
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Data[0])
	require.Equal(t, `{"client":"app","label":"Renée's \"phone\" <1>","began":1795669200123000000,"auth":1795665600123456789,`+
		`"acr":"urn:example:gold","amr":["pwd","Renée"],"actor_sub":"admin","actor_sid":"AAAAAAAAAAAAAAAA.x","actor_began":1795669140123000000,"context":"dGVuYW50AP8=",`+
		`"used":1795669200123456789,"ends":1795672800123456789,"counter":9223372036854775809,"rotated":1795669200123456789,"retried":true,`+
		`"streak":1795669200123456790,"late":1795669200123456791,"spent":true}`, string(r.Data[documentAt:]))
	require.Equal(t, "f2cce00209f7a70793dc719fdfbe1ee10846487075123cce82f20dc72efcbd32", hex.EncodeToString(r.Data[1:documentAt]))
}

// Of an actor all is there or nothing, or the record says nothing.
func TestPartsOfAnActor(t *testing.T) {
	good := testRecord(t, testEntry())
	for _, change := range []func(*entry){
		func(e *entry) { e.ActorSubject = "" },
		func(e *entry) { e.ActorSessionID = "" },
		func(e *entry) { e.ActorBegan = time.Time{} },
	} {
		e := testEntry()
		change(&e)
		_, err := decode([][]byte{testKey}, testRecord(t, e))
		require.ErrorIs(t, err, errRecord)
	}
	_, err := decode([][]byte{testKey}, good)
	require.NoError(t, err)
}

func TestRecordIsNotTooLarge(t *testing.T) {
	e := testEntry()
	e.Label = strings.Repeat("x", MaxData)
	_, err := encode(testKey, "", e, e.Ends)
	require.ErrorIs(t, err, errTooBig)
}

// What authenticates is decoded to what it was encoded from, or refused.
func FuzzDecode(f *testing.F) {
	r := testRecord(f, testEntry())
	f.Add(r.Data[documentAt:])
	f.Add([]byte(`{"began":1,"used":1,"ends":1,"counter":1,"rotated":1,"new":[1]}`))
	f.Add([]byte(`{"began":1,"used":1,"ends":1,"counter":1,"rotated":1,"acr":"","amr":[],"context":"","actor_sub":"a","actor_sid":"b","actor_began":1}`))
	f.Add([]byte(`{"began":1,"used":1,"ends":1,"counter":1,"rotated":1,"amr":[null,"a"],"context":null,"actor_sub":"a"}`))
	f.Add([]byte(`{"began":1,"began":2}`))
	f.Add([]byte(strings.Repeat("[", 100)))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		forged := r
		forged.Data = append(make([]byte, documentAt), text...)
		if _, err := decode([][]byte{testKey}, forged); err == nil {
			t.Fatal("it authenticates")
		}
		genuine := r
		genuine.Data = append(append([]byte{dataVersion}, recordMAC(testKey, r, text)...), text...)
		e, err := decode([][]byte{testKey}, genuine)
		if err != nil {
			require.ErrorIs(t, err, errRecord)
			return
		}
		again, err := encode(testKey, r.Namespace, e, r.Until)
		if err != nil {
			return // unknown members that are too large
		}
		back, err := decode([][]byte{testKey}, again)
		require.NoError(t, err)
		third, err := encode(testKey, r.Namespace, back, r.Until)
		require.NoError(t, err)
		require.Equal(t, again, third)
	})
}
