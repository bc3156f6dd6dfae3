package rediscache

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/demo"
)

// BenchmarkSize tells what a store takes in Redis with its key: 12,000 demo stores. It is for capacity planning
// (docs/performance.md), not for speed: run it once with -benchtime 1x.
func BenchmarkSize(b *testing.B) {
	cluster := sharedCluster(b)
	must(b, cluster.FlushAll(deadline(b)))
	c, err := New(deadline(b), config(b, cluster.Addrs()), newWorld())
	must(b, err)
	defer func() { must(b, c.Close()) }()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
	defer func() { must(b, client.Close()) }()
	stores, err := demo.Stores()
	must(b, err)
	total := int64(0)
	for i := range stores {
		st := &stores[i]
		text, err := encodeValue(string(c.cfg.Database), st.ID, value{version{1, 1}, st})
		must(b, err)
		key := c.key(geo.CellAt(geo.Point{Lat: st.Lat, Lng: st.Lng}, 7), st.ID)
		must(b, client.Set(deadline(b), key, text, c.cfg.TTL).Err())
		size, err := client.MemoryUsage(deadline(b), key).Result()
		must(b, err)
		total += size
	}
	b.ReportMetric(float64(total)/float64(len(stores)), "B/store")
}
