package rediscache

import (
	"context"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// landing is where the row of a store comes down that somebody waits for. It exists while there are such, so there are
// never more of them than stores asked for at the moment.
type landing struct {
	waiting int
	row     replication.Row
	exists  bool
	// floor is the greatest rev that a change had since the landing exists: a row that is older was read before it, and must
	// not be written to Redis behind it.
	floor version
	// bad is the SHA-1 of what was found in Redis in place of a value, for the fill to replace it; "": nothing was.
	bad string
}

// load reads stores from next and lets a fill follow. What memory knew when the call began is in what it returns, also if
// it had to wait for a read that another caller began earlier.
func (c *Cache) load(ctx context.Context, missing []*wanted, bad map[shortline.StoreID]string) ([]replication.Row, error) {
	c.land(missing, bad)
	defer c.leave(missing)
	ids := make([]shortline.StoreID, len(missing))
	for i, w := range missing {
		ids[i] = w.id
	}
	if err := c.loader.Load(ctx, ids, func([]replication.Row) {}); err != nil {
		return nil, err
	}
	rows, behind := c.collect(missing)
	if len(behind) == 0 {
		return rows, nil
	}
	// The next read of these stores begins after this call did, whoever begins it, and next is not behind memory.
	if err := c.loader.Load(ctx, behind, func([]replication.Row) {}); err != nil {
		return nil, err
	}
	rows, _ = c.collect(missing)
	return rows, nil
}

func (c *Cache) land(missing []*wanted, bad map[shortline.StoreID]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range missing {
		l := c.landings[w.id]
		if l == nil {
			l = &landing{}
			c.landings[w.id] = l
		}
		l.waiting++
		if sum := bad[w.id]; sum != "" {
			l.bad = sum
		}
		w.landing = l
	}
}

func (c *Cache) leave(missing []*wanted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range missing {
		if w.landing.waiting--; w.landing.waiting == 0 {
			delete(c.landings, w.id)
		}
	}
}

// collect returns what came down, and which stores memory knew to be newer or to exist.
func (c *Cache) collect(missing []*wanted) (rows []replication.Row, behind []shortline.StoreID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range missing {
		switch l := w.landing; {
		case l.exists && l.row.Rev >= w.minRev:
			rows = append(rows, l.row)
		case l.exists:
			rows = append(rows, l.row)
			behind = append(behind, w.id)
		case w.known:
			behind = append(behind, w.id)
		}
	}
	return rows, behind
}

// source is what the Loader reads: next, with what follows a read.
type source struct{ c *Cache }

// Rows reads from next. The lineage is that of before the read: if it changes meanwhile, the rows may be of the former.
func (s source) Rows(ctx context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	c := s.c
	lineage := c.lineage.Load()
	rows, err := c.next.Rows(ctx, ids)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if l := c.landings[id]; l != nil {
			l.row, l.exists = replication.Row{}, false
		}
	}
	for _, row := range rows {
		row.Queue, row.QueueRev = nil, 0 // live state has its own way; the one read here would be found in some answers only
		l := c.landings[row.Store.ID]
		if l == nil || row.Deleted { // the caller who began the read went away
			continue
		}
		l.row, l.exists = row, true
		c.fillLocked(l, version{lineage, row.Rev})
	}
	return rows, nil
}

// fillLocked queues the row for Redis unless a change overtook the read.
func (c *Cache) fillLocked(l *landing, v version) {
	if v.lineage == l.floor.lineage && v.rev < l.floor.rev && !c.floorless {
		c.metrics.writes[overtaken].Inc()
		return
	}
	if w := c.want(l.row.Store.ID); w.cell != 0 && v.rev >= w.minRev {
		store := l.row.Store
		c.enqueueLocked(job{kind: fill, id: store.ID, cell: w.cell, value: value{v, &store}, bad: l.bad})
	}
}

// Apply brings changes to Redis; the feed calls it with every change, in its order, shortly before or after memory takes
// them. It neither blocks nor fails: what finds the queue full, or Redis not answering, is dropped. That is safe, because
// readers hold every value against their own memory, and without a change in between the value lives for TTL at most.
//
// A store that CellOf no longer knows is passed over; so if memory takes changes first, no tombstone is written for a
// deleted store, and a moved one leaves its value under the former cell. Nobody whose memory took the change looks at
// either.
func (c *Cache) Apply(ctx context.Context, changes []shortline.Change) {
	lineage := c.lineage.Load()
	for i := range changes {
		ch := &changes[i]
		put := ch.Kind == shortline.StorePut && ch.Store != nil
		if ctx.Err() != nil || !put && ch.Kind != shortline.StoreDeleted {
			continue
		}
		id := shortline.StoreID(ch.Subject)
		v := value{version: version{lineage, ch.Rev}}
		if put {
			store := *ch.Store
			id, v.store = store.ID, &store
		}
		cell, known := c.cfg.CellOf(id)
		// In one step: a fill either is in the queue already, and this comes after it, or sees the floor and stays away.
		c.mu.Lock()
		if l := c.landings[id]; l != nil && (l.floor.lineage < lineage || l.floor.rev < ch.Rev) {
			l.floor = v.version
		}
		if known {
			c.enqueueLocked(job{kind: change, id: id, cell: cell, value: v})
		}
		c.mu.Unlock()
	}
}
