package postgres

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/demo"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

// BenchmarkSize tells what rows take with their indexes, after a vacuum, and what an update writes to the log: 12,000 demo
// stores, each reporting its queue four times an hour for six hours. It is for capacity planning (docs/performance.md), not for speed: run
// it once with -benchtime 1x. With key, each update has an idempotency row of its own, else none has.
func BenchmarkSize(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		b.Run(fmt.Sprintf("key=%v", keyed), func(b *testing.B) {
			for range b.N {
				measureSize(b, keyed)
			}
		})
	}
}

func measureSize(b *testing.B, keyed bool) {
	const hours, perHour, batch = 6, 4, 500
	p := startServer(b, planet.PostgresConfig{Name: "size", NoFsync: true, Settings: map[string]string{"max_wal_size": "8GB", "checkpoint_timeout": "1h"}})
	name := newDatabase(b, p)
	now := time.Now().Truncate(time.Hour).Add(-hours * time.Hour)
	s := openStore(b, Config{Write: p.DSN(owner, name), Now: func() time.Time { return now }}, mutantNone)
	conn := connect(b, p, name)
	stores, err := demo.Stores()
	check(b, err)
	for first := 0; first < len(stores); first += batch {
		var items []replication.Item
		for i := first; i < min(first+batch, len(stores)); i++ {
			items = append(items, replication.Item{Put: &stores[i]})
		}
		commitAll(b, s, items...)
	}
	position := func() (lsn float64) {
		check(b, conn.QueryRow(deadline(b), sqlInsertLSN).Scan(&lsn))
		return lsn
	}
	exec(b, conn, "CHECKPOINT")
	before := position()
	for i := range hours * perHour {
		now = now.Add(time.Hour / perHour)
		for first := 0; first < len(stores); first += batch {
			writes := make([]replication.Write, 0, batch)
			for j := first; j < min(first+batch, len(stores)); j++ {
				w := replication.Write{Items: []replication.Item{length(stores[j].ID, (i*7+j)%40)}}
				if keyed {
					w.Idempotency = &replication.Idempotency{Scope: "POST /v1/stores/{id}/queue", Key: fmt.Sprintf("%08d-0000-4000-8000-%012d", i, j), TTL: 24 * time.Hour}
				}
				writes = append(writes, w)
			}
			_, _, err := s.Commit(context.Background(), writes)
			check(b, err)
		}
	}
	updates := float64(len(stores) * hours * perHour)
	b.ReportMetric((position()-before)/updates, "wal-B/update")
	exec(b, conn, "VACUUM ANALYZE")
	for _, table := range []string{"stores", "queues", "rollups", "changes", "idempotency"} {
		var size, rows float64
		check(b, conn.QueryRow(deadline(b), "SELECT pg_total_relation_size('shortline."+table+"'), (SELECT count(*) FROM shortline."+table+")").Scan(&size, &rows))
		if rows > 1 {
			b.ReportMetric(size/rows, table+"-B/row")
		}
	}
}
