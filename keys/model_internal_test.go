package keys

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRandomRings runs rings of random configurations, two on one store, as
// replicas and verifiers far from one another would: replicas that read their
// store only just in time, clients that keep a key set for as long as they may,
// slow writes, writes that are acknowledged and lost, stores that fall back,
// fork and are emptied, replicas that restart, and one whose clock is wrong. No
// valid token is refused, no revoked key comes back, and some key always signs.
//
// It is a model of the time in which all this happens: the schedule and the
// merging are the real ones. SESSIONTOKEN_FULL=1 runs many more.
func TestRandomRings(t *testing.T) {
	configurations := 15
	if os.Getenv("SESSIONTOKEN_LONG") != "" {
		configurations = 60
	}
	if os.Getenv("SESSIONTOKEN_FULL") != "" {
		configurations = 1000
	}
	total := map[string]int{}
	for seed := range configurations {
		m := newModel(t, uint64(seed))
		m.run()
		for what, n := range m.counts {
			total[what] += n
		}
	}
	t.Logf("%d configurations: %v", configurations, total)
	for _, what := range []string{"rotations", "revocations", "signatures", "checks", "rollbacks", "emptied", "lost writes", "restarts", "writes of a slow replica that lost the race"} {
		require.NotZero(t, total[what], what)
	}
}

type model struct {
	t      *testing.T
	rng    *rand.Rand
	name   string
	made   int // keys
	now    time.Time
	timed  bool // the store has a clock
	faulty bool // it falls back and loses its document

	stored   *document
	rev      int
	history  []*document
	pending  []modelWrite
	replicas []*modelReplica
	clients  []modelClient

	refresh   time.Duration // of the clients
	settle    time.Duration // until every replica has read and written
	quietFrom time.Time     // when all have settled after the last fault

	live    map[string]time.Time // by key: when its last token ends
	urgent  map[string]time.Time // keys that signed at once: when every verifier knows them
	revoked map[string]bool      // of which Revoke has returned
	counts  map[string]int
}

type modelReplica struct {
	cfg    RingConfig
	plan   *schedule
	offset time.Duration // of its clock, where the store has none
	wrong  bool          // its clock disagrees: it changes nothing
	lags   bool          // it reads only when it must
	doc    *document
	ids    map[string]bool // published
	knows  map[string]bool // as revoked
	read   time.Time
	due    time.Time
}

type modelClient struct {
	ids         map[string]bool
	from, until time.Time
}

type modelWrite struct {
	doc *document
	rev int
	at  time.Time
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 11)), name: fmt.Sprintf("configuration %d", seed),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), timed: seed%2 == 0, faulty: seed%4 >= 2,
		live: map[string]time.Time{}, urgent: map[string]time.Time{}, revoked: map[string]bool{}, counts: map[string]int{},
		stored: &document{Version: documentVersion},
	}
	configs := []RingConfig{m.config(), m.config()}
	m.refresh = min(configs[0].ClientRefresh, configs[1].ClientRefresh)
	skew := min(configs[0].MaxSkew, configs[1].MaxSkew)
	for i := range 5 {
		m.replicas = append(m.replicas, &modelReplica{
			cfg: configs[i%2], plan: m.plan(configs[i%2]), lags: i > 2, wrong: m.timed && i == 4,
			offset: []time.Duration{0, skew, m.upTo(skew), m.upTo(skew), m.upTo(skew)}[i],
		})
		m.settle = max(m.settle, 3*(configs[i%2].MaxStale+configs[i%2].SyncEvery))
	}
	m.clients = make([]modelClient, 4)
	return m
}

func (m *model) upTo(d time.Duration) time.Duration { return time.Duration(m.rng.Int64N(int64(d) + 1)) }

func (m *model) config() RingConfig {
	cfg := RingConfig{
		Store:         new(MemStore),
		SyncEvery:     10*time.Minute + m.upTo(30*time.Minute),
		ClientRefresh: time.Minute + m.upTo(3*time.Hour),
		MaxSkew:       time.Second + m.upTo(10*time.Minute),
		RetainFor:     time.Hour + m.upTo(30*time.Hour),
	}
	cfg.MaxStale = cfg.SyncEvery + time.Minute + m.upTo(12*time.Hour)
	cfg.PublishBefore = cfg.MaxStale + cfg.ClientRefresh + cfg.MaxSkew + cfg.SyncEvery + m.upTo(6*time.Hour)
	cfg.RotateEvery = cfg.PublishBefore + cfg.SyncEvery + cfg.RetainFor/25 + m.upTo(40*time.Hour)
	require.NoError(m.t, cfg.setDefaults(), m.name)
	return cfg
}

