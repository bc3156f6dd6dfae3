package geo

import (
	"cmp"
	"math/bits"
)

// The tree branches by the digits of a key, coarse to fine: group of base cells, base cell within the group, one digit
// of the H3 cell for each resolution from 1 to 15, and at last the bits of the ref, three at a time, so that any number
// of points in one finest cell still falls into small leaves.
const (
	levelGroup = 0
	levelBase  = 1
	levelFine  = levelBase + FinestRes      // the finest resolution's digit
	levelLast  = levelFine + (32+2)/3       // the ref's lowest bits
	pathBase   = cellBaseShift              // four bits of base cell within the group
	pathGroup  = pathBase + 4               // four bits of group
	pathSet    = path(1) << (pathGroup + 4) // always set, so that no path is zero
)

// path is where a point is in the tree: the digits of its finest cell, with group and place in it for the base cell.
// The zero path is nowhere.
type path uint64

// key is a point's path and ref, which together are unique.
type key struct {
	path path
	ref  Ref
}

// digit is the key's child number at the level, less than maxKids.
func (k key) digit(level int) int {
	switch {
	case level == levelGroup:
		return int(k.path >> pathGroup & 15)
	case level == levelBase:
		return int(k.path >> pathBase & 15)
	case level <= levelFine:
		return int(k.path >> (digitBits * (levelFine - level)) & digitMask)
	}
	return int(k.ref >> (digitBits * (levelLast - level)) & digitMask)
}

// fork is the first level at which the keys have different digits; for equal keys the last level.
func (k key) fork(o key) int {
	if x := uint64(k.path ^ o.path); x != 0 {
		switch high := bits.Len64(x) - 1; {
		case high >= pathGroup:
			return levelGroup
		case high >= pathBase:
			return levelBase
		default:
			return levelFine - high/digitBits
		}
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

// grid numbers the base cells so that neighbours come together: it groups them around the twelve pentagons, which are
// spread evenly over the Earth, so that a search bounds some twenty-odd nodes instead of 122. Immutable.
type grid struct {
	base [baseCells]path // path of each base cell, digits zero
}

func newGrid() *grid {
	var pentagons []vec
	for n := range baseCells {
		if pentagonAt(n) {
			pentagons = append(pentagons, baseCell(n).Centre().vec())
		}
	}
	var g grid
	var size [12]path
	for n := range baseCells {
		group, at := 0, baseCell(n).Centre().vec()
		for i, p := range pentagons {
			if at.chord2(p) < at.chord2(pentagons[group]) {
				group = i
			}
		}
		g.base[n] = pathSet | path(group)<<pathGroup | size[group]<<pathBase
		size[group]++
	}
	return &g
}

// pathOf is the path of a valid point.
func (g *grid) pathOf(p Point) path {
	c := CellAt(p, FinestRes)
	return g.base[c.base()] | path(c.digits())
}
