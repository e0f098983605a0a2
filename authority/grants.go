package authority

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/sessiontoken/sessiontoken/keys"
)

// maxGrant is how many bytes a grant has at most.
const maxGrant = 64 << 10

// grantStore is the oidclogin.GrantStore of a [Memory].
type grantStore struct {
	mu     sync.Mutex
	last   uint64 // the last revision that was given
	grants map[grantName]*grant
}

type grantName struct{ namespace, key string }

// grant is kept by a pointer, so that %+v of a store prints an address.
type grant struct {
	sealed []byte
	rev    string
}

// LoadGrant returns a grant and its revision, or nil and "" if there is none.
func (s *grantStore) LoadGrant(ctx context.Context, namespace, key string) (sealed []byte, rev string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.grants[grantName{namespace, key}]; g != nil {
		return bytes.Clone(g.sealed), g.rev, nil
	}
	return nil, "", nil
}

// SaveGrant replaces a grant of that revision, or deletes it if sealed is
// empty. Another revision is [keys.ErrConflict].
func (s *grantStore) SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (newRev string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if len(sealed) > maxGrant {
		return "", errors.New("authority: a grant is too long")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name, found := grantName{namespace, key}, ""
	if g := s.grants[name]; g != nil {
		found = g.rev
	}
	switch {
	case found != rev:
		return "", keys.ErrConflict
	case len(sealed) == 0:
		delete(s.grants, name)
		return "", nil
	case s.grants == nil:
		s.grants = map[grantName]*grant{}
	}
	s.last++
	newRev = strconv.FormatUint(s.last, 10)
	s.grants[name] = &grant{bytes.Clone(sealed), newRev}
	return newRev, nil
}
