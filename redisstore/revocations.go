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

// Revocations are in two streams, whose ids ascend over both. The stream
// revocations holds entries whose Until is within Config.KeepFor, mostly
// sessions, and is trimmed by age. The stream kept holds later ones, such as
// keys, each until its Until, and the births of the store for ever. The sorted
// set kept-until has its entries by their Until. The last entry of each stream
// is never dropped, since cursors name it.
//
// All times are the server's: a client with a wrong clock must not drop entries
// that the others need.
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
	elseif ARGV[i + 5] - now <= 0 then
		-- It is past its Until.
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

// entriesAtOnce is how many entries one script adds. The server serves no other
// client while a script runs.
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
// once. The server serves no other client while it reads them.
const (
	pageSize = 9_000
	keptSize = 1_000
)

// place names an entry of a stream by its id and its tag. The tag is random, so
// that an entry with the same id in another log has another one. The zero place
// is before all entries.
type place struct{ id, tag string }

func (p place) String() string { return p.start() + "." + p.tag }

// start returns the id as commands take it.
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

// isID reports whether s has the form of an entry's id.
func isID(s string) bool {
	ms, seq, _ := strings.Cut(s, "-")
	_, err1 := strconv.ParseUint(ms, 10, 64)
	_, err2 := strconv.ParseUint(seq, 10, 64)
	return err1 == nil && err2 == nil
}

// A cursor names the last entry of each stream that was read.
type cursor struct{ kept, recent place }

func (c cursor) String() string { return c.kept.String() + "/" + c.recent.String() }

func parseCursor(s string) (c cursor, ok bool) {
	kept, recent, _ := strings.Cut(s, "/")
	var ok1, ok2 bool
	c.kept, ok1 = parsePlace(kept)
	c.recent, ok2 = parsePlace(recent)
	return c, ok1 && ok2
}

// errUnknownCursor: the log lacks an entry that the cursor names. The server
// has taken over without it, was emptied, or is another one.
var errUnknownCursor = errors.New("the cursor is of another log")

// Since returns the entries after a cursor. It is part of revoke.Store.
//
// It reads the entries that the cursor names again, to check that the log is
// the same: a server that takes over may lack the last entries, and give their
// ids to others.
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
		// Read kept first: a birth is written last, and must not be seen
		// without the entries before it.
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
	// If a stream was not read to its end, its next entry may come before some
	// of the other stream.
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

// upTo returns the entries up to a place.
func upTo(entries []placed, last place) []placed {
	for len(entries) > 0 && last.before(entries[len(entries)-1].place) {
		entries = entries[:len(entries)-1]
	}
	return entries
}

// read returns the entries after from, which must be the first message.
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

// maxBlock bounds one blocking read, after which a cancelled context is
// noticed.
const maxBlock = time.Second

// Wait returns when there may be entries after a cursor. It is part of
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
