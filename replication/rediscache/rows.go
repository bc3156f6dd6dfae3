package rediscache

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// wanted is one store that a call of Rows asks for.
type wanted struct {
	id      shortline.StoreID
	cell    geo.Cell // zero: it bypasses Redis
	minRev  uint64   // as memory had it when the call began
	known   bool     // whether memory knows the store
	landing *landing // where what is read from next comes down
}

// Rows returns those of the stores that exist, in no particular order: from Redis what is there and not older than memory,
// the rest from next. Only an error of next, or the end of ctx, is an error. The rows have no queue.
func (c *Cache) Rows(ctx context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	lineage := c.lineage.Load()
	rows := make([]replication.Row, 0, len(ids))
	seen := make(map[shortline.StoreID]bool, len(ids))
	var cells []geo.Cell // in the order they were met
	byCell := map[geo.Cell][]*wanted{}
	var missing []*wanted
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		w := c.want(id)
		if w.cell == 0 {
			c.metrics.reads[bypassed].Inc()
			missing = append(missing, w)
			continue
		}
		if byCell[w.cell] == nil {
			cells = append(cells, w.cell)
		}
		byCell[w.cell] = append(byCell[w.cell], w)
	}
	bad := map[shortline.StoreID]string{}
	if len(cells) > 0 {
		hits, misses := c.lookUp(ctx, lineage, cells, byCell, bad)
		rows, missing = append(rows, hits...), append(missing, misses...)
	}
	if len(missing) == 0 {
		return rows, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	loaded, err := c.load(ctx, missing, bad)
	if err != nil {
		return nil, err
	}
	return append(rows, loaded...), nil
}

func (c *Cache) want(id shortline.StoreID) *wanted {
	w := &wanted{id: id}
	if c.cfg.MinRev != nil {
		w.minRev, w.known = c.cfg.MinRev(id)
		if !w.known { // deleted, as far as memory knows: Redis may hold it still
			return w
		}
	}
	if cell, ok := c.cfg.CellOf(id); ok && c.usable.Load() {
		w.cell = cell
	}
	return w
}

// lookUp asks Redis with one MGET a cell, all in one round trip. It adds the values that are not ours to bad, by their
// SHA-1.
func (c *Cache) lookUp(ctx context.Context, lineage uint64, cells []geo.Cell, byCell map[geo.Cell][]*wanted, bad map[shortline.StoreID]string) (rows []replication.Row, missing []*wanted) {
	// Without the caller's deadline: that a caller gave up says nothing about Redis.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.ReadTimeout)
	defer cancel()
	pipe := c.client.Pipeline()
	replies := make([]*redis.SliceCmd, len(cells))
	for i, cell := range cells {
		keys := make([]string, len(byCell[cell]))
		for j, w := range byCell[cell] {
			keys[j] = c.key(cell, w.id)
		}
		replies[i] = pipe.MGet(bounded, keys...)
	}
	began := time.Now()
	_, _ = pipe.Exec(bounded) // each reply has its own error
	c.metrics.seconds.Observe(time.Since(began).Seconds())
	for i, cell := range cells {
		asked := byCell[cell]
		values, err := replies[i].Result()
		if err != nil || len(values) != len(asked) {
			outcome := failed
			if errors.Is(err, errSkipped) {
				outcome = skipped
			}
			c.metrics.reads[outcome].Add(float64(len(asked)))
			missing = append(missing, asked...)
			continue
		}
		for j, w := range asked {
			row, outcome := c.judge(w, lineage, values[j])
			c.metrics.reads[outcome].Inc()
			switch outcome {
			case hit:
				rows = append(rows, row)
				continue
			case garbage:
				sum := sha1.Sum([]byte(values[j].(string)))
				bad[w.id] = hex.EncodeToString(sum[:])
			}
			missing = append(missing, w)
		}
	}
	return rows, missing
}

// judge says what a reply is worth. A tombstone is no answer: that a store is gone is for the database to say, for it may
// have come back. A key that does not hold a string looks like one that is not there; a fill replaces it.
func (c *Cache) judge(w *wanted, lineage uint64, reply any) (replication.Row, outcome) {
	text, ok := reply.(string)
	if !ok {
		return replication.Row{}, absent
	}
	v, err := decodeValue(c.owner, w.id, text)
	switch {
	case err != nil:
		c.log.Debug("a value in Redis is not ours", "store", w.id, "err", err)
		return replication.Row{}, garbage
	case v.lineage != lineage && !c.unchecked:
		return replication.Row{}, otherLineage
	case v.store == nil:
		return replication.Row{}, tombstone
	case v.rev < w.minRev && !c.unchecked:
		return replication.Row{}, outdated
	}
	return replication.Row{Store: *v.store, Rev: v.rev}, hit
}
