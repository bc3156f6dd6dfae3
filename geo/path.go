package geo

import (
	"cmp"
	"math/bits"
	"slices"
)

// The tree branches by the digits of a key, coarse to fine: three for the base cell, one of the H3 cell for each
// resolution from 1 to 15, and at last the bits of the ref, three at a time, so that any number of points in one finest
// cell still falls into small leaves. Each digit is less than maxKids.
const (
	levelBase = 2                     // the last of the base cell's digits; the first two are of three bits, this is of one
	levelFine = levelBase + FinestRes // the finest resolution's digit
	levelLast = levelFine + (32+2)/3  // the ref's lowest bits

	baseBits = 7
	pathSet  = path(1) << (cellBaseShift + baseBits) // always set, so that no path is zero
)

// path is where a point is in the tree: the digits of its finest cell, below the base cell's rank in the grid. The zero
// path is nowhere.
type path uint64

// key is a point's path and ref, which together are unique.
type key struct {
	path path
	ref  Ref
}

// digit is the key's child number at the level.
func (k key) digit(level int) int {
	switch {
	case level < levelBase:
		return int(k.path >> (cellBaseShift + baseBits - digitBits*(level+1)) & digitMask)
	case level == levelBase:
		return int(k.path >> cellBaseShift & 1)
	case level <= levelFine:
		return int(k.path >> (digitBits * (levelFine - level)) & digitMask)
	}
	return int(k.ref >> (digitBits * (levelLast - level)) & digitMask)
}

// fork is the first level at which the keys have different digits; for equal keys the last level.
func (k key) fork(o key) int {
	if x := uint64(k.path ^ o.path); x != 0 {
		high := bits.Len64(x) - 1
		if high < cellBaseShift {
			return levelFine - high/digitBits
		}
		return (cellBaseShift + baseBits - 1 - high) / digitBits
	}
	return levelLast - (bits.Len32(uint32(k.ref^o.ref))-1)/digitBits
}

// compare orders keys by their digits from the first level on.
func (k key) compare(o key) int {
	if c := cmp.Compare(k.path, o.path); c != 0 {
		return c
	}
	return cmp.Compare(k.ref, o.ref)
}

// grid ranks the base cells so that those with equal upper bits lie together: then a search bounds some twenty nodes
// for them instead of 122. Immutable.
type grid struct {
	base [baseCells]path // path of each base cell, digits zero
}

func newGrid() *grid {
	type cell struct {
		n  int
		at vec
	}
	cells := make([]cell, baseCells)
	for n := range cells {
		cells[n] = cell{n, baseCell(n).Centre().vec()}
	}
	var g grid
	// halve cuts a set across its longest extent, once for each bit of the rank.
	var halve func(set []cell, rank path, bit int)
	halve = func(set []cell, rank path, bit int) {
		if bit < 0 {
			g.base[set[0].n] = pathSet | rank<<cellBaseShift
			return
		}
		axes := []func(cell) float64{
			func(c cell) float64 { return c.at.x },
			func(c cell) float64 { return c.at.y },
			func(c cell) float64 { return c.at.z },
		}
		longest, extent := 0, -1.0
		for i, on := range axes {
			compare := func(a, b cell) int { return cmp.Compare(on(a), on(b)) }
			if e := on(slices.MaxFunc(set, compare)) - on(slices.MinFunc(set, compare)); e > extent {
				longest, extent = i, e
			}
		}
		slices.SortStableFunc(set, func(a, b cell) int { return cmp.Compare(axes[longest](a), axes[longest](b)) })
		half := (len(set) + 1) / 2
		halve(set[:half], rank, bit-1)
		if half < len(set) {
			halve(set[half:], rank|1<<bit, bit-1)
		}
	}
	halve(cells, 0, baseBits-1)
	return &g
}

// pathOf is the path of a valid point.
func (g *grid) pathOf(p Point) path {
	c := CellAt(p, FinestRes)
	return g.base[c.base()] | path(c.digits())
}
