package main

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/shortline/shortline/geo"
)

// answer is one store of a true answer.
type answer struct {
	ref      geo.Ref
	distance geo.Metres
}

// haversine is the distance as the textbook has it, with nothing of package geo but the radius.
func haversine(a, b geo.Point) geo.Metres {
	const rad = math.Pi / 180
	sinLat, sinLng := math.Sin((b.Lat-a.Lat)*rad/2), math.Sin((b.Lng-a.Lng)*rad/2)
	h := sinLat*sinLat + math.Cos(a.Lat*rad)*math.Cos(b.Lat*rad)*sinLng*sinLng
	return 2 * geo.EarthRadius * geo.Metres(math.Asin(min(1, math.Sqrt(h))))
}

// brute holds the points as columns, for looking at all of them.
type brute struct {
	points  []geo.Point
	x, y, z []float64
}

func newBrute(points []geo.Point) *brute {
	b := &brute{points: points, x: make([]float64, len(points)), y: make([]float64, len(points)), z: make([]float64, len(points))}
	for i, p := range points {
		b.x[i], b.y[i], b.z[i] = onSphere(p)
	}
	return b
}

func onSphere(p geo.Point) (x, y, z float64) {
	sinLat, cosLat := math.Sincos(p.Lat * (math.Pi / 180))
	sinLng, cosLng := math.Sincos(p.Lng * (math.Pi / 180))
	return cosLat * cosLng, cosLat * sinLng, sinLat
}

// best are the points found so far for one question, nearest first.
type best struct {
	question
	x, y, z float64
	limit   float64 // the squared chord that another point must be below, or at
	found   []candidate
}

type candidate struct {
	chord2 float64
	ref    geo.Ref
}

func (a candidate) compare(b candidate) int {
	if c := cmp.Compare(a.chord2, b.chord2); c != 0 {
		return c
	}
	return cmp.Compare(uint32(a.ref)*scramble, uint32(b.ref)*scramble)
}

// offer is called for points within the limit.
func (b *best) offer(c candidate) {
	at, _ := slices.BinarySearchFunc(b.found, c, candidate.compare)
	if at == b.k {
		return
	}
	if len(b.found) == b.k {
		b.found = b.found[:b.k-1]
	}
	b.found = slices.Insert(b.found, at, c)
	if len(b.found) == b.k {
		b.limit = b.found[b.k-1].chord2
	}
}

// answers compares every point with every question, on all processors. Order is by distance, ties by id.
func (b *brute) answers(qs []question) [][]answer {
	out := make([][]answer, len(qs))
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			lo, hi := w*len(qs)/workers, (w+1)*len(qs)/workers
			b.scan(qs[lo:hi], out[lo:hi])
		})
	}
	wg.Wait()
	return out
}

// scan takes the points by blocks that stay in the first cache while all questions go over them.
func (b *brute) scan(qs []question, out [][]answer) {
	const block = 1024
	all := make([]best, len(qs))
	for i, q := range qs {
		all[i] = best{question: q, limit: 4, found: make([]candidate, 0, q.k+1)}
		all[i].x, all[i].y, all[i].z = onSphere(q.at)
		if q.within > 0 {
			s := 2 * math.Sin(float64((q.within+0.01)/geo.EarthRadius)/2)
			all[i].limit = s * s
		}
	}
	for from := 0; from < len(b.x); from += block {
		to := min(from+block, len(b.x))
		xs, ys, zs := b.x[from:to], b.y[from:to], b.z[from:to]
		for i := range all {
			all[i].pass(xs, ys, zs, from)
		}
	}
	for i := range all {
		q := &all[i]
		for _, c := range q.found {
			if d := haversine(q.at, b.points[c.ref]); q.within == 0 || d <= q.within {
				out[i] = append(out[i], answer{c.ref, d})
			}
		}
	}
}

func (b *best) pass(xs, ys, zs []float64, from int) {
	ys, zs = ys[:len(xs)], zs[:len(xs)]
	x, y, z, limit := b.x, b.y, b.z, b.limit
	for j := range xs {
		dx, dy, dz := xs[j]-x, ys[j]-y, zs[j]-z
		if c2 := dx*dx + dy*dy + dz*dz; c2 <= limit {
			b.offer(candidate{c2, geo.Ref(from + j)})
			limit = b.limit
		}
	}
}

// Differences that rounding explains.
const (
	sameDistance geo.Metres = 1e-6 // two stores at as good as one distance may come in either order
	millimetre   geo.Metres = 1e-3
)

// fault tells what is wrong with an answer of the index, or "". Stores at exactly one place must be in order of their ids.
func (b *brute) fault(q question, got []geo.Hit, want []answer) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i == len(got):
			if q.within > 0 && want[i].distance > q.within-sameDistance {
				return ""
			}
			return fmt.Sprintf("%d stores instead of %d", len(got), len(want))
		case i == len(want):
			if q.within > 0 && got[i].Distance > q.within-sameDistance {
				return ""
			}
			return fmt.Sprintf("%d stores instead of %d", len(got), len(want))
		}
		actual := haversine(q.at, b.points[got[i].Ref])
		if abs(got[i].Distance-actual) > millimetre {
			return fmt.Sprintf("distance %v of store %d is %v", got[i].Distance, i, actual)
		}
		if got[i].Ref == want[i].ref {
			continue
		}
		if abs(actual-want[i].distance) > sameDistance || b.points[got[i].Ref] == b.points[want[i].ref] {
			return fmt.Sprintf("store %d is %s at %v, not %s at %v", i, storeID(int(got[i].Ref)), actual, storeID(int(want[i].ref)), want[i].distance)
		}
		for _, h := range got[:i] {
			if h.Ref == got[i].Ref {
				return fmt.Sprintf("store %d comes twice", i)
			}
		}
	}
	return ""
}

func abs(d geo.Metres) geo.Metres { return max(d, -d) }
