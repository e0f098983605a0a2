package bench

import (
	"context"
	"encoding/gob"
	"fmt"
	"time"

	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/gomodule/redigo/redis"
)

func init() { gob.Register(State{}) }

// openSCSMemory is a session store in the process: what only one replica can
// have.
func openSCSMemory(_ Servers, subjects []string, life time.Duration) (*Opened, error) {
	store := memstore.NewWithCleanupInterval(time.Minute)
	return openSCS(store, subjects, life, store.StopCleanup)
}

// openSCSRedis is a session store that replicas share.
func openSCSRedis(s Servers, subjects []string, life time.Duration) (*Opened, error) {
	pool := &redis.Pool{MaxIdle: 32, Dial: func() (redis.Conn, error) { return redis.Dial("tcp", s.Redis) }}
	return openSCS(redisstore.New(pool), subjects, life, func() { _ = pool.Close() })
}

func openSCS(store scs.Store, subjects []string, life time.Duration, done func()) (*Opened, error) {
	m := scs.New()
	m.Store = store
	m.Lifetime = life
	o := &Opened{Close: done}
	for _, subject := range subjects {
		ctx, err := m.Load(context.Background(), "")
		if err != nil {
			return nil, fmt.Errorf("bench: scs: %w", err)
		}
		m.Put(ctx, "subject", subject)
		m.Put(ctx, "state", SampleState())
		token, _, err := m.Commit(ctx)
		if err != nil {
			return nil, fmt.Errorf("bench: scs: %w", err)
		}
		o.Presented = append(o.Presented, token)
	}
	o.Read = func(ctx context.Context, token string) (string, State, error) {
		ctx, err := m.Load(ctx, token)
		if err != nil {
			return "", State{}, err
		}
		state, ok := m.Get(ctx, "state").(State)
		if !ok {
			return "", State{}, ErrRefused
		}
		return m.GetString(ctx, "subject"), state, nil
	}
	return o, nil
}
