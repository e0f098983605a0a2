package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

var copyStore = command{
	name: "copy", summary: "Copies the ring, the revocations and the devices of an authority to another store, with users signed in",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		from := addStoreNamed(fs, "from", "SESSIONTOKEN_FROM", "the store to read")
		to := addStoreNamed(fs, "to", "SESSIONTOKEN_TO", "the store to write, which has the tables")
		site, secrets := &siteFlags{}, addSecrets(fs)
		site.addNames(fs)
		limit := fs.Duration("timeout", 10*time.Second, "how long to wait for a store at each step")
		return func(ctx context.Context, c *call) error {
			if err := c.checkArgs(0, 0, "no arguments"); err != nil {
				return err
			}
			given, err := secrets.readAny(c)
			if err != nil {
				return err
			}
			names, err := site.names(c)
			if err != nil {
				return err
			}
			source, err := bounded(ctx, *limit, func(ctx context.Context) (*openedStore, error) { return from.open(ctx, c) })
			if err != nil {
				return inStore("--from", err)
			}
			defer source.close()
			target, err := bounded(ctx, *limit, func(ctx context.Context) (*openedStore, error) { return to.open(ctx, c) })
			if err != nil {
				return inStore("--to", err)
			}
			defer target.close()
			if source.kind == target.kind && source.path != "" && source.path == target.path {
				return usageError{"--from and --to are the same store"}
			}
			p := &copier{from: source, to: target, issuer: names.issuer, namespace: names.namespace, secrets: given, limit: *limit}
			if err := p.run(ctx); err != nil {
				return fmt.Errorf("the copy is not complete; run it again, and it goes on from there: %w", err)
			}
			if err := c.print(p.result()); err != nil {
				return err
			}
			if p.report.Missing > 0 {
				return errNot
			}
			return nil
		}
	},
}

// inStore names the store that an error is of.
func inStore(flag string, err error) error {
	var wrong usageError
	if errors.As(err, &wrong) {
		return err
	}
	return fmt.Errorf("%s: %w", flag, err)
}

// copier copies what one authority has in a store.
//
// It copies the revocations first, so that the target never accepts what the
// source refuses. The birth marks come last: with the source's, a list accepts
// sessions that are older than the target, and it must know all revocations of
// those. Nothing is removed from the target, and what is revoked there is not
// copied. Each step looks at what the target has, so that the copy can be ended
// at any point and run again.
type copier struct {
	from, to          *openedStore
	issuer, namespace string
	secrets           []secret
	limit             time.Duration
	report            copyReport
}

// copyReport is the result of a copy.
type copyReport struct {
	Name        string `json:"name"`
	Ring        string `json:"ring"` // copied, there, merged or none
	Revocations rows   `json:"revocations"`
	Devices     rows   `json:"devices"`
	Revoked     int    `json:"devices_revoked"` // of sessions that are revoked, and not copied
	Missing     int    `json:"missing"`         // rows that the target lacks at the end
	Rounds      int    `json:"rounds"`
}

// rows counts rows of a kind.
type rows struct {
	Source int `json:"source"`
	Copied int `json:"copied"` // by this call; the others were there
}

// rounds is how often what the source has gained since is copied.
const rounds = 5

func (p *copier) run(ctx context.Context) error {
	p.report.Name = p.namespace
	if err := p.prepare(ctx); err != nil {
		return err
	}
	for p.report.Rounds < rounds {
		p.report.Rounds++
		revoked, err := p.copyEntries(ctx, false)
		if err != nil {
			return fmt.Errorf("the revocations: %w", err)
		}
		if err := p.copyRing(ctx); err != nil {
			return fmt.Errorf("the ring: %w", err)
		}
		if p.both() {
			if err := p.copyFamilies(ctx, revoked); err != nil {
				return fmt.Errorf("the devices: %w", err)
			}
		}
		if _, err := p.copyEntries(ctx, true); err != nil {
			return fmt.Errorf("the revocations: %w", err)
		}
		if p.report.Missing, err = p.verify(ctx); err != nil {
			return fmt.Errorf("the copy cannot be verified: %w", err)
		}
		if p.report.Missing == 0 {
			return nil
		}
	}
	return nil
}

// both reports whether both stores hold more than a ring.
func (p *copier) both() bool { return p.from.all != nil && p.to.all != nil }

