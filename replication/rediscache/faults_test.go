package rediscache

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
)

// load reads and changes stores without end, and fails the test if one read fails or is wrong.
type load struct {
	cluster *planet.RedisCluster
	cache   *Cache
	reads   atomic.Int64
}

const loadStores = 15

func startLoad(t *testing.T, cfg planet.RedisConfig) *load {
	t.Helper()
	l := &load{cluster: ownCluster(t, cfg)}
	w, mem := newWorld(), newMemory()
	for i := range loadStores {
		mem.take(w.put(i))
	}
	c := config(t, l.cluster.Addrs())
	c.MinRev, c.ReadTimeout, c.WriteTimeout, c.Failures, c.Pause = mem.minRev, 200*time.Millisecond, time.Second, 5, 50*time.Millisecond
	l.cache = start(t, c, w)
	var stop atomic.Bool
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for !stop.Load() && !t.Failed() {
				first := rand.IntN(loadStores)
				ids := []shortline.StoreID{storeID(first), storeID((first + 1) % loadStores), storeID((first + 5) % loadStores), storeID((first + 10) % loadStores)}
				if err := readChecked(l.cache, w, mem, ids); err != nil {
					t.Error(err)
				}
				l.reads.Add(1)
			}
		})
	}
	all.Go(func() {
		for !stop.Load() {
			ch := w.put(rand.IntN(loadStores))
			mem.take(ch)
			l.cache.Apply(context.Background(), []shortline.Change{ch})
			time.Sleep(5 * time.Millisecond)
		}
	})
	t.Cleanup(func() { stop.Store(true); all.Wait() })
	l.works(t)
	return l
}

// works waits until all cells are served from Redis: whole requests are hits.
func (l *load) works(t *testing.T) {
	t.Helper()
	for i := 0; i < loadStores; i += 5 {
		eventually(t, "Redis serves the cell", func() bool {
			if t.Failed() {
				t.FailNow()
			}
			text, err := l.cache.client.Get(context.Background(), l.cache.key(cellOf(i), storeID(i))).Result()
			_, wrong := decodeValue(l.cache.owner, storeID(i), text)
			return err == nil && wrong == nil
		})
	}
	eventually(t, "no node is skipped, and hits come", func() bool { return l.cache.breakers.open(time.Now()) == 0 || t.Failed() })
	l.goesOn(t, func() int { return l.cache.count(hit) })
}

// goesOn waits until what is counted has grown by a good deal.
func (l *load) goesOn(t *testing.T, count func() int) {
	t.Helper()
	before := count()
	eventually(t, "the load goes on", func() bool { return count() > before+100 || t.Failed() })
}

func (l *load) allReads() int { return int(l.reads.Load()) }

// masterOf is the number of the node that has the cell of a store.
func (l *load) masterOf(t *testing.T, store int) int {
	t.Helper()
	client, err := l.cache.client.MasterForKey(context.Background(), l.cache.key(cellOf(store), storeID(store)))
	must(t, err)
	return slices.Index(l.cluster.Addrs(), client.Options().Addr)
}

func TestReshardingUnderLoad(t *testing.T) {
	l := startLoad(t, planet.RedisConfig{})
	ctx := deadline(t)
	for round := range 12 {
		slot, err := l.cache.client.ClusterKeySlot(ctx, l.cache.key(cellOf(round%3*5), storeID(round%3*5))).Result()
		must(t, err)
		// The nodes take a moment to agree on who has the slot after it moved before.
		eventually(t, "the slot moves", func() bool { return l.cluster.MoveSlot(ctx, int(slot), (round+round/3)%3) == nil || t.Failed() })
		l.goesOn(t, l.allReads)
	}
	l.works(t)
	t.Logf("%d reads, %d hits, %d failed in Redis", l.allReads(), l.cache.count(hit), l.cache.count(failed))
}

func TestReplicaTakesOverUnderLoad(t *testing.T) {
	l := startLoad(t, planet.RedisConfig{Replicas: 1})
	killed := l.masterOf(t, 0)
	l.cluster.Kill(killed)
	l.goesOn(t, l.allReads)
	eventually(t, "another node has the cell", func() bool {
		l.cache.client.ReloadState(context.Background())
		return l.masterOf(t, 0) != killed || t.Failed()
	})
	eventually(t, "Redis serves the cell again", func() bool {
		err := l.cache.client.Get(context.Background(), l.cache.key(cellOf(0), storeID(0))).Err()
		return err == nil || t.Failed()
	})
	l.goesOn(t, func() int { return l.cache.count(hit) })
	t.Logf("%d reads, %d hits, %d failed in Redis, %d skipped", l.allReads(), l.cache.count(hit), l.cache.count(failed), l.cache.count(skipped))
}

func TestMasterWithoutReplicaIsLostUnderLoad(t *testing.T) {
	l := startLoad(t, planet.RedisConfig{})
	killed := l.masterOf(t, 0)
	l.cluster.Kill(killed)
	l.goesOn(t, func() int { return l.cache.count(skipped) + l.cache.count(failed) })
	l.goesOn(t, l.allReads)
	must(t, l.cluster.Restart(deadline(t), killed))
	must(t, l.cluster.Wait(deadline(t)))
	l.works(t)
	for i := range 3 {
		l.cluster.Kill(i)
	}
	l.goesOn(t, l.allReads)
	t.Logf("%d reads, %d hits, %d failed in Redis, %d skipped", l.allReads(), l.cache.count(hit), l.cache.count(failed), l.cache.count(skipped))
}
