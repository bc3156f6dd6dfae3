package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

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

// BenchmarkPrune drops changes that are too old; an operation is one of them. wal-B/op is what that writes to the log, beside
// committed-wal-B/op, which is what a queue update had cost before (batches of 500).
func BenchmarkPrune(b *testing.B) {
	p := startServer(b, planet.PostgresConfig{Name: "prune"})
	name := newDatabase(b, p)
	old := time.Now().Add(-2 * time.Hour)
	s := openStore(b, Config{Write: p.DSN(owner, name), Now: func() time.Time { return old }}, mutantNone)
	conn := connect(b, p, name)
	position := func() (lsn int64) {
		check(b, conn.QueryRow(deadline(b), sqlInsertLSN).Scan(&lsn))
		return lsn
	}
	for first := 0; first < 5000; first += 500 {
		var items []replication.Item
		for i := range 500 {
			items = append(items, put(shortline.StoreID(fmt.Sprintf("s%05d", first+i)), "S"))
		}
		commitAll(b, s, items...)
	}
	before := position()
	for done := 0; done < b.N; done += 500 {
		var items []replication.Item
		for i := range min(500, b.N-done) {
			items = append(items, length(shortline.StoreID(fmt.Sprintf("s%05d", (done+i)%5000)), i))
		}
		commitAll(b, s, items...)
	}
	committed := position()
	b.ResetTimer()
	check(b, s.Prune(context.Background(), time.Now().Add(-time.Hour), old))
	b.StopTimer()
	b.ReportMetric(float64(committed-before)/float64(b.N), "committed-wal-B/op")
	b.ReportMetric(float64(position()-committed)/float64(b.N), "wal-B/op")
}