// call calls f with a context that --timeout bounds.
func (p *copier) call(ctx context.Context, f func(ctx context.Context) error) error {
	_, err := bounded(ctx, p.limit, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	return err
}

// maxApart is how far the clocks of two stores may be apart: an entry names the
// time of the store that it was written to.
const maxApart = time.Minute

// prepare checks that the source has the authority, and that nothing will keep
// the copy from its end.
func (p *copier) prepare(ctx context.Context) error {
	source, err := p.load(ctx, p.from)
	if err != nil {
		return err
	}
	target, err := p.load(ctx, p.to)
	if err != nil {
		return err
	}
	for _, s := range []*openedStore{p.from, p.to} {
		if s == p.from && len(source.Doc) == 0 || s == p.to && len(target.Doc) == 0 {
			continue
		}
		// It checks that the document can be read.
		if err := p.call(ctx, func(ctx context.Context) error { _, err := p.site(s).status(ctx, nil); return err }); err != nil {
			return err
		}
	}
	if len(source.Doc) > 0 && len(target.Doc) > 0 {
		ok, err := holds(target.Doc, source.Doc)
		switch {
		case err != nil:
			return err
		case !ok && len(p.secrets) == 0:
			return errors.New("the target has a ring of this name with other keys, and the two can be joined with the secrets alone: set --secret-file, or remove that ring if no token was signed with it; nothing was changed")
		case !ok:
			if _, _, err := p.sealing(ctx); err != nil {
				return err
			}
		}
	}
	if !p.both() {
		if len(source.Doc) == 0 {
			return p.site(p.from).noRing(keys.ErrNoRing)
		}
		return nil
	}
	var at, there revoke.Page
	if err := p.call(ctx, func(ctx context.Context) (err error) { at, err = p.from.all.Since(ctx, ""); return err }); err != nil {
		return err
	}
	if err := p.call(ctx, func(ctx context.Context) (err error) { there, err = p.to.all.Since(ctx, ""); return err }); err != nil {
		return err
	}
	if apart := at.Time.Sub(there.Time); apart.Abs() > maxApart {
		return fmt.Errorf("the clocks of the two stores are %v apart, and revocations name a time: set them, and run NTP; nothing was changed", apart.Abs().Round(time.Second))
	}
	if len(source.Doc) > 0 {
		return nil
	}
	return p.call(ctx, func(ctx context.Context) error { return p.site(p.from).checkList(ctx, p.from.all) })
}

func (p *copier) site(s *openedStore) *site { return &site{s, p.issuer, p.namespace} }

func (p *copier) load(ctx context.Context, s *openedStore) (stored keys.Stored, err error) {
	err = p.call(ctx, func(ctx context.Context) (err error) { stored, err = s.ring.Load(ctx, p.namespace); return err })
	return stored, err
}

// entryKey names an entry by all that it holds.
type entryKey struct {
	scope          revoke.Scope
	digest, except revoke.Digest
	before, until  int64
	skip           bool
}

func keyOf(e revoke.Entry) entryKey {
	return entryKey{e.Scope, e.Digest, e.Except, e.Before.UnixMilli(), e.Until.UnixMilli(), e.Skip}
}

// entries calls f for each entry of the namespace, and returns the store's time.
func (p *copier) entries(ctx context.Context, s *openedStore, f func(e revoke.Entry)) (at time.Time, err error) {
	var page revoke.Page
	for {
		cursor := page.Next
		if err := p.call(ctx, func(ctx context.Context) (err error) { page, err = s.all.Since(ctx, cursor); return err }); err != nil {
			return at, err
		}
		if page.Reset {
			return at, errors.New("the store was replaced or restored during the copy")
		}
		for _, e := range page.Entries {
			if e.Namespace == p.namespace {
				f(e)
			}
		}
		if at = page.Time; !page.More {
			return at, nil
		}
	}
}

// entriesAtOnce is how many revocations one call writes.
const entriesAtOnce = 2000

// lacking returns the entries of the source that the target lacks, and the
// sessions that are revoked in one of the two.
func (p *copier) lacking(ctx context.Context) (lacks []revoke.Entry, revoked map[revoke.Digest]bool, source int, err error) {
	has, revoked := map[entryKey]bool{}, map[revoke.Digest]bool{}
	note := func(e revoke.Entry) {
		if e.Scope == revoke.Session {
			revoked[e.Digest] = true
		}
	}
	_, err = p.entries(ctx, p.to, func(e revoke.Entry) {
		has[keyOf(e)] = true
		note(e)
	})
	if err != nil {
		return nil, nil, 0, err
	}
	at, err := p.entries(ctx, p.from, func(e revoke.Entry) {
		source++
		note(e)
		if k := keyOf(e); !has[k] {
			has[k] = true // once
			lacks = append(lacks, e)
		}
	})
	live := lacks[:0]
	for _, e := range lacks {
		if e.Scope == revoke.Birth || e.Until.After(at) {
			live = append(live, e)
		}
	}
	return live, revoked, source, err
}

// copyEntries copies the revocations that the target lacks, and the birth marks
// after them if births is set.
func (p *copier) copyEntries(ctx context.Context, births bool) (revoked map[revoke.Digest]bool, err error) {
	if !p.both() {
		return nil, nil
	}
	lacks, revoked, source, err := p.lacking(ctx)
	if err != nil {
		return nil, err
	}
	p.report.Revocations.Source = source
	var now, last []revoke.Entry
	for _, e := range lacks {
		if e.Scope == revoke.Birth {
			last = append(last, e)
		} else {
			now = append(now, e)
		}
	}
	if err := p.append(ctx, now); err != nil || !births {
		return revoked, err
	}
	return revoked, p.append(ctx, last)
}

func (p *copier) append(ctx context.Context, entries []revoke.Entry) error {
	for len(entries) > 0 {
		n := min(len(entries), entriesAtOnce)
		if err := p.call(ctx, func(ctx context.Context) error { return p.to.all.Append(ctx, entries[:n]...) }); err != nil {
			return err
		}
		p.report.Revocations.Copied += n
		entries = entries[n:]
	}
	return nil
}

// families calls f for each page of the families of the namespace.
func (p *copier) families(ctx context.Context, s *openedStore, f func(page []refresh.Record) error) error {
	lister, ok := s.all.(refresh.AllLister)
	if !ok {
		return errors.New("the store cannot list all devices")
	}
	for next := ""; ; {
		var page []refresh.Record
		err := p.call(ctx, func(ctx context.Context) (err error) {
			page, next, err = lister.ListAll(ctx, p.namespace, next)
			return err
		})
		if err != nil {
			return err
		}
		if err := f(page); err != nil || next == "" {
			return err
		}
	}
}

// workers is how many families are written at once.
const workers = 8

// copyFamilies copies the families that the target lacks, or has in an older
// form.
func (p *copier) copyFamilies(ctx context.Context, revoked map[revoke.Digest]bool) error {
	has := map[string]uint64{}
	err := p.families(ctx, p.to, func(page []refresh.Record) error {
		for _, r := range page {
			has[r.ID] = r.Version
		}
		return nil
	})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	p.report.Devices.Source, p.report.Revoked = 0, 0
	return p.families(ctx, p.from, func(page []refresh.Record) error {
		var todo []refresh.Record
		for _, r := range page {
			if seen[r.ID] {
				continue
			}
			seen[r.ID] = true
			p.report.Devices.Source++
			version, there := has[r.ID]
			switch {
			case revoked[revoke.Session.Digest(r.SessionID)]:
				p.report.Revoked++
			case !there || version < r.Version:
				todo = append(todo, r)
			}
		}
		return p.write(ctx, todo)
	})
}

// write writes families, some at once.
func (p *copier) write(ctx context.Context, records []refresh.Record) error {
	var next, copied atomic.Int64
	errs := make([]error, min(workers, len(records)))
	var running sync.WaitGroup
	for w := range errs {
		running.Go(func() {
			for ctx.Err() == nil && errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(records) {
					return
				}
				errs[w] = p.call(ctx, func(ctx context.Context) error { return putFamily(ctx, p.to.all, records[i]) })
				if errs[w] == nil {
					copied.Add(1)
				}
			}
		})
	}
	running.Wait()
	p.report.Devices.Copied += int(copied.Load())
	return errors.Join(append(errs, ctx.Err())...)
}

