package geo

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// scaled is n, or a twentieth where it must be quick.
func scaled(n int) int {
	if raceOn || testing.Short() {
		return max(1, n/20)
	}
	return n
}

// pentagons are the centres of the twelve pentagons.
var pentagons = func() (at []Point) {
	for n := range baseCells {
		if pentagonAt(n) {
			at = append(at, baseCell(n).Centre())
		}
	}
	return at
}()

// hardPoint is at or next to a pole, the antimeridian or a pentagon, from a micrometre to a thousand kilometres off, or
// anywhere.
func hardPoint(rng *rand.Rand) Point {
	off := math.Pow(10, rng.Float64()*12-6)
	if rng.IntN(8) == 0 {
		off = 0
	}
	north, east := rng.NormFloat64()*off, rng.NormFloat64()*off
	switch rng.IntN(8) {
	case 0:
		return Point{min(90, 90-math.Abs(north)/111_195), rng.Float64()*360 - 180}
	case 1:
		return Point{max(-90, -90+math.Abs(north)/111_195), rng.Float64()*360 - 180}
	case 2, 3:
		p := offset(Point{rng.Float64()*180 - 90, 180}, north, east)
		if p.Lng == -180 && rng.IntN(2) == 0 {
			p.Lng = 180
		}
		return p
	case 4, 5, 6:
		return offset(pentagons[rng.IntN(12)], north, east)
	}
	return randomPoint(rng)
}

// hardPoints are many of them, with ties: a third repeats a former one, another is rounded so that coordinates meet, and
// a few hundred are all at one place.
func hardPoints(rng *rand.Rand, n int) []Point {
	points := make([]Point, n)
	for i := range points {
		switch kind := rng.IntN(100); {
		case kind < 33 && i > 0:
			points[i] = points[rng.IntN(i)]
		case kind < 66:
			p := hardPoint(rng)
			points[i] = Point{math.Round(p.Lat*100) / 100, math.Round(p.Lng*100) / 100}
		case kind < 67:
			points[i] = pentagons[3]
		default:
			points[i] = hardPoint(rng)
		}
	}
	return points
}

// hardQuery is a point where something may go wrong, and a bound and count.
func hardQuery(rng *rand.Rand, points []Point) (q Point, within Metres, k int) {
	switch rng.IntN(5) {
	case 0:
		q = points[rng.IntN(len(points))]
	case 1:
		q = antipode(points[rng.IntN(len(points))])
	case 2:
		off := math.Pow(10, rng.Float64()*8-2)
		q = offset(points[rng.IntN(len(points))], rng.NormFloat64()*off, rng.NormFloat64()*off)
	case 3:
		q = hardPoint(rng)
	default:
		q = randomPoint(rng)
	}
	switch rng.IntN(8) {
	case 0, 1:
		within = 0
	case 2:
		within = Distance(q, points[rng.IntN(len(points))]) // exactly there: inclusive
	case 3:
		within = MaxDistance - Metres(math.Pow(10, rng.Float64()*7))
	default:
		within = Metres(math.Pow(10, rng.Float64()*math.Log10(float64(MaxDistance))))
	}
	return q, within, 1 + rng.IntN(100)
}

func TestNearbyRealData(t *testing.T) {
	points, err := starbucks()
	if err != nil {
		t.Skipf("SKIPPED, no real data: %v", err)
	}
	rng := rand.New(rand.NewPCG(10, 10))
	x, c := built(t, points), worldOf(points).crowd()
	for range scaled(2000) {
		q, within, k := hardQuery(rng, points)
		if err := check(x, c, q, within, k); err != nil {
			t.Fatal(err)
		}
	}
	// The order of distance by another formula altogether, rank by rank.
	for range scaled(50) {
		q := randomPoint(rng)
		want := make([]float64, len(points))
		for i, p := range points {
			want[i] = haversine(q, p)
		}
		slices.Sort(want)
		rank := 0
		x.Nearby(q, Search{}, func(h Hit) bool {
			if math.Abs(float64(h.Distance)-want[rank]) > 0.001 {
				t.Fatalf("number %d from %v is at %.6f m, want %.6f m", rank, q, h.Distance, want[rank])
			}
			rank++
			return true
		})
		if rank != len(points) {
			t.Fatalf("found %d of %d", rank, len(points))
		}
	}
}

