package sessionclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// grant holds the tokens of one exchange.
type grant struct {
	access, refresh string
	life            time.Duration // of the access token
	age             time.Duration // at the instant at
	at              clock.Instant
	renewAt         time.Duration // the age at which it is due
}

func newGrant(t Tokens, at clock.Instant) *grant {
	g := &grant{access: t.AccessToken, refresh: t.RefreshToken, life: time.Duration(t.ExpiresIn) * time.Second, at: at}
	g.jitter()
	return g
}

// jitter sets when the grant is due: at 75 to 85 % of its life.
func (g *grant) jitter() { g.renewAt = g.life*3/4 + rand.N(g.life/10+1) }

func (g *grant) expires() time.Time { return g.at.Wall().Add(g.life - g.age) }

func (g *grant) due(c *clock.Clock) bool { return g.age+c.Age(g.at) >= g.renewAt }

func (g *grant) good(c *clock.Clock, margin time.Duration) bool {
	return g.age+c.Age(g.at) < g.life-min(margin, g.life/4)
}

// record is the text that a Keeper holds.
type record struct {
	Version  int    `json:"version"`
	Server   string `json:"server"` // the origin that the refresh token is sent to
	Access   string `json:"access_token"`
	Refresh  string `json:"refresh_token"`
	Received int64  `json:"received"` // Unix milliseconds of this machine
	Life     int64  `json:"life"`     // milliseconds from Received
}

const (
	recordVersion = 1
	maxRecord     = 64 << 10 // bytes
)

var (
	errNoRecord    = fmt.Errorf("%w: there is no session", ErrSignIn)
	errBadRecord   = fmt.Errorf("%w: the record cannot be read", ErrSignIn)
	errOtherServer = fmt.Errorf("%w: the record is of another server than that of Config.TokenURL", ErrSignIn)
)

// encode returns the record of a grant.
func (g *grant) encode(server string) ([]byte, error) {
	return json.Marshal(record{recordVersion, server, g.access, g.refresh, g.at.Wall().Add(-g.age).UnixMilli(), g.life.Milliseconds()})
}

// decode returns the grant of a record. An access token that seems to have been
// received in the future, by a clock that was set back since, counts as expired.
func decode(data []byte, server string, now clock.Instant) (*grant, error) {
	var r record
	if len(data) > maxRecord || json.Unmarshal(data, &r) != nil || r.Version != recordVersion {
		return nil, errBadRecord
	}
	life := r.Life / 1000
	if (Tokens{r.Access, "", life, r.Refresh}).check() != nil {
		return nil, errBadRecord
	}
	if r.Server != server {
		return nil, errOtherServer
	}
	g := &grant{access: r.Access, refresh: r.Refresh, life: time.Duration(life) * time.Second, at: now}
	g.age = clock.Between(time.UnixMilli(r.Received), now.Wall())
	if g.age < 0 {
		g.age = g.life
	}
	g.jitter()
	return g, nil
}

const (
	maxToken = 16 << 10 // bytes
	maxLife  = 366 * 24 * 3600
)

// check returns an error unless the tokens can be used. Its text holds no part
// of them.
func (t Tokens) check() error {
	switch {
	case t.TokenType != "" && !strings.EqualFold(t.TokenType, "Bearer"):
		return errors.New("the token_type is not Bearer")
	case !isToken(t.AccessToken):
		return errors.New("the access_token is missing or malformed")
	case !isToken(t.RefreshToken):
		return errors.New("the refresh_token is missing or malformed")
	case t.ExpiresIn < 0 || t.ExpiresIn > maxLife:
		return errors.New("the expires_in is out of range")
	}
	return nil
}

// isToken reports whether s can be sent in a header: visible ASCII.
func isToken(s string) bool {
	return s != "" && len(s) <= maxToken && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// lock takes the keeper's lock.
func (c *Client) lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	unlock, err = c.cfg.Keeper.Lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("locking the record: %w", err)
	}
	return unlock, nil
}

// load returns the grant of the record, or nil if there is none. The lock is
// held, as for save.
func (c *Client) load(ctx context.Context) (*grant, error) {
	data, err := c.cfg.Keeper.Load(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("loading the record: %w", err)
	case len(data) == 0:
		return nil, nil
	}
	return decode(data, c.server, c.clock.Read())
}

func (c *Client) save(ctx context.Context, g *grant) error {
	data, err := g.encode(c.server)
	if err == nil {
		err = c.cfg.Keeper.Save(ctx, data)
	}
	if err != nil {
		return fmt.Errorf("saving the record: %w", err)
	}
	return nil
}