// putFamily writes a family, unless the store has a newer form of it. A store
// replaces a family by the next version alone: a program that reads one of the
// versions between cannot authenticate it, and answers with 503 until the last
// one is there.
func putFamily(ctx context.Context, store refresh.Store, r refresh.Record) error {
	if err := store.Create(ctx, r); err != nil {
		return err
	}
	for {
		found, err := store.Find(ctx, r.Namespace, r.ID)
		if errors.Is(err, refresh.ErrNotFound) {
			return nil // revoked, or expired, since
		}
		if err != nil || found.Version >= r.Version {
			return err
		}
		step := r
		step.Version = found.Version + 1
		if err := store.Swap(ctx, step); err != nil && !errors.Is(err, refresh.ErrConflict) {
			return err
		}
	}
}

// verify compares the stores row by row, and returns how many rows the target
// lacks.
func (p *copier) verify(ctx context.Context) (missing int, err error) {
	source, err := p.load(ctx, p.from)
	if err != nil {
		return 0, err
	}
	if len(source.Doc) > 0 {
		target, err := p.load(ctx, p.to)
		if err != nil {
			return 0, err
		}
		if ok, err := holds(target.Doc, source.Doc); err != nil {
			return 0, err
		} else if !ok {
			missing++
		}
	}
	if !p.both() {
		return missing, nil
	}
	// What the source had before counts, so that a source in use comes to an
	// end.
	want := map[string]refresh.Record{}
	err = p.families(ctx, p.from, func(page []refresh.Record) error {
		for _, r := range page {
			want[r.ID] = r
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	lacks, revoked, _, err := p.lacking(ctx)
	if err != nil {
		return 0, err
	}
	missing += len(lacks)
	err = p.families(ctx, p.to, func(page []refresh.Record) error {
		for _, r := range page {
			if w, ok := want[r.ID]; ok && (r.Version > w.Version || r.Version == w.Version && sameFamily(r, w)) {
				delete(want, r.ID)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	now := time.Now()
	for _, r := range want {
		if !revoked[revoke.Session.Digest(r.SessionID)] && r.Until.After(now.Add(maxApart)) {
			missing++
		}
	}
	return missing, nil
}

func sameFamily(a, b refresh.Record) bool {
	return a.Namespace == b.Namespace && a.ID == b.ID && a.Subject == b.Subject && a.SessionID == b.SessionID &&
		a.Until.Equal(b.Until) && bytes.Equal(a.Data, b.Data)
}

// copyRing copies the ring, or joins it with the one of the target.
func (p *copier) copyRing(ctx context.Context) error {
	for {
		source, err := p.load(ctx, p.from)
		if err != nil {
			return err
		}
		target, err := p.load(ctx, p.to)
		if err != nil {
			return err
		}
		switch {
		case len(source.Doc) == 0:
			p.report.Ring = "none"
			return nil
		case len(target.Doc) == 0:
			err := p.call(ctx, func(ctx context.Context) error {
				_, err := p.to.ring.Save(ctx, p.namespace, source.Doc, "")
				return err
			})
			if errors.Is(err, keys.ErrConflict) {
				continue // a program has made one since
			}
			if err == nil {
				p.report.Ring = "copied"
			}
			return err
		}
		if ok, err := holds(target.Doc, source.Doc); err != nil || ok {
			if p.report.Ring == "" {
				p.report.Ring = "there"
			}
			return err
		}
		return p.mergeRing(ctx)
	}
}

// mergeRing joins the two rings in the target. A ring that has read the source
// meets the target's document, and does as after any change of its store: it
// writes back what is lacking, and what is revoked in one of the two stays
// revoked.
func (p *copier) mergeRing(ctx context.Context) error {
	if len(p.secrets) == 0 {
		return errors.New("the target has a ring of this name with other keys: set --secret-file, with which the two can be joined")
	}
	a, alg, err := p.sealing(ctx)
	if err != nil {
		return err
	}
	moving := &movingStore{from: p.from.ring, to: p.to.ring}
	ring, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(moving, a.AEAD), Name: p.namespace, Algorithm: alg, Logger: discard})
	if err != nil {
		return err
	}
	if err := p.call(ctx, ring.Sync); err != nil {
		return err
	}
	moving.moved.Store(true)
	return p.call(ctx, func(ctx context.Context) error {
		for {
			if err := ring.Sync(ctx); err != nil {
				return err
			}
			source, err1 := p.from.ring.Load(ctx, p.namespace)
			target, err2 := p.to.ring.Load(ctx, p.namespace)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if ok, err := holds(target.Doc, source.Doc); err != nil || ok {
				p.report.Ring = "merged"
				return err
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return errors.Join(ring.Status().WriteErr, ctx.Err())
			}
		}
	})
}

// sealing returns the AEAD of the secrets, which must open the keys of both
// rings, and the algorithm of the source's.
func (p *copier) sealing(ctx context.Context) (a *sealing, alg keys.Algorithm, err error) {
	if a, err = p.site(p.to).sealingOf(p.secrets); err != nil {
		return nil, "", err
	}
	for _, s := range []*openedStore{p.to, p.from} {
		err := p.call(ctx, func(ctx context.Context) error {
			st, err := p.site(s).status(ctx, a.AEAD)
			if err == nil {
				alg, err = (&algorithmFlag{}).of(st), a.check(st)
			}
			return err
		})
		if err != nil {
			return nil, "", err
		}
	}
	return a, alg, nil
}

// movingStore is the source until it has moved, and then the target. It writes
// to the target alone.
type movingStore struct {
	from, to keys.Store
	moved    atomic.Bool
}

func (s *movingStore) Load(ctx context.Context, name string) (keys.Stored, error) {
	if s.moved.Load() {
		return s.to.Load(ctx, name)
	}
	return s.from.Load(ctx, name)
}

func (s *movingStore) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if !s.moved.Load() {
		return "", errors.New("the source of a copy is not changed")
	}
	return s.to.Save(ctx, name, doc, rev)
}

// ringDocument is what a copy compares of the document of a ring.
type ringDocument struct {
	Keys    []ringKey `json:"keys"`
	Retired []ringKey `json:"retired"`
	Revoked []struct {
		KeyID string    `json:"kid"`
		Until time.Time `json:"until"`
	} `json:"revoked"`
}

type ringKey struct {
	Public struct {
		KeyID string `json:"kid"`
	} `json:"jwk"`
	KeptUntil time.Time `json:"kept_until"`
}

// holds reports whether a document has all keys and all revocations of another
// one.
func holds(doc, of []byte) (bool, error) {
	if bytes.Equal(doc, of) {
		return true, nil
	}
	if len(doc) == 0 {
		return false, nil
	}
	var a, b ringDocument
	if err := errors.Join(json.Unmarshal(doc, &a), json.Unmarshal(of, &b)); err != nil {
		return false, errors.New("the stored document is not a ring's: restore the row")
	}
	has, revoked := map[string]bool{}, map[string]bool{}
	for _, k := range append(a.Keys, a.Retired...) {
		has[k.Public.KeyID] = true
	}
	for _, r := range a.Revoked {
		revoked[r.KeyID] = true
	}
	now := time.Now()
	for _, r := range b.Revoked {
		if !revoked[r.KeyID] && r.Until.After(now) {
			return false, nil
		}
	}
	for _, k := range append(b.Keys, b.Retired...) {
		if !has[k.Public.KeyID] && !revoked[k.Public.KeyID] && k.KeptUntil.After(now) {
			return false, nil
		}
	}
	return true, nil
}

func (p *copier) result() *result {
	r, c := &result{object: p.report}, p.report
	r.add("The ring of %q: %s.", c.Name, map[string]string{
		"copied": "copied", "there": "the target has it", "merged": "joined with the one of the target", "none": "the source has none",
	}[c.Ring])
	if p.both() {
		r.add("Revocations: %d at the source, %d copied now.", c.Revocations.Source, c.Revocations.Copied)
		r.add("Devices: %d at the source, %d copied now, %d left out since their session is revoked.", c.Devices.Source, c.Devices.Copied, c.Revoked)
	} else {
		r.add("A file: store has no revocations and no devices: none are copied.")
	}
	if c.Missing > 0 {
		r.add("NOT COMPLETE: the target lacks %d rows that the source has gained since. Stop the programs that use the source, and run the copy again.", c.Missing)
	} else {
		r.add("Verified: the target has each row of the source. What the programs write to the source from now on is copied by the next run.")
	}
	return r
}
