package geo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// TestLiving puts, moves and deletes at random and compares with a map.
func TestLiving(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(13, seed))
			places := hardPoints(rng, 3000)
			x, w := New(byID), world{}
			if seed%2 == 1 {
				points := places[:1000]
				if err := x.Build(numbered(points)); err != nil {
					t.Fatal(err)
				}
				w = worldOf(points)
			}
			for round := range scaled(1000) {
				// Drift between few and many, so that leaves split and merge.
				putShare := 30 + 40*(round/50%2)
				if err := changeBoth(x, w, rng, places, putShare); err != nil {
					t.Fatal(err)
				}
				if x.Len() != len(w) {
					t.Fatalf("round %d: holds %d, want %d", round, x.Len(), len(w))
				}
				c := w.crowd()
				for range 3 {
					q, within, k := hardQuery(rng, places)
					if err := check(x, c, q, within, k); err != nil {
						t.Fatalf("round %d: %v", round, err)
					}
				}
				if round%20 == 0 {
					if err := x.verify(); err != nil {
						t.Fatalf("round %d: %v", round, err)
					}
				}
			}
			all := slices.Collect(maps.Keys(w))
			if err := x.Update(func(tx *Tx) error {
				for _, ref := range all {
					if !tx.Delete(ref) || tx.Delete(ref) {
						return fmt.Errorf("ref %d was not there once", ref)
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := x.verify(); err != nil || x.Len() != 0 {
				t.Fatalf("after deleting all: %d held, %v", x.Len(), err)
			}
		})
	}
}

// errChanged is a transaction's change of mind.
var errChanged = errors.New("changed my mind")

// changeBoth does one transaction on both, which sometimes fails and then must not show.
func changeBoth(x *Index, w world, rng *rand.Rand, places []Point, putShare int) error {
	before := maps.Clone(w)
	size := 1
	if rng.IntN(3) == 0 {
		size = rng.IntN(200)
	}
	fail := rng.IntN(10) == 0
	err := x.Update(func(tx *Tx) error {
		for range size {
			ref := Ref(rng.IntN(2000))
			_, had := w[ref]
			if rng.IntN(100) >= putShare {
				if tx.Delete(ref) != had {
					return fmt.Errorf("delete of ref %d: was it there? %v", ref, had)
				}
				delete(w, ref)
				continue
			}
			p := places[rng.IntN(len(places))]
			if had && rng.IntN(2) == 0 {
				p = w[ref]
			}
			if err := tx.Put(ref, p); err != nil {
				return err
			}
			w[ref] = p
		}
		if fail {
			return errChanged
		}
		return nil
	})
	if fail && errors.Is(err, errChanged) {
		clear(w)
		maps.Copy(w, before)
		return nil
	}
	return err
}

func TestUpdatePanics(t *testing.T) {
	points := towns(1000)
	x := built(t, points)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = x.Update(func(tx *Tx) error {
			for ref := range Ref(500) {
				tx.Delete(ref)
			}
			panic("oops")
		})
	}()
	if err := errors.Join(x.verify(), check(x, worldOf(points).crowd(), points[0], 0, 1000)); err != nil {
		t.Error(err)
	}
}

