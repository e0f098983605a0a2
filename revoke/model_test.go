package revoke_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// shaky is one replica's way to a store: its calls fail before or after they were
// done, take a while, hang, and end for good when the replica is killed.
type shaky struct {
	revoke.Store
	mu     sync.Mutex
	r      *rand.Rand
	faults float64
	killed chan struct{}
}

func (s *shaky) dice() (before, after bool, takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.r.Float64()
	takes = time.Duration(s.r.Int64N(int64(200 * time.Millisecond)))
	if s.r.Float64() < s.faults/10 {
		takes = 20 * time.Second // whatever ctx says
	}
	return x < s.faults/2, x < s.faults, takes
}

func (s *shaky) call(f func() error) error {
	before, after, takes := s.dice()
	for _, failed := range []bool{before, after} {
		select {
		case <-s.killed:
			return errDown
		case <-time.After(takes / 2):
		}
		if failed {
			return errDown
		}
		if f != nil {
			if err := f(); err != nil {
				return err
			}
			f = nil
		}
	}
	return nil
}

func (s *shaky) Append(ctx context.Context, entries ...revoke.Entry) error {
	return s.call(func() error { return s.Store.Append(context.WithoutCancel(ctx), entries...) })
}

func (s *shaky) Since(ctx context.Context, cursor string) (p revoke.Page, err error) {
	err = s.call(func() (err error) { p, err = s.Store.Since(context.WithoutCancel(ctx), cursor); return err })
	return p, err
}

// replica is a list that can be killed.
type replica struct {
	*revoke.List
	way  *shaky
	stop context.CancelFunc
}

// What a list acknowledged is revoked everywhere, and what a list calls revoked
// is in the store: users repeat their sign-outs until they hear of it, at the
// same replica or another one, while stores fail and replicas are killed.
func TestSignOutModel(t *testing.T) {
	schedules := 60
	if isLong() {
		schedules = 300
	}
	for _, row := range []struct {
		name   string
		faults float64
		kills  bool
		same   bool // repetitions meet the same replica
	}{
		{"no faults", 0, false, false},
		{"faults, the same replica", 0.3, false, true},
		{"faults, any replica", 0.3, false, false},
		{"faults and kills", 0.3, true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			var acknowledged, refused, owed atomic.Int64
			for seed := range schedules {
				synctest.Test(t, func(t *testing.T) {
					r := rand.New(rand.NewPCG(uint64(seed), 3))
					store := new(server)
					faults := row.faults
					start := func() *replica {
						way := &shaky{Store: store, r: rand.New(rand.NewPCG(r.Uint64(), 5)), faults: faults, killed: make(chan struct{})}
						l := newList(t, way)
						ctx, cancel := context.WithCancel(t.Context())
						go func() { _ = l.Run(ctx) }()
						return &replica{l, way, cancel}
					}
					replicas := []*replica{start(), start()}
					kill := func(x *replica) { // it does not write what it owes
						close(x.way.killed)
						x.stop()
					}
					var mu sync.Mutex
					at := func(n int) *replica { mu.Lock(); defer mu.Unlock(); return replicas[n%2] }
					time.Sleep(5 * time.Second)
					type session struct {
						sid, subject string
						begun        time.Time
					}
					var gone []session // acknowledged, or called revoked
					leave := func(s session) { mu.Lock(); gone = append(gone, s); mu.Unlock() }
					var users sync.WaitGroup
					for u := range 4 {
						dice := rand.New(rand.NewPCG(uint64(seed), uint64(u)))
						users.Go(func() {
							for n := range 3 {
								group := fmt.Sprintf("%016d", 10*u+n)
								s := session{sid: fmt.Sprint(group, ".", u, "-", n), subject: fmt.Sprint("user ", u, "-", n)}
								for { // sign in
									begun, err := at(dice.IntN(2)).Begin(t.Context(), revoke.Question{Subject: s.subject, SessionID: s.sid})
									if s.begun = begun; err == nil {
										break
									}
									time.Sleep(300 * time.Millisecond)
								}
								home, path := dice.IntN(2), dice.IntN(3)
								for range 100 {
									x := at(home)
									// As a handler does: it asks first, and a session that is revoked
									// is told so.
									q := revoke.Question{SessionID: s.sid, Subject: s.subject, KeyID: "kid", Began: s.begun}.Prepared()
									err := x.Check(t.Context(), &q)
									if err == revoke.ErrRevoked {
										refused.Add(1)
										leave(s)
										break
									}
									if err != nil {
										owed.Add(1)
									}
									switch path {
									case 0:
										err = x.RevokeSession(t.Context(), s.sid)
									case 1:
										err = x.RevokeSubject(t.Context(), s.subject)
									default:
										err = x.RevokeGroup(t.Context(), group)
									}
									if err == nil {
										acknowledged.Add(1)
										leave(s)
										break
									}
									time.Sleep(time.Duration(dice.Int64N(int64(time.Second))))
									if !row.same {
										home = dice.IntN(2)
									}
								}
							}
						})
					}
					if row.kills {
						for range 6 {
							time.Sleep(time.Duration(r.Int64N(int64(2 * time.Second))))
							n := r.IntN(2)
							fresh := start()
							mu.Lock()
							old := replicas[n]
							replicas[n] = fresh
							mu.Unlock()
							kill(old)
						}
					}
					users.Wait()
					faults = 0
					for _, x := range replicas {
						x.way.mu.Lock()
						x.way.faults = 0
						x.way.mu.Unlock()
					}
					time.Sleep(35 * time.Second) // what hangs has returned, 10 s have passed
					replicas = append(replicas, start())
					time.Sleep(5 * time.Second)
					for i, x := range replicas {
						for _, s := range gone {
							require.True(t, revoked(t, x.List, s.sid, s.subject, "kid", s.begun), "seed %d: %s lives at %d", seed, s.sid, i)
						}
						require.Zero(t, x.Status().Owed)
						kill(x)
					}
					time.Sleep(30 * time.Second)
				})
			}
			t.Log(acknowledged.Load(), "acknowledged,", refused.Load(), "refused,", owed.Load(), "could not be told")
			if row.faults == 0 {
				require.Zero(t, owed.Load())
				require.Zero(t, refused.Load())
			}
		})
	}
}
