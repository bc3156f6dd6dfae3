package rediscache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

func TestMissesFillAndHitsSpareTheDatabase(t *testing.T) {
	w := newWorld()
	for i := range 12 {
		w.put(i)
	}
	c := start(t, config(t, sharedCluster(t).Addrs()), w)
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 11, 11, 99} // one twice, one that does not exist
	read(t, c, w, all...)
	settle(t, c)
	if c.count(absent) != 10 || c.countWrites(stored) != 9 || w.readsSoFar() != 1 {
		t.Fatalf("%d absent, %d stored, %d reads", c.count(absent), c.countWrites(stored), w.readsSoFar())
	}
	read(t, c, w, all[:9]...)
	if c.count(hit) != 9 || w.readsSoFar() != 1 {
		t.Fatalf("%d hits, %d reads of the database", c.count(hit), w.readsSoFar())
	}
	ctx := context.Background()
	ttl, err := c.client.PTTL(ctx, c.key(cellOf(0), storeID(0))).Result()
	if err != nil || ttl <= 0 || ttl > c.cfg.TTL*11/10 {
		t.Errorf("it lives for %v, %v", ttl, err)
	}
	// The stores of a cell are in one slot.
	first, err := c.client.ClusterKeySlot(ctx, c.key(cellOf(0), storeID(0))).Result()
	must(t, err)
	if other := c.client.ClusterKeySlot(ctx, c.key(cellOf(4), storeID(4))).Val(); other != first {
		t.Errorf("slots %d and %d", first, other)
	}
	if n, err := c.Rows(ctx, nil); err != nil || len(n) != 0 {
		t.Errorf("no ids: %v, %v", n, err)
	}
	w.fail = errors.New("the database is down")
	if _, err := c.Rows(ctx, []shortline.StoreID{storeID(0), storeID(9)}); !errors.Is(err, w.fail) {
		t.Errorf("a miss without the database: %v", err)
	}
	read(t, c, w, 0, 1) // hits need none
}

func TestMemoryDecidesWhatIsTooOld(t *testing.T) {
	w, mem := newWorld(), newMemory()
	mem.take(w.put(0))
	cfg := config(t, sharedCluster(t).Addrs())
	cfg.MinRev = mem.minRev
	c := start(t, cfg, w)
	read(t, c, w, 0)
	settle(t, c)
	// The change never reaches Redis; memory takes it.
	mem.take(w.put(0))
	read(t, c, w, 0)
	settle(t, c)
	if c.count(outdated) != 1 || c.countWrites(stored) != 2 {
		t.Fatalf("%d outdated, %d stored", c.count(outdated), c.countWrites(stored))
	}
	read(t, c, w, 0)
	if c.count(hit) != 1 {
		t.Errorf("%d hits", c.count(hit))
	}
	mem.take(w.remove(0)) // neither does the delete
	read(t, c, w, 0)
	if c.count(bypassed) != 1 {
		t.Errorf("%d bypassed", c.count(bypassed))
	}
	mem.take(w.put(0)) // it comes back with a greater rev
	read(t, c, w, 0)
	if c.count(outdated) != 2 {
		t.Errorf("%d outdated", c.count(outdated))
	}
}

