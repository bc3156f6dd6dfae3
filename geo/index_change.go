package geo

import "slices"

// find is the vector of a point that is in the tree.
func (tx *Tx) find(k key) vec {
	b := tx.root.branch
	for n := b.inner(); n != nil; n = b.inner() {
		b = n.branch(n.slot(k.digit(int(n.level))))
	}
	return b.spots()[b.find(k.ref)].at
}

// find is the place of a ref that is in the leaf.
func (b branch) find(ref Ref) int {
	return slices.IndexFunc(b.spots(), func(s spot) bool { return s.ref == ref })
}

// put is the subtree with one more point.
//
// A leaf's ball is computed anew with each change. An inner node's only grows, to at most what its H3 cell spans, and
// goes with the node when that merges; computing it anew now and then was tried and saved a few percent at most.
func (tx *Tx) put(t subtree, k key, at vec) subtree {
	n := t.inner()
	switch {
	case n == nil && int(t.count) < leafMax:
		old := t.spots()
		spots := make([]spot, len(old)+1)
		spots[copy(spots, old)] = spot{at, k.ref}
		return tx.x.leafOf(spots)
	case n == nil:
		return tx.split(t, k, at)
	}
	if fork := n.sample.fork(k); fork < int(n.level) {
		return tx.fork(t, fork, k, at)
	}
	n = tx.own(n)
	digit := k.digit(int(n.level))
	if i := n.slot(digit); !n.has(digit) {
		n.insert(digit, tx.x.leafOf([]spot{{at, k.ref}}))
	} else if kid := tx.put(n.kid(i), k, at); kid.inner() == nil {
		n.set(i, kid)
	} else { // the ball of all but the new point is there
		n.setBranch(i, kid.branch)
		n.hold(i, at)
	}
	n.points++
	return subtree{t.with(at), innerBranch(n)}
}

// split is the subtree of a full leaf and one more point.
func (tx *Tx) split(t subtree, k key, at vec) subtree {
	keys, spots := append(tx.x.keys[:0], k), append(append(make([]spot, 0, t.points()+1), spot{at, k.ref}), t.spots()...)
	for _, s := range t.spots() {
		keys = append(keys, key{tx.x.paths[s.ref], s.ref})
	}
	tx.x.keys = keys
	// Few enough to sort both columns together by insertion.
	for i := range keys {
		for j := i; j > 0 && keys[j].compare(keys[j-1]) < 0; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
			spots[j], spots[j-1] = spots[j-1], spots[j]
		}
	}
	grown := tx.x.grow(keys, spots, tx.x.gen)
	tx.inners += grown.inners()
	return grown
}

// fork puts a node above t, at a level that t's keys all pass the same way and k another.
func (tx *Tx) fork(t subtree, level int, k key, at vec) subtree {
	old := t.inner()
	whole := t.with(at)
	n := &inner{origin: middle(t.c, at), sample: k, points: old.points + 1, gen: tx.x.gen, level: uint8(level)}
	n.insert(old.sample.digit(level), t)
	n.insert(k.digit(level), tx.x.leafOf([]spot{{at, k.ref}}))
	tx.inners++
	return subtree{whole, innerBranch(n)}
}

// take is the subtree without a point that is in it.
func (tx *Tx) take(t subtree, k key) subtree {
	n := t.inner()
	if n == nil {
		old := t.spots()
		last := len(old) - 1
		if last == 0 {
			return subtree{}
		}
		spots, i := make([]spot, last), t.find(k.ref)
		copy(spots[copy(spots, old[:i]):], old[i+1:])
		return tx.x.leafOf(spots)
	}
	n = tx.own(n)
	n.points--
	digit := k.digit(int(n.level))
	i := n.slot(digit)
	before := n.kid(i)
	switch kid := tx.take(before, k); {
	case kid.empty():
		n.remove(digit)
	case kid.ball == before.ball:
		n.setBranch(i, kid.branch)
	default:
		n.set(i, kid)
	}
	switch {
	case n.len() == 1:
		tx.inners--
		return n.kid(0)
	case n.points <= leafMin:
		small := innerBranch(n)
		tx.inners -= small.inners()
		return tx.x.leafOf(small.gather(make([]spot, 0, n.points)))
	}
	return subtree{t.ball, innerBranch(n)}
}

// own is the node itself if this transaction made it, else a copy that it may change.
func (tx *Tx) own(n *inner) *inner {
	if n.gen == tx.x.gen {
		return n
	}
	c := *n
	c.gen = tx.x.gen
	return &c
}
