//go:build unix

package faults

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/faults/servers"
)

// HowSoon measures how long it takes, from the acknowledged revocation of a session in one
// process, until another refuses its token: 200 times, or as often as
// SESSIONTOKEN_TRIALS says. In the other, the token was verified before, so that it
// comes from the cache.
func HowSoon(t *testing.T, place string, every, bound time.Duration) {
	role := Role{Place: place, SyncEvery: every, MaxStale: 30 * time.Second}
	issuer := Start(t, role)
	role.Verifies = true
	verifier := Start(t, role)
	var took spread
	for range trials(200) {
		took = append(took, refusal(t, issuer, verifier))
	}
	slices.Sort(took)
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	p50, p99 := took.p50(), took.p99()
	t.Logf("%s: read every %v, %d trials over two processes: p50 %v, p99 %v, worst %v", t.Name(), every, len(took), round(p50), round(p99), round(took[len(took)-1]))
	if p50 > bound {
		t.Errorf("half of them took longer than %v", bound)
	}
}

// refusal returns how long one process still accepts a token that it has
// verified, after another has revoked its session.
func refusal(t *testing.T, issuer, verifier *Process) time.Duration {
	t.Helper()
	token, sess := issuer.issue(t, "ada")
	if v := verifier.verify(token); v != "ok" {
		wait(t, 10*time.Second, "the first token verifies", func() bool { return verifier.verify(token) == "ok" })
	}
	seen := make(chan answer, 1)
	go func() { seen <- verifier.call(request{Op: "watch", Token: token}) }()
	at, err := issuer.revoke(sess)
	if err != nil {
		t.Fatal(err)
	}
	a := <-seen
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	return max(0, time.Unix(0, a.At).Sub(at))
}

// KeyRevoked revokes a key in one process: another, whose key set still has it, must
// refuse its tokens within bound.
func KeyRevoked(t *testing.T, place string, bound time.Duration) {
	role := Role{Place: place, SyncEvery: 20 * time.Millisecond, MaxStale: 30 * time.Second}
	issuer := Start(t, role)
	token, _ := issuer.issue(t, "ada")
	role.Verifies, role.KeysFrom = true, issuer.must(t, request{Op: "status"}).URL
	verifier := Start(t, role)
	wait(t, 10*time.Second, "the token verifies", func() bool { return verifier.verify(token) == "ok" })

	segment, _, _ := strings.Cut(token, ".")
	header, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		t.Fatal(err)
	}
	var kid struct{ Kid string }
	if err := json.Unmarshal(header, &kid); err != nil || kid.Kid == "" {
		t.Fatalf("no kid in the header: %v", err)
	}
	issuer.must(t, request{Op: "revokeKey", Key: kid.Kid})
	wait(t, bound, "its key was revoked, and it is refused", func() bool { return verifier.verify(token) == "revoked" })
	if other, _ := issuer.issue(t, "ada"); verifier.verify(other) != "revoked" {
		t.Error("another token of the key is accepted")
	}
	issuer.must(t, request{Op: "revokeInRing", Key: kid.Kid})
	fresh, _ := issuer.issue(t, "ada")
	wait(t, 5*time.Second, "a token of the key that replaces it verifies", func() bool { return verifier.verify(fresh) == "ok" })
	// The key is gone from the set. The verifier does not know until it has looked for
	// it again.
	wait(t, 10*time.Second, "a token of the revoked key is refused", func() bool {
		v := verifier.verify(token)
		if v == "ok" {
			t.Fatal("a token of the revoked key is accepted")
		}
		return v == "revoked" || strings.HasPrefix(v, "invalid")
	})
}

// RefreshRaces has two processes exchange the same token at the same moment, 500
// times or as often as SESSIONTOKEN_TRIALS says: both must get the one successor.
func RefreshRaces(t *testing.T, place string) {
	role := Role{Place: place, SyncEvery: time.Second, MaxStale: 30 * time.Second}
	a, b := Start(t, role), Start(t, role)
	// In the first second of a store, one may not know yet what began at the other.
	first, _ := a.issue(t, "ada")
	wait(t, 10*time.Second, "both know the store", func() bool { return b.verify(first) == "ok" })
	races, token := trials(500), ""
	begin := time.Now()
	for i := range races {
		if i%100 == 0 { // before two parties who take turns are found out
			token = a.must(t, request{Op: "start", Subject: "ada", Sess: fmt.Sprint("sid-", i)}).Token
		}
		other := make(chan answer, 1)
		go func() { other <- b.call(request{Op: "exchange", Token: token}) }()
		one := a.call(request{Op: "exchange", Token: token})
		two := <-other
		if one.Error != "" || two.Error != "" || one.Token != two.Token || one.Token == token {
			t.Fatalf("race %d: two successors, or an error: %q %q", i, one.Error, two.Error)
		}
		token = one.Token
	}
	t.Logf("%s: %d races of two processes in %v: one successor each", t.Name(), races, time.Since(begin).Round(time.Millisecond))
}

