package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

const (
	huntWriters = 8
	huntReaders = 32
)

// hunt looks for stale reads: writers and readers over all nodes, each a session that goes from node to node, while caches
// and replicas come and go. A length is number × huntWriters + writer, so that it tells who wrote it and when in the order
// of that writer; a name is "WRITER.NUMBER".
type hunt struct {
	w      *world
	ctx    context.Context // ends with the hunt
	number [huntWriters]atomic.Int64

	writes, reads, refused atomic.Int64
	// unknown are the lengths of writes of which nobody told whether they were done. They may come to be at any later time.
	unknown sync.Map

	mu     sync.Mutex
	faults []string // guarded by mu: the first few
}

func (h *hunt) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.faults) < 10 {
		h.faults = append(h.faults, fmt.Sprintf(format, args...))
	}
}

func (h *hunt) found() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults
}

// sight is what a session has seen of a store.
type sight struct {
	at      time.Time          // of its queue
	numbers [huntWriters]int64 // the last of each writer in its queue
	rev     uint64             // of the store
}

// actor is one session.
type actor struct {
	h     *hunt
	name  string
	rng   *rand.Rand
	nodes []*client.Client
	seen  map[shortline.StoreID]*sight
}

func (h *hunt) actor(name string, seed uint64) *actor {
	a := &actor{h: h, name: name, rng: rand.New(rand.NewPCG(seed, 7)), seen: map[shortline.StoreID]*sight{}}
	session := new(client.Session)
	for _, n := range h.w.Nodes() {
		a.nodes = append(a.nodes, h.w.client(n, session))
	}
	for _, id := range h.w.stores {
		a.seen[id] = new(sight)
	}
	return a
}

// node is any one, with its number.
func (a *actor) node() (*client.Client, int) {
	i := a.rng.IntN(len(a.nodes))
	return a.nodes[i], i
}

// queue judges a queue that was read or written, and remembers it.
func (a *actor) queue(how string, id shortline.StoreID, length int, at time.Time) {
	s := a.seen[id]
	writer, number := length%huntWriters, int64(length/huntWriters)
	if at.Before(s.at) {
		a.h.fault("%s %s: the queue of %s is of %v, and it was of %v before", a.name, how, id, at, s.at)
	} else if _, unknown := a.h.unknown.Load(length); number < s.numbers[writer] && !unknown {
		a.h.fault("%s %s: the queue of %s is writer %d's number %d, and it was number %d before", a.name, how, id, writer, number, s.numbers[writer])
	}
	s.at, s.numbers[writer] = at, max(number, s.numbers[writer])
}

// store judges a store that was read or written.
func (a *actor) store(how string, id shortline.StoreID, etag string) {
	number, _, _ := strings.Cut(strings.Trim(etag, `"`), "-") // what follows is the learned pace, which has no order
	rev, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		a.h.fault("%s %s: the entity tag of %s is %s", a.name, how, id, etag)
		return
	}
	s := a.seen[id]
	if rev < s.rev {
		a.h.fault("%s %s: %s is of rev %d, and it was of rev %d before", a.name, how, id, rev, s.rev)
	}
	s.rev = max(rev, s.rev)
}

// refused tells whether a call was not done, which is no stale read. What is expected with replicas down is 503 and 504.
func (a *actor) refused(err error) bool {
	var problem *client.Problem
	switch {
	case err == nil:
		return false
	case errors.As(err, &problem) && problem.Status != 503 && problem.Status != 504:
		a.h.fault("%s: %v", a.name, err)
	}
	a.h.refused.Add(1)
	return true
}

// undone is refused for a write. With 503 it was not done; with 504, or without an answer, nobody knows.
func (a *actor) undone(length int, err error) bool {
	var problem *client.Problem
	if err != nil && (!errors.As(err, &problem) || problem.Status != 503) {
		a.h.unknown.Store(length, true)
	}
	return a.refused(err)
}