func TestChangesReachRedis(t *testing.T) {
	w := newWorld()
	c := start(t, config(t, sharedCluster(t).Addrs()), w)
	ctx := context.Background()
	c.Apply(ctx, []shortline.Change{w.put(0), w.put(1), {Kind: shortline.QueueSet, Subject: "store-1", Rev: 9}, {Kind: shortline.EpochBegun}})
	settle(t, c)
	read(t, c, w, 0, 1)
	if c.count(hit) != 2 {
		t.Errorf("%d hits", c.count(hit))
	}
	c.Apply(ctx, []shortline.Change{w.remove(0)})
	settle(t, c)
	read(t, c, w, 0)
	if c.count(tombstone) != 1 {
		t.Errorf("%d tombstones", c.count(tombstone))
	}
	// A fill from before the delete comes late, and one of another node's.
	old, _ := w.at(storeID(0), 1)
	c.write(ctx, []job{{kind: fill, id: storeID(0), cell: cellOf(0), value: value{version{0, 1}, &old.Store}}})
	read(t, c, w, 0)
	if c.count(tombstone) != 2 || c.countWrites(kept) != 1 {
		t.Errorf("%d tombstones, %d kept", c.count(tombstone), c.countWrites(kept))
	}
	c.Apply(ctx, []shortline.Change{w.put(0)})
	settle(t, c)
	read(t, c, w, 0)
	if c.count(hit) != 3 {
		t.Errorf("%d hits after it came back", c.count(hit))
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	c.Apply(stopped, []shortline.Change{w.put(0)})
	if c.pending.Load() != 0 {
		t.Error("a node that stops takes changes")
	}
}

func TestLineages(t *testing.T) {
	w, fork := newWorld(), newWorld()
	for range 5 {
		w.put(0)
	}
	fork.put(0) // in the history that won, the store has a smaller rev
	cfg := config(t, sharedCluster(t).Addrs())
	cfg.Lineage = 7
	old := start(t, cfg, w)
	read(t, old, w, 0)
	settle(t, old)
	cfg.Registerer, cfg.Lineage = nil, 0
	c := start(t, cfg, fork)
	c.SetLineage(8)
	c.SetLineage(3) // too late
	read(t, c, fork, 0)
	settle(t, c)
	read(t, c, fork, 0)
	if c.count(otherLineage) != 1 || c.count(hit) != 1 {
		t.Fatalf("%d of another lineage, %d hits", c.count(otherLineage), c.count(hit))
	}
	// A node that has not heard of the fork neither believes the value nor replaces it.
	read(t, old, w, 0)
	settle(t, old)
	read(t, c, fork, 0)
	if old.count(otherLineage) != 1 || old.countWrites(kept) != 1 || c.count(hit) != 2 {
		t.Fatalf("%d of another lineage, %d kept, %d hits", old.count(otherLineage), old.countWrites(kept), c.count(hit))
	}
}

func TestGarbageIsPassedOverAndReplaced(t *testing.T) {
	w := newWorld()
	w.put(0)
	w.put(0)
	c := start(t, config(t, sharedCluster(t).Addrs()), w)
	ctx := context.Background()
	row, _ := w.latest(storeID(0))
	other := row.Store
	other.ID = "store-1"
	north := row.Store
	north.Lat = 91
	key := c.key(cellOf(0), storeID(0))
	encoded := func(owner string, s *shortline.Store, lineage, rev uint64) string {
		text, _ := encodeValue(owner, s.ID, value{version{lineage, rev}, s})
		return text
	}
	good := encoded(c.owner, &row.Store, 0, 2)
	cases := map[string]string{
		"noise": "\x00\xffnoise", "empty": "", "another format": "SL2:" + good[4:], "signs": strings.Replace(good, "SL1:0", "SL1:+", 1),
		"cut off": good[:len(good)-9], "more after it": good + "}", "another store": encoded(c.owner, &other, 0, 2),
		"another deployment": encoded("another/", &row.Store, 0, 2), "no such place": strings.Replace(good, `"lat":48`, `"lat":91`, 1),
		"a kind from the future": good[:versionEnd] + "X" + good[versionEnd+1:], "a header only": good[:versionEnd],
		"a great version, JSON broken": encoded(c.owner, &row.Store, 9, 99) + "x",
		"not a number of 64 bits":      "SL1:" + strings.Repeat("9", 40) + good[versionEnd:],
		"too long":                     good + strings.Repeat(" ", maxValue),
		"unknown fields":               strings.Replace(good, `"lat"`, `"x":1,"lat"`, 1),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			bad, hits, replacements := c.count(garbage), c.count(hit), c.countWrites(replaced)
			must(t, c.client.Set(ctx, key, text, 0).Err())
			read(t, c, w, 0)
			settle(t, c)
			read(t, c, w, 0)
			if c.count(garbage) != bad+1 || c.count(hit) != hits+1 || c.countWrites(replaced) != replacements+1 {
				t.Errorf("garbage %d, hits %d, replaced %d", c.count(garbage)-bad, c.count(hit)-hits, c.countWrites(replaced)-replacements)
			}
		})
	}
	for name, spoil := range map[string]func() error{
		"a list": func() error { return c.client.RPush(ctx, key, "a").Err() },
		"a hash": func() error { return c.client.HSet(ctx, key, "a", "b").Err() },
	} {
		t.Run(name, func(t *testing.T) {
			hits, replacements := c.count(hit), c.countWrites(replaced)
			must(t, c.client.Del(ctx, key).Err())
			must(t, spoil())
			read(t, c, w, 0)
			settle(t, c)
			read(t, c, w, 0)
			if c.count(hit) != hits+1 || c.countWrites(replaced) != replacements+1 {
				t.Errorf("hits %d, replaced %d", c.count(hit)-hits, c.countWrites(replaced)-replacements)
			}
		})
	}
	// Garbage that another node has replaced meanwhile is not there to be replaced: versions decide again.
	newer := encoded(c.owner, &row.Store, 0, 3)
	must(t, c.client.Set(ctx, key, newer, 0).Err())
	c.write(ctx, []job{{kind: fill, id: storeID(0), cell: cellOf(0), value: value{version{0, 2}, &row.Store}, bad: strings.Repeat("0", 40)}})
	if got := c.client.Get(ctx, key).Val(); got != newer {
		t.Errorf("a newer value went: %q", got)
	}
}

