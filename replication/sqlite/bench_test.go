package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// benchStores is how many stores there are, all with a queue; SHORTLINE_BENCH_STORES changes it.
var benchStores = func() int {
	if n, err := strconv.Atoi(os.Getenv("SHORTLINE_BENCH_STORES")); err == nil && n >= 1000 {
		return n / 1000 * 1000
	}
	return 100_000
}()

func benchID(i int) shortline.StoreID { return shortline.StoreID(fmt.Sprintf("store-%07d", i)) }

func benchStore(i, version int) *shortline.Store {
	return &shortline.Store{
		ID: benchID(i), Name: fmt.Sprintf("Corner Coffee %d, version %d", i, version), Brand: "Corner Coffee", Lat: 52.5, Lng: 13.4 + float64(i)/1e6,
		Address:  &shortline.Address{Street: "Invalidenstraße 17", City: "Berlin", Postcode: "10115", Country: "DE"},
		Timezone: "Europe/Berlin", Hours: "Mo-Fr 07:00-19:00; Sa 08:00-18:00", Tags: []string{"takeaway", "wheelchair"}, Phone: "+49 30 1234567",
	}
}

// benchOpen returns a store that holds benchStores stores, all with a queue.
func benchOpen(b *testing.B) *Store {
	b.Helper()
	s, err := Open(context.Background(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	n := 3
	for i := 0; i < benchStores; i += 1000 {
		var items []replication.Item
		for j := i; j < i+1000; j++ {
			items = append(items, replication.Item{Put: benchStore(j, 0)}, replication.Item{Queue: &shortline.QueueUpdate{ID: benchID(j), Length: &n}})
		}
		if _, _, err := s.Commit(context.Background(), []replication.Write{{Items: items}}); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// cpuUse reports the processor time of an operation beside its duration, for machines that do other things as well.
func cpuUse(b *testing.B) (report func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64((used()-start).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

func benchmarkCommitQueue(b *testing.B, n int) {
	s := benchOpen(b)
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	report := cpuUse(b)
	for b.Loop() {
		writes := make([]replication.Write, n)
		first, length := rng.IntN(benchStores), rng.IntN(40)
		for i := range writes {
			// Far apart, so that hardly two rows share a page.
			writes[i].Items = []replication.Item{{Queue: &shortline.QueueUpdate{ID: benchID((first + i*7919) % benchStores), Length: &length}}}
		}
		if _, _, err := s.Commit(context.Background(), writes); err != nil {
			b.Fatal(err)
		}
	}
	report()
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

func BenchmarkCommitQueue1(b *testing.B)   { benchmarkCommitQueue(b, 1) }
func BenchmarkCommitQueue100(b *testing.B) { benchmarkCommitQueue(b, 100) }
func BenchmarkCommitQueue500(b *testing.B) { benchmarkCommitQueue(b, 500) }

func BenchmarkCommitStores1000(b *testing.B) {
	s := benchOpen(b)
	version := 0
	b.ReportAllocs()
	report := cpuUse(b)
	for b.Loop() {
		version++
		items := make([]replication.Item, 1000)
		for i := range items {
			items[i].Put = benchStore((version*1000+i)%benchStores, version)
		}
		if _, _, err := s.Commit(context.Background(), []replication.Write{{Items: items}}); err != nil {
			b.Fatal(err)
		}
	}
	report()
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "stores/s")
}

func BenchmarkSnapshot(b *testing.B) {
	s := benchOpen(b)
	rows := 0
	b.ReportAllocs()
	report := cpuUse(b)
	for b.Loop() {
		for after := shortline.StoreID(""); ; {
			chunk, err := s.Snapshot(context.Background(), after, 1000)
			if err != nil {
				b.Fatal(err)
			}
			rows += len(chunk)
			if len(chunk) < 1000 {
				break
			}
			after = chunk[len(chunk)-1].Store.ID
		}
	}
	report()
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkRows5(b *testing.B) {
	s := benchOpen(b)
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	report := cpuUse(b)
	for b.Loop() {
		ids := make([]shortline.StoreID, 5)
		first := rng.IntN(benchStores)
		for i := range ids {
			ids[i] = benchID((first + i*7919) % benchStores)
		}
		rows, err := s.Rows(context.Background(), ids)
		if err != nil || len(rows) != 5 {
			b.Fatal(len(rows), err)
		}
	}
	report()
}

func BenchmarkChanges1000(b *testing.B) {
	s := benchOpen(b)
	changes := 0
	b.ReportAllocs()
	report := cpuUse(b)
	for b.Loop() {
		page, err := s.Changes(context.Background(), replication.Cursor{XID: 2}, 1000)
		if err != nil {
			b.Fatal(err)
		}
		changes += len(page.Changes)
	}
	report()
	b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
}