func (a *actor) read() {
	c, i := a.node()
	how := "at node " + strconv.Itoa(i)
	a.h.reads.Add(1)
	id := a.h.w.stores[a.rng.IntN(len(a.h.w.stores))]
	switch a.rng.IntN(4) {
	case 0:
		st, err := c.Store(a.h.ctx, id, client.ReadOptions{})
		if !a.refused(err) {
			a.store(how, id, st.ETag)
		}
	case 1:
		near, err := c.Nearby(a.h.ctx, client.NearbyQuery{Lat: 51.5, Lng: -0.12, Limit: 30})
		if a.refused(err) {
			return
		}
		for _, st := range near.Stores {
			if st.Queue != nil {
				a.queue(how+", nearby", st.ID, st.Queue.Length, st.Queue.UpdatedAt)
			}
		}
	default:
		q, err := c.Queue(a.h.ctx, id, client.ReadOptions{})
		if !a.refused(err) && q.Reported() {
			a.queue(how, id, q.Length, q.UpdatedAt)
		}
	}
}

// write writes one store, several in one request, or the store itself, and reads it back elsewhere. The last stores have
// one writer each.
func (a *actor) write(writer int) {
	c, _ := a.node()
	number := a.h.number[writer].Add(1)
	length := int(number)*huntWriters + writer
	shared := len(a.h.w.stores) - huntWriters
	id := a.h.w.stores[shared+writer]
	a.h.writes.Add(1)
	switch a.rng.IntN(5) {
	case 0: // its own, and read back: nobody else can be the reason for another value
		answer, err := c.SetQueue(a.h.ctx, shortline.QueueUpdate{ID: id, Length: &length}, client.WriteOptions{})
		if a.undone(length, err) {
			return
		}
		a.queue("wrote", id, answer.Length, answer.UpdatedAt)
		other, i := a.node()
		q, err := other.Queue(a.h.ctx, id, client.ReadOptions{})
		if !a.refused(err) && q.Length != length {
			a.h.fault("%s wrote %d to %s and read %d at node %d", a.name, length, id, q.Length, i)
		}
	case 1:
		k := shared + writer
		st := a.h.w.store(k, fmt.Sprintf("%d.%d", writer, number))
		answer, err := c.PutStore(a.h.ctx, st)
		if a.refused(err) {
			return
		}
		a.store("wrote", id, answer.ETag)
		other, i := a.node()
		back, err := other.Store(a.h.ctx, id, client.ReadOptions{})
		if a.refused(err) {
			return
		}
		a.store("read back", id, back.ETag)
		if back.Name != st.Name {
			a.h.fault("%s called %s %q and read %q at node %d", a.name, id, st.Name, back.Name, i)
		}
	default:
		var updates []shortline.QueueUpdate
		for _, k := range a.rng.Perm(min(shared, 4))[:1+a.rng.IntN(4)] {
			updates = append(updates, shortline.QueueUpdate{ID: a.h.w.stores[k], Length: &length})
		}
		answer, err := c.SetQueues(a.h.ctx, updates, client.WriteOptions{})
		if a.undone(length, err) {
			return
		}
		for _, r := range answer.Results {
			if r.Error != nil {
				a.undone(length, r.Error)
			} else {
				a.queue("wrote", r.ID, r.Length, r.UpdatedAt)
			}
		}
		a.read()
	}
}

// run hunts until ctx ends or something is found that until asks for.
func (h *hunt) run(ctx context.Context, faults func(ctx context.Context)) {
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithCancel(h.w.Context())
	defer cancel()
	var actors, chaos sync.WaitGroup
	for i := range huntWriters {
		h.number[i].Store(1000) // what was written before the hunt is less
		a := h.actor(fmt.Sprintf("writer %d", i), uint64(i))
		actors.Go(func() {
			for ctx.Err() == nil {
				a.write(i)
			}
		})
	}
	for i := range huntReaders {
		a := h.actor(fmt.Sprintf("reader %d", i), uint64(100+i))
		actors.Go(func() {
			for ctx.Err() == nil {
				a.read()
				time.Sleep(time.Millisecond)
			}
		})
	}
	chaos.Go(func() { faults(ctx) })
	chaos.Go(func() { h.reorder(ctx) })
	actors.Wait()
	chaos.Wait()
}

