package edge

import (
	"container/list"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shortline/shortline/replication"
)

// maxOverloads is how often a write is tried that the primary region is too busy for.
const maxOverloads = 3

// scanEvery is how often parked writes are looked through at most; there may be many thousands.
const scanEvery = 5 * time.Millisecond

// forwardQueue decides which write goes to which node and when. It does no I/O and reads no clock; its owner locks.
type forwardQueue struct {
	cfg    *ForwarderConfig
	peers  []PeerNode
	lanes  []*peerLane
	parked *list.List // writes that have no node at the moment, or wait to be tried again
	budget retryBudget
	down   bool
	items  int // held or under way
	bytes  int

	rescan   bool // something changed for the parked writes
	lastScan time.Time
}

// peerLane is what waits for one node, and how that node is doing.
type peerLane struct {
	peer       PeerNode
	queue      *list.List
	inFlight   int
	fails      int // requests in a row that failed
	avoidUntil time.Time
}

// spot is where a write is: in a list, or nowhere while it is under way.
type spot struct {
	in *list.List
	at *list.Element
}

// forwardBatch is one request.
type forwardBatch struct {
	lane   *peerLane
	writes []*heldWrite
	bytes  int
	retry  bool // has a write that was sent before
}

func newForwardQueue(cfg *ForwarderConfig) forwardQueue {
	return forwardQueue{cfg: cfg, parked: list.New(), budget: retryBudget{ratio: cfg.RetryRatio, perSecond: cfg.RetryMin, tokens: max(cfg.RetryMin, 1)}}
}

func place(p *heldWrite, in *list.List) { p.spot = spot{in, in.PushBack(p)} }

func unplace(p *heldWrite) {
	p.spot.in.Remove(p.spot.at)
	p.spot = spot{}
}

// add takes a write in, or says why not. One large write is let into an empty queue.
func (q *forwardQueue) add(p *heldWrite, now time.Time) error {
	if q.down {
		return replication.ErrClosed
	}
	if q.items > 0 && (q.items+p.items > q.cfg.MaxWaiting || q.bytes+len(p.line) > q.cfg.MaxWaitingBytes) {
		return replication.ErrOverloaded
	}
	q.items, q.bytes = q.items+p.items, q.bytes+len(p.line)
	if lane := q.pick(p.store, now); lane != nil {
		place(p, lane.queue)
	} else {
		place(p, q.parked)
	}
	return nil
}

func (q *forwardQueue) release(p *heldWrite) {
	q.items, q.bytes = q.items-p.items, q.bytes-len(p.line)
}

// leave withdraws a write and tells whether it is under way, so that it stays counted until the request ends.
func (q *forwardQueue) leave(p *heldWrite) (flying bool) {
	p.gone = true
	if p.spot.in == nil {
		return true
	}
	unplace(p)
	q.release(p)
	return false
}

// finish answers a write that is under way.
func (q *forwardQueue) finish(p *heldWrite, o forwardOutcome) {
	q.release(p)
	p.done <- o
}

// again parks a write that is under way and has to be tried again, or gives it up where that is senseless.
func (q *forwardQueue) again(p *heldWrite, v verdict, now time.Time) {
	p.maybe = p.maybe || v.maybe
	p.last = v.err
	switch {
	case p.gone:
		q.release(p)
	case q.down:
		q.finish(p, forwardOutcome{err: p.sure(replication.ErrClosed)})
	case v.overloaded && p.attempts >= maxOverloads:
		q.finish(p, forwardOutcome{err: p.sure(replication.ErrOverloaded)})
	default:
		p.notBefore = now.Add(backoff(10*time.Millisecond, 500*time.Millisecond, p.attempts))
		place(p, q.parked)
	}
}

// pick returns the lane of the node that writes of the store go to: of those not avoided, the one with the highest hash
// with the store, so that all forwarders send a store to the same node and few stores move when nodes come or go.
func (q *forwardQueue) pick(store string, now time.Time) *peerLane {
	var best *peerLane
	var top uint64
	for _, lane := range q.lanes {
		if lane.avoidUntil.After(now) {
			continue
		}
		if score := rendezvous(store, lane.peer.Name); best == nil || score > top {
			best, top = lane, score
		}
	}
	return best
}

func rendezvous(store, node string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(store))
	x := h.Sum64() // its high bits hardly depend on the last bytes: mix them (splitmix64)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// plan returns the requests to send now, and in how long to plan again if nothing happens before.
func (q *forwardQueue) plan(peers []PeerNode, now time.Time) ([]*forwardBatch, time.Duration) {
	q.meet(peers)
	next := q.unpark(now)
	var batches []*forwardBatch
	for _, lane := range q.lanes {
		limit := q.cfg.InFlight
		if lane.fails > 0 {
			limit = 1 // one to see whether it is well again
		}
		for lane.inFlight < limit && lane.queue.Len() > 0 && !lane.avoidUntil.After(now) {
			b := q.gather(lane, now)
			if len(b.writes) == 0 { // the budget has no retry left
				next = min(next, max(q.budget.wait(), scanEvery))
				break
			}
			lane.inFlight++
			batches = append(batches, b)
		}
	}
	return batches, next
}

