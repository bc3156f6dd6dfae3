package geo

import (
	"math"
	"math/bits"
	"unsafe"

	"github.com/shortline/shortline/internal/memory"
)

// branch is a node: an inner one, a leaf with points, or empty. It is of 16 bytes, and within an inner node of 9, because
// what a search has to fetch costs it more than what it computes.
type branch struct {
	at    unsafe.Pointer // *inner, or the first spot of a leaf; nil: empty
	count uint8          // of the leaf's spots; 0: none, or not a leaf
}

// spot is a point of a leaf. It wastes four bytes of eight, which costs a search less than refs that lie elsewhere.
type spot struct {
	at  vec
	ref Ref
}

// leafMax is the most points that a leaf holds, leafMin the number at which a subtree that has shrunk becomes one leaf.
// Their distance keeps a point that flips between two places from splitting and merging all the time.
const (
	leafMax = 32
	leafMin = 16
)

// leaf is the branch of 1 to leafMax spots, in any order, that are never changed from now on.
func leaf(spots []spot) branch {
	return branch{unsafe.Pointer(unsafe.SliceData(spots)), uint8(len(spots))}
}

func innerBranch(n *inner) branch { return branch{at: unsafe.Pointer(n)} }

func (b branch) empty() bool { return b.at == nil }

// inner is nil for a leaf and for nothing.
func (b branch) inner() *inner {
	if b.count > 0 {
		return nil
	}
	return (*inner)(b.at)
}

// spots are those of a leaf.
func (b branch) spots() []spot { return unsafe.Slice((*spot)(b.at), int(b.count)) }

// points is the number of points in the subtree.
func (b branch) points() int {
	if n := b.inner(); n != nil {
		return int(n.points)
	}
	return int(b.count)
}

// inners counts the inner nodes of the subtree.
func (b branch) inners() int {
	n := b.inner()
	if n == nil {
		return 0
	}
	sum := 1
	for i := range n.len() {
		sum += n.branch(i).inners()
	}
	return sum
}

// gather appends the subtree's points.
func (b branch) gather(spots []spot) []spot {
	n := b.inner()
	if n == nil {
		return append(spots, b.spots()...)
	}
	for i := range n.len() {
		spots = n.branch(i).gather(spots)
	}
	return spots
}

// addInners adds the memory of the subtree's inner nodes.
func (b branch) addInners(huge *memory.Huge) {
	n := b.inner()
	if n == nil {
		return
	}
	huge.Add(b.at, int(unsafe.Sizeof(inner{})))
	for i := range n.len() {
		n.branch(i).addInners(huge)
	}
}

// subtree is a branch and a ball that holds its points.
type subtree struct {
	ball
	branch
}

// maxKids is how many branches a node can have.
const maxKids = 8

// inner is a node with two or more kids; levels at which all its points go the same way are skipped. It is four cache lines
// in one piece, and a search needs nothing else to know which kids to look into.
//
// The kids' balls are single precision, relative to the node's origin: their rounding is then some ten-millionth of what
// the node spans, however small that is, and each radius is greater by it.
type inner struct {
	origin vec
	counts [maxKids]uint8 // as in the kids' branches
	mask   uint8          // the digits that have a kid
	level  uint8
	points int32  // below it
	gen    uint64 // the transaction that made it and may change it until it is published
	sample key    // a key that is or was below; its digits above the level are those of all keys below
	// The kids are without gaps, in order of their digits at the level.
	x, y, z, r [maxKids]float32 // their balls
	kids       [maxKids]unsafe.Pointer
}

// len is the number of kids.
func (n *inner) len() int { return bits.OnesCount8(n.mask) }

// slot is the place among the kids that a digit has or would have.
func (n *inner) slot(digit int) int { return bits.OnesCount8(n.mask & (1<<digit - 1)) }

// has tells whether there is a kid for the digit.
func (n *inner) has(digit int) bool { return n.mask>>digit&1 != 0 }

func (n *inner) branch(i int) branch { return branch{n.kids[i], n.counts[i]} }

// ball is the ball of a kid; it may be a little greater than the one that was set.
func (n *inner) ball(i int) ball {
	c := vec{n.origin.x + float64(n.x[i]), n.origin.y + float64(n.y[i]), n.origin.z + float64(n.z[i])}
	return ball{c, float64(n.r[i])}
}

func (n *inner) kid(i int) subtree { return subtree{n.ball(i), n.branch(i)} }

// set puts another subtree in place of a kid.
func (n *inner) set(i int, t subtree) {
	n.setBranch(i, t.branch)
	n.setBall(i, t.ball)
}

func (n *inner) setBranch(i int, b branch) { n.kids[i], n.counts[i] = b.at, b.count }

func (n *inner) setBall(i int, b ball) {
	n.x[i], n.y[i], n.z[i] = float32(b.c.x-n.origin.x), float32(b.c.y-n.origin.y), float32(b.c.z-n.origin.z)
	n.r[i] = 0
	moved := n.ball(i).c
	n.widen(i, b.r+math.Sqrt(moved.chord2(b.c)))
}

// hold widens the ball of a kid, if it must be, to hold p.
func (n *inner) hold(i int, p vec) { n.widen(i, math.Sqrt(n.ball(i).c.chord2(p))) }

// widen makes the radius of a kid's ball at least r, so that what distance says of it is true.
func (n *inner) widen(i int, r float64) {
	off := math.Sqrt(float64(n.x[i])*float64(n.x[i]) + float64(n.y[i])*float64(n.y[i]) + float64(n.z[i])*float64(n.z[i]))
	if r += off*singleOff + roundOff; r > float64(n.r[i]) {
		n.r[i] = math.Nextafter32(float32(r), math.MaxFloat32)
	}
}

// single is a place in single precision.
type single struct{ x, y, z float32 }

// relative is a place as seen from the node.
func (n *inner) relative(q vec) single {
	return single{float32(q.x - n.origin.x), float32(q.y - n.origin.y), float32(q.z - n.origin.z)}
}

// distance is at most the straight distance from the relative place to any point of a kid, and may be negative inside its
// ball.
func (n *inner) distance(from single, i int) float64 {
	dx, dy, dz := from.x-n.x[i], from.y-n.y[i], from.z-n.z[i]
	return float64(float32(math.Sqrt(float64(dx*dx+dy*dy+dz*dz)))*(1-singleOff) - n.r[i])
}

// singleOff is more than the relative error of a bound that is computed in single precision, of which each operation adds
// up to 2^-24: with d the distance to a ball's centre and off that from the origin to the centre it is at most
// (7 d + off) * 2^-24, for which distance takes singleOff * d away and widen adds singleOff * off.
const singleOff = 1.0 / (1 << 21)

// insert adds a kid for a digit that has none.
func (n *inner) insert(digit int, t subtree) {
	i, count := n.slot(digit), n.len()
	for j := count; j > i; j-- {
		n.move(j, j-1)
	}
	n.set(i, t)
	n.mask |= 1 << digit
}

// remove takes the kid of a digit out.
func (n *inner) remove(digit int) {
	i, last := n.slot(digit), n.len()-1
	for j := i; j < last; j++ {
		n.move(j, j+1)
	}
	n.setBranch(last, branch{})
	n.x[last], n.y[last], n.z[last], n.r[last] = 0, 0, 0, 0
	n.mask &^= 1 << digit
}

func (n *inner) move(to, from int) {
	n.kids[to], n.counts[to] = n.kids[from], n.counts[from]
	n.x[to], n.y[to], n.z[to], n.r[to] = n.x[from], n.y[from], n.z[from], n.r[from]
}
