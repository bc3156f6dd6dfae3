package geo

import "math"

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
	l := look{q: q.vec(), limit: sepKey(math.Inf(1)), reach: math.Inf(1), far: x.bend.far}
	l.from = sepKey(math.Float64frombits(uint64(s.From)))
	bounded := s.Within > 0 && s.Within < MaxDistance
	if bounded {
		l.limit = keyAt(s.Within + searchSlack)
	}
	if l.limit <= 2 {
		l.reach = math.Sqrt(float64(l.limit)) + roundOff
	}
	f := x.queue.Get().(*frontier)
	for e, more := f.toward(0, &t.root.branch), true; more; {
		if e.node == 0 {
			h := Hit{e.ref, e.key.distance(), Mark(math.Float64bits(float64(e.key)))}
			if (!bounded || h.Distance <= s.Within) && !yield(h) {
				break
			}
			e, more = f.pop()
		} else if b := f.nodes[e.node-1]; b.inner != nil {
			e, more = l.intoInner(f, b.inner)
		} else {
			l.intoLeaf(f, b.spots, s.Passed)
			e, more = f.pop()
		}
	}
	f.drop()
	x.queue.Put(f)
}

// look is what a search wants.
type look struct {
	q           vec
	limit, from sepKey
	reach       float64 // limit as a straight line, or infinite beyond a quarter of the circumference
	far         float64 // see bend
}

// intoInner adds the kids within the bounds and takes the frontier's first step.
func (l *look) intoInner(f *frontier, n *inner) (step, bool) {
	var best step
	for i := range n.len() {
		b := &n.balls[i]
		c2, outer := l.q.chord2(b.c), l.reach+b.r
		if c2 > outer*outer || l.from > 0 && l.farthest(b) < l.from {
			continue
		}
		k := l.nearest(b, c2)
		if k > l.limit {
			continue
		}
		s := f.toward(k, &n.kids[i])
		if best.node == 0 {
			best = s
			continue
		}
		if s.key < best.key {
			s, best = best, s
		}
		f.push(s)
	}
	if best.node == 0 {
		return f.pop()
	}
	return f.exchange(best), true
}

func (l *look) intoLeaf(f *frontier, spots []spot, passed func(Ref) bool) {
	for i := range spots {
		s := &spots[i]
		k := sepKey(l.q.chord2(s.at))
		if k > 2 {
			k = keyBetween(l.q, s.at)
		}
		if k > l.limit || k < l.from || k == l.from && passed != nil && passed(s.ref) {
			continue
		}
		f.push(step{key: k, ref: s.ref})
	}
}

// nearest is at most the key of any point in the ball, whose centre has the chord2.
func (l *look) nearest(b *ball, c2 float64) sepKey {
	r := b.r
	if c2 <= r*r {
		return 0
	}
	d := math.Sqrt(c2) - r
	if d*d <= 2 {
		return sepKey(d * d)
	}
	anti := math.Sqrt(l.q.antiChord2(b.c)) + r*l.far
	return sepKey(4 / (anti * anti))
}

// farthest is at least the key of any point in the ball.
func (l *look) farthest(b *ball) sepKey {
	r := b.r
	d := math.Sqrt(l.q.chord2(b.c)) + r
	if d*d <= 2 {
		return sepKey(d * d)
	}
	anti := max(0, math.Sqrt(l.q.antiChord2(b.c))-r)
	return sepKey(4 / (anti * anti))
}
