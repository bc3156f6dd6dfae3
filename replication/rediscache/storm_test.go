package rediscache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

const (
	stormStores  = 15
	stormChanges = 500
	stormNodes   = 3
)

// node is a Cache with the memory and the feed that belong to it.
type node struct {
	*Cache
	memory *memory
	feed   chan shortline.Change
}

// storm is nodes on one Redis and one database, of which everything happens at once.
type storm struct {
	world   *world
	cluster *planet.RedisCluster
	nodes   []*node
	over    atomic.Bool // no more changes will come, and all nodes have them

	mu     sync.Mutex
	faults []string // guarded by mu
}

func newStorm(t *testing.T, prepare func(*Cache)) *storm {
	s := &storm{world: newWorld(), cluster: sharedCluster(t)}
	for range stormNodes {
		n := &node{memory: newMemory(), feed: make(chan shortline.Change, stormChanges+stormStores)}
		cfg := config(t, s.cluster.Addrs())
		cfg.MinRev = n.memory.minRev
		n.Cache = start(t, cfg, s.world, prepare)
		s.nodes = append(s.nodes, n)
	}
	s.world.setPause(func() { nap() })
	for i := range stormStores {
		s.tell(s.world.put(i))
	}
	return s
}

// nap lets others go first, now and then for long.
func nap() {
	if n := rand.IntN(4); n > 0 {
		time.Sleep(rand.N(time.Duration(n*n) * 200 * time.Microsecond))
	}
}

func (s *storm) tell(ch shortline.Change) {
	for _, n := range s.nodes {
		n.feed <- ch
	}
}

func (s *storm) fault(f string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fmt.Sprintf(f, args...))
}

// blow makes changes, brings them to the nodes, reads all the while, does what else is given, and returns when all changes
// have arrived.
func (s *storm) blow(t *testing.T, also func()) {
	t.Helper()
	var feeds, rest sync.WaitGroup
	for _, n := range s.nodes {
		feeds.Go(func() { s.follow(n) })
		for range 2 {
			rest.Go(func() { s.readers(n) })
		}
	}
	rest.Go(func() {
		for !s.over.Load() {
			also()
		}
	})
	for range stormChanges {
		i := rand.IntN(stormStores)
		if row, _ := s.world.latest(storeID(i)); !row.Deleted && rand.IntN(5) == 0 {
			s.tell(s.world.remove(i))
		} else {
			s.tell(s.world.put(i))
		}
		nap()
	}
	for _, n := range s.nodes {
		close(n.feed)
	}
	feeds.Wait()
	s.over.Store(true)
	rest.Wait()
	for _, n := range s.nodes {
		settle(t, n.Cache)
	}
}

func (s *storm) follow(n *node) {
	for ch := range n.feed {
		nap()
		if rand.IntN(2) == 0 {
			n.memory.take(ch)
			n.Apply(context.Background(), []shortline.Change{ch})
		} else {
			n.Apply(context.Background(), []shortline.Change{ch})
			n.memory.take(ch)
		}
	}
}

func (s *storm) readers(n *node) {
	for !s.over.Load() {
		var ids []shortline.StoreID
		for range 1 + rand.IntN(6) {
			ids = append(ids, storeID(rand.IntN(stormStores)))
		}
		if err := readChecked(n.Cache, s.world, n.memory, ids); err != nil {
			s.fault("%v", err)
		}
	}
}

// readChecked reads while things change: each answer must be some true version of its store, and none older than what
// memory had before.
func readChecked(c *Cache, w *world, m *memory, ids []shortline.StoreID) error {
	known := map[shortline.StoreID]uint64{}
	for _, id := range ids {
		if rev, ok := m.minRev(id); ok {
			known[id] = rev
		}
	}
	rows, err := c.Rows(context.Background(), ids)
	if err != nil {
		return err
	}
	got := map[shortline.StoreID]replication.Row{}
	for _, row := range rows {
		got[row.Store.ID] = row
		if truth, ok := w.at(row.Store.ID, row.Rev); !ok || truth.Deleted || !truth.Store.Equal(&row.Store) {
			return fmt.Errorf("%s never was %+v at %d", row.Store.ID, row.Store, row.Rev)
		}
	}
	for id, rev := range known {
		row, ok := got[id]
		if ok && row.Rev < rev {
			return fmt.Errorf("%s is at %d, memory had %d", id, row.Rev, rev)
		}
		if !ok && !w.deletedAfter(id, rev) {
			return fmt.Errorf("%s is not there, memory had it at %d", id, rev)
		}
	}
	return nil
}

