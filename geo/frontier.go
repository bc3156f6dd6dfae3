package geo

// step is a subtree still to be looked into or a point found. The key of a subtree is at most that of any point in it.
// It holds no pointers, so that moving it about costs little.
type step struct {
	key  sepKey
	node uint32 // place in the frontier's nodes plus one, or zero for a point
	ref  Ref    // of a point
}

// frontier is the heap of a search's next steps: by key, subtrees before points (they may hold a point with the same key
// and a smaller id), and points by id.
type frontier struct {
	less  func(a, b Ref) bool
	steps []step
	nodes []*branch // all that the search has come to
}

// toward is the step into a node.
func (f *frontier) toward(key sepKey, b *branch) step {
	f.nodes = append(f.nodes, b)
	return step{key: key, node: uint32(len(f.nodes))}
}

func (f *frontier) before(a, b *step) bool {
	return a.key < b.key || a.key == b.key && f.tied(a, b)
}

// tied is before for equal keys. It stands apart to let before be inlined.
//
//go:noinline
func (f *frontier) tied(a, b *step) bool {
	if a.node != 0 || b.node != 0 {
		return b.node == 0
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

// drop forgets everything, so that no former tree is kept alive.
func (f *frontier) drop() {
	clear(f.nodes)
	f.nodes, f.steps = f.nodes[:0], f.steps[:0]
	if cap(f.nodes) > maxFrontier || cap(f.steps) > maxFrontier {
		f.nodes, f.steps = nil, nil
	}
}