// reorder makes writes commit in another order than that of their numbers: it holds the second of the stores that all
// write, now and then, so that who has the first waits while others write the rest.
func (h *hunt) reorder(ctx context.Context) {
	for ctx.Err() == nil {
		release, err := h.w.Region(h.w.Primary()).Postgres.Hold(h.w.Context(), "shortline",
			fmt.Sprintf("SELECT FROM shortline.queues WHERE store = '%s' FOR UPDATE", h.w.stores[1]))
		if err != nil {
			h.fault("hold a store: %v", err)
			return
		}
		time.Sleep(20 * time.Millisecond)
		release()
		time.Sleep(20 * time.Millisecond)
	}
}

// chaos makes all caches come and go, over and over.
func (h *hunt) chaos(ctx context.Context) {
	w := h.w
	steps := []func() error{
		func() error {
			return w.Region("ap-southeast").Redis.Configure(w.Context(), "maxmemory-policy", "allkeys-random")
		},
		func() error { return w.Region("ap-southeast").Redis.Configure(w.Context(), "maxmemory", "1mb") },
		func() error { // restarted, one after the other
			for i := range 3 {
				if err := w.Region("eu-west").Redis.Restart(w.deadline(), i); err != nil {
					return err
				}
			}
			return nil
		},
		func() error { w.Region("us-east").Redis.Kill(1); return nil },
		func() error { return w.Region("ap-southeast").Postgres.Restart(w.deadline()) },
		func() error { return w.Region("us-east").Redis.Restart(w.deadline(), 1) },
		func() error { return w.Region("eu-west").Redis.FlushAll(w.Context()) },
		func() error { return w.Region("eu-west").Postgres.Restart(w.deadline()) },
	}
	pause := 500 * time.Millisecond
	if longTests {
		pause = 2 * time.Second
	}
	for i := 0; ctx.Err() == nil; i++ {
		if err := steps[i%len(steps)](); err != nil {
			h.fault("chaos, step %d: %v", i%len(steps), err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	// All is to be well at the end, wherever it was.
	for _, r := range w.Regions() {
		for i, n := range r.Redis.Nodes() {
			if !n.Running() {
				w.check(r.Redis.Restart(w.deadline(), i))
			}
		}
	}
}

// testStaleReads: with tokens no read goes backwards or misses its own write, whatever becomes of the caches; and when the
// dust has settled, each of them equals the database.
func (w *world) testStaleReads() {
	h := &hunt{w: w}
	length := 8 * time.Second
	if longTests {
		length = time.Minute
	}
	ctx, cancel := context.WithTimeout(w.Context(), length)
	defer cancel()
	h.run(ctx, h.chaos)
	w.Logf("%d writes, %d reads, %d of them refused", h.writes.Load(), h.reads.Load(), h.refused.Load())
	for _, f := range h.found() {
		w.Error(f)
	}
	for _, r := range w.Regions() {
		w.check(r.Redis.Wait(w.deadline()))
	}
	session := new(client.Session)
	w.eventually("a write is taken", func() bool {
		n := 0
		_, err := w.client(w.Nodes()[0], session).SetQueue(w.deadline(), shortline.QueueUpdate{ID: w.stores[0], Length: &n}, client.WriteOptions{})
		return err == nil
	})
	w.caughtUp(session)
	for _, f := range w.everyCacheIs(w.truth()) {
		w.Error(f)
	}
	for _, n := range w.Nodes() { // the nodes' own caches of details were too small for the stores
		if misses := w.metric(n, "shortline_details_cache_misses_total"); misses < 2*float64(len(w.stores)) {
			w.Errorf("%s read details %v times: its cache forgot too little", n.Name(), misses)
		}
	}
}

// The same tests find what they look for: with nodes that do not compare revs, the order of commits does not decide, and
// reads go backwards.
func TestStaleReadsMutant(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a planet")
	}
	w := startWorld(t, 24, planet.Options{Regions: []regions.ID{"us-east"}, Env: []string{"SHORTLINE_TEST_MUTANT=revs"}})
	if faults := w.commitAgainstXIDs(); len(faults) == 0 {
		t.Error("without revs the order of commits still decides: the test cannot fail")
	}
	h := &hunt{w: w}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h.run(ctx, func(ctx context.Context) {
		for ctx.Err() == nil && len(h.found()) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	})
	if len(h.found()) == 0 {
		t.Error("without revs no read went backwards: the test cannot fail")
	} else {
		t.Logf("after %d writes: %s", h.writes.Load(), h.found()[0])
	}
}