// Fault is something that happens to an engine or to the way to it.
type Fault struct {
	Name  string
	Begin func() error
	Lasts time.Duration
	End   func() error

	// Closes says that a verifier behind the fault cannot know what was revoked: it
	// must know that within 1.5 s, refuse every token as undecided past MaxStale
	// (2 s), and answer again within 2 s of the end of the fault. Without it, the
	// verifier must go on answering, or answer again within Back.
	Closes bool
	Back   time.Duration
	// Says is what a revocation must have failed with meanwhile, if anything. The
	// fault lasts until one has, for at most a minute: when an engine needs new
	// room depends on how many writes the machine does in a second.
	Says string
}

// Network is what can happen on the way to a server that is reached through
// proxies.
func Network(proxies ...*servers.Proxy) []Fault {
	all := func(f func(*servers.Proxy)) func() error {
		return func() error {
			for _, p := range proxies {
				f(p)
			}
			return nil
		}
	}
	heal := all((*servers.Proxy).Heal)
	return []Fault{
		{Name: "a cut of 3 s", Begin: all((*servers.Proxy).Cut), Lasts: 3 * time.Second, End: heal, Closes: true},
		{Name: "a black hole of 5 s", Begin: all((*servers.Proxy).BlackHole), Lasts: 5 * time.Second, End: heal, Closes: true},
		{Name: "a way that takes 150 ms", Begin: all(func(p *servers.Proxy) { p.Slow(75 * time.Millisecond) }), Lasts: 3 * time.Second, End: heal},
	}
}

// Killed is an engine that is killed and started again.
func Killed(s *servers.Server) Fault {
	return Fault{
		Name:  "killed, and started again after 1 s",
		Begin: func() error { s.Kill(); return nil },
		Lasts: time.Second, End: s.Start, Back: 10 * time.Second,
	}
}

// Frozen is an engine that does nothing for 4 s, and then goes on.
func Frozen(s *servers.Server) Fault {
	return Fault{Name: "frozen for 4 s", Begin: s.Freeze, Lasts: 4 * time.Second, End: s.Thaw, Closes: true}
}

// Full is an engine whose disk is full for 4 s at least. One that ends because of
// that is started again afterwards, as its supervisor would do.
func Full(t *testing.T, s *servers.Server, disk *servers.Disk, says string) Fault {
	return Fault{
		Name: "a disk that is full for 4 s", Begin: disk.Fill, Lasts: 4 * time.Second,
		End: func() error {
			if err := disk.Free(); err != nil || s == nil || !s.Ended() {
				return err
			}
			t.Log("the engine ended, and is started again")
			return s.Start()
		}, Back: 10 * time.Second, Says: says,
	}
}

