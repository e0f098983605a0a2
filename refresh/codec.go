package refresh

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// entry is the decoded form of an authenticated record.
type entry struct {
	Family
	position
	version uint64         // of the record
	binder  []byte         // SHA-256 of the binder; empty if the family has none
	unknown jsontext.Value // members that a newer release wrote
}

// document is the JSON in a record's Data. Times are Unix nanoseconds, zero if
// not set. Members that this release does not know are kept when a record is
// changed.
type document struct {
	ClientID string         `json:"client,omitzero"`
	Label    string         `json:"label,omitzero"`
	Began    int64          `json:"began"`
	AuthTime int64          `json:"auth,omitzero"`
	ACR      string         `json:"acr,omitzero"`
	AMR      []string       `json:"amr,omitempty"`
	ActorSub string         `json:"actor_sub,omitzero"`
	ActorSID string         `json:"actor_sid,omitzero"`
	ActorAt  int64          `json:"actor_began,omitzero"`
	Context  []byte         `json:"context,omitempty"`
	LastUsed int64          `json:"used"`
	Ends     int64          `json:"ends"`
	Counter  uint64         `json:"counter"`
	Rotated  int64          `json:"rotated"`
	Retried  bool           `json:"retried,omitzero"`
	Streak   int64          `json:"streak,omitzero"`
	Late     int64          `json:"late,omitzero"`
	Spent    bool           `json:"spent,omitzero"`
	Binder   []byte         `json:"binder,omitzero"`
	Unknown  jsontext.Value `json:",embed"`
}

// The form of Data: a version, the HMAC of everything else in the record, and
// the document.
const (
	dataVersion = 2
	documentAt  = 1 + sha256.Size
)

var (
	// errRecord: no secret authenticates the record. It does not match
	// ErrInvalid: the client is not at fault.
	errRecord = errors.New("refresh: the family's record does not authenticate")
	errTooBig = errors.New("refresh: the family's record is too large")
)

// encode returns the record of e, authenticated with key.
func encode(key []byte, namespace string, e entry, until time.Time) (Record, error) {
	r := Record{
		Namespace: namespace, ID: e.ID, Subject: e.Subject, SessionID: e.SessionID,
		Version: e.version, Until: until,
	}
	text, err := json.Marshal(document{
		ClientID: e.ClientID, Label: e.Label, Binder: e.binder, Context: e.Context,
		ACR: e.ACR, AMR: e.AMR, ActorSub: e.ActorSubject, ActorSID: e.ActorSessionID, ActorAt: nanos(e.ActorBegan),
		Began: nanos(e.Began), AuthTime: nanos(e.AuthTime), LastUsed: nanos(e.LastUsed), Ends: nanos(e.Ends),
		Counter: e.Counter, Rotated: nanos(e.Rotated), Retried: e.Retried, Streak: nanos(e.Streak), Late: nanos(e.Late), Spent: e.Spent,
		Unknown: e.unknown,
	})
	if err != nil {
		return Record{}, errors.New("refresh: the family cannot be encoded")
	}
	if documentAt+len(text) > MaxData {
		return Record{}, errTooBig
	}
	r.Data = append(append([]byte{dataVersion}, recordMAC(key, r, text)...), text...)
	return r, nil
}

// decode returns the entry of a record that one of the keys authenticates, and
// errRecord for any other record.
func decode(keys [][]byte, r Record) (entry, error) {
	if len(r.Data) < documentAt || len(r.Data) > MaxData || r.Data[0] != dataVersion {
		return entry{}, errRecord
	}
	text, genuine := r.Data[documentAt:], false
	for _, key := range keys {
		genuine = hmac.Equal(recordMAC(key, r, text), r.Data[1:documentAt]) || genuine
	}
	if !genuine {
		return entry{}, errRecord
	}
	d, err := parseDocument(text)
	if err != nil {
		return entry{}, err
	}
	return entry{
		Family: Family{
			ID: r.ID, Subject: r.Subject, SessionID: r.SessionID, ClientID: d.ClientID, Label: d.Label,
			ACR: d.ACR, AMR: d.AMR, ActorSubject: d.ActorSub, ActorSessionID: d.ActorSID, ActorBegan: instant(d.ActorAt), Context: d.Context,
			Began: instant(d.Began), AuthTime: instant(d.AuthTime), LastUsed: instant(d.LastUsed), Ends: instant(d.Ends),
		},
		position: position{
			Counter: d.Counter, Rotated: instant(d.Rotated), Retried: d.Retried,
			Streak: instant(d.Streak), Late: instant(d.Late), Spent: d.Spent,
		},
		version: r.Version, binder: d.Binder, unknown: d.Unknown,
	}, nil
}

func parseDocument(text []byte) (document, error) {
	var d document
	if strictjson.TooDeep(text) || json.Unmarshal(text, &d) != nil {
		return document{}, errRecord
	}
	if d.Counter == 0 || d.Began == 0 || d.LastUsed == 0 || d.Ends == 0 || d.Rotated == 0 || (len(d.Binder) != 0 && len(d.Binder) != sha256.Size) {
		return document{}, errRecord
	}
	if hasActor := d.ActorSub != ""; hasActor != (d.ActorSID != "") || hasActor != (d.ActorAt != 0) {
		return document{}, errRecord
	}
	return d, nil
}

// recordMAC returns the HMAC over the columns of r and a document, each after
// its length.
func recordMAC(key []byte, r Record, text []byte) []byte {
	var b []byte
	for _, s := range []string{r.Namespace, r.ID, r.Subject, r.SessionID} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Until.UnixMilli()))
	return mac(key, append(b, text...))
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func instant(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
