package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// failed adds to an error what to do about it, if that is known. If ctx has
// ended, it returns ctx's error.
func failed(ctx context.Context, doing string, err error) error {
	return failedIn(ctx, doing, "", err)
}

// failedIn is failed for an error of a script with that text.
func failedIn(ctx context.Context, doing, script string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if advice := adviceOn(err, script); advice != "" {
		return fmt.Errorf("redisstore: %s: %s: %w", doing, advice, err)
	}
	return fmt.Errorf("redisstore: %s: %w", doing, err)
}

// commands are the commands that the package documentation lists.
const commands = "+del +eval +evalsha +exists +get +hget +hmget +hset +pexpireat +pttl +set +time +xadd +xdel +xrange +xread +xrevrange " +
	"+zadd +zrange +zrangebyscore +zrem +zremrangebyscore"

var (
	refusedCommand = regexp.MustCompile(`run the '([a-z|]+)' command`)
	scriptLine     = regexp.MustCompile(`user_script: ?([0-9]+)`)
	calledCommand  = regexp.MustCompile(`redis\.call\('([A-Z]+)'`)
)

// lacked returns the ACL rules that grant what a user was refused: one rule, if
// the server names the command. For a command within a script, servers before
// Redis 7.2 return its line alone.
func lacked(text, script string) string {
	if m := refusedCommand.FindStringSubmatch(text); m != nil {
		return "+" + m[1]
	}
	if m := scriptLine.FindStringSubmatch(text); m != nil && script != "" {
		n, _ := strconv.Atoi(m[1])
		if lines := strings.Split(script, "\n"); 0 < n && n <= len(lines) {
			var rules []string
			for _, called := range calledCommand.FindAllStringSubmatch(lines[n-1], -1) {
				rules = append(rules, "+"+strings.ToLower(called[1]))
			}
			if len(rules) > 0 {
				return strings.Join(rules, " ")
			}
		}
	}
	return commands
}

// advice says what to do about an error of Redis, by the first word of its
// text.
var advice = map[string]string{
	"NOAUTH":      "the server wants a password; give one to the client",
	"WRONGPASS":   "the server refuses the user or the password of the client",
	"READONLY":    "the server is a replica; connect to the master, through Sentinel say",
	"OOM":         "the server's memory is full; raise its maxmemory",
	"MISCONF":     "the server cannot write to its disk; is that full",
	"LOADING":     "the server is starting",
	"CLUSTERDOWN": "the Cluster is not whole; see CLUSTER INFO",
	"WRONGTYPE":   "a key with the prefix is not what this version writes; use another prefix",
}

func adviceOn(err error, script string) string {
	if errors.Is(err, errReplica) {
		return advice["READONLY"]
	}
	text := err.Error()
	word, _, _ := strings.Cut(text, " ")
	if word == "NOPERM" || strings.Contains(text, "The user executing the script can't") {
		return "the server's user may not do that; permit " + lacked(text, script) + " to it in its ACL, on keys that begin with the prefix in braces"
	}
	if a := advice[word]; a != "" {
		return a
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return "the server cannot be reached; check that it runs, and its address"
	}
	return ""
}
