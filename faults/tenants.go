//go:build unix

package faults

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// tenant is all that one of several has on a store.
type tenant struct {
	ring     *keys.Ring
	list     *revoke.List
	families *refresh.Manager
}

func newTenant(t *testing.T, s Store, name string) *tenant {
	t.Helper()
	cfg := ringConfig(Role{}, s)
	cfg.Name = name
	ring, err := keys.NewRing(cfg)
	if err != nil {
		t.Fatal(err)
	}
	list := runListIn(t, s, name)
	// The secret is the same: the namespace alone has to keep them apart.
	families, err := refresh.NewManager(refresh.Config{Store: s, Namespace: name, Secrets: [][]byte{make([]byte, 32)}, Revocations: list, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return &tenant{ring, list, families}
}

// Tenants checks that two tenants with one store, whose users and sessions have
// the same names, never meet: neither signs with the other's keys, ends the
// other's sessions, nor sees the other's devices. a and b are stores on one
// place.
func Tenants(t *testing.T, a, b Store) {
	const subject, sid = "ada", "sid-ada"
	ctx := t.Context()
	acme, globex := newTenant(t, a, "acme"), newTenant(t, b, "globex")

	t.Run("keys", func(t *testing.T) {
		kid := func(o *tenant) string {
			t.Helper()
			key, err := o.ring.SigningKey(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return key.Public().KeyID()
		}
		theirs, ours := kid(globex), kid(acme)
		if theirs == ours {
			t.Fatal("two tenants sign with one key")
		}
		set, err := globex.ring.KeySet(ctx, ours)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := set.Key(ours); ok {
			t.Fatal("a tenant trusts another one's key")
		}
		if err := acme.ring.Revoke(ctx, ours); err != nil {
			t.Fatal(err)
		}
		if kid(newTenant(t, b, "globex")) != theirs {
			t.Fatal("a tenant's key went with another one's")
		}
	})

	t.Run("revocations", func(t *testing.T) {
		for name, end := range map[string]func(l *revoke.List, s session) error{
			"a session": func(l *revoke.List, s session) error { return l.RevokeSession(ctx, s.id) },
			"a subject": func(l *revoke.List, s session) error { return l.RevokeSubject(ctx, s.subject) },
			"others":    func(l *revoke.List, s session) error { return l.RevokeOthers(ctx, s.subject, "sid-other") },
			"all":       func(l *revoke.List, s session) error { return l.RevokeAll(ctx, time.Now()) },
		} {
			t.Run(name, func(t *testing.T) {
				ours := begin(t, acme.list, sid+name, subject+name)
				theirs := begin(t, globex.list, sid+name, subject+name)
				repeat(t, func() error { return end(acme.list, ours) })
				replica := runListIn(t, b, "acme")
				until(t, 10*time.Second, "another replica of the tenant knows", func() bool { return ask(replica, ours) == "revoked" })
				for _, l := range []*revoke.List{globex.list, runListIn(t, a, "globex")} {
					until(t, 10*time.Second, "the other tenant answers", func() bool { return ask(l, theirs) != "undecided" })
					if v := ask(l, theirs); v != "live" {
						t.Fatalf("the other tenant's session is %s", v)
					}
				}
			})
		}
	})

	t.Run("families", func(t *testing.T) {
		start := func(o *tenant) (token, id string) {
			t.Helper()
			token, f, err := o.families.Start(ctx, refresh.Family{Subject: subject, SessionID: sid, Began: time.Now()}, "")
			if err != nil {
				t.Fatal(err)
			}
			return token, f.ID
		}
		devices := func(o *tenant) (ids []string) {
			t.Helper()
			all, err := o.families.List(ctx, subject)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range all {
				ids = append(ids, f.ID)
			}
			return ids
		}
		token, ours := start(acme)
		theirToken, theirs := start(globex)
		if got := devices(acme); !slices.Equal(got, []string{ours}) {
			t.Fatalf("the devices are %q, and %q is the tenant's", got, ours)
		}
		issue := func(context.Context, refresh.Family) error { return nil }
		if _, _, err := globex.families.Exchange(ctx, refresh.Presented{Token: token}, issue); !errors.Is(err, refresh.ErrInvalid) {
			t.Fatalf("a tenant takes another one's token: %v", err)
		}
		if err := acme.families.RevokeFamily(ctx, subject, theirs); !errors.Is(err, refresh.ErrInvalid) {
			t.Fatalf("a tenant names another one's device: %v", err)
		}
		if err := acme.families.DeleteSession(ctx, sid); err != nil {
			t.Fatal(err)
		}
		start(acme)
		if err := acme.families.DeleteSubject(ctx, subject, ""); err != nil {
			t.Fatal(err)
		}
		if got := devices(acme); len(got) != 0 {
			t.Fatalf("the devices are %q after they were deleted", got)
		}
		if got := devices(globex); !slices.Equal(got, []string{theirs}) {
			t.Fatalf("the other tenant's devices are %q", got)
		}
		if _, _, err := globex.families.Exchange(ctx, refresh.Presented{Token: theirToken}, issue); err != nil {
			t.Fatalf("the other tenant's token ended: %v", err)
		}
	})
}
