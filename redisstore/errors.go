package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// failed says what to do about an error, where that is known. One of a context that
// has ended is the context's.
func failed(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if advice := adviceOn(err); advice != "" {
		return fmt.Errorf("redisstore: %s: %s: %w", doing, advice, err)
	}
	return fmt.Errorf("redisstore: %s: %w", doing, err)
}

// advice has what to do about the errors of Redis, by the word that they begin with.
var advice = map[string]string{
	"NOAUTH":      "the server wants a password; give one to the client",
	"WRONGPASS":   "the server refuses the user or the password of the client",
	"NOPERM":      "the server's user may not do that; its ACL has to permit the commands of this package on keys that begin with the prefix",
	"READONLY":    "the server is a replica; connect to the master, through Sentinel say",
	"OOM":         "the server's memory is full; raise its maxmemory",
	"MISCONF":     "the server cannot write to its disk; is that full",
	"LOADING":     "the server is starting",
	"CLUSTERDOWN": "the Cluster is not whole; see CLUSTER INFO",
	"WRONGTYPE":   "a key with the prefix is not what this version writes; use another prefix",
}

func adviceOn(err error) string {
	if errors.Is(err, errReplica) {
		return advice["READONLY"]
	}
	text := err.Error()
	word, _, _ := strings.Cut(text, " ")
	if a := advice[word]; a != "" {
		return a
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return "the server cannot be reached; check that it runs, and its address"
	}
	return ""
}
