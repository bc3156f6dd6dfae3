package rediscache

import (
	"context"
	"fmt"
	"testing"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
)

// A lookup of five stores, of one cell or of five, that are in Redis or are not. What is missed is in the memory of the
// process here, so a miss is the price of asking in vain, without the database's own.
func BenchmarkRows(b *testing.B) {
	cluster := sharedCluster(b)
	w := newWorld()
	for i := range 25 {
		w.put(i)
	}
	for _, cells := range []int{1, 5} {
		var ids []shortline.StoreID
		for i := range 5 {
			ids = append(ids, storeID(i*cells))
		}
		for _, found := range []bool{true, false} {
			b.Run(fmt.Sprintf("cells=%d/hit=%v", cells, found), func(b *testing.B) { benchRows(b, cluster, w, ids, found) })
		}
	}
}

func benchRows(b *testing.B, cluster *planet.RedisCluster, w *world, ids []shortline.StoreID, found bool) {
	c, err := New(deadline(b), config(b, cluster.Addrs()), w)
	must(b, err)
	if found {
		stop := run(b, c)
		b.Cleanup(stop)
		read := func() bool {
			_, err := c.Rows(context.Background(), ids)
			must(b, err)
			return c.count(hit) >= len(ids)
		}
		eventually(b, "the stores are in Redis", read)
		settle(b, c)
	} else { // Run is not called, so that nothing is filled
		b.Cleanup(func() { must(b, c.Close()) })
		must(b, cluster.FlushAll(context.Background()))
	}
	before := c.count(hit)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if rows, err := c.Rows(context.Background(), ids); err != nil || len(rows) != len(ids) {
				b.Errorf("%d rows, %v", len(rows), err)
				return
			}
		}
	})
	if got := c.count(hit) - before; found != (got > 0) {
		b.Errorf("%d hits", got)
	}
}
