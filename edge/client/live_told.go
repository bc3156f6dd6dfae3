package client

import (
	"maps"
	"slices"
	"time"

	"github.com/shortline/shortline"
)

// holdBack is how long after a move an older value than the one told is kept back. A node that is behind catches up in less. Where
// it does not, the newer value was lost in a failover, or was dated by a clock that was fast: then what the node says counts.
const holdBack = 10 * time.Second

// told is what a Live has told of each store, so that it does not go back when it moves to a node that is behind. On one
// connection nothing goes back, so nothing is held against it there.
type told struct {
	queues map[shortline.StoreID]Queue // what was told last
	held   map[shortline.StoreID]Queue // older, came since the move
	until  time.Time                   // the end of holding back
}

// moved begins to hold back.
func (t *told) moved(now time.Time) {
	t.held, t.until = map[shortline.StoreID]Queue{}, now.Add(holdBack)
}

// newest returns the newer one of what came and what was told, and whether that is what came.
func (t *told) newest(q Queue, now time.Time) (Queue, bool) {
	if before, ok := t.queues[q.ID]; ok && now.Before(t.until) && q.UpdatedAt.Before(before.UpdatedAt) {
		t.held[q.ID] = q
		before.AgeS = max(0, now.Sub(before.UpdatedAt).Seconds())
		return before, false
	}
	delete(t.held, q.ID)
	t.queues[q.ID] = q
	return q, true
}

// pass returns the event as it is to be told; false: not at all.
func (t *told) pass(e LiveEvent, named []shortline.StoreID, now time.Time) (LiveEvent, bool) {
	if t.queues == nil {
		t.queues = map[shortline.StoreID]Queue{}
	}
	fresh := true
	switch e.Kind {
	case LiveSnapshot:
		if e.Area { // what is not in it any more is not followed any more
			maps.DeleteFunc(t.queues, func(id shortline.StoreID, _ Queue) bool {
				return !slices.Contains(named, id) && !slices.ContainsFunc(e.Stores, func(s LiveStore) bool { return s.ID == id })
			})
		}
		for i := range e.Stores {
			e.Stores[i].Queue, _ = t.newest(e.Stores[i].Queue, now)
		}
	case LiveChanged:
		e.Queue, fresh = t.newest(e.Queue, now)
	case LiveRemoved:
		delete(t.queues, e.ID)
		delete(t.held, e.ID)
	}
	return e, fresh
}

// release returns what was held back and is to be told now.
func (t *told) release() []Queue {
	var all []Queue
	for id, q := range t.held {
		if _, followed := t.queues[id]; followed {
			t.queues[id] = q
			all = append(all, q)
		}
	}
	t.held, t.until = nil, time.Time{}
	return all
}
