package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

// benchStores is how many stores there are, all with a queue.
const benchStores = 100_000

func benchID(i int) shortline.StoreID { return shortline.StoreID(fmt.Sprintf("store-%07d", i)) }

// BenchmarkCommit commits batches of queue updates of stores far apart, each kept safe by fsync, from one goroutine and
// from four.
func BenchmarkCommit(b *testing.B) {
	p := startServer(b, planet.PostgresConfig{Name: "bench", Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"}})
	s := openStore(b, Config{Write: p.DSN(owner, newDatabase(b, p))}, mutantNone)
	for i := 0; i < benchStores; i += 1000 {
		var items []replication.Item
		for j := i; j < i+1000; j++ {
			items = append(items, put(benchID(j), "Corner Coffee"), length(benchID(j), 3))
		}
		commitAll(b, s, items...)
	}
	for _, lanes := range []int{1, 4} {
		for _, n := range []int{1, 100, 500} {
			b.Run(fmt.Sprintf("lanes=%d/updates=%d", lanes, n), func(b *testing.B) {
				b.ReportAllocs()
				benchCommits(b, s, lanes, n)
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "updates/s")
			})
		}
	}
}

func benchCommits(b *testing.B, s *Store, lanes, n int) {
	work := make(chan int)
	failed := make(chan error, lanes)
	for lane := range lanes {
		go func() {
			rng := rand.New(rand.NewPCG(1, uint64(lane)))
			for range work {
				writes := make([]replication.Write, n)
				first := rng.IntN(benchStores)
				for i := range writes {
					// Each lane has stores of its own, as lanes by hash of the id do.
					j := (first + i*7919) % benchStores
					writes[i].Items = []replication.Item{length(benchID(j-j%lanes+lane), rng.IntN(40))}
				}
				if _, _, err := s.Commit(context.Background(), writes); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	b.ResetTimer()
	for range b.N {
		work <- 1
	}
	close(work)
	for range lanes {
		check(b, <-failed)
	}
}
