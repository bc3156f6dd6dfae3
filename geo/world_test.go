package geo

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
)

// starbucksFile is real data that may lie beside the repository; it is not part of it.
const starbucksFile = "../../shared/data/starbucks.csv"

// starbucks reads the places of real stores.
func starbucks() ([]Point, error) {
	f, err := os.Open(starbucksFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	head, err := r.Read()
	if err != nil {
		return nil, err
	}
	lat, lng := slices.Index(head, "Latitude"), slices.Index(head, "Longitude")
	var points []Point
	for {
		row, err := r.Read()
		if err == io.EOF {
			return points, nil
		}
		if err != nil {
			return nil, err
		}
		y, errLat := strconv.ParseFloat(row[lat], 64)
		x, errLng := strconv.ParseFloat(row[lng], 64)
		if errLat == nil && errLng == nil {
			points = append(points, Point{y, x})
		}
	}
}

// byID is an order of ids that is not that of refs.
func byID(a, b Ref) bool { return idOf(a) < idOf(b) }

func idOf(r Ref) uint32 { return uint32(r) * 2654435761 }

// world is what an index should hold, the slow and simple way.
type world map[Ref]Point

func worldOf(points []Point) world {
	w := make(world, len(points))
	for i, p := range points {
		w[Ref(i)] = p
	}
	return w
}

// found is a point by brute force.
type found struct {
	ref Ref
	key sepKey
}

func (f found) compare(o found) int {
	switch {
	case f.key != o.key:
		if f.key < o.key {
			return -1
		}
		return 1
	case f.ref == o.ref:
		return 0
	case byID(f.ref, o.ref):
		return -1
	}
	return 1
}

// crowd is a world made ready for brute force.
type crowd struct {
	world world
	refs  []Ref
	at    []vec
}

func (w world) crowd() crowd {
	c := crowd{world: w}
	for ref, p := range w {
		c.refs, c.at = append(c.refs, ref), append(c.at, p.vec())
	}
	return c
}

// nearest is the k nearest within the distance.
func (c crowd) nearest(q Point, within Metres, k int) []found {
	from := q.vec()
	best := make([]found, 0, k+1)
	for i, at := range c.at {
		f := found{c.refs[i], keyBetween(from, at)}
		if len(best) == k && f.key > best[k-1].key || within > 0 && f.key.distance() > within {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, f, found.compare)
		if best = slices.Insert(best, at, f); len(best) > k {
			best = best[:k]
		}
	}
	return best
}

// check compares the k nearest that the index finds with brute force: the same refs in the same order, and distances
// within a millimetre of a haversine that shares no code with the index.
func check(x *Index, c crowd, q Point, within Metres, k int) error {
	want := c.nearest(q, within, k)
	got := make([]Hit, 0, k)
	x.Nearby(q, Search{Within: within}, func(h Hit) bool {
		got = append(got, h)
		return len(got) < k
	})
	for i, h := range got {
		if i == len(want) {
			return fmt.Errorf("%d nearest of %v within %.3f m: found %d, there are %d", k, q, within, len(got), len(want))
		}
		if h.Ref != want[i].ref {
			return fmt.Errorf("%d nearest of %v within %.3f m: number %d is %v at %.6f m, want %v at %.6f m",
				k, q, within, i, c.world[h.Ref], h.Distance, c.world[want[i].ref], want[i].key.distance())
		}
		if d := haversine(q, c.world[h.Ref]); math.Abs(float64(h.Distance)-d) > 0.001 {
			return fmt.Errorf("from %v to %v: %.6f m, want %.6f m", q, c.world[h.Ref], h.Distance, d)
		}
	}
	if len(got) < len(want) {
		return fmt.Errorf("%d nearest of %v within %.3f m: found %d, there are %d", k, q, within, len(got), len(want))
	}
	return nil
}

// haversine is the textbook's formula. Beyond a quarter of the circumference, where it loses digits, it measures from
// the antipode.
func haversine(a, b Point) float64 {
	const r, rad = 6371008.8, math.Pi / 180
	square := func(x float64) float64 { return x * x }
	h := func(a, b Point) float64 {
		return square(math.Sin((b.Lat-a.Lat)*rad/2)) +
			math.Cos(a.Lat*rad)*math.Cos(b.Lat*rad)*square(math.Sin((b.Lng-a.Lng)*rad/2))
	}
	if x := h(a, b); x <= 0.5 {
		return 2 * r * math.Asin(math.Sqrt(x))
	}
	return r * (math.Pi - 2*math.Asin(math.Sqrt(min(1, h(antipode(a), b)))))
}

func antipode(p Point) Point {
	if p.Lng > 0 {
		return Point{-p.Lat, p.Lng - 180}
	}
	return Point{-p.Lat, p.Lng + 180}
}

// verify checks what must always hold of a tree.
func (x *Index) verify() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tree.Load()
	held := 0
	for _, p := range x.paths {
		if p != 0 {
			held++
		}
	}
	if held != t.points || t.inners != t.root.inners() || t.root.points() != t.points {
		return fmt.Errorf("counts %d points, %d inner nodes; has %d, %d and %d paths", t.points, t.inners,
			t.root.points(), t.root.inners(), held)
	}
	if t.root.empty() {
		return nil
	}
	return x.verifySubtree(t.root, -1)
}

func (x *Index) verifySubtree(t subtree, above int) error {
	spots := t.gather(nil)
	if len(spots) != t.points() || len(spots) == 0 {
		return fmt.Errorf("%d points, counted %d", len(spots), t.points())
	}
	for _, s := range spots {
		if d := math.Sqrt(t.c.chord2(s.at)); d > t.r {
			return fmt.Errorf("ref %d is %g off a ball of %g", s.ref, d, t.r)
		}
	}
	n := t.inner()
	if n == nil {
		if len(spots) > leafMax {
			return fmt.Errorf("leaf of %d points", len(spots))
		}
		return nil
	}
	if n.len() < 2 || len(spots) <= leafMin || int(n.level) <= above {
		return fmt.Errorf("inner node of %d kids and %d points at level %d below %d", n.len(), len(spots), n.level, above)
	}
	for _, s := range spots {
		if k := (key{x.paths[s.ref], s.ref}); k.fork(n.sample) < int(n.level) {
			return fmt.Errorf("key %x does not belong below %x at level %d", k, n.sample, n.level)
		}
	}
	for digit := range maxKids {
		if !n.has(digit) {
			continue
		}
		kid := n.kid(n.slot(digit))
		for _, s := range kid.gather(nil) {
			if (key{x.paths[s.ref], s.ref}).digit(int(n.level)) != digit {
				return fmt.Errorf("ref %d is below the wrong digit %d of level %d", s.ref, digit, n.level)
			}
		}
		if err := x.verifySubtree(kid, int(n.level)); err != nil {
			return err
		}
	}
	for i := n.len(); i < maxKids; i++ {
		if n.x[i] != 0 || n.y[i] != 0 || n.z[i] != 0 || n.r[i] != 0 || n.branch(i) != (branch{}) {
			return fmt.Errorf("node of %d kids keeps a former one", n.len())
		}
	}
	return nil
}