// TestSameTransactionAppliesInOrder sees that a transaction reads its own writes.
func TestSameTransactionAppliesInOrder(t *testing.T) {
	x := New(byID)
	a, b := Point{1, 1}, Point{2, 2}
	if err := x.Update(func(tx *Tx) error {
		err := errors.Join(tx.Put(1, a), tx.Put(2, a), tx.Put(1, b), tx.Put(3, a))
		tx.Delete(3)
		return errors.Join(err, tx.Put(3, b), tx.Put(3, b))
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.verify(), check(x, world{1: b, 2: a, 3: b}.crowd(), a, 0, 5)); err != nil {
		t.Error(err)
	}
}

// TestReadersSeeWholeStates has refs swap places in pairs, two in one transaction, while readers list all: each list must
// hold every ref once, and exactly the same distances.
func TestReadersSeeWholeStates(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 14))
	places := hardPoints(rng, 1500)
	x := built(t, places)
	q := Point{90, 0}
	var want []Mark
	x.Nearby(q, Search{}, func(h Hit) bool { want = append(want, h.Mark); return true })

	var readers, writer sync.WaitGroup
	done := make(chan struct{})
	writer.Go(func() {
		at := slices.Clone(places)
		for {
			select {
			case <-done:
				return
			default:
			}
			a, b := rng.IntN(len(at)), rng.IntN(len(at))
			at[a], at[b] = at[b], at[a]
			if err := x.Update(func(tx *Tx) error {
				tx.Delete(Ref(a))
				return errors.Join(tx.Put(Ref(b), at[b]), tx.Put(Ref(a), at[a]))
			}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 4 {
		readers.Go(func() {
			for range scaled(1000) {
				seen := make([]bool, len(places))
				rank := 0
				x.Nearby(q, Search{}, func(h Hit) bool {
					if rank == len(want) || h.Mark != want[rank] || seen[h.Ref] {
						t.Errorf("number %d is ref %d at %v, seen before: %v", rank, h.Ref, h.Distance, seen[h.Ref])
						return false
					}
					seen[h.Ref] = true
					rank++
					return true
				})
				if rank != len(want) {
					t.Errorf("listed %d of %d", rank, len(want))
					return
				}
			}
		})
	}
	readers.Wait()
	close(done)
	writer.Wait()
	if err := x.verify(); err != nil {
		t.Error(err)
	}
}

// TestSearchKeepsItsState changes everything in the middle of a search.
func TestSearchKeepsItsState(t *testing.T) {
	points := towns(2000)
	x := built(t, points)
	q := points[0]
	want := worldOf(points).crowd().nearest(q, 0, len(points))
	rank := 0
	x.Nearby(q, Search{}, func(h Hit) bool {
		if rank == 10 {
			if err := x.Update(func(tx *Tx) error {
				for ref := range Ref(1000) {
					tx.Delete(ref)
				}
				return tx.Put(1500, antipode(q))
			}); err != nil {
				t.Fatal(err)
			}
		}
		if h.Ref != want[rank].ref {
			t.Fatalf("number %d is ref %d, want %d", rank, h.Ref, want[rank].ref)
		}
		rank++
		return true
	})
	if rank != len(points) || x.Len() != 1000 {
		t.Errorf("listed %d of %d; %d are left", rank, len(points), x.Len())
	}
}

// page is the next n after the last hit of the page before.
func page(x *Index, q Point, within Metres, last *Hit, n int) []Hit {
	s := Search{Within: within}
	if last != nil {
		s.From = last.Mark
		s.Passed = func(ref Ref) bool { return !byID(last.Ref, ref) }
	}
	hits := make([]Hit, 0, n)
	x.Nearby(q, s, func(h Hit) bool {
		hits = append(hits, h)
		return len(hits) < n
	})
	return hits
}

func TestPagesAreOneList(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 15))
	points := hardPoints(rng, 4000)
	x, c := built(t, points), worldOf(points).crowd()
	for _, n := range []int{1, 2, 7, 50, 1000} {
		for range scaled(20) {
			q, within, _ := hardQuery(rng, points)
			want := c.nearest(q, within, len(points))
			var last *Hit
			for rank := 0; ; {
				hits := page(x, q, within, last, n)
				for _, h := range hits {
					if rank == len(want) || h.Ref != want[rank].ref {
						t.Fatalf("pages of %d around %v within %v: wrong at %d of %d", n, q, within, rank, len(want))
					}
					rank++
				}
				if len(hits) < n {
					if rank != len(want) {
						t.Fatalf("pages of %d around %v within %v: end at %d of %d", n, q, within, rank, len(want))
					}
					break
				}
				last = &hits[n-1]
			}
		}
	}
}

// TestPagesWhileChanging lets half of the refs come, move and go between pages, most of all those at the pages' ends. The
// other half must come exactly once and in order.
func TestPagesWhileChanging(t *testing.T) {
	rng := rand.New(rand.NewPCG(16, 16))
	for range scaled(60) {
		points := hardPoints(rng, 2000)
		restless := func(ref Ref) bool { return ref%2 == 1 }
		x := built(t, points)
		q, within, _ := hardQuery(rng, points)
		quiet := world{}
		for ref, p := range worldOf(points) {
			if !restless(ref) {
				quiet[ref] = p
			}
		}
		want := quiet.crowd().nearest(q, within, len(points))
		n, rank := 1+rng.IntN(60), 0
		var last *Hit
		for pages := 0; pages < 10_000; pages++ {
			hits := page(x, q, within, last, n)
			for i, h := range hits {
				if i > 0 && h.Mark < hits[i-1].Mark || last != nil && h.Mark < last.Mark {
					t.Fatalf("ref %d comes too late", h.Ref)
				}
				if restless(h.Ref) {
					continue
				}
				if rank == len(want) || h.Ref != want[rank].ref {
					t.Fatalf("ref %d is number %d of those that stay", h.Ref, rank)
				}
				rank++
			}
			if len(hits) < n {
				break
			}
			last = &hits[n-1]
			if err := x.Update(func(tx *Tx) error {
				if restless(last.Ref) {
					tx.Delete(last.Ref)
				}
				for range 20 {
					ref := Ref(rng.IntN(len(points)/2)*2 + 1)
					if tx.Delete(ref); rng.IntN(3) > 0 {
						if err := tx.Put(ref, points[rng.IntN(len(points))]); err != nil {
							return err
						}
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if rank != len(want) {
			t.Fatalf("%d of %d that stay", rank, len(want))
		}
	}
}

// effort is the number of branches and points that a search for the k nearest must look at.
func effort(x *Index, q Point, k int) int {
	var last sepKey
	n := 0
	x.Nearby(q, Search{}, func(h Hit) bool {
		last = keyAt(h.Distance + searchSlack)
		n++
		return n < k
	})
	l := look{q: q.vec(), far: 1, limit: markOf(last)}
	var count func(b branch) int
	count = func(b branch) int {
		n := b.inner()
		if n == nil {
			return 1 + b.points()
		}
		var r run
		l.distantKids(&r, n)
		sum := 1 + n.len()
		for _, i := range r.refs[:r.left] {
			sum += count(n.branch(int(i)))
		}
		return sum
	}
	return count(x.tree.Load().root.branch)
}

// TestMovingKeepsSearchesCheap moves every point many times and compares what searches must look at, and the memory,
// with an index built anew.
func TestMovingKeepsSearchesCheap(t *testing.T) {
	for _, c := range []struct {
		name   string
		points []Point
		move   func(rng *rand.Rand, points []Point, ref int) Point
		back   bool
	}{
		{"near and far", towns(20_000), func(rng *rand.Rand, points []Point, ref int) Point {
			if rng.IntN(10) == 0 {
				ref = rng.IntN(len(points))
			}
			return offset(points[ref], rng.NormFloat64()*3000, rng.NormFloat64()*3000)
		}, false},
		{"out of town and back", villages(20_000), func(rng *rand.Rand, points []Point, ref int) Point {
			return offset(points[ref], rng.NormFloat64()*100_000, rng.NormFloat64()*100_000)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(17, 17))
			points := slices.Clone(c.points)
			x := built(t, points)
			put := func(ref int, p Point) {
				if err := x.Update(func(tx *Tx) error { return tx.Put(Ref(ref), p) }); err != nil {
					t.Fatal(err)
				}
			}
			for range scaled(5) * len(points) {
				ref := rng.IntN(len(points))
				p := c.move(rng, points, ref)
				put(ref, p)
				if c.back {
					put(ref, points[ref])
				} else {
					points[ref] = p
				}
			}
			if err := x.verify(); err != nil {
				t.Fatal(err)
			}
			anew := built(t, points)
			old, fresh := 0, 0
			for _, q := range nearStores(points, 1000) {
				old += effort(x, q, 5)
				fresh += effort(anew, q, 5)
			}
			if float64(old) > 1.2*float64(fresh) {
				t.Errorf("searches look at %d, in an index built anew at %d", old, fresh)
			}
			if float64(x.MemoryBytes()) > 1.2*float64(anew.MemoryBytes()) {
				t.Errorf("holds %d bytes, built anew %d", x.MemoryBytes(), anew.MemoryBytes())
			}
		})
	}
}

// villages are tight groups of points far from each other.
func villages(n int) (points []Point) {
	rng := rand.New(rand.NewPCG(19, 19))
	var at Point
	for i := range n {
		if i%50 == 0 {
			at = Point{rng.Float64()*100 - 50, rng.Float64()*360 - 180}
		}
		points = append(points, offset(at, rng.NormFloat64()*300, rng.NormFloat64()*300))
	}
	return points
}

// TestDeepPagesSkip sees that a page far down does not look at what comes before it.
func TestDeepPagesSkip(t *testing.T) {
	points := towns(50_000)
	x := built(t, points)
	q := points[0]
	half := page(x, q, 0, nil, 25_000)
	l := look{q: q.vec(), limit: markOf(1e300), far: 1, from: markOf(keyAt(half[len(half)-1].Distance))}
	looked := 0
	var count func(b branch)
	count = func(b branch) {
		n := b.inner()
		if n == nil {
			looked += 1 + b.points()
			return
		}
		looked++
		var r run
		l.distantKids(&r, n)
		for i, mark := range r.marks[:r.left] {
			if mark <= l.from {
				count(n.branch(int(r.refs[i])))
			}
		}
	}
	count(x.tree.Load().root.branch)
	if looked > 5000 {
		t.Errorf("a search from the 25,000th on looks at %d points and nodes before it", looked)
	}
}

func FuzzNearby(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 255, 255, 127, 255, 127})
	f.Add([]byte("five points around the pole and some more of them that tie and tie and tie"))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, w := New(byID), world{}
		var last Point
		for n := 0; len(data) >= 5 && n < 500; n++ {
			op := data[0]
			// A coarse grid, so that many coincide, and its ends are the poles and the antimeridian.
			lat, lng := int16(binary.LittleEndian.Uint16(data[1:])), int16(binary.LittleEndian.Uint16(data[3:]))
			last = Point{float64(max(lat, -32767)) * 90 / 32767, float64(max(lng, -32767)) * 180 / 32767}
			data = data[5:]
			ref := Ref(op & 63)
			if err := x.Update(func(tx *Tx) error {
				if op >= 200 {
					tx.Delete(ref)
					return nil
				}
				return tx.Put(ref, last)
			}); err != nil {
				t.Fatal(err)
			}
			if delete(w, ref); op < 200 {
				w[ref] = last
			}
		}
		within := Metres(0)
		if len(data) > 0 {
			within = MaxDistance * Metres(data[0]) / 255
		}
		c := w.crowd()
		if err := errors.Join(x.verify(), check(x, c, last, within, 10), check(x, c, antipode(last), within, 100)); err != nil {
			t.Fatal(err)
		}
	})
}
