package geo

// step is a subtree still to be looked into, or a point found, when branch is nil. The key of a subtree is at most that
// of any point in it.
type step struct {
	key    sepKey
	branch *branch
	ref    Ref
}

// frontier is the heap of a search's next steps: by key, subtrees before points (they may hold a point with the same key
// and a smaller id), and points by id.
type frontier struct {
	less  func(a, b Ref) bool
	steps []step
}

func (f *frontier) before(a, b *step) bool {
	if a.key != b.key {
		return a.key < b.key
	}
	if a.branch != nil || b.branch != nil {
		return b.branch == nil
	}
	return f.less(a.ref, b.ref)
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
	f.steps[last] = step{} // or it would keep a former tree alive
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

// maxFrontier is the most steps for which a frontier keeps room between searches.
const maxFrontier = 1 << 16

// drop forgets all steps.
func (f *frontier) drop() {
	clear(f.steps)
	f.steps = f.steps[:0]
	if cap(f.steps) > maxFrontier {
		f.steps = nil
	}
}
