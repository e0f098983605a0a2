//go:build unix

// Package faults holds what a list of ended sessions has to live through with a
// real engine behind it. It is for the tests of the modules that have one.
package faults

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/servers"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Engine is a server, and how to reach it.
type Engine struct {
	Server *servers.Server
	// Open returns a store that reaches the server at an address: its own, or
	// that of a proxy.
	Open func(t *testing.T, addr string) revoke.Store
}

// FirstStart has three replicas start at once on an empty store, 50 times: they
// must agree on one ring, and each must verify what any of them signs.
func FirstStart(t *testing.T, open func(t *testing.T) keys.Store) {
	aead, err := keys.NewAESGCM(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { firstStart(t, keys.Sealed(open(t), aead)) })
	}
}

func firstStart(t *testing.T, store keys.Store) {
	rings, kids := make([]*keys.Ring, 3), make([]string, 3)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() {
			ring, err := keys.NewRing(keys.RingConfig{Store: store, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Error(err)
				return
			}
			key, err := ring.SigningKey(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			rings[i], kids[i] = ring, key.Public().KeyID()
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if kids[0] != kids[1] || kids[0] != kids[2] {
		t.Fatalf("three replicas sign with %v", kids)
	}
	for _, ring := range rings {
		set, err := ring.KeySet(t.Context(), kids[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := set.Key(kids[0]); !ok {
			t.Fatal("a replica does not know the key that another signs with")
		}
	}
}

// follow is a list that runs until the test ends.
func follow(t *testing.T, cfg revoke.Config) *revoke.List {
	cfg.Logger = slog.New(slog.DiscardHandler)
	l, err := revoke.NewList(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// HowSoon measures how long it takes, from the acknowledged end of a session on
// one replica, until another refuses it: 200 times, or as often as
// SESSIONTOKEN_TRIALS says.
func HowSoon(t *testing.T, a, b revoke.Store, every, bound time.Duration) {
	trials := 200
	if s := os.Getenv("SESSIONTOKEN_TRIALS"); s != "" {
		var err error
		if trials, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	here, there := follow(t, revoke.Config{Store: a, SyncEvery: every}), follow(t, revoke.Config{Store: b, SyncEvery: every})
	var took []time.Duration
	for i := range trials {
		sid := fmt.Sprint("sid-", i)
		if err := here.EndSession(t.Context(), sid); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for {
			ended, err := there.Revoked(t.Context(), sid, "ada", "kid", begin)
			if err != nil {
				t.Fatal(err)
			}
			if ended {
				break
			}
			if time.Since(begin) > 10*time.Second {
				t.Fatal("it never came")
			}
			time.Sleep(100 * time.Microsecond)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("read every %v, %d trials: p50 %v, p99 %v, worst %v", every, trials, p50.Round(10*time.Microsecond), p99.Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond))
	if p50 > bound {
		t.Errorf("half of them took longer than %v", bound)
	}
}

// Ended ends 100 sessions a second on one replica while the network to another
// is cut for 3 s and swallows everything for 5 s, and while the engine is killed
// and started again. Whatever was acknowledged must be known: to the replica that
// lived through it, and to one that starts afterwards.
func Ended(t *testing.T, e Engine) {
	proxy, err := servers.StartProxy(e.Server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	start := func(addr string) *revoke.List {
		return follow(t, revoke.Config{Store: e.Open(t, addr), SyncEvery: 200 * time.Millisecond, MaxStale: 2 * time.Second})
	}
	writer, live := start(e.Server.Addr), start(proxy.Addr)

	var mu sync.Mutex
	var acknowledged []string
	var failed int
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			sid := fmt.Sprint("sid-", i)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			err := writer.EndSession(ctx, sid)
			cancel()
			mu.Lock()
			if err == nil {
				acknowledged = append(acknowledged, sid)
			} else {
				failed++
			}
			mu.Unlock()
		}
	})

	ask := func(l *revoke.List, sid string) (bool, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		return l.Revoked(ctx, sid, "ada", "kid", time.Now())
	}
	within := func(d time.Duration, what string, ok func() bool) {
		t.Helper()
		begin := time.Now()
		for !ok() {
			if time.Since(begin) > d {
				t.Fatalf("%s: not within %v", what, d)
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("%s: %v", what, time.Since(begin).Round(time.Millisecond))
	}
	answers := func() bool { _, err := ask(live, "nobody"); return err == nil }
	refuses := func() bool { _, err := ask(live, "nobody"); return err != nil }

	within(5*time.Second, "the live replica answers", answers)
	for _, fault := range []struct {
		name string
		make func()
		d    time.Duration
	}{{"a cut of 3 s", proxy.Cut, 3 * time.Second}, {"a black hole of 5 s", proxy.BlackHole, 5 * time.Second}} {
		time.Sleep(time.Second)
		begin := time.Now()
		fault.make()
		within(1500*time.Millisecond, fault.name+": it is known to be stale", func() bool { return live.Status().Err != nil })
		within(4*time.Second, fault.name+": past MaxStale it fails closed", refuses)
		time.Sleep(fault.d - time.Since(begin))
		proxy.Heal()
		within(2*time.Second, fault.name+": it answers again", answers)
	}
	time.Sleep(time.Second)
	e.Server.Kill()
	time.Sleep(time.Second)
	if err := e.Server.Start(); err != nil {
		t.Fatal(err)
	}
	within(10*time.Second, "killed and started again: it answers", func() bool { return live.Status().Err == nil && answers() })
	time.Sleep(time.Second)
	close(stop)
	writing.Wait()

	fresh := start(proxy.Addr)
	within(5*time.Second, "a fresh replica answers", func() bool { _, err := ask(fresh, "nobody"); return err == nil })
	time.Sleep(500 * time.Millisecond)
	for name, l := range map[string]*revoke.List{"live": live, "fresh": fresh} {
		missed := 0
		for _, sid := range acknowledged {
			if ended, err := ask(l, sid); err != nil || !ended {
				missed++
			}
		}
		t.Logf("%s: %d acknowledged, %d not, %d missed", name, len(acknowledged), failed, missed)
		if missed > 0 {
			t.Errorf("the %s replica missed %d acknowledged ends", name, missed)
		}
	}
	if len(acknowledged) < 500 {
		t.Errorf("only %d ends were acknowledged", len(acknowledged))
	}
}
