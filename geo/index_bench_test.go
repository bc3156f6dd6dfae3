package geo

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// benchSizes are the numbers of stores. Ten million take 2 GB while they are built, so they must be asked for.
func benchSizes() []int {
	sizes := []int{25_000, 1_000_000}
	if os.Getenv("SHORTLINE_BENCH_10M") == "1" {
		sizes = append(sizes, 10_000_000)
	}
	return sizes
}

func sizeName(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("stores=%dM", n/1_000_000)
	}
	return fmt.Sprintf("stores=%dk", n/1000)
}

// towns invents n stores as real ones lie: gaussian around some thousand towns, of which few are large.
func towns(n int) []Point {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	type town struct {
		Point
		spread float64 // metres
	}
	all := make([]town, 4000)
	for i := range all {
		all[i] = town{Point{rng.Float64()*110 - 50, rng.Float64()*360 - 180}, 2000 + 18_000*rng.Float64()}
	}
	zipf := rand.NewZipf(rng, 1.1, 20, uint64(len(all)-1))
	points := make([]Point, n)
	for i := range points {
		t := all[zipf.Uint64()]
		points[i] = offset(t.Point, rng.NormFloat64()*t.spread, rng.NormFloat64()*t.spread)
	}
	return points
}

// jittered repeats real places, each copy some kilometres off.
func jittered(real []Point, n int) []Point {
	rng := rand.New(rand.NewPCG(2, uint64(n)))
	points := make([]Point, n)
	for i := range points {
		points[i] = real[i%len(real)]
		if i >= len(real) {
			points[i] = offset(points[i], rng.NormFloat64()*5000, rng.NormFloat64()*5000)
		}
	}
	return points
}

func nearStores(points []Point, n int) []Point {
	rng := rand.New(rand.NewPCG(3, uint64(n)))
	qs := make([]Point, n)
	for i := range qs {
		qs[i] = offset(points[rng.IntN(len(points))], rng.NormFloat64()*1000, rng.NormFloat64()*1000)
	}
	return qs
}

func anywhere(n int) []Point {
	rng := rand.New(rand.NewPCG(4, uint64(n)))
	qs := make([]Point, n)
	for i := range qs {
		qs[i] = randomPoint(rng)
	}
	return qs
}

func built(tb testing.TB, points []Point) *Index {
	tb.Helper()
	x := New(byID)
	if err := x.Build(numbered(points)); err != nil {
		tb.Fatal(err)
	}
	return x
}

func numbered(points []Point) iter.Seq2[Ref, Point] {
	return func(yield func(Ref, Point) bool) {
		for i, p := range points {
			if !yield(Ref(i), p) {
				return
			}
		}
	}
}

func nearestFive(x *Index, q Point, within Metres) int {
	n := 0
	x.Nearby(q, Search{Within: within}, func(Hit) bool {
		n++
		return n < 5
	})
	return n
}

func benchWorlds(b *testing.B, run func(b *testing.B, points []Point)) {
	real, _ := starbucks()
	for _, n := range benchSizes() {
		b.Run(sizeName(n)+"/towns", func(b *testing.B) { run(b, towns(n)) })
		if real != nil {
			b.Run(sizeName(n)+"/starbucks", func(b *testing.B) { run(b, jittered(real, n)) })
		}
	}
}

// BenchmarkNearby finds the nearest five, from other points each time, so that caches are as cold as in a busy server.
// The median is over single searches and has the cost of reading the clock in it, as has the mean.
func BenchmarkNearby(b *testing.B) {
	benchWorlds(b, func(b *testing.B, points []Point) {
		x := built(b, points)
		runtime.GC()
		near, any := nearStores(points, 1<<14), anywhere(1<<14)
		for _, c := range []struct {
			name   string
			within Metres
			qs     []Point
		}{
			{"within=1km", 1000, near},
			{"within=5km", 5000, near},
			{"within=50km", 50_000, near},
			{"random=2000km", 2_000_000, any},
			{"unlimited", 0, near},
		} {
			b.Run(c.name, func(b *testing.B) {
				b.ReportAllocs()
				took := make([]time.Duration, 1<<16)
				began, i := time.Now(), 0
				for b.Loop() {
					nearestFive(x, c.qs[i%len(c.qs)], c.within)
					now := time.Now()
					took[i%len(took)] = now.Sub(began)
					began = now
					i++
				}
				took = took[:min(i, len(took))]
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			})
		}
	})
}