func (m *model) plan(cfg RingConfig) *schedule {
	return &schedule{
		rotateEvery: cfg.RotateEvery, publishBefore: cfg.PublishBefore, retainFor: cfg.RetainFor, identifyFor: cfg.IdentifyFor,
		unseen: cfg.MaxStale + max(cfg.SyncEvery, cfg.storeTimeout()), maxSkew: cfg.MaxSkew,
		newKey: func() (documentKey, error) {
			m.made++
			id := fmt.Sprint("key ", m.made)
			return documentKey{Private: []byte{1}, id: id, public: &PublicKey{id: id}}, nil
		},
	}
}

func (m *model) moment(r *modelReplica) moment {
	if m.timed {
		return moment{now: m.now, destroy: true, sure: true}
	}
	return moment{now: m.now.Add(r.offset), destroy: true}
}

func (m *model) run() {
	end := m.now.Add(12 * m.replicas[0].cfg.RotateEvery)
	step := m.replicas[0].cfg.SyncEvery / 2
	for ; m.now.Before(end); m.now = m.now.Add(m.upTo(step)) {
		m.commit()
		m.fault()
		for _, r := range m.replicas {
			if !m.now.Before(r.due) {
				m.sync(r, nil)
			}
		}
		m.operate()
		m.fetch()
		m.sign()
		m.check()
	}
}

// commit ends the slow writes.
func (m *model) commit() {
	m.pending = slices.DeleteFunc(m.pending, func(w modelWrite) bool {
		if m.now.Before(w.at) {
			return false
		}
		if w.rev == m.rev {
			m.write(w.doc)
		} else {
			m.counts["writes of a slow replica that lost the race"]++
		}
		return true
	})
}

func (m *model) write(doc *document) {
	m.history = append(m.history, m.stored)
	if len(m.history) > 6 {
		m.history = m.history[1:]
	}
	m.stored = doc
	m.rev++
	m.counts["writes"]++
}

// fault happens to the store or to a replica, when all is quiet.
func (m *model) fault() {
	if !m.faulty || m.now.Before(m.quietFrom) || m.stored.Ring == "" || m.rng.Float64() > 0.02 {
		return
	}
	m.quietFrom = m.now.Add(m.settle)
	switch m.rng.IntN(4) {
	case 0, 1:
		old := m.history[m.rng.IntN(len(m.history))]
		if old.Ring == "" {
			return
		}
		m.stored, m.counts["rollbacks"] = old, m.counts["rollbacks"]+1
		m.rev++
	case 2:
		m.stored, m.counts["emptied"] = &document{Version: documentVersion}, m.counts["emptied"]+1
		m.rev++
		if m.rng.IntN(2) == 0 { // and a new replica makes a ring in it
			r := m.replicas[2]
			old := *r
			*r = modelReplica{cfg: r.cfg, plan: r.plan, offset: r.offset}
			m.sync(r, nil)
			if m.rng.IntN(2) == 0 {
				m.sign()
			}
			r.lags = old.lags
		}
	case 3: // what it alone knew is lost
		r := m.replicas[m.rng.IntN(2)]
		*r = modelReplica{cfg: r.cfg, plan: r.plan, offset: r.offset}
		m.counts["restarts"]++
		m.sync(r, nil)
	}
}

// sync reads the store, writes what is due with a change, and reads it back.
func (m *model) sync(r *modelReplica, c *change) bool {
	saved := false
	for range 10 {
		at := m.moment(r)
		read := m.stored
		out := merge(read, r.doc, nil, at, r.plan)
		r.doc, r.read = out.doc, m.now
		r.ids = map[string]bool{}
		for _, k := range r.doc.published(at) {
			r.ids[k.id] = true
		}
		if r.knows == nil {
			r.knows = map[string]bool{}
		}
		for _, k := range r.doc.Revoked {
			r.knows[k.KeyID] = true
		}
		wait := r.cfg.SyncEvery / 2
		if r.lags {
			wait = r.cfg.MaxStale - r.cfg.SyncEvery
		}
		r.due = m.now.Add(wait)
		if c != nil && saved && c.done(read) {
			return true
		}
		if r.wrong {
			return false
		}
		doc := r.doc.clone()
		changed, err := r.plan.advance(doc, at)
		require.NoError(m.t, err, m.name)
		changed = changed || out.owed
		if c != nil {
			_, err := c.apply(doc, at)
			require.NoError(m.t, err, m.name)
			_, err = r.plan.advance(doc, at)
			require.NoError(m.t, err, m.name)
			changed = true
		}
		if !changed {
			return true
		}
		for _, k := range doc.Keys {
			if r.doc.find(k.id) == nil && k.signsAt(at.now) {
				m.urgent[k.id] = m.now.Add(max(m.replicas[0].cfg.PublishBefore, m.replicas[1].cfg.PublishBefore) + time.Minute)
			}
		}
		doc.Serial++
		switch x := m.rng.Float64(); {
		case x < 0.02 && m.stored.Ring != "": // acknowledged and lost
			m.counts["lost writes"]++
		case x < 0.1 && c == nil:
			m.pending = append(m.pending, modelWrite{doc, m.rev, m.now.Add(m.upTo(r.cfg.storeTimeout()))})
			return false
		default:
			m.write(doc)
		}
		saved = true
	}
	require.Fail(m.t, "what is due never ends", m.name)
	return false
}

