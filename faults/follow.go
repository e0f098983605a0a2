//go:build unix

package faults

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/remote"
)

// feedToken is the credential of the feed.
const feedToken = "0123456789abcdef0123456789abcdef"

// newAuthority makes the process an authority with a feed.
func newAuthority(w *worker, r Role, store Store) error {
	full, ok := store.(authority.Store)
	if !ok {
		return errors.New("the store is none of an authority")
	}
	a, err := authority.New(authority.Config[state]{
		Issuer: r.Follows, Audience: []string{audience}, Store: full, Secrets: [][]byte{bytes.Repeat([]byte{1}, 32)},
		FeedTokens: []string{feedToken}, Limits: authority.Limits{TTL: r.TTL}, Logger: quiet,
		Load: func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{Name: "Ada"}, nil },
	})
	if err != nil {
		return err
	}
	go a.Run(context.Background())
	l, err := net.Listen("tcp", r.Listens)
	if err != nil {
		return err
	}
	go http.Serve(l, a.WellKnown())
	w.issuer, w.verifier, w.list, w.ring = a.Issuer(), a.Verifier(), a.Revocations(), a.Ring()
	return nil
}

// newFollower makes the process an API that has the URL of an authority and a
// credential.
func newFollower(w *worker, r Role) error {
	api, err := remote.New[state](remote.Config{
		Issuer: r.Follows, Audience: audience, InsecurePlainHTTP: true, Logger: quiet,
		FeedToken: func(context.Context) (string, error) { return feedToken, nil },
	})
	if err != nil {
		return err
	}
	go api.Run(context.Background())
	w.verifier, w.list = api.Verifier(), api.Revocations()
	return nil
}

// Followed revokes sessions at an authority over the store at place, while
// faults of the engine, of the authority and of the way to it happen. An API
// follows the authority's feed. It must refuse every session whose revocation
// was acknowledged: when the fault is over, and after 30 s of a fault that hides
// it. It must accept the others.
func Followed(t *testing.T, place string, engine ...Fault) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	_ = free.Close()
	proxy, err := servers.StartProxy(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	role := Role{Place: place, TTL: 10 * time.Minute, Listens: at, Follows: "http://" + proxy.Addr}
	issuer := Start(t, role)
	follower := Start(t, Role{Follows: role.Follows})
	valid, _ := issuer.issue(t, "valid")
	answers := func() bool { return follower.verify(valid) == "ok" }
	wait(t, 15*time.Second, "the API answers", answers)

	faults := append(Network(proxy), engine...)
	faults = append(faults,
		Fault{Name: "the authority is killed, and started again after 1 s", Lasts: time.Second,
			Begin: func() error { issuer.Kill(); return nil },
			End: func() error {
				issuer = Start(t, role)
				wait(t, 20*time.Second, "the authority is back", func() bool { return issuer.call(request{Op: "issue", Subject: "probe"}).Error == "" })
				return nil
			}},
		Fault{Name: "a black hole of 40 s", Lasts: 40 * time.Second, Closes: true,
			Begin: func() error { proxy.BlackHole(); return nil }, End: func() error { proxy.Heal(); return nil }},
	)
	var acknowledged []string
	revokeSome := func() {
		for range 20 {
			a := issuer.call(request{Op: "issue", Subject: "user"})
			if a.Error != "" {
				return // each call would wait for its limit
			}
			if _, err := issuer.revoke(a.Sess); err != nil {
				return
			}
			acknowledged = append(acknowledged, a.Token)
		}
	}
	missed := func(p *Process) (n int) {
		for _, token := range acknowledged {
			if p.verify(token) != "revoked" {
				n++
			}
		}
		return n
	}
	for _, f := range faults {
		revokeSome()
		begin := time.Now()
		if err := f.Begin(); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		hidden := f.Lasts > 35*time.Second
		revokeSome()
		for time.Since(begin) < f.Lasts {
			v := follower.verify(valid)
			switch {
			case time.Since(begin) < 25*time.Second && v != "ok":
				t.Errorf("%s: a valid token is %s after %v", f.Name, v, time.Since(begin))
			case hidden && time.Since(begin) > 32*time.Second && v != "undecided":
				t.Errorf("%s: after %v, past MaxStale, a token is %s", f.Name, time.Since(begin), v)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err := f.End(); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		wait(t, 20*time.Second, f.Name+": it is over, and everything is known", func() bool { return missed(follower) == 0 && answers() })
		revokeSome()
		wait(t, 20*time.Second, f.Name+": what is revoked after it is known", func() bool { return missed(follower) == 0 })
	}
	late := Start(t, Role{Follows: role.Follows})
	wait(t, 15*time.Second, "an API that starts afterwards answers", func() bool { return late.verify(valid) == "ok" })
	t.Logf("%d revocations acknowledged, %d missed, %d by an API that started afterwards", len(acknowledged), missed(follower), missed(late))
	if len(acknowledged) < 100 || missed(follower)+missed(late) > 0 {
		t.Errorf("%d acknowledged, %d missed", len(acknowledged), missed(follower)+missed(late))
	}
}
