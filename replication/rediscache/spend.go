package rediscache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shortline/shortline/replication"
)

// spendScript adds to what a client has used and returns by how much it is ahead, in microseconds. By Redis' clock: those of nodes differ.
// Never more than the burst is kept, so that whoever was let in past a limit does not pay for long. A number as text has 14 digits in Lua
// unless it is told otherwise.
var spendScript = `local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local at = tonumber(redis.call('GET', KEYS[1]) or 0)
if at < now then at = now end
at = math.min(at + ARGV[1] * ARGV[2], now + ARGV[2] * ARGV[3])
redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000) + 1000)
return at - now`

// errNotUsable says that Redis has not been checked yet.
var errNotUsable = errors.New("the cache in Redis cannot be used at the moment")

// Spend counts what clients have used in the whole region, in one round trip to each node of Redis, and returns for each by how much it is
// ahead of what it may use: with the burst times Every it has nothing left. An error means that some or all were not counted.
func (c *Cache) Spend(ctx context.Context, used []replication.Spending) ([]time.Duration, error) {
	if !c.usable.Load() {
		return nil, errNotUsable
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	pipe := c.client.Pipeline()
	answers := make([]*redis.Cmd, len(used))
	for i, u := range used {
		key := "shortline:" + string(c.cfg.Deployment) + ":rate:" + u.Subject
		answers[i] = pipe.Eval(ctx, spendScript, []string{key}, u.N, u.Every.Microseconds(), u.Burst)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("count what clients use: %w", err)
	}
	ahead := make([]time.Duration, len(used))
	for i, a := range answers {
		us, err := a.Int64()
		if err != nil {
			return nil, fmt.Errorf("count what clients use: %w", err)
		}
		ahead[i] = time.Duration(us) * time.Microsecond
	}
	return ahead, nil
}