func (w *world) deletedAfter(id shortline.StoreID, rev uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, row := range w.past[id][rev:] {
		if row.Deleted {
			return true
		}
	}
	return false
}

// settled compares what is in Redis with the truth.
func (s *storm) settled(t *testing.T) {
	t.Helper()
	c, present := s.nodes[0].Cache, 0
	for i := range stormStores {
		id := storeID(i)
		text, err := c.client.Get(context.Background(), c.key(cellOf(i), id)).Result()
		if err == redis.Nil {
			continue
		}
		must(t, err)
		present++
		v, err := decodeValue(c.owner, id, text)
		truth, _ := s.world.latest(id)
		if err != nil || v.rev != truth.Rev || (v.store == nil) != truth.Deleted || v.store != nil && !v.store.Equal(&truth.Store) {
			s.fault("%s in Redis is %+v (%v), the truth is at %d", id, v, err, truth.Rev)
		}
	}
	t.Logf("%d stores in Redis; hits %d, absent %d, outdated %d, tombstones %d; stored %d, kept %d, overtaken %d", present, c.count(hit), c.count(absent),
		c.count(outdated), c.count(tombstone), c.countWrites(stored), c.countWrites(kept), c.countWrites(overtaken))
}

// withEvictions loses keys all the time; each node writes in its own order.
func withEvictions(t *testing.T, prepare func(*Cache)) []string {
	s := newStorm(t, prepare)
	s.blow(t, func() {
		nap()
		if rand.IntN(50) == 0 {
			must(t, s.cluster.FlushAll(context.Background()))
			return
		}
		c, i := s.nodes[0].Cache, rand.IntN(stormStores)
		must(t, c.client.Del(context.Background(), c.key(cellOf(i), storeID(i))).Err())
	})
	s.settled(t)
	return s.faults
}

// withLateWrites holds back writes of all nodes and lets them go in any order, some of them twice.
func withLateWrites(t *testing.T, prepare func(*Cache)) []string {
	type late struct {
		cache *Cache
		job   job
	}
	var mu sync.Mutex
	var bag []late // guarded by mu
	take := func() (l late, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(bag) == 0 {
			return l, false
		}
		i := rand.IntN(len(bag))
		l = bag[i]
		if rand.IntN(4) > 0 { // else it stays, to come once more
			bag[i] = bag[len(bag)-1]
			bag = bag[:len(bag)-1]
		}
		return l, true
	}
	s := newStorm(t, func(c *Cache) {
		prepare(c)
		c.late = func(jobs []job) {
			mu.Lock()
			defer mu.Unlock()
			for _, j := range jobs {
				bag = append(bag, late{c, j})
			}
		}
	})
	s.blow(t, func() {
		nap()
		if l, ok := take(); ok {
			l.cache.write(context.Background(), []job{l.job})
		}
	})
	for l, ok := take(); ok; l, ok = take() {
		l.cache.write(context.Background(), []job{l.job})
	}
	s.settled(t)
	return s.faults
}

func TestStorm(t *testing.T) {
	for name, blow := range map[string]func(*testing.T, func(*Cache)) []string{"evictions": withEvictions, "late writes": withLateWrites} {
		t.Run(name, func(t *testing.T) {
			for i, f := range blow(t, func(*Cache) {}) {
				if i == 5 {
					t.Fatal("and more")
				}
				t.Error(f)
			}
		})
	}
}

// Each safeguard is needed: without it the storm does harm.
func TestStormMutants(t *testing.T) {
	for name, mutant := range map[string]struct {
		blow    func(*testing.T, func(*Cache)) []string
		prepare func(*Cache)
	}{
		"no version check in Redis": {withLateWrites, func(c *Cache) { c.unversioned = true }},
		"no rev check at reading":   {withLateWrites, func(c *Cache) { c.unchecked = true }},
	} {
		t.Run(name, func(t *testing.T) {
			faults := mutant.blow(t, mutant.prepare)
			if len(faults) == 0 {
				t.Fatal("nobody noticed")
			}
			t.Logf("%d faults, such as: %s", len(faults), faults[0])
		})
	}
}