func TestNearbyHardPlaces(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	points := hardPoints(rng, scaled(200_000))
	x, c := built(t, points), worldOf(points).crowd()
	if err := x.verify(); err != nil {
		t.Fatal(err)
	}
	for range scaled(3000) {
		q, within, k := hardQuery(rng, points)
		if err := check(x, c, q, within, k); err != nil {
			t.Fatal(err)
		}
	}
	for k := 1; k <= 100; k++ {
		q, _, _ := hardQuery(rng, points)
		if err := check(x, c, q, 0, k); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNearbyMillion is the full measure: none wrong of 10,000 searches among a million stores. It takes some minutes.
func TestNearbyMillion(t *testing.T) {
	if os.Getenv("SHORTLINE_TEST_1M") != "1" {
		t.Skip("set SHORTLINE_TEST_1M=1 to run")
	}
	points := towns(1_000_000)
	x, c := built(t, points), worldOf(points).crowd()
	var wg sync.WaitGroup
	for w := range uint64(runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(18, w))
			for range 10_000 / runtime.GOMAXPROCS(0) {
				q, within, k := hardQuery(rng, points)
				if err := check(x, c, q, within, k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestBentBounds proves that the checks above can fail: bounds that promise too much must be noticed, near and far.
func TestBentBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 12))
	everywhere := hardPoints(rng, 20_000)
	// All beyond a quarter of the circumference from the antipode of any of them.
	var africa []Point
	for range 20_000 {
		africa = append(africa, offset(Point{5, 20}, rng.NormFloat64()*500_000, rng.NormFloat64()*500_000))
	}
	for _, m := range []struct {
		name   string
		bend   bend
		points []Point
		wrong  bool
	}{
		{"straight", bend{ball: 1, far: 1}, everywhere, false},
		{"balls of nine tenths", bend{ball: 0.9, far: 1}, everywhere, true},
		{"straight, far", bend{ball: 1, far: 1}, africa, false},
		{"no radius far away", bend{ball: 1, far: 0}, africa, true},
		{"nine tenths of it far away", bend{ball: 1, far: 0.9}, africa, true},
	} {
		t.Run(m.name, func(t *testing.T) {
			x, c := New(byID), worldOf(m.points).crowd()
			x.bend = m.bend
			if err := x.Build(numbered(m.points)); err != nil {
				t.Fatal(err)
			}
			wrong := 0
			for range scaled(1000) {
				q, within, k := hardQuery(rng, m.points)
				if x.bend.far != 1 {
					q, within = antipode(m.points[rng.IntN(len(m.points))]), 0
				}
				if check(x, c, q, within, k) != nil {
					wrong++
				}
			}
			if m.wrong != (wrong > 0) {
				t.Errorf("%d searches wrong", wrong)
			}
		})
	}
}

func TestNearbyBounds(t *testing.T) {
	x := New(byID)
	count := func(q Point, s Search) (n int) {
		x.Nearby(q, s, func(Hit) bool { n++; return true })
		return n
	}
	if n := count(Point{}, Search{}); n != 0 || x.Len() != 0 {
		t.Errorf("empty: %d found, %d held", n, x.Len())
	}
	a, b := Point{10, 10}, Point{10, 11}
	if err := x.Build(numbered([]Point{a, b})); err != nil {
		t.Fatal(err)
	}
	d := Distance(a, b)
	nan := math.NaN()
	for _, c := range []struct {
		name string
		q    Point
		s    Search
		want int
	}{
		{"whole Earth", a, Search{}, 2},
		{"exactly as far", a, Search{Within: d}, 2},
		{"a hair less", a, Search{Within: Metres(math.Nextafter(float64(d), 0))}, 1},
		{"antipode", antipode(a), Search{Within: MaxDistance}, 2},
		{"more than the Earth", a, Search{Within: 1e9}, 2},
		{"infinite", a, Search{Within: Metres(math.Inf(1))}, 2},
		{"negative", a, Search{Within: -1}, 0},
		{"NaN bound", a, Search{Within: Metres(nan)}, 0},
		{"NaN point", Point{nan, 0}, Search{}, 0},
		{"no point", Point{91, 0}, Search{}, 0},
	} {
		if got := count(c.q, c.s); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestBuildAndPutErrors(t *testing.T) {
	x := New(byID)
	if err := x.Build(numbered([]Point{{1, 1}})); err != nil {
		t.Fatal(err)
	}
	bad := Point{math.NaN(), 0}
	if err := x.Build(numbered([]Point{{2, 2}, bad})); !errors.Is(err, ErrPoint) {
		t.Errorf("build with a bad point: %v", err)
	}
	twice := func(yield func(Ref, Point) bool) { _ = yield(5, Point{3, 3}) && yield(5, Point{4, 4}) }
	if err := x.Build(twice); err == nil {
		t.Error("build with a ref twice: no error")
	}
	err := x.Update(func(tx *Tx) error { return tx.Put(7, Point{0, 180.5}) })
	if !errors.Is(err, ErrPoint) {
		t.Errorf("put of a bad point: %v", err)
	}
	if err := check(x, worldOf([]Point{{1, 1}}).crowd(), Point{}, 0, 10); err != nil {
		t.Errorf("after errors: %v", err)
	}
	if err := x.Build(numbered(nil)); err != nil || x.Len() != 0 {
		t.Errorf("build of nothing: %v, %d held", err, x.Len())
	}
	if err := x.verify(); err != nil {
		t.Error(err)
	}
}

// TestManyAtOnePlace has more points in one finest cell than a leaf holds.
func TestManyAtOnePlace(t *testing.T) {
	points := make([]Point, 5000)
	for i := range points {
		points[i] = Point{0, 0}
	}
	c := worldOf(points).crowd()
	x := built(t, points)
	y := New(byID)
	for i, p := range points {
		if err := y.Update(func(tx *Tx) error { return tx.Put(Ref(i), p) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []*Index{x, y} {
		if err := errors.Join(x.verify(), check(x, c, Point{0, 0}, 0, 5000), check(x, c, Point{0, 180}, 0, 100)); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryBytes(t *testing.T) {
	points := towns(scaled(400_000))
	before := heapInUse()
	x := built(t, points)
	used := heapInUse() - before
	runtime.KeepAlive(points)
	estimate := int64(x.MemoryBytes())
	each := float64(used) / float64(len(points))
	t.Logf("%.1f bytes a point, estimated %.1f", each, float64(estimate)/float64(len(points)))
	if each > 64 {
		t.Errorf("%.1f bytes a point, want at most 64", each)
	}
	if ratio := float64(estimate) / float64(used); ratio < 0.85 || ratio > 1.15 {
		t.Errorf("estimated %d of %d", estimate, used)
	}
}

func TestNearbyAllocatesNothing(t *testing.T) {
	if raceOn {
		t.Skip("the race detector empties pools at random")
	}
	points := towns(20_000)
	x := built(t, points)
	qs := nearStores(points, 64)
	i := 0
	if n := testing.AllocsPerRun(1000, func() { nearestFive(x, qs[i%len(qs)], 5000); i++ }); n != 0 {
		t.Errorf("%v allocations a search", n)
	}
}

func ExampleIndex_Nearby() {
	names := []string{"Pike Place", "Capitol Hill", "Portland"}
	index := New(func(a, b Ref) bool { return names[a] < names[b] })
	_ = index.Update(func(tx *Tx) error {
		return errors.Join(
			tx.Put(0, Point{47.6097, -122.3425}),
			tx.Put(1, Point{47.6140, -122.3280}),
			tx.Put(2, Point{45.5152, -122.6784}),
		)
	})
	index.Nearby(Point{47.6062, -122.3321}, Search{Within: 5000}, func(h Hit) bool {
		fmt.Printf("%s %.0f m\n", names[h.Ref], h.Distance)
		return true
	})
	// Output:
	// Pike Place 871 m
	// Capitol Hill 920 m
}
