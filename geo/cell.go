package geo

import (
	"math"
	"strconv"

	"github.com/uber/h3-go/v4"
)

// FinestRes is H3's finest resolution; its cells are about a metre across.
const FinestRes = 15

// baseCells is the number of H3's cells of resolution 0; twelve of them are pentagons.
const baseCells = 122

// An H3 index holds, from the top: four bits of mode, three reserved, four of resolution, seven of base cell, and a
// three-bit digit for each resolution 1 to 15, of which those beyond its own resolution are 7.
const (
	cellResShift  = 52
	cellBaseShift = 45
	digitBits     = 3
	digitMask     = 1<<digitBits - 1
)

// Cell is an H3 cell of any resolution. The zero Cell is no cell. A child's area is not wholly within its parent's: the
// hierarchy orders cells, it does not bound points.
type Cell uint64

// CellAt is the cell of the resolution, 0 to FinestRes, that the point is in; zero if either is out of range. It costs
// about a microsecond.
func CellAt(p Point, res int) Cell {
	if !p.Valid() {
		return 0
	}
	c, err := h3.LatLngToCell(h3.LatLng{Lat: p.Lat, Lng: p.Lng}, res)
	if err != nil {
		return 0
	}
	return Cell(c)
}

// Valid tells whether c is a cell of H3.
func (c Cell) Valid() bool { return h3.Cell(c).IsValid() }

// String is H3's usual notation, lower-case hexadecimal.
func (c Cell) String() string { return strconv.FormatUint(uint64(c), 16) }

// Res is the cell's resolution, 0 (a continent's part) to FinestRes.
func (c Cell) Res() int { return int(c >> cellResShift & 15) }

// Parent is the cell of a coarser or the same resolution that c belongs to. The resolution must be 0 to c.Res().
func (c Cell) Parent(res int) Cell {
	finer := Cell(1)<<(digitBits*(FinestRes-res)) - 1
	return c&^(15<<cellResShift) | Cell(res)<<cellResShift | finer
}

// base is the number of the cell's ancestor of resolution 0, 0 to baseCells-1.
func (c Cell) base() int { return int(c >> cellBaseShift & 127) }

// digits are the child numbers of resolutions 1 to 15, three bits each, the coarsest on top.
func (c Cell) digits() uint64 { return uint64(c) & (1<<cellBaseShift - 1) }

// Centre is the middle of the cell; of an invalid cell, NaN.
func (c Cell) Centre() Point {
	p, err := h3.CellToLatLng(h3.Cell(c))
	if err != nil || !c.Valid() {
		return Point{math.NaN(), math.NaN()}
	}
	return Point{p.Lat, p.Lng}
}

// Boundary returns the corners of the cell, five or six and more where it lies across an edge of the icosahedron, anticlockwise;
// nil of an invalid cell.
func (c Cell) Boundary() []Point {
	corners, err := h3.CellToBoundary(h3.Cell(c))
	if err != nil || !c.Valid() {
		return nil
	}
	out := make([]Point, len(corners))
	for i, p := range corners {
		out[i] = Point{p.Lat, p.Lng}
	}
	return out
}

// baseCell is the cell of resolution 0 with the number.
func baseCell(n int) Cell {
	const mode = 1 << 59 // a cell, not an edge or a vertex
	return Cell(mode | uint64(n)<<cellBaseShift | (1<<cellBaseShift - 1))
}

// pentagonAt tells whether the base cell with the number is a pentagon.
func pentagonAt(n int) bool { return h3.Cell(baseCell(n)).IsPentagon() }
