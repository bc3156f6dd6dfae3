package replication

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// waiting are the writes that wait to be committed, in the order in which they came, and what is under way. A write whose
// stores are all free goes into the next transaction; one to a store that is being written waits for that transaction, and
// so do later writes that have a store in common with it, so that none is overtaken.
type waiting struct {
	maxItems, maxWaiting, maxFlying int
	linger                          time.Duration
	seed                            maphash.Seed
	wake                            chan struct{} // holds one when there may be something to begin or to end

	mu     sync.Mutex
	down   bool                // guarded by mu
	items  int                 // guarded by mu: in queue
	queue  list.List           // of *pending; guarded by mu
	flying int                 // guarded by mu: transactions under way
	busy   map[uint64]struct{} // guarded by mu: subjects of these
	armed  bool                // guarded by mu: whoever begins transactions will look by itself, or has been told to
}

// pending is one write on its way.
type pending struct {
	write    Write
	subjects []uint64 // hashes of the ids of what it writes; that two ids have one costs time and nothing else
	since    time.Time
	place    *list.Element // guarded by waiting.mu: in the queue; nil once it is taken or withdrawn
	done     chan outcome  // holds one
	span     trace.Span    // nil: it belongs to no trace that is recorded
}

// batch is what one transaction is to write.
type batch struct {
	writes []*pending
	items  int
	oldest time.Time
	holds  map[uint64]struct{} // subjects, for as long as it is under way
}

func newWaiting(maxItems, maxWaiting, maxFlying int, linger time.Duration) *waiting {
	return &waiting{maxItems: maxItems, maxWaiting: maxWaiting, maxFlying: maxFlying, linger: linger, seed: maphash.MakeSeed(),
		wake: make(chan struct{}, 1), busy: map[uint64]struct{}{}}
}

// Subject is the id of what the item writes: a store or a key.
func (it *Item) Subject() string {
	switch {
	case it.Queue != nil:
		return string(it.Queue.ID)
	case it.Put != nil:
		return string(it.Put.ID)
	case it.Key != nil:
		return string(it.Key.ID)
	case it.Use != nil:
		return string(it.Use.ID)
	default:
		return string(it.Delete)
	}
}

// add puts the write at the end. The error is ErrClosed or ErrOverloaded.
func (q *waiting) add(w Write, s trace.Span) (*pending, error) {
	n := len(w.Items)
	p := &pending{write: w, subjects: make([]uint64, n), since: time.Now(), done: make(chan outcome, 1), span: s}
	for i := range w.Items {
		p.subjects[i] = maphash.String(q.seed, w.Items[i].Subject())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return nil, ErrClosed
	}
	if q.items > 0 && q.items+n > q.maxWaiting { // one large write is let in where nothing waits
		return nil, ErrOverloaded
	}
	full := q.items < q.maxItems && q.items+n >= q.maxItems
	q.items += n
	p.place = q.queue.PushBack(p)
	if (full || !q.armed) && q.flying < q.maxFlying {
		q.armed = true
		q.notify()
	}
	return p, nil
}

// withdraw takes a write that still waits out of the queue, and tells whether it did.
func (q *waiting) withdraw(p *pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.place == nil {
		return false
	}
	q.removeLocked(p)
	return true
}

func (q *waiting) removeLocked(p *pending) {
	q.queue.Remove(p.place)
	p.place = nil
	q.items -= len(p.write.Items)
}

// next takes the writes of the next transaction if it is time for one; end gives their stores free. If it is not, look says
// when it may be; zero: not before something wakes. open is false once nothing comes any more.
//
// With no transaction under way it is time at once. With n, when there is enough for a full one or the oldest write that can
// go has waited n times linger: transactions that are durable quickly are few and large, and of those that wait for a standby
// far away many are under way.
func (q *waiting) next(now time.Time) (b batch, look time.Time, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.armed = false
	if q.flying >= q.maxFlying || q.queue.Len() == 0 {
		return batch{}, time.Time{}, !q.down || q.queue.Len() > 0
	}
	b = q.readyLocked()
	if len(b.writes) == 0 {
		return batch{}, time.Time{}, true
	}
	due := b.oldest.Add(time.Duration(q.flying) * q.linger)
	if q.flying > 0 && b.items < q.maxItems && !q.down && now.Before(due) {
		q.armed = true
		return batch{}, due, true
	}
	for _, p := range b.writes {
		q.removeLocked(p)
	}
	for id := range b.holds {
		q.busy[id] = struct{}{}
	}
	q.flying++
	q.armed = true // whoever took this looks again
	return b, time.Time{}, true
}

// maxPassed bounds how many items that cannot go are passed over in search of some that can, in transactions' worth. Behind
// more than that, what is free waits until a transaction ends.
const maxPassed = 4

// readyLocked finds what may go now, in order and up to maxItems items, but at least one write.
func (q *waiting) readyLocked() batch {
	b := batch{holds: make(map[uint64]struct{}, min(q.items, q.maxItems))}
	var behind map[uint64]struct{} // subjects of writes that were passed over
	passed := 0
	for e := q.queue.Front(); e != nil && passed < maxPassed*q.maxItems; e = e.Next() {
		p := e.Value.(*pending)
		if q.free(p, behind) {
			if len(b.writes) == 0 {
				b.oldest = p.since
			}
			if b.items += len(p.write.Items); b.items > q.maxItems && len(b.writes) > 0 {
				return b
			}
			b.writes = append(b.writes, p)
			for _, id := range p.subjects {
				b.holds[id] = struct{}{}
			}
			continue
		}
		if behind == nil {
			behind = make(map[uint64]struct{}, min(q.items, maxPassed*q.maxItems))
		}
		for _, id := range p.subjects {
			behind[id] = struct{}{}
		}
		passed += len(p.subjects)
	}
	return b
}

// free tells whether nothing that the write speaks of is under way or is spoken of by a write that it must not overtake.
func (q *waiting) free(p *pending, behind map[uint64]struct{}) bool {
	for _, id := range p.subjects {
		if _, is := q.busy[id]; is {
			return false
		}
		if _, is := behind[id]; is {
			return false
		}
	}
	return true
}

// end says that a transaction is over.
func (q *waiting) end(b batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id := range b.holds {
		delete(q.busy, id)
	}
	q.flying--
	q.armed = true
	q.notify()
}

// close lets nothing more in. What waits goes as soon as it can.
func (q *waiting) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.down = true
	q.notify()
}

func (q *waiting) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items
}

func (q *waiting) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