// A store that was stored under older rules is served and not cached.
func TestUnfitStoresAreNotCached(t *testing.T) {
	w := newWorld()
	w.put(0)
	row := w.rows[storeID(0)]
	row.Store.Name = strings.Repeat("x", shortline.MaxNameBytes+1)
	w.rows[storeID(0)], w.past[storeID(0)][0] = row, row
	c := start(t, config(t, sharedCluster(t).Addrs()), w)
	read(t, c, w, 0)
	settle(t, c)
	read(t, c, w, 0)
	settle(t, c)
	if c.count(hit) != 0 || c.countWrites(unfit) != 2 {
		t.Errorf("%d hits, %d unfit", c.count(hit), c.countWrites(unfit))
	}
}

// gate lets the test hold a read of the database after it has been made.
type gate struct{ reached, open chan struct{} }

func newGate() gate { return gate{make(chan struct{}, 64), make(chan struct{})} }

func (g gate) pass() {
	g.reached <- struct{}{}
	<-g.open
}

// A change comes while the database is being read, and what it wrote is evicted: the row that was read is older, and must
// not stay behind in Redis. With the safeguard off it does.
func TestFillDoesNotFollowTheChangeThatOvertookIt(t *testing.T) {
	for _, safe := range []bool{true, false} {
		t.Run(fmt.Sprint(safe), func(t *testing.T) {
			w := newWorld()
			w.put(0)
			g := newGate()
			w.setPause(g.pass)
			c := start(t, config(t, sharedCluster(t).Addrs()), w, func(c *Cache) { c.floorless = !safe })
			ctx := context.Background()
			done := make(chan error, 1)
			go func() {
				_, err := c.Rows(ctx, []shortline.StoreID{storeID(0)})
				done <- err
			}()
			<-g.reached
			c.Apply(ctx, []shortline.Change{w.put(0)})
			settle(t, c)
			key := c.key(cellOf(0), storeID(0))
			must(t, c.client.Del(ctx, key).Err())
			close(g.open)
			must(t, <-done)
			settle(t, c)
			if there := c.client.Exists(ctx, key).Val() == 1; there == safe {
				t.Errorf("an old value in Redis: %v", there)
			}
		})
	}
}

// A caller who knows of a change waits for a read that began before it: the answer must have the change all the same.
func TestSharedReadIsNotTooOld(t *testing.T) {
	w, mem := newWorld(), newMemory()
	mem.take(w.put(0))
	g := newGate()
	w.setPause(g.pass)
	cfg := config(t, sharedCluster(t).Addrs())
	cfg.MinRev = mem.minRev
	c := start(t, cfg, w)
	ids := []shortline.StoreID{storeID(0), storeID(1)}
	ask := func() <-chan []replication.Row {
		answer := make(chan []replication.Row, 1)
		go func() {
			rows, err := c.Rows(context.Background(), ids)
			if err != nil {
				t.Error(err)
			}
			answer <- rows
		}()
		return answer
	}
	first := ask()
	<-g.reached
	mem.take(w.put(0))
	mem.take(w.put(1))
	second := ask()
	eventually(t, "both wait", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		l := c.landings[storeID(0)]
		return l != nil && l.waiting == 2
	})
	close(g.open)
	<-first
	if err := w.agrees(ids, <-second); err != nil {
		t.Errorf("the caller who knew of the change: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.landings) != 0 {
		t.Errorf("%d landings are left", len(c.landings))
	}
}

