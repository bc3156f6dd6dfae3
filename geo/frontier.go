package geo

// step is what a search looks at next: the nearest subtree or the nearest point that a run still holds. It has no pointers,
// so that moving it about costs little.
type step struct {
	mark Mark   // of a point; of a subtree at most that of any point in it
	run  uint32 // the run that it was taken from, with isPoint
	ref  uint32 // of a point; or the subtree's place among its siblings
}

// isPoint in a step's run tells a point from a subtree.
const isPoint = 1 << 31

// run is what is within the bounds, of a node that was looked into, and not yet taken: points of a leaf, or kids of an
// inner node.
type run struct {
	inner *inner // nil for a leaf
	left  int
	marks [leafMax]Mark
	refs  [leafMax]uint32 // as in a step
}

// frontier is the heap of a search's next steps: by mark, subtrees before points (they may hold a point with the same mark
// and a smaller id), and points by id. Of each run only the first is in the heap: most searches end long before
// they come to the others.
type frontier struct {
	less  func(a, b Ref) bool
	steps []step
	runs  []run
	free  []uint32 // runs to be used again
}

// newRun is the place of an empty run for a node.
func (f *frontier) newRun(n *inner) (uint32, *run) {
	var at uint32
	if last := len(f.free) - 1; last >= 0 {
		at, f.free = f.free[last], f.free[:last]
	} else {
		at = uint32(len(f.runs))
		if len(f.runs) < cap(f.runs) {
			f.runs = f.runs[:at+1]
		} else {
			f.runs = append(f.runs, run{})
		}
	}
	r := &f.runs[at]
	r.inner, r.left = n, 0
	return at, r
}

// take takes the first step from a run, if it has any.
func (f *frontier) take(at uint32) (step, bool) {
	r := &f.runs[at]
	if r.left == 0 {
		r.inner = nil
		f.free = append(f.free, at)
		return step{}, false
	}
	marks := r.marks[:r.left]
	least := marks[0]
	for _, m := range marks {
		least = min(least, m)
	}
	first := -1
	for i, m := range marks {
		if m == least && (first < 0 || r.inner == nil && f.less(Ref(r.refs[i]), Ref(r.refs[first]))) {
			first = i
		}
	}
	s := step{least, at, r.refs[first]}
	if r.inner == nil {
		s.run |= isPoint
	}
	r.left--
	marks[first], r.refs[first] = marks[r.left], r.refs[r.left]
	return s, true
}

// next is the first step of all, where a run has none in the heap.
func (f *frontier) next(at uint32) (step, bool) {
	if s, more := f.take(at); more {
		return f.exchange(s), true
	}
	return f.pop()
}

func (f *frontier) before(a, b *step) bool {
	return a.mark < b.mark || a.mark == b.mark && f.tied(a, b)
}

// tied is before for equal marks. It stands apart to let before be inlined.
//
//go:noinline
func (f *frontier) tied(a, b *step) bool {
	if a.run&b.run&isPoint == 0 {
		return b.run&isPoint != 0
	}
	return f.less(Ref(a.ref), Ref(b.ref))
}

func (f *frontier) push(s step) {
	f.steps = append(f.steps, s)
	i := len(f.steps) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !f.before(&s, &f.steps[up]) {
			break
		}
		f.steps[i] = f.steps[up]
		i = up
	}
	f.steps[i] = s
}

// pop takes the first step, if there is any.
func (f *frontier) pop() (step, bool) {
	if len(f.steps) == 0 {
		return step{}, false
	}
	top, last := f.steps[0], len(f.steps)-1
	s := f.steps[last]
	f.steps = f.steps[:last]
	if last > 0 {
		f.sink(s)
	}
	return top, true
}

// exchange is push and then pop, in one go.
func (f *frontier) exchange(s step) step {
	if len(f.steps) == 0 || !f.before(&f.steps[0], &s) {
		return s
	}
	top := f.steps[0]
	f.sink(s)
	return top
}

// sink puts s in the place of the first step and then where it belongs.
func (f *frontier) sink(s step) {
	steps := f.steps
	i := 0
	for {
		kid := 2*i + 1
		if kid >= len(steps) {
			break
		}
		if kid+1 < len(steps) && f.before(&steps[kid+1], &steps[kid]) {
			kid++
		}
		if !f.before(&steps[kid], &s) {
			break
		}
		steps[i] = steps[kid]
		i = kid
	}
	steps[i] = s
}

// maxRuns is the most runs for which a frontier keeps room between searches.
const maxRuns = 1 << 11

// drop forgets everything, so that no former tree is kept alive.
func (f *frontier) drop() {
	if cap(f.runs) > maxRuns {
		*f = frontier{less: f.less}
		return
	}
	for i := range f.runs {
		f.runs[i].inner = nil
	}
	f.steps, f.runs, f.free = f.steps[:0], f.runs[:0], f.free[:0]
}
