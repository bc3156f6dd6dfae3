package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
)

// indexResults are of the index in this process.
type indexResults struct {
	checked, wrong int
	firstFault     string
	bruteTook      time.Duration
	catalogBytes   float64 // a store; 0: not measured
}

// sizeResults are of the index with one number of stores.
type sizeResults struct {
	stores     int
	build      time.Duration
	indexBytes float64 // a store
	nearby     []cost  // of each of lookups
}

// cost is CPU time of one query.
type cost struct{ median, mean time.Duration }

// lookups are the columns of the table.
var lookups = []struct {
	name   string
	within geo.Metres
}{{"1 km", 1000}, {"5 km", 5000}, {"50 km", 50_000}, {"unlimited", 0}, {"anywhere, 2,000 km", 2_000_000}}

func buildIndex(points []geo.Point) (*geo.Index, error) {
	x := geo.New(byID)
	err := x.Build(func(yield func(geo.Ref, geo.Point) bool) {
		for i, p := range points {
			if !yield(geo.Ref(i), p) {
				return
			}
		}
	})
	return x, err
}

// search answers a question; hits is used again.
func search(x *geo.Index, q question, hits []geo.Hit) []geo.Hit {
	hits = hits[:0]
	x.Nearby(q.at, geo.Search{Within: q.within}, func(h geo.Hit) bool {
		hits = append(hits, h)
		return len(hits) < q.k
	})
	return hits
}

func (b *bench) measureIndex(ctx context.Context) error {
	sizes := []int{b.stores}
	if b.stores > 25_000 {
		sizes = []int{25_000, b.stores}
	}
	if b.huge && b.stores < 10_000_000 {
		sizes = append(sizes, 10_000_000)
	}
	for _, n := range sizes {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := b.data
		if n != b.stores {
			var err error
			if data, err = newDataset(n); err != nil {
				return err
			}
		}
		b.say("index with %s stores", thousands(n))
		if err := b.measureSize(data); err != nil {
			return err
		}
		if n == b.stores {
			if err := b.checkIndex(); err != nil {
				return err
			}
		}
	}
	b.say("memory of the whole catalog")
	b.index.catalogBytes = b.catalogBytes()
	return nil
}

// catalogBytes is the heap a store of a whole catalog without details.
func (b *bench) catalogBytes() float64 {
	before := heap()
	catalog := new(edge.Catalog)
	view := catalog.Begin()
	b.data.fill(view, time.Now())
	catalog.Install(view)
	after := heap()
	runtime.KeepAlive(catalog)
	return float64(after-before) / float64(b.stores)
}

func (b *bench) measureSize(data *dataset) error {
	n := len(data.points)
	before := heap()
	start := time.Now()
	x, err := buildIndex(data.points)
	if err != nil {
		return err
	}
	r := sizeResults{stores: n, build: time.Since(start)}
	r.indexBytes = float64(heap()-before) / float64(n)
	near, far := data.near(1<<14), anywhere(1<<14)
	for _, l := range lookups {
		qs := asked(near, 5, l.within)
		if l.within == 2_000_000 {
			qs = far
		}
		r.nearby = append(r.nearby, nearbyCost(x, qs, 100_000))
	}
	b.sized = append(b.sized, r)
	runtime.KeepAlive(x)
	return nil
}

// nearbyCost is the CPU time of a query on one thread; the median is that of batches of 64.
func nearbyCost(x *geo.Index, qs []question, queries int) cost {
	const batch = 64
	hits := make([]geo.Hit, 0, 128)
	for _, q := range qs {
		hits = search(x, q, hits)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var batches []time.Duration
	begin := threadCPU()
	for last := begin; len(batches) < queries/batch; {
		for i := range batch {
			hits = search(x, qs[(len(batches)*batch+i)%len(qs)], hits)
		}
		now := threadCPU()
		batches = append(batches, now-last)
		last = now
	}
	mean := (threadCPU() - begin) / time.Duration(len(batches)*batch)
	slices.Sort(batches)
	return cost{median: batches[len(batches)/2] / batch, mean: mean}
}

// threadCPU is the CPU time that the thread has used: what others do on the machine is not in it.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(fmt.Sprintf("read the thread's clock: %v", err)) // every system that Go runs on and has unix in its name has it
	}
	return time.Duration(ts.Nano())
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// checkIndex compares answers with brute force: most of them nearest five within 1, 5 and 50 km, the rest long lists, no
// bound, and places all over the globe.
func (b *bench) checkIndex() error {
	x, err := buildIndex(b.data.points)
	if err != nil {
		return err
	}
	n := b.checks
	near := b.data.near(n)
	var qs []question
	for _, l := range lookups[:3] {
		qs = append(qs, asked(near[:n/4], 5, l.within)...)
	}
	qs = append(qs, asked(near[n/4:n/4+n/10], 100, 50_000)...)
	qs = append(qs, asked(near[n/2:n/2+n/20], 20, 0)...)
	qs = append(qs, anywhere(n-len(qs))...)
	b.say("comparing %s answers with brute force", thousands(len(qs)))
	start := time.Now()
	truth := newBrute(b.data.points)
	want := truth.answers(qs)
	b.index.bruteTook = time.Since(start)
	b.index.checked = len(qs)
	var hits []geo.Hit
	for i, q := range qs {
		hits = search(x, q, hits)
		if fault := truth.fault(q, hits, want[i]); fault != "" {
			if b.index.wrong++; b.index.firstFault == "" {
				b.index.firstFault = fmt.Sprintf("nearest %d to %v, %v within %v m: %s", q.k, q.at.Lat, q.at.Lng, q.within, fault)
				b.say("wrong: %s", b.index.firstFault)
			}
		}
	}
	return nil
}