// operate rotates and revokes, now and then.
func (m *model) operate() {
	r := m.replicas[m.rng.IntN(len(m.replicas))]
	if r.wrong || r.doc == nil || r.doc.Ring == "" {
		return
	}
	switch x := m.rng.Float64(); {
	case x < 0.002:
		m.rotate(r)
		if m.rng.IntN(2) == 0 { // a change of algorithm takes two
			m.rotate(r)
		}
	case x < 0.003:
		m.sync(r, nil)
		if len(r.doc.Keys) == 0 {
			return
		}
		kid := r.doc.Keys[m.rng.IntN(len(r.doc.Keys))].id
		if m.sync(r, &change{
			apply: func(d *document, at moment) (bool, error) {
				unknown, err := r.plan.revoke(d, at, []string{kid})
				require.Empty(m.t, unknown, m.name)
				return true, err
			},
			done: func(d *document) bool { return d.hasRevoked(kid) && d.find(kid) == nil },
		}) {
			m.revoked[kid] = true
			delete(m.live, kid)
			m.counts["revocations"]++
		}
	}
}

func (m *model) rotate(r *modelReplica) {
	var kid string
	var until time.Time
	m.sync(r, &change{
		apply: func(d *document, at moment) (bool, error) {
			if i := current(d, at.now); i >= 0 {
				kid = d.Keys[i].id
			}
			var err error
			until, err = r.plan.rotate(d, at)
			return true, err
		},
		done: func(d *document) bool { k := d.find(kid); return k == nil || !k.SignsUntil.After(until) },
	})
	m.counts["rotations"]++
}

// fetch refreshes the clients whose key set has had its time.
func (m *model) fetch() {
	for i := range m.clients {
		c := &m.clients[i]
		if m.now.Before(c.until) {
			continue
		}
		r := m.replicas[m.rng.IntN(len(m.replicas))]
		if !m.serves(r) {
			continue
		}
		c.ids, c.from = r.ids, m.now
		age := r.cfg.PublishBefore - r.cfg.MaxStale - r.cfg.ClientRefresh - r.cfg.MaxSkew - r.cfg.SyncEvery
		now := m.moment(r).now
		for _, k := range r.doc.published(m.moment(r)) {
			for _, t := range []time.Time{k.SignsFrom, k.KeptUntil} {
				if t.After(now) {
					age = min(age, t.Sub(now))
				}
			}
		}
		c.until = m.now.Add(max(age, 0) + m.refresh)
	}
}

// serves reports whether a replica answers.
func (m *model) serves(r *modelReplica) bool {
	return r.doc != nil && r.doc.Ring != "" && m.now.Sub(r.read) < r.cfg.MaxStale
}

func (m *model) sign() {
	r := m.replicas[m.rng.IntN(len(m.replicas))]
	if !m.serves(r) {
		return
	}
	i := current(r.doc, m.moment(r).now)
	if i < 0 {
		require.True(m.t, m.now.Before(m.quietFrom) || r.wrong, "%s: a replica has no key to sign with", m.name)
		return
	}
	kid := r.doc.Keys[i].id
	if m.revoked[kid] { // by a replica that does not know it yet: what it signs is not valid
		require.False(m.t, r.knows[kid], "%s: %s is revoked, and a replica that knows it signs with it", m.name, kid)
		return
	}
	m.counts["signatures"]++
	if exp := m.now.Add(r.cfg.RetainFor); exp.After(m.live[kid]) {
		m.live[kid] = exp
	}
}

func (m *model) check() {
	for _, r := range m.replicas {
		for kid := range r.knows {
			require.False(m.t, r.ids[kid], "%s: %s is revoked and back", m.name, kid)
		}
	}
	if m.now.Before(m.quietFrom) {
		return
	}
	for kid := range m.revoked {
		require.Nil(m.t, m.stored.find(kid), "%s: %s is revoked and back in the store", m.name, kid)
	}
	for kid, exp := range m.live {
		if !m.now.Before(exp) {
			delete(m.live, kid)
			continue
		}
		urgent := m.now.Before(m.urgent[kid])
		for i, r := range m.replicas {
			if !m.serves(r) || r.ids[kid] {
				m.counts["checks"]++
				continue
			}
			require.True(m.t, urgent || m.faulty, "%s: replica %d refuses a token of %s", m.name, i, kid)
			if !r.lags { // it looks
				m.sync(r, nil)
				require.True(m.t, r.ids[kid], "%s: replica %d refuses a token of %s, after a look", m.name, i, kid)
			}
		}
		for i, c := range m.clients {
			m.counts["checks"]++
			require.True(m.t, c.ids == nil || c.ids[kid] || urgent || c.from.Before(m.quietFrom), "%s: client %d refuses a token of %s", m.name, i, kid)
		}
	}
}
