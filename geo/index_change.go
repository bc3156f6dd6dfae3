package geo

import (
	"math/bits"
	"slices"
)

// find is the vector of a point that is in the tree.
func (tx *Tx) find(k key) vec {
	b := &tx.root
	for b.inner != nil {
		b = &b.kids[b.inner.slot(k)]
	}
	return b.spots[b.find(k.ref)].at
}

// put is the branch with one more point.
func (tx *Tx) put(b branch, k key, at vec) branch {
	switch {
	case b.empty():
		return tx.plant([]key{k}, []spot{{at, k.ref}})
	case b.inner == nil && len(b.spots) < leafMax:
		return tx.putLeaf(b, spot{at, k.ref})
	case b.inner == nil:
		return tx.split(b, k, at)
	}
	if fork := b.inner.sample.fork(k); fork < int(b.inner.level) {
		return tx.fork(b, fork, k, at)
	}
	return tx.putInner(b, k, at)
}

func (tx *Tx) putLeaf(b branch, s spot) branch {
	if b.gen == tx.x.gen {
		b.spots = append(b.spots, s)
	} else {
		grown := make([]spot, len(b.spots)+1)
		grown[copy(grown, b.spots)] = s
		b.spots, b.gen = grown, tx.x.gen
	}
	b.ball = tx.x.bent(ballOf(b.spots))
	return b
}

// split is the subtree of a full leaf and one more point.
func (tx *Tx) split(b branch, k key, at vec) branch {
	tx.leaves--
	keys, spots := append(tx.x.keys[:0], k), append(append(tx.x.spots[:0], spot{at, k.ref}), b.spots...)
	for _, s := range b.spots {
		keys = append(keys, key{tx.x.paths[s.ref], s.ref})
	}
	tx.x.keys, tx.x.spots = keys, spots
	// Few enough to sort both columns together by insertion.
	for i := range keys {
		for j := i; j > 0 && keys[j].compare(keys[j-1]) < 0; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
			spots[j], spots[j-1] = spots[j-1], spots[j]
		}
	}
	return tx.plant(keys, spots)
}

// plant is a new subtree of points sorted by key.
func (tx *Tx) plant(keys []key, spots []spot) branch {
	b := tx.x.grow(keys, spots, tx.x.gen)
	leaves, inners := b.tally()
	tx.leaves, tx.inners = tx.leaves+leaves, tx.inners+inners
	return b
}

// fork puts a node above b, at a level that b's keys all pass the same way and k another.
func (tx *Tx) fork(b branch, level int, k key, at vec) branch {
	up := branch{inner: &inner{sample: k, level: uint8(level), points: int32(b.points()) + 1}, gen: tx.x.gen}
	up.insert(b.inner.sample.digit(level), b)
	up.insert(k.digit(level), tx.plant([]key{k}, []spot{{at, k.ref}}))
	up.ball = tx.x.bent(ballAround(up.kids))
	tx.inners++
	return up
}

func (tx *Tx) putInner(b branch, k key, at vec) branch {
	tx.own(&b)
	if d := k.digit(int(b.inner.level)); b.inner.mask>>d&1 == 0 {
		b.insert(d, tx.plant([]key{k}, []spot{{at, k.ref}}))
	} else {
		kid := &b.kids[b.inner.slot(k)]
		*kid = tx.put(*kid, k, at)
	}
	b.inner.points++
	b.ball = b.with(at)
	tx.refit(&b)
	return b
}

// take is the branch without a point that is in it.
func (tx *Tx) take(b branch, k key) branch {
	if b.inner == nil {
		return tx.takeLeaf(b, k.ref)
	}
	tx.own(&b)
	b.inner.points--
	i := b.inner.slot(k)
	b.kids[i] = tx.take(b.kids[i], k)
	if b.kids[i].empty() {
		b.kids = slices.Delete(b.kids, i, i+1)
		b.inner.mask &^= 1 << k.digit(int(b.inner.level))
	}
	switch {
	case len(b.kids) == 1:
		tx.inners--
		return b.kids[0]
	case b.inner.points <= leafMin:
		return tx.merge(b)
	}
	tx.refit(&b)
	return b
}

func (tx *Tx) takeLeaf(b branch, ref Ref) branch {
	last := len(b.spots) - 1
	if last == 0 {
		tx.leaves--
		return branch{}
	}
	i := b.find(ref)
	if b.gen == tx.x.gen {
		b.spots[i] = b.spots[last]
		b.spots = b.spots[:last]
	} else {
		rest := make([]spot, last)
		copy(rest[copy(rest, b.spots[:i]):], b.spots[i+1:])
		b.spots, b.gen = rest, tx.x.gen
	}
	b.ball = tx.x.bent(ballOf(b.spots))
	return b
}

// merge makes one leaf of a node that has become small.
func (tx *Tx) merge(b branch) branch {
	leaves, inners := b.tally()
	tx.leaves, tx.inners = tx.leaves-leaves+1, tx.inners-inners
	spots := b.gather(make([]spot, 0, b.inner.points))
	return branch{ball: tx.x.bent(ballOf(spots)), spots: spots, gen: tx.x.gen}
}

// refitExact is the most points whose ball is computed anew from the points themselves. That of a greater subtree comes
// from the balls of its kids: looser, but a great ball's bound matters little.
const refitExact = 4096

// refit counts a change below the node and computes its ball anew once it has seen as many changes as it has points. In
// between the ball only grows: by insertion, and never beyond what the cell's shape allows. So a point costs each level
// about one step a change, and balls stay tight however long points move about.
func (tx *Tx) refit(b *branch) {
	n := b.inner
	n.stale++
	if n.stale <= n.points {
		return
	}
	n.stale = 0
	var fresh ball
	if n.points <= refitExact {
		tx.x.spots = b.gather(tx.x.spots[:0])
		fresh = tx.x.bent(ballOf(tx.x.spots))
	} else {
		fresh = ballAround(b.kids)
	}
	if fresh.r < b.r {
		b.ball = fresh
	}
}

// own makes the branch's node one that this transaction may change: the node itself if it made it, else a copy.
func (tx *Tx) own(b *branch) {
	if b.gen == tx.x.gen {
		return
	}
	n := *b.inner
	b.inner, b.kids, b.gen = &n, slices.Clone(b.kids), tx.x.gen
}

// slot is the place among the kids of a key's digit.
func (n *inner) slot(k key) int {
	below := uint16(1)<<k.digit(int(n.level)) - 1
	return bits.OnesCount16(n.mask & below)
}

// insert adds a kid for a digit that has none.
func (b *branch) insert(digit int, kid branch) {
	i := bits.OnesCount16(b.inner.mask & (1<<digit - 1))
	b.kids = slices.Insert(b.kids, i, kid)
	b.inner.mask |= 1 << digit
}

// find is the place of a ref that is in the leaf.
func (b *branch) find(ref Ref) int {
	return slices.IndexFunc(b.spots, func(s spot) bool { return s.ref == ref })
}