// BenchmarkBuild also tells how much memory a store takes in the index, as the garbage collector counts it.
func BenchmarkBuild(b *testing.B) {
	benchWorlds(b, func(b *testing.B, points []Point) {
		var x *Index
		for b.Loop() {
			x = built(b, points)
		}
		with := heapInUse()
		estimate := x.MemoryBytes()
		runtime.KeepAlive(x)
		x = nil
		without := heapInUse()
		b.ReportMetric(float64(with-without)/float64(len(points)), "B/store")
		b.ReportMetric(float64(estimate)/float64(len(points)), "estimated-B/store")
		runtime.KeepAlive(points)
	})
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkUpdate moves one store a transaction, by up to some hundred metres.
func BenchmarkUpdate(b *testing.B) {
	benchWorlds(b, func(b *testing.B, points []Point) {
		x := built(b, points)
		rng := rand.New(rand.NewPCG(5, 5))
		b.ReportAllocs()
		for b.Loop() {
			moveOne(x, points, rng)
		}
	})
}

func moveOne(x *Index, points []Point, rng *rand.Rand) {
	ref := Ref(rng.IntN(len(points)))
	p := offset(points[ref], rng.NormFloat64()*300, rng.NormFloat64()*300)
	_ = x.Update(func(tx *Tx) error { return tx.Put(ref, p) })
}

// BenchmarkReadWhileUpdating reads on all processors in turns with and without 2,000 updates a second, one transaction
// each, and reports how much of their speed the readers keep.
func BenchmarkReadWhileUpdating(b *testing.B) {
	const perSecond, turn, turns = 2000, 500 * time.Millisecond, 8
	points := towns(1_000_000)
	x := built(b, points)
	qs := nearStores(points, 1<<14)
	rng := rand.New(rand.NewPCG(6, 6))
	var reads [2]float64
	var updates int
	for b.Loop() {
		for i := range turns {
			with := i % 2
			n, moved := readFor(x, qs, turn, func(elapsed time.Duration, moved int) bool {
				if with == 0 || moved >= int(elapsed.Seconds()*perSecond) {
					return false
				}
				moveOne(x, points, rng)
				return true
			})
			reads[with] += float64(n)
			updates += moved
		}
	}
	seconds := float64(b.N) * turns / 2 * turn.Seconds()
	b.ReportMetric(reads[0]/seconds, "reads/s-alone")
	b.ReportMetric(reads[1]/seconds, "reads/s-updated")
	b.ReportMetric(float64(updates)/seconds, "updates/s")
	b.ReportMetric(reads[1]/reads[0], "kept-ratio")
	b.ReportMetric(0, "ns/op")
}

// readFor reads with all processors for a while. write is called about every half millisecond for as long as it says
// that it has more to do.
func readFor(x *Index, qs []Point, d time.Duration, write func(time.Duration, int) bool) (reads, moved int) {
	var total atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			n := 0
			for ; !stop.Load(); n++ {
				nearestFive(x, qs[(n+w*1000)%len(qs)], 5000)
			}
			total.Add(int64(n))
		})
	}
	began := time.Now()
	for time.Since(began) < d {
		for write(time.Since(began), moved) {
			moved++
		}
		time.Sleep(500 * time.Microsecond)
	}
	stop.Store(true)
	wg.Wait()
	return int(total.Load()), moved
}

// offset is the point some metres to the north and east.
func offset(p Point, north, east float64) Point {
	const metresPerDegree = float64(MaxDistance) / 180
	lat := min(90, max(-90, p.Lat+north/metresPerDegree))
	lng := p.Lng + east/metresPerDegree/max(1e-9, math.Cos(lat*math.Pi/180))
	return Point{lat, wrapped(lng)}
}

func wrapped(lng float64) float64 {
	lng = math.Mod(lng+180, 360)
	if lng < 0 {
		lng += 360
	}
	return lng - 180
}

func randomPoint(rng *rand.Rand) Point {
	return Point{math.Asin(2*rng.Float64()-1) * 180 / math.Pi, rng.Float64()*360 - 180}
}
