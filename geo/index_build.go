package geo

import (
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/shortline/shortline/internal/memory"
)

// Build replaces all points by those given, at once for new searches; it is much quicker than an Update of as many. A
// point that is not on the Earth (ErrPoint) or a ref given twice is an error and leaves everything as it was. An Update
// meanwhile waits for nothing, and is lost if it ends before Build does. The points lie in one piece of memory, 32 bytes
// each, which is given back only when all of it has been deleted or moved, or with the next Build.
func (x *Index) Build(points iter.Seq2[Ref, Point]) error {
	var raw []rawPoint
	slots := 0
	for ref, p := range points {
		if !p.Valid() {
			return fmt.Errorf("build with ref %d at %v: %w", ref, p, ErrPoint)
		}
		if len(raw) == math.MaxInt32 {
			return fmt.Errorf("build with more than %d points", math.MaxInt32)
		}
		raw = append(raw, rawPoint{p, ref})
		slots = max(slots, int(ref)+1)
	}
	keys, spots := x.arrange(raw)
	paths := make([]path, slots)
	for _, k := range keys {
		if paths[k.ref] != 0 {
			return fmt.Errorf("build with ref %d twice", k.ref)
		}
		paths[k.ref] = k.path
	}

	t := &tree{points: len(keys), slots: slots}
	if len(keys) > 0 {
		t.root = x.grow(keys, spots, 0)
		t.inners = t.root.inners()
		var huge memory.Huge
		huge.Add(unsafe.Pointer(&spots[0]), len(spots)*int(unsafe.Sizeof(spot{})))
		t.root.addInners(&huge)
		huge.Advise()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.paths = paths
	x.tree.Store(t)
	return nil
}

type rawPoint struct {
	Point
	ref Ref
}

// sortable is a key and where its point came in.
type sortable struct {
	path path
	ref  Ref
	nth  uint32
}

// arrange gives the points' keys in order, and the points in the same order.
func (x *Index) arrange(raw []rawPoint) ([]key, []spot) {
	order := make([]sortable, len(raw))
	inParallel(len(raw), func(from, to int) {
		for i, p := range raw[from:to] {
			order[from+i] = sortable{x.grid.pathOf(p.Point), p.ref, uint32(from + i)}
		}
	})
	slices.SortFunc(order, func(a, b sortable) int { return key{a.path, a.ref}.compare(key{b.path, b.ref}) })
	keys, spots := make([]key, len(raw)), make([]spot, len(raw))
	inParallel(len(raw), func(from, to int) {
		for i := from; i < to; i++ {
			o := order[i]
			keys[i], spots[i] = key{o.path, o.ref}, spot{raw[o.nth].vec(), o.ref}
		}
	})
	return keys, spots
}

// inParallel shares the range 0 to n among the processors and returns when all of it is done.
func inParallel(n int, do func(from, to int)) {
	const enough = 4096
	workers := max(1, min(runtime.GOMAXPROCS(0), n/enough))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { do(n*w/workers, n*(w+1)/workers) })
	}
	wg.Wait()
}

// growApart is how many points a subtree must have to be built beside its siblings.
const growApart = 1 << 15

// grow makes the subtree of one or more points, sorted by key and unique. The spots are its own from now on.
func (x *Index) grow(keys []key, spots []spot, gen uint64) subtree {
	if len(keys) <= leafMax {
		return x.leafOf(spots)
	}
	whole := x.bent(ballOf(spots))
	first, last := keys[0], keys[len(keys)-1]
	n := &inner{origin: whole.c, sample: first, points: int32(len(keys)), gen: gen, level: uint8(first.fork(last))}
	var wg sync.WaitGroup
	for from := 0; from < len(keys); {
		digit := keys[from].digit(int(n.level))
		i, end := n.len(), endOf(keys, from, digit, int(n.level))
		n.mask |= 1 << digit
		part, in := keys[from:end], spots[from:end]
		if len(keys) >= growApart {
			wg.Go(func() { n.set(i, x.grow(part, in, gen)) })
		} else {
			n.set(i, x.grow(part, in, gen))
		}
		from = end
	}
	wg.Wait()
	return subtree{whole, innerBranch(n)}
}

// leafOf is the leaf of some points, which are its own from now on.
func (x *Index) leafOf(spots []spot) subtree {
	return subtree{x.bent(ballOf(spots)), leaf(spots)}
}

// endOf is where the run of keys that have the digit at the level, from the given place on, ends.
func endOf(keys []key, from, digit, level int) int {
	n, _ := slices.BinarySearchFunc(keys[from:], digit, func(k key, digit int) int {
		if k.digit(level) <= digit {
			return -1
		}
		return 1
	})
	return from + n
}

func (x *Index) bent(b ball) ball {
	b.r *= x.bend.ball
	return b
}
