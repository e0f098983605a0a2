package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Revocations are in two streams, with ids that ascend over both. The one
// called revocations holds what is over within Config.KeepFor, and is trimmed
// by age: most of it is sessions. The one called kept holds what lives longer,
// such as keys, each until it is over, and the births of the store for ever.
// Its entries are found by their Until in the sorted set called kept-until. The
// last one stays in any case, for it is what cursors name.
//
// All times are the server's: a client whose clock is wrong must not take away
// what the others need.
var appendEntries = newScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keep = tonumber(ARGV[1])
local ms, seq = now, -1
local function follow(stream)
	local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
	if not last then return end
	local m, q = string.match(last[1], '^(%d+)-(%d+)$')
	m, q = tonumber(m), tonumber(q)
	if m > ms or m == ms and q > seq then ms, seq = m, q end
end
follow(KEYS[1])
follow(KEYS[2])
local oldest = string.format('%.0f', now - keep - 3600000)
local newest
for i = 2, #ARGV, 8 do
	seq = seq + 1
	local id = string.format('%.0f-%.0f', ms, seq)
	local fields = {id, 'namespace', ARGV[i], 'scope', ARGV[i + 1], 'digest', ARGV[i + 2], 'except', ARGV[i + 3],
		'before', ARGV[i + 4], 'until', ARGV[i + 5], 'skip', ARGV[i + 6], 'tag', ARGV[i + 7]}
	if ARGV[i + 1] == 'birth' then
		redis.call('XADD', KEYS[2], unpack(fields))
	elseif ARGV[i + 5] - now > keep then
		redis.call('XADD', KEYS[2], unpack(fields))
		redis.call('ZADD', KEYS[3], ARGV[i + 5], id)
	else
		redis.call('XADD', KEYS[1], 'MINID', '~', oldest, unpack(fields))
	end
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now - 3600000), 'LIMIT', 0, 100)) do
	if not last or id ~= last[1] then
		redis.call('XDEL', KEYS[2], id)
		redis.call('ZREM', KEYS[3], id)
	end
