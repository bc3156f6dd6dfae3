package geo

import "math"

// ball is a solid ball in space that holds the unit vectors of all points of a subtree: every one is at most r, in a
// straight line, from c. The centre need not be on the sphere. Bounding what is really there, rather than
// cells, needs no trigonometry and holds at the poles, the antimeridian and the pentagons.
type ball struct {
	c vec
	r float64
}

// roundOff is more than the error of any length computed here, and 25 nm on the Earth. Each radius is greater by it, so
// that bounds stay bounds in floating point.
const roundOff = 4e-15

func middle(lo, hi vec) vec { return vec{(lo.x + hi.x) / 2, (lo.y + hi.y) / 2, (lo.z + hi.z) / 2} }

// ballOf is the ball around the middle of the points' box.
func ballOf(spots []spot) ball {
	lo, hi := spots[0].at, spots[0].at
	for i := range spots {
		p := &spots[i].at
		lo = vec{min(lo.x, p.x), min(lo.y, p.y), min(lo.z, p.z)}
		hi = vec{max(hi.x, p.x), max(hi.y, p.y), max(hi.z, p.z)}
	}
	c, r2 := middle(lo, hi), 0.0
	for i := range spots {
		r2 = max(r2, c.chord2(spots[i].at))
	}
	return ball{c, math.Sqrt(r2) + roundOff}
}

// with is the ball grown, if it must be, to hold p.
func (b ball) with(p vec) ball {
	b.r = max(b.r, math.Sqrt(b.c.chord2(p))+roundOff)
	return b
}
