package replication

import (
	"container/list"
	"hash/maphash"
	"sync"
)

// lanes are the writes that wait: a queue for each lane, first come first served, and one bound over all of them.
type lanes struct {
	maxItems   int
	maxWaiting int
	seed       maphash.Seed
	each       []lane

	mu      sync.Mutex
	down    bool // guarded by mu
	waiting int  // guarded by mu: items in all queues
}

type lane struct {
	queue list.List     // of *pending; guarded by lanes.mu
	wake  chan struct{} // holds one when there may be something new for a worker that found nothing
}

// pending is one write on its way.
type pending struct {
	write Write
	lane  *lane
	place *list.Element // guarded by lanes.mu: in the queue of lane; nil once it is taken or withdrawn
	done  chan outcome  // holds one
}

func newLanes(n, maxItems, maxWaiting int) *lanes {
	l := &lanes{maxItems: maxItems, maxWaiting: maxWaiting, seed: maphash.MakeSeed(), each: make([]lane, n)}
	for i := range l.each {
		l.each[i].wake = make(chan struct{}, 1)
	}
	return l
}

// of returns the lane of a write. Several stores have the last lane, if there is more than one; a single store, or API key,
// has one of the others by hash of its id. The same items make for the same lane, so a request that is sent again is behind
// the original and not beside it, where it would wait for the idempotency row.
func (l *lanes) of(w *Write) int {
	several := len(l.each) - 1
	if several == 0 {
		return 0
	}
	id := w.Items[0].subject()
	for i := range w.Items[1:] {
		if w.Items[i+1].subject() != id {
			return several
		}
	}
	return int(maphash.String(l.seed, id) % uint64(several))
}

// subject is the id of what the item writes.
func (it *Item) subject() string {
	switch {
	case it.Queue != nil:
		return string(it.Queue.ID)
	case it.Put != nil:
		return string(it.Put.ID)
	case it.Key != nil:
		return string(it.Key.ID)
	default:
		return string(it.Delete)
	}
}

// add puts the write at the end of its lane. The error is ErrClosed or ErrOverloaded.
func (l *lanes) add(w Write) (*pending, error) {
	p := &pending{write: w, lane: &l.each[l.of(&w)], done: make(chan outcome, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, ErrClosed
	}
	n := len(w.Items)
	if l.waiting > 0 && l.waiting+n > l.maxWaiting { // one large write is let in where nothing waits
		return nil, ErrOverloaded
	}
	l.waiting += n
	p.place = p.lane.queue.PushBack(p)
	p.lane.notify()
	return p, nil
}

// withdraw takes a write that still waits out of its lane, and tells whether it did.
func (l *lanes) withdraw(p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.place == nil {
		return false
	}
	l.removeLocked(p)
	return true
}

func (l *lanes) removeLocked(p *pending) {
	p.lane.queue.Remove(p.place)
	p.place = nil
	l.waiting -= len(p.write.Items)
}

// take takes what waits in the lane, in order and up to maxItems items, but at least one write. open is
// false once nothing more comes in.
func (l *lanes) take(from *lane) (batch []*pending, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for items := 0; ; {
		e := from.queue.Front()
		if e == nil {
			return batch, !l.down
		}
		p := e.Value.(*pending)
		if items += len(p.write.Items); items > l.maxItems && len(batch) > 0 {
			return batch, !l.down
		}
		l.removeLocked(p)
		batch = append(batch, p)
	}
}

// close lets nothing more in, and wakes every worker to find that out.
func (l *lanes) close() {
	l.mu.Lock()
	l.down = true
	l.mu.Unlock()
	for i := range l.each {
		l.each[i].notify()
	}
}

func (l *lanes) items() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

func (l *lane) notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
