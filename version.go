package sessiontoken

import (
	"bytes"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Versioned is a state type whose form has changed, or may change, from one
// release of the application to the next. The tokens of both are then in use at
// the same time. Either the type or a pointer to it has the methods. A type
// without them has version 0.
//
// A verifier whose type has the token's version, or one that can read it,
// decodes the state. It upgrades an older state at the first verification. Any
// other state is [ErrState]: package sessionhttp renews its cookie, and the
// client of a Bearer token refreshes.
//
// A member of the type that is missing in a token is [ErrState] too, also if the
// type is not Versioned. A member may be missing if it is a pointer, or has the
// option omitzero or omitempty.
type Versioned interface {
	// StateVersion returns two constants: the version of what the type writes,
	// from 1 to 1,000,000, and the oldest version of the type that can read it.
	// A type without these methods can read it if the latter is 0.
	StateVersion() (version, readableBy int)
	// UpgradeState sets the receiver, which is zero, to what raw says. raw is
	// the JSON of a state of an older version. It must not be kept. In the place
	// of a [Sealed] it has what that holds: read a P, and call [Seal] where the
	// field is sealed now. It has null if the verifier has no StateSecrets; all
	// sealed fields of the result are then closed. With an error the token is
	// ErrState; the error is not logged.
	UpgradeState(version int, raw []byte) error
}

const maxVersion = 1_000_000

// versionClaim is stv: the version of a state, and the oldest one that can read
// it. Two zeros mean that the claim is absent.
type versionClaim struct{ written, readableBy uint32 }

func (v *versionClaim) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var pair [2]uint32
	if dec.PeekKind() != '[' || json.UnmarshalDecode(dec, &pair) != nil || pair[0] == 0 || pair[0] > maxVersion || pair[1] > pair[0] {
		return errWire
	}
	*v = versionClaim{pair[0], pair[1]}
	return nil
}

// versionOf returns the version of a state type.
func versionOf(t reflect.Type) (versionClaim, error) {
	if t.Kind() == reflect.Pointer && t.Implements(reflect.TypeFor[Versioned]()) {
		return versionClaim{}, fmt.Errorf("sessiontoken: %v cannot be a state: a state that is Versioned must not be a pointer: write %v", t, t.Elem())
	}
	if !has[Versioned](t) {
		return versionClaim{}, nil
	}
	if name := embeddedVersioned(t); name != "" {
		return versionClaim{}, fmt.Errorf("sessiontoken: %v cannot be a state: it embeds %s, which is Versioned: an upgrade of that alone would lose the other fields: make it a named field", t, name)
	}
	version, readableBy := reflect.New(t).Interface().(Versioned).StateVersion()
	if version < 1 || version > maxVersion || readableBy < 0 || readableBy > version {
		return versionClaim{}, fmt.Errorf("sessiontoken: %v cannot be a state: StateVersion returns %d and %d: the version must be from 1 to %d, and the oldest that can read it from 0 to the version", t, version, readableBy, maxVersion)
	}
	return versionClaim{uint32(version), uint32(readableBy)}, nil
}

// embeddedVersioned returns the name of a field of a struct that is embedded and
// Versioned, or "".
func embeddedVersioned(t reflect.Type) string {
	if t.Kind() != reflect.Struct {
		return ""
	}
	for i := range t.NumField() {
		f := t.Field(i)
		in := f.Type
		if in.Kind() == reflect.Pointer {
			in = in.Elem()
		}
		if f.Anonymous && (has[Versioned](in) || in.Implements(reflect.TypeFor[Versioned]())) {
			return f.Name
		}
	}
	return ""
}

// read decodes the state of p into state, which is zero, or upgrades it.
func (d *stateDecoder[T]) read(p *payload, state *T) error {
	switch {
	case p.Version.written < d.version.written:
		return d.upgrade(p, state)
	case p.Version.written > d.version.written && p.Version.readableBy > d.version.written:
		return withDetail(ErrState, fmt.Sprintf("of a newer version, which version %d cannot read", d.version.written))
	case d.coding != nil || len(p.Sealed) > 0:
		raw, err := d.open(p)
		if err != nil {
			return err
		}
		p.State, p.Sealed = raw, nil
	}
	if d.decode(p.State, state) != nil {
		return withDetail(ErrState, "does not fit its type")
	}
	if _, fault := d.members.fault(p.State, 0); fault != "" {
		return withDetail(ErrState, "state"+fault)
	}
	return nil
}

// upgrade sets state, which is zero, to the upgraded state of p, and the state
// and version of p to those of the result.
func (d *stateDecoder[T]) upgrade(p *payload, state *T) error {
	old := bytes.Clone(p.State)
	if len(p.Sealed) > 0 {
		var err error
		if old, err = d.open(p); err != nil {
			return err
		}
	}
	if !jsontext.Value(old).IsValid() {
		return withDetail(ErrState, "not valid JSON")
	}
	if fault := upgradeFrom(any(state).(Versioned), int(p.Version.written), old); fault != "" {
		return withDetail(ErrState, fmt.Sprintf("of an older version, whose upgrade to version %d %s", d.version.written, fault))
	}
	raw, err := d.encode(state)
	if err == nil {
		err = d.checkWritten(raw)
	}
	if err == nil && d.coding != nil && d.secrets == nil {
		var none T
		*state = none
		err = d.decode(raw, state) // which leaves all sealed fields
	}
	if err != nil {
		return withDetail(ErrState, fmt.Sprintf("its upgrade to version %d cannot be written", d.version.written))
	}
	p.State, p.Version, p.Sealed = raw, d.version, nil
	return nil
}

// upgradeFrom returns how an upgrade failed, or "". A panic in it is a failure: a
// token must not end the process.
func upgradeFrom(state Versioned, version int, raw []byte) (fault string) {
	defer func() {
		if recover() != nil {
			fault = "panicked"
		}
	}()
	if state.UpgradeState(version, raw) != nil {
		return "failed"
	}
	return ""
}
