package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// What is older than anybody needs goes by the server's clock: one of a client that
// is wrong must not take away what the others need.
var appendEnded = redis.NewScript(`
local oldest = string.format('%.0f', (redis.call('TIME')[1] - ARGV[1]) * 1000)
redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'scope', ARGV[2], 'value', ARGV[3], 'before', ARGV[4], 'until', ARGV[5])
return 1`)

// Append adds an ended session. It is part of revoke.Store.
func (s *Store) Append(ctx context.Context, e revoke.Entry) error {
	const doing = "write what was ended"
	if keep := time.Until(e.Until); keep > s.cfg.KeepEnded {
		return fmt.Errorf("redisstore: %s: it has to be kept for %v, and Config.KeepEnded is %v; make that longer than the issuer's MaxSession, and than 30 days for keys", doing, keep.Round(time.Minute), s.cfg.KeepEnded)
	}
	_, err := s.run(ctx, doing, appendEnded, []string{s.ended()},
		int64((s.cfg.KeepEnded + time.Hour).Seconds()), string(e.Scope), e.Value, e.Before.UnixMicro(), e.Until.UnixMicro())
	return err
}

// portion is how many entries Since reads at once: a server that sends a million
// answers nobody else meanwhile.
const portion = 10_000

// noEntry is the cursor of an empty log.
const noEntry = "0-0"

// Since returns what was ended since. It is part of revoke.Store.
//
// The cursor is the id of the last entry that was seen. It is read again, to see
// whether this is still the same log: a server that takes over may lack the last
// entries, and give their ids or earlier ones to others.
func (s *Store) Since(ctx context.Context, cursor string) (entries []revoke.Entry, next string, more bool, err error) {
	const doing = "read what was ended"
	if err := s.ready(ctx, doing, false); err != nil {
		return nil, "", false, err
	}
	if !isID(cursor) {
		cursor = noEntry
	}
	messages, err := s.cfg.Client.XRangeN(ctx, s.ended(), cursor, "+", portion).Result()
	if err == nil && cursor != noEntry && (len(messages) == 0 || messages[0].ID != cursor) {
		cursor = noEntry
		messages, err = s.cfg.Client.XRangeN(ctx, s.ended(), cursor, "+", portion).Result()
	}
	if err != nil {
		return nil, "", false, failed(ctx, doing, err)
	}
	next = cursor
	for _, m := range messages {
		if m.ID == cursor {
			continue
		}
		e, err := entryOf(m.Values)
		if err != nil {
			return nil, "", false, err
		}
		entries, next = append(entries, e), m.ID
	}
	return entries, next, len(messages) == portion, nil
}

func entryOf(values map[string]any) (e revoke.Entry, err error) {
	text := func(name string) string { v, _ := values[name].(string); return v }
	before, err1 := strconv.ParseInt(text("before"), 10, 64)
	until, err2 := strconv.ParseInt(text("until"), 10, 64)
	if text("scope") == "" || err1 != nil || err2 != nil {
		return e, errors.New("redisstore: read what was ended: an entry is not what this version writes")
	}
	return revoke.Entry{Scope: revoke.Scope(text("scope")), Value: text("value"), Before: time.UnixMicro(before).UTC(), Until: time.UnixMicro(until).UTC()}, nil
}

// isID says whether s is the id of an entry in a stream.
func isID(s string) bool {
	ms, seq, _ := strings.Cut(s, "-")
	_, err1 := strconv.ParseUint(ms, 10, 64)
	_, err2 := strconv.ParseUint(seq, 10, 64)
	return err1 == nil && err2 == nil
}

// maxBlock bounds one blocking read: a context that is cancelled, and not at its
// deadline, is noticed after that.
const maxBlock = time.Second

// Wait returns when there may be something after cursor. It is part of
// revoke.Waiter. It occupies a connection of the client while it waits.
func (s *Store) Wait(ctx context.Context, cursor string) error {
	if !isID(cursor) {
		return nil
	}
	for {
		block := maxBlock
		if deadline, ok := ctx.Deadline(); ok {
			block = min(block, time.Until(deadline))
		}
		if ctx.Err() != nil || block < time.Millisecond { // 0 would block for ever
			<-ctx.Done()
			return ctx.Err()
		}
		err := s.cfg.Client.XRead(ctx, &redis.XReadArgs{Streams: []string{s.ended(), cursor}, Count: 1, Block: block}).Err()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, redis.Nil):
			return failed(ctx, "wait for news", err)
		}
	}
}