end
return 1`)

// entriesAtOnce is how many entries one script adds: a server that adds many
// answers no other client meanwhile.
const entriesAtOnce = 500

// Append adds entries, in their order. It is part of revoke.Store.
func (s *Store) Append(ctx context.Context, entries ...revoke.Entry) error {
	for len(entries) > 0 {
		n := min(len(entries), entriesAtOnce)
		if err := s.append(ctx, entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

func (s *Store) append(ctx context.Context, entries []revoke.Entry) error {
	args := []any{s.cfg.KeepFor.Milliseconds()}
	for _, e := range entries {
		args = append(args, e.Namespace, string(e.Scope), e.Digest[:], e.Except[:], e.Before.UnixMilli(), e.Until.UnixMilli(), e.Skip, rand.Text())
	}
	_, err := s.run(ctx, "write revocations", appendEntries, []string{s.revocations(), s.kept(), s.keptUntil()}, args...)
	return err
}

// pageSize and keptSize are how many entries of each stream Since reads at
// once: a server that sends a million answers no other client meanwhile.
const (
	pageSize = 9_000
	keptSize = 1_000
)

// place names an entry of a stream: by its id, and by its tag, which tells it
// from one of the same id in another log. The zero place is before all.
type place struct{ id, tag string }

func (p place) String() string { return p.start() + "." + p.tag }

// start is the id, as commands have it.
func (p place) start() string {
	if p.id == "" {
		return "0-0"
	}
	return p.id
}

// before reports whether p is before q. Their ids are valid.
func (p place) before(q place) bool {
	number := func(s string) uint64 { n, _ := strconv.ParseUint(s, 10, 64); return n }
	ms1, seq1, _ := strings.Cut(p.id, "-")
	ms2, seq2, _ := strings.Cut(q.id, "-")
	return cmp.Or(cmp.Compare(number(ms1), number(ms2)), cmp.Compare(number(seq1), number(seq2))) < 0
}

func parsePlace(s string) (p place, ok bool) {
	p.id, p.tag, _ = strings.Cut(s, ".")
	if p.id == "0-0" {
		p.id = ""
		return p, p.tag == ""
	}
	return p, isID(p.id)
}

// isID reports whether s is the id of an entry in a stream.
func isID(s string) bool {
	ms, seq, _ := strings.Cut(s, "-")
	_, err1 := strconv.ParseUint(ms, 10, 64)
	_, err2 := strconv.ParseUint(seq, 10, 64)
	return err1 == nil && err2 == nil
}

// A cursor names the last entry that was seen of each stream.
type cursor struct{ kept, recent place }

func (c cursor) String() string { return c.kept.String() + "/" + c.recent.String() }

func parseCursor(s string) (c cursor, ok bool) {
	kept, recent, _ := strings.Cut(s, "/")
	var ok1, ok2 bool
	c.kept, ok1 = parsePlace(kept)
	c.recent, ok2 = parsePlace(recent)
	return c, ok1 && ok2
}

// errUnknownCursor: the server took over and lacks what the cursor names, it
// was emptied, or it is another one.
var errUnknownCursor = errors.New("the cursor is of another log")

// Since returns what was revoked since. It is part of revoke.Store.
//
// The entries that the cursor names are read again, to see whether this is
// still the same log: a server that takes over may lack the last entries, and
// give their ids or earlier ones to others.
func (s *Store) Since(ctx context.Context, from string) (revoke.Page, error) {
	const doing = "read revocations"
	c, ok := parseCursor(from)
	reset := from != "" && !ok
	if !ok {
		c = cursor{}
	}
	page, err := s.since(ctx, doing, c)
	if errors.Is(err, errUnknownCursor) {
		reset = true
		page, err = s.since(ctx, doing, cursor{})
	}
	page.Reset = reset && err == nil
	return page, err
}

func (s *Store) since(ctx context.Context, doing string, from cursor) (page revoke.Page, err error) {
	var now *redis.TimeCmd
	var kept, recent *redis.XMessageSliceCmd
	err = s.ask(ctx, doing, func(p redis.Pipeliner) {
		now = p.Time(ctx)
		// Kept first: a birth is written after what it is the birth of, and
		// must not be seen without that.
		kept = p.XRangeN(ctx, s.kept(), from.kept.start(), "+", keptSize)
		recent = p.XRangeN(ctx, s.revocations(), from.recent.start(), "+", pageSize)
	})
	if err != nil {
		return page, err
	}
	keptEntries, err1 := read(kept.Val(), from.kept)
	entries, err2 := read(recent.Val(), from.recent)
	if err := errors.Join(err1, err2); err != nil {
		return page, err
	}
	page.Time = now.Val().UTC()
	page.More = len(kept.Val()) == keptSize || len(recent.Val()) == pageSize
	// Of a stream that was not read to its end, what comes next may be before
	// what the other one has.
	if len(recent.Val()) == pageSize {
		keptEntries = upTo(keptEntries, entries[len(entries)-1].place)
	}
	if len(kept.Val()) == keptSize && len(keptEntries) > 0 {
		entries = upTo(entries, keptEntries[len(keptEntries)-1].place)
	}
	next := from
	for len(keptEntries)+len(entries) > 0 {
		first, last := &entries, &next.recent
		if len(entries) == 0 || len(keptEntries) > 0 && keptEntries[0].before(entries[0].place) {
			first, last = &keptEntries, &next.kept
		}
		page.Entries, *last = append(page.Entries, (*first)[0].Entry), (*first)[0].place
		*first = (*first)[1:]
	}
	page.Next = next.String()
	return page, nil
}

// placed is an entry and its place.
type placed struct {
	place
	revoke.Entry
}

// upTo cuts off what comes after a place.
func upTo(entries []placed, last place) []placed {
	for len(entries) > 0 && last.before(entries[len(entries)-1].place) {
		entries = entries[:len(entries)-1]
	}
	return entries
}

// read returns what follows from, which is the first of the messages.
func read(messages []redis.XMessage, from place) (entries []placed, err error) {
	if from.id != "" {
		if len(messages) == 0 || messages[0].ID != from.id || messages[0].Values["tag"] != from.tag {
			return nil, errUnknownCursor
		}
		messages = messages[1:]
	}
	for _, m := range messages {
		e, tag, err := entryOf(m.Values)
		if err != nil {
			return nil, err
		}
		entries = append(entries, placed{place{m.ID, tag}, e})
	}
	return entries, nil
}

func entryOf(values map[string]any) (e revoke.Entry, tag string, err error) {
	text := func(name string) string { v, _ := values[name].(string); return v }
	number := func(name string) time.Time {
		n, err1 := strconv.ParseInt(text(name), 10, 64)
		err = errors.Join(err, err1)
		return time.UnixMilli(n).UTC()
	}
	tag = text("tag")
	e = revoke.Entry{Namespace: text("namespace"), Scope: revoke.Scope(text("scope")), Before: number("before"), Until: number("until"), Skip: text("skip") == "1"}
	n, m := copy(e.Digest[:], text("digest")), copy(e.Except[:], text("except"))
	if err != nil || e.Scope == "" || tag == "" || n != len(e.Digest) || m != len(e.Except) {
		return e, "", errors.New("redisstore: read revocations: an entry is not what this version writes")
	}
	return e, tag, nil
}

// maxBlock bounds one blocking read: a context that is cancelled, and not at
// its deadline, is noticed after that.
const maxBlock = time.Second

// Wait returns when there may be something after the cursor. It is part of
// revoke.Store. It occupies a connection of the client while it waits.
func (s *Store) Wait(ctx context.Context, from string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, ok := parseCursor(from)
	if !ok {
		return nil
	}
	for {
		block := maxBlock
		if left, ok := clock.Left(ctx); ok {
			block = min(block, left)
		}
		if ctx.Err() != nil || block < time.Millisecond { // 0 would block for ever
			<-ctx.Done()
			return ctx.Err()
		}
		err := s.cfg.Client.XRead(ctx, &redis.XReadArgs{Streams: []string{s.kept(), s.revocations(), c.kept.start(), c.recent.start()}, Count: 1, Block: block}).Err()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, redis.Nil):
			return failed(ctx, "wait for news", err)
		}
	}
}