// Callers who miss the same stores at once share one read.
func TestSingleFlight(t *testing.T) {
	w := newWorld()
	w.put(0)
	g := newGate()
	w.setPause(g.pass)
	c := start(t, config(t, sharedCluster(t).Addrs()), w)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			rows, err := c.Rows(context.Background(), []shortline.StoreID{storeID(0)})
			if err != nil || w.agrees([]shortline.StoreID{storeID(0)}, rows) != nil {
				t.Errorf("%v, %v", rows, err)
			}
		})
	}
	<-g.reached
	eventually(t, "all wait", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.landings[storeID(0)].waiting == 20
	})
	close(g.open)
	group.Wait()
	// One of them may have been between Redis and the loader when the read ended, and begun another.
	if n := w.readsSoFar(); n > 20/2 {
		t.Errorf("%d reads", n)
	}
}

func TestFullQueueDrops(t *testing.T) {
	w, mem := newWorld(), newMemory()
	cfg := config(t, sharedCluster(t).Addrs())
	cfg.Queue, cfg.MinRev = 3, mem.minRev
	c, err := New(deadline(t), cfg, w) // and Run is not called
	must(t, err)
	defer c.Close()
	var stores []int
	for i := range 10 {
		ch := w.put(i)
		mem.take(ch)
		c.Apply(context.Background(), []shortline.Change{ch})
		stores = append(stores, i)
	}
	read(t, c, w, stores...)
	if c.countWrites(dropped) != 17 || c.pending.Load() != 3 {
		t.Errorf("%d dropped, %d wait", c.countWrites(dropped), c.pending.Load())
	}
}

func TestStoresWithoutCellBypass(t *testing.T) {
	w := newWorld()
	w.put(0)
	cfg := config(t, sharedCluster(t).Addrs())
	cfg.CellOf = func(shortline.StoreID) (geo.Cell, bool) { return 0, false }
	c := start(t, cfg, w)
	c.Apply(context.Background(), []shortline.Change{w.put(0)})
	read(t, c, w, 0)
	if c.count(bypassed) != 1 || c.pending.Load() != 0 {
		t.Errorf("%d bypassed, %d wait", c.count(bypassed), c.pending.Load())
	}
}

// Frozen nodes cost a few timeouts, then nothing; and they are found when they are back.
func TestFrozenClusterIsSkipped(t *testing.T) {
	cluster := ownCluster(t, planet.RedisConfig{})
	w := newWorld()
	for i := range 5 {
		w.put(i)
	}
	cfg := config(t, cluster.Addrs())
	cfg.ReadTimeout, cfg.WriteTimeout, cfg.Failures, cfg.Pause = 20*time.Millisecond, 20*time.Millisecond, 3, 50*time.Millisecond
	c := start(t, cfg, w)
	eventually(t, "Redis answers", func() bool { read(t, c, w, 0, 1); return c.count(hit) > 0 })
	for i := range 3 {
		must(t, cluster.Pause(i))
	}
	eventually(t, "reads skip it", func() bool { read(t, c, w, 0, 1, 2, 3, 4); return c.count(skipped) > 0 })
	if c.breakers.open(time.Now()) == 0 {
		t.Error("no node is counted as skipped")
	}
	for i := range 3 {
		must(t, cluster.Resume(i))
	}
	hits := c.count(hit)
	eventually(t, "Redis is used again", func() bool {
		read(t, c, w, 0, 1, 2, 3, 4)
		return c.count(hit) > hits+10 && c.breakers.open(time.Now()) == 0
	})
}