// meet takes note of the nodes that there are. What waits for one that is gone waits for another.
func (q *forwardQueue) meet(peers []PeerNode) {
	if slices.Equal(peers, q.peers) {
		return
	}
	old := q.lanes
	q.peers, q.lanes, q.rescan = slices.Clone(peers), nil, true
	for _, peer := range q.peers {
		if slices.ContainsFunc(q.lanes, func(l *peerLane) bool { return l.peer == peer }) {
			continue
		}
		if i := slices.IndexFunc(old, func(l *peerLane) bool { return l.peer == peer }); i >= 0 {
			q.lanes = append(q.lanes, old[i])
		} else {
			q.lanes = append(q.lanes, &peerLane{peer: peer, queue: list.New()})
		}
	}
	for _, lane := range old {
		if !slices.Contains(q.lanes, lane) {
			q.park(lane)
		}
	}
}

// park takes all that waits from a lane.
func (q *forwardQueue) park(lane *peerLane) {
	for e := lane.queue.Front(); e != nil; e = lane.queue.Front() {
		p := e.Value.(*heldWrite)
		unplace(p)
		place(p, q.parked)
	}
	q.rescan = true
}

// unpark gives writes whose time has come to nodes, and returns in how long there is more to do.
func (q *forwardQueue) unpark(now time.Time) time.Duration {
	next := q.cfg.Poll
	if q.parked.Len() == 0 {
		return next
	}
	well := false
	for _, lane := range q.lanes {
		if wait := lane.avoidUntil.Sub(now); wait > 0 {
			next = min(next, wait)
		} else {
			well = true
		}
	}
	if !well {
		return next
	}
	if since := now.Sub(q.lastScan); !q.rescan && since < scanEvery {
		return scanEvery - since
	}
	q.rescan, q.lastScan = false, now
	for e := q.parked.Front(); e != nil; {
		p := e.Value.(*heldWrite)
		e = e.Next()
		if wait := p.notBefore.Sub(now); wait > 0 {
			next = min(next, max(wait, scanEvery))
			continue
		}
		if lane := q.pick(p.store, now); lane != nil {
			unplace(p)
			place(p, lane.queue)
		}
	}
	return next
}

// gather takes one request's worth of what waits for a lane. Where the budget has no retry left, writes that were sent
// before are parked and only new ones go.
func (q *forwardQueue) gather(lane *peerLane, now time.Time) *forwardBatch {
	b := &forwardBatch{lane: lane}
	items := 0
	for e := lane.queue.Front(); e != nil; {
		p := e.Value.(*heldWrite)
		if len(b.writes) > 0 && (items+p.items > q.cfg.BatchItems || b.bytes+len(p.line) > q.cfg.BatchBytes) {
			break
		}
		e = e.Next()
		unplace(p)
		if p.attempts > 0 && !b.retry {
			if !q.budget.take(now) {
				p.notBefore = now.Add(q.budget.wait())
				place(p, q.parked)
				continue
			}
			b.retry = true
		}
		p.attempts++
		b.writes, b.bytes, items = append(b.writes, p), b.bytes+len(p.line), items+p.items
	}
	if !b.retry && len(b.writes) > 0 {
		q.budget.deposit()
	}
	return b
}

// settle takes note of how a request went: a node that failed is left alone for a while, and what waits for it goes elsewhere.
func (q *forwardQueue) settle(lane *peerLane, failed bool, now time.Time) {
	lane.inFlight--
	if !failed {
		lane.fails = 0
		return
	}
	lane.fails++
	lane.avoidUntil = now.Add(backoff(q.cfg.AvoidMin, q.cfg.AvoidMax, lane.fails))
	q.park(lane)
}

// forgive lets every node be tried at once.
func (q *forwardQueue) forgive() {
	for _, lane := range q.lanes {
		lane.avoidUntil = time.Time{}
	}
	for e := q.parked.Front(); e != nil; e = e.Next() {
		e.Value.(*heldWrite).notBefore = time.Time{}
	}
	q.rescan = true
}

// close refuses what is held, and what comes.
func (q *forwardQueue) close() {
	q.down = true
	for _, lane := range q.lanes {
		q.park(lane)
	}
	for e := q.parked.Front(); e != nil; e = q.parked.Front() {
		p := e.Value.(*heldWrite)
		unplace(p)
		q.finish(p, forwardOutcome{err: p.sure(replication.ErrClosed)})
	}
}

// backoff is the pause after the nth failure in a row: it doubles from least to most, and half of it is random.
func backoff(least, most time.Duration, n int) time.Duration {
	d := most
	if n = max(n, 1); n < 20 {
		d = min(least<<(n-1), most)
	}
	return d/2 + rand.N(d/2+1)
}

// retryBudget bounds retries to a part of the requests and a few a second, so that a primary region in trouble is not
// drowned by those who wait for it.
type retryBudget struct {
	ratio, perSecond float64
	tokens           float64
	last             time.Time
}

// deposit counts a request that is not a retry.
func (b *retryBudget) deposit() { b.tokens = min(b.tokens+b.ratio, b.most()) }

func (b *retryBudget) most() float64 { return max(b.perSecond, 1) + 20 }

// take allows a retry or not.
func (b *retryBudget) take(now time.Time) bool {
	if !b.last.IsZero() && b.tokens < max(b.perSecond, 1) {
		b.tokens = min(b.tokens+now.Sub(b.last).Seconds()*b.perSecond, max(b.perSecond, 1))
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// wait is how long it takes at most until there is a retry again.
func (b *retryBudget) wait() time.Duration {
	return time.Duration((1-b.tokens)/b.perSecond*float64(time.Second)) + time.Millisecond
}
