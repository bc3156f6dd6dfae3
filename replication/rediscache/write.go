package rediscache

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

type jobKind uint8

const (
	fill jobKind = iota
	change
)

// job is a value to be written.
type job struct {
	kind  jobKind
	id    shortline.StoreID
	cell  geo.Cell
	value value
	bad   string // the SHA-1 of what the value may replace whatever version it seems to have
}

// batchSize is how many jobs go to Redis in one round trip.
const batchSize = 64

// enqueueLocked drops the job if the queue is full; c.mu is held, so that jobs of a store stand in the order of events.
func (c *Cache) enqueueLocked(j job) {
	if !c.usable.Load() {
		c.metrics.writes[dropped].Inc()
		return
	}
	c.pending.Add(1)
	select {
	case c.queue <- j:
	default:
		c.pending.Add(-1)
		c.metrics.writes[dropped].Inc()
	}
}

// Run writes fills and changes to Redis, in order, until ctx ends; then it returns nil, and what waits is dropped.
func (c *Cache) Run(ctx context.Context) error {
	c.seek(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-c.queue:
			jobs := append(make([]job, 0, batchSize), first)
			for len(jobs) < batchSize && len(c.queue) > 0 { // nobody else takes from it
				jobs = append(jobs, <-c.queue)
			}
			if c.late != nil {
				c.late(jobs)
			} else {
				c.write(ctx, jobs)
			}
			c.pending.Add(-int64(len(jobs)))
		}
	}
}

// script puts a value in place unless there is one of the same or a greater version. What is not a value of ours, by its
// looks or by the judgement of the reader who tells its SHA-1, goes. It returns 0 where it kept what was there, 1 where it
// wrote, 2 where it wrote over something that was not ours.
const script = `
local new, old = ARGV[1], redis.pcall('GET', KEYS[1])
local result = 1
if type(old) == 'table' then
  result = 2
elseif old then
  if string.sub(old, 1, 4) ~= 'SL1:' or not string.match(string.sub(old, 5, 44), '^%d+$') or #old < 45 or redis.sha1hex(old) == ARGV[3] then
    result = 2
  elseif ARGV[4] ~= '0' and string.sub(old, 5, 44) >= string.sub(new, 5, 44) then
    return 0
  end
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return result`

// write sends jobs in one round trip. It sends the script's text each time, which Redis compiles once: a node that took
// over or was restarted does not know scripts by their hash, and within a pipeline one could not tell it.
func (c *Cache) write(ctx context.Context, jobs []job) {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	versioned := "1"
	if c.unversioned {
		versioned = "0"
	}
	pipe := c.client.Pipeline()
	var replies []*redis.Cmd
	for _, j := range jobs {
		if j.kind == fill && c.isOld(j) {
			c.metrics.writes[overtaken].Inc()
			continue
		}
		text, err := encodeValue(c.owner, j.id, j.value)
		if err != nil {
			c.log.Debug("a store cannot be cached", "store", j.id, "err", err)
			c.metrics.writes[unfit].Inc()
			continue
		}
		replies = append(replies, pipe.Eval(bounded, script, []string{c.key(j.cell, j.id)}, text, c.ttl().Milliseconds(), j.bad, versioned))
	}
	if len(replies) == 0 {
		return
	}
	_, _ = pipe.Exec(bounded) // each reply has its own error
	for _, r := range replies {
		n, err := r.Int()
		c.metrics.writes[written(n, err)].Inc()
	}
}

func written(n int, err error) writeOutcome {
	switch {
	case errors.Is(err, errSkipped):
		return passedOver
	case err != nil:
		return lost
	case n == 0:
		return kept
	case n == 2:
		return replaced
	}
	return stored
}

// isOld tells whether memory has come past a fill while it waited.
func (c *Cache) isOld(j job) bool {
	if j.value.lineage < c.lineage.Load() {
		return true
	}
	w := c.want(j.id)
	return c.cfg.MinRev != nil && (!w.known || j.value.rev < w.minRev)
}

// ttl differs from value to value, so that what was written together does not end together.
func (c *Cache) ttl() time.Duration {
	return c.cfg.TTL*9/10 + rand.N(c.cfg.TTL/5+1)
}