// SmallDisk mounts a disk, on which the test's servers are from then on, or skips
// the test.
func SmallDisk(t *testing.T, mib int) *servers.Disk {
	t.Helper()
	disk, err := servers.MountDisk(mib)
	if errors.Is(err, servers.ErrNoDisk) {
		t.Skip("NOT RUN: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disk.Unmount)
	t.Setenv("TMPDIR", disk.Dir)
	return disk
}

// Revoked revokes 100 sessions a second in one process while faults happen, one after the
// other, and two others verify: one of them behind the fault, which is at the
// place that through names. Every tenth time it marks the state of a subject as
// changed instead. Whatever was acknowledged must be known: to those that
// lived through it, and to one that starts afterwards.
func Revoked(t *testing.T, place, through string, faults ...Fault) {
	role := Role{Place: place, SyncEvery: 100 * time.Millisecond, MaxStale: 2 * time.Second, TTL: 10 * time.Minute}
	issuer := Start(t, role)
	role.Verifies = true
	beside := Start(t, role)
	role.Place = through
	behind := Start(t, role)

	valid, _ := issuer.issue(t, "valid")
	answers := func(p *Process) func() bool { return func() bool { return p.verify(valid) == "ok" } }
	wait(t, 10*time.Second, "both verifiers answer", func() bool { return answers(beside)() && answers(behind)() })

	probe := make([]answer, len(faults)) // made before: no process can when the ring's store is gone for long
	for i := range probe {
		probe[i] = issuer.must(t, request{Op: "issue", Subject: "probe"})
	}
	w := startWriting(t, issuer)
	for i, f := range faults {
		time.Sleep(time.Second)
		if err := f.Begin(); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		begin := time.Now()
		if f.Closes {
			wait(t, 1500*time.Millisecond, f.Name+": it is known to be stale", func() bool { return behind.must(t, request{Op: "status"}).Stale })
			wait(t, 4*time.Second, f.Name+": past MaxStale no token is accepted", func() bool { return behind.verify(valid) == "undecided" })
		}
		undecided := 0
		for {
			since := time.Since(begin)
			if since >= f.Lasts && (since >= time.Minute || w.hasFailed(f.Says)) {
				break
			}
			if v := behind.verify(valid); v == "undecided" {
				undecided++
			} else if v != "ok" || f.Closes && time.Since(begin) > 3*time.Second {
				t.Errorf("%s: a valid token is %s", f.Name, v)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !f.Closes && f.Back == 0 && undecided > 0 {
			t.Errorf("%s: %d answers were undecided", f.Name, undecided)
		}
		if err := f.End(); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		back := f.Back
		if f.Closes {
			back = 2 * time.Second
			wait(t, back, f.Name+": it answers again", answers(behind))
		}
		revoked := false
		wait(t, back+time.Second, f.Name+": a session that is revoked after that is refused", func() bool {
			if !revoked {
				_, err := issuer.revoke(probe[i].Sess)
				revoked = err == nil
			}
			return revoked && behind.verify(probe[i].Token) == "revoked" && beside.verify(probe[i].Token) == "revoked" && behind.verify(valid) == "ok"
		})
	}
	time.Sleep(time.Second)
	acknowledged, marked := w.stop(t, faults)

	afterwards := Start(t, role)
	wait(t, 10*time.Second, "a verifier that starts afterwards answers", answers(afterwards))
	time.Sleep(500 * time.Millisecond)
	for _, p := range []struct {
		name string
		*Process
	}{{"beside the faults", beside}, {"behind them", behind}, {"started afterwards", afterwards}} {
		missed := 0
		for _, token := range acknowledged {
			if p.verify(token) != "revoked" {
				missed++
			}
		}
		t.Logf("the verifier %s: %d acknowledged, %d missed", p.name, len(acknowledged), missed)
		if missed > 0 {
			t.Errorf("the verifier %s missed %d of %d acknowledged revocations", p.name, missed, len(acknowledged))
		}
		missed = 0
		for _, token := range marked {
			if p.verify(token) != "changed" {
				missed++
			}
		}
		t.Logf("the verifier %s: %d marks of a changed state, %d unknown", p.name, len(marked), missed)
		if missed > 0 || len(marked) == 0 {
			t.Errorf("the verifier %s does not know %d of %d acknowledged marks", p.name, missed, len(marked))
		}
		if v := p.verify(valid); v != "ok" {
			t.Errorf("the verifier %s: a valid token is %s", p.name, v)
		}
	}
}

// writing revokes sessions until it is told to stop.
type writing struct {
	quit chan struct{}
	done chan outcome

	mu   sync.Mutex
	said strings.Builder // what revocations have failed with
}

type outcome struct {
	acknowledged []string // their tokens
	marked       []string // those of subjects whose mark was acknowledged
	failed       map[string]int
}

// hasFailed reports whether a revocation has failed with an error that holds says.
func (w *writing) hasFailed(says string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.said.String(), says)
}

func startWriting(t *testing.T, issuer *Process) *writing {
	w := &writing{quit: make(chan struct{}), done: make(chan outcome, 1)}
	const sessions = 100
	go func() {
		o := outcome{failed: map[string]int{}}
		defer func() { w.done <- o }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var spare []answer
		for i := 0; ; i++ {
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
			for len(spare) < sessions {
				a := issuer.call(request{Op: "issue", Subject: fmt.Sprint("user-", i)})
				if a.Error != "" {
					break
				}
				spare = append(spare, a)
			}
			if len(spare) == 0 {
				continue
			}
			a := spare[0]
			spare = spare[1:]
			if i%10 == 9 {
				if m := issuer.call(request{Op: "changed", Subject: a.Subject}); m.Error == "" {
					o.marked = append(o.marked, a.Token)
				} else {
					o.failed[m.Error]++
				}
				continue
			}
			if _, err := issuer.revoke(a.Sess); err == nil {
				o.acknowledged = append(o.acknowledged, a.Token)
			} else { // it may have happened; it is not repeated, so that nothing hides behind that
				if o.failed[err.Error()]++; o.failed[err.Error()] == 1 {
					w.mu.Lock()
					w.said.WriteString(err.Error() + "\n")
					w.mu.Unlock()
				}
			}
		}
	}()
	t.Cleanup(func() {
		select {
		case <-w.quit:
		default:
			close(w.quit)
			<-w.done
		}
	})
	return w
}

func (w *writing) stop(t *testing.T, faults []Fault) (acknowledged, marked []string) {
	t.Helper()
	close(w.quit)
	o := <-w.done
	failed := 0
	for reason, n := range o.failed {
		t.Logf("%d times: %s", n, reason)
		failed += n
	}
	for _, f := range faults {
		if !w.hasFailed(f.Says) {
			t.Errorf("%s: no revocation failed with %q", f.Name, f.Says)
		}
	}
	t.Logf("%s: %d revocations were acknowledged, %d were not", t.Name(), len(o.acknowledged), failed)
	if len(o.acknowledged) < 10 {
		t.Errorf("only %d revocations were acknowledged", len(o.acknowledged))
	}
	return o.acknowledged, o.marked
}

// KeepRevoking has a process revoke sessions, one after the other and for d, without
// waiting for the last of them.
func (p *Process) KeepRevoking(d time.Duration) {
	begin := time.Now()
	go func() {
		for i := 0; time.Since(begin) < d; i++ {
			p.call(request{Op: "revoke", Sess: fmt.Sprint("other-", i)})
		}
	}()
	time.Sleep(d)
}
