package geo

import (
	"math"

	"github.com/shortline/shortline/internal/memory"
)

// Mark is a place in the order of distance from one point, exact to the last bit: of two hits of one search point the
// farther one has the greater Mark. It depends on nothing but the two points, so it may be kept in a cursor, but
// computers of different architectures may differ in its last bits.
type Mark uint64

// Search bounds a Nearby. The zero Search is the whole Earth from its nearest point on.
type Search struct {
	// Within is the greatest distance, inclusive. Zero stands for the whole Earth.
	Within Metres
	// From leaves out what is nearer than the mark. To go on after a page, give the mark of its last hit, and Passed.
	From Mark
	// Passed, if set, is asked about points exactly at From, and leaves out those for which it says true. To go on
	// after a page it tells whether the ref's id is not greater than that of the page's last hit: then each point that
	// stays where it is comes exactly once, though others, the last hit itself among them, come, move and go.
	Passed func(Ref) bool
}

// Hit is a point found.
type Hit struct {
	Ref      Ref
	Distance Metres
	Mark     Mark
}

// searchSlack is added to the bound on distance while looking; the exact test is on the distance of each hit.
const searchSlack Metres = 0.001

// Nearby calls yield with the points around q in order of great-circle distance, ties by the owner's order of ids, until
// yield returns false. It sees what was published before the call, and nothing published later. It finds nothing if q
// is not Valid or Within is negative or NaN. It takes no lock and, once warm, allocates nothing; yield may take its time
// and may call any method.
//
//	five := make([]geo.Hit, 0, 5)
//	index.Nearby(q, geo.Search{Within: 5000}, func(h geo.Hit) bool {
//		five = append(five, h)
//		return len(five) < 5
//	})
func (x *Index) Nearby(q Point, s Search, yield func(Hit) bool) {
	if !q.Valid() || !(s.Within >= 0) {
		return
	}
	t := x.tree.Load()
	if t.root.empty() {
		return
	}
	l := look{q: q.vec(), limit: markOf(sepKey(math.Inf(1))), from: s.From, passed: s.Passed, far: x.bend.far}
	bounded := s.Within > 0 && s.Within < MaxDistance
	if bounded {
		l.limit = markOf(keyAt(s.Within + searchSlack))
	}
	l.distant = l.limit.key() > quarter
	f := x.queue.Get().(*frontier)
	for e, more := l.into(f, t.root.branch); more; {
		if e.run&isPoint == 0 {
			n := f.runs[e.run].inner
			if sibling, more := f.take(e.run); more {
				f.push(sibling)
				memory.PrefetchBlock(n.kids[sibling.ref]) // it is often the next one, or the one after that
			}
			e, more = l.into(f, n.branch(int(e.ref)))
			continue
		}
		h := Hit{Ref(e.ref), e.mark.key().distance(), e.mark}
		if (!bounded || h.Distance <= s.Within) && !yield(h) {
			break
		}
		e, more = f.next(e.run &^ isPoint)
	}
	f.drop()
	x.queue.Put(f)
}

func markOf(k sepKey) Mark { return Mark(math.Float64bits(float64(k))) }

func (m Mark) key() sepKey { return sepKey(math.Float64frombits(uint64(m))) }

// look is what a search wants.
type look struct {
	q           vec
	limit, from Mark
	passed      func(Ref) bool
	far         float64 // see bend
	distant     bool    // whether the limit is beyond a quarter of the circumference
}

// into looks into a node and returns the search's next step.
func (l *look) into(f *frontier, b branch) (step, bool) {
	n := b.inner()
	at, r := f.newRun(n)
	switch {
	case n == nil:
		l.points(r, b.spots())
	case l.distant || l.from > 0:
		l.distantKids(r, n)
	default:
		l.kids(r, n)
	}
	return f.next(at)
}

// Which kids and points are within the bounds is hard to foresee for a processor, and a wrong guess costs it more than all
// the rest, so there is no branch in the loops below: each one is written after those kept so far, and counts if it is kept.

// kept is 1 if the mark is at most the limit, else 0.
func kept(mark, limit Mark) int { return int(^uint64(limit-mark) >> 63) }

// kids adds those within the bounds, of a search that begins at its place and ends within a quarter of the circumference.
func (l *look) kids(r *run, n *inner) {
	from, left := n.relative(l.q), 0
	for i := range n.len() {
		m := near(n.distance(from, i))
		r.marks[left], r.refs[left] = m, uint32(i)
		left += kept(m, l.limit)
	}
	r.left = left
}

// distantKids is kids for any search.
func (l *look) distantKids(r *run, n *inner) {
	from, left := n.relative(l.q), 0
	for i := range n.len() {
		if l.from > 0 && l.farthest(n.ball(i)) < l.from {
			continue
		}
		d := n.distance(from, i)
		m := near(d)
		if d*d > quarter && d > 0 {
			m = l.beyond(n.ball(i))
		}
		r.marks[left], r.refs[left] = m, uint32(i)
		left += kept(m, l.limit)
	}
	r.left = left
}

// near is the mark of a straight distance, which may be negative for none, as if it were within a quarter of the
// circumference: farther away it is less than the mark.
func near(d float64) Mark {
	inside := Mark(int64(math.Float64bits(d)) >> 63) // all ones where d is negative
	return markOf(sepKey(d*d)) &^ inside
}

// points adds those within the bounds.
func (l *look) points(r *run, spots []spot) {
	left := 0
	for i := range spots {
		s := &spots[i]
		k := sepKey(l.q.chord2(s.at))
		if k > quarter {
			k = keyBetween(l.q, s.at)
		}
		m := markOf(k)
		if m <= l.from && (m < l.from || l.passed != nil && l.passed(s.ref)) {
			continue
		}
		at := uint(left) % leafMax
		r.marks[at], r.refs[at] = m, uint32(s.ref)
		left += kept(m, l.limit)
	}
	r.left = left
}

// beyond is at most the mark of any point in a ball that is farther away than a quarter of the circumference.
func (l *look) beyond(b ball) Mark {
	anti := math.Sqrt(l.q.antiChord2(b.c)) + b.r*l.far
	return markOf(sepKey(4 / (anti * anti)))
}

// farthest is at least the key of any point in the ball.
func (l *look) farthest(b ball) Mark {
	r := b.r
	d := math.Sqrt(l.q.chord2(b.c)) + r
	if d*d <= 2 {
		return markOf(sepKey(d * d))
	}
	anti := max(0, math.Sqrt(l.q.antiChord2(b.c))-r)
	return markOf(sepKey(4 / (anti * anti)))
}
