// Command redis keeps a session in the Redis whose address it is given.
package main

import (
	"context"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/redisstore"
)

func main() {
	client := redis.NewClient(&redis.Options{Addr: os.Args[1], ContextTimeoutEnabled: true})
	session(context.Background(), must(redisstore.New(redisstore.Config{Client: client})))
}
