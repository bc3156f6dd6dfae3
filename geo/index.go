package geo

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

// ErrPoint says that a Point is not on the Earth: NaN or out of range.
var ErrPoint = errors.New("no point on the Earth")

// Ref is the owner's number for a point. The index keeps a few bytes for each ref from 0 to the greatest one used, so
// refs should be dense, and those of deleted points used again. A search that began before a ref was given to another
// thing may still yield it for the former one.
type Ref uint32

// Index finds the points nearest to any point on Earth.
//
// It is a tree along the H3 hierarchy that is never changed once readers can see it: a writer copies the path that it
// changes and publishes a new root. So a search takes no lock, waits for nobody, and reads one consistent state; the
// garbage collector frees what no search reads any more. All methods may be called at the same time.
type Index struct {
	less  func(a, b Ref) bool
	grid  *grid
	bend  bend
	tree  atomic.Pointer[tree]
	queue sync.Pool // of *frontier

	mu    sync.Mutex // held while a transaction runs; guards what follows
	paths []path     // by ref: where its point is in the tree; zero for nowhere
	gen   uint64     // the last transaction's number
	undo  []formerly // what the running transaction changed in paths
	keys  []key      // scratch
}

// bend spoils the bounds, to prove that the tests see it. Both factors are 1.
type bend struct {
	ball float64 // of each ball's radius
	far  float64 // of the radius, in bounds beyond a quarter of the circumference
}

// tree is one published state. Immutable.
type tree struct {
	root   subtree // empty when there are no points
	points int
	inners int
	slots  int // capacity of paths
}

// New makes an empty index. less is the order of the refs' ids, used where points are at exactly the same distance. It
// is called by searches, many at a time, also for refs that were deleted after the search began.
func New(less func(a, b Ref) bool) *Index {
	x := &Index{less: less, grid: newGrid(), bend: bend{ball: 1, far: 1}}
	x.queue.New = func() any { return &frontier{less: less} }
	x.tree.Store(&tree{})
	return x
}

// Len is the number of points.
func (x *Index) Len() int { return x.tree.Load().points }

// MemoryBytes is about how much memory the index holds, without states that only running searches still read.
func (x *Index) MemoryBytes() int {
	t := x.tree.Load()
	nodes := t.points*int(unsafe.Sizeof(spot{})) + t.inners*int(unsafe.Sizeof(inner{}))
	return nodes*33/32 + t.slots*int(unsafe.Sizeof(path(0))) // allocations are rounded up
}

// Update runs fn and then shows everything it put and deleted to new searches at once. If fn returns an error or
// panics, nothing of it happens. Updates run one at a time; fn must not call Update or Build, and must not keep tx.
func (x *Index) Update(fn func(tx *Tx) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gen++
	tx := &Tx{x: x, tree: *x.tree.Load()}
	defer tx.end()
	if err := fn(tx); err != nil {
		return err
	}
	tx.commit()
	return nil
}

// Tx is one running Update.
type Tx struct {
	x *Index
	tree
	committed bool
}

// formerly is a path before the transaction.
type formerly struct {
	ref  Ref
	path path
}

// Put inserts the point of ref, or moves it there. The error wraps ErrPoint.
func (tx *Tx) Put(ref Ref, p Point) error {
	if !p.Valid() {
		return fmt.Errorf("put ref %d at %v: %w", ref, p, ErrPoint)
	}
	at, old := p.vec(), tx.path(ref)
	if old != 0 {
		if tx.find(key{old, ref}) == at {
			return nil
		}
		tx.root = tx.take(tx.root, key{old, ref})
		tx.points--
	}
	k := key{tx.x.grid.pathOf(p), ref}
	tx.root = tx.put(tx.root, k, at)
	tx.points++
	tx.setPath(k)
	return nil
}

// Delete removes the point of ref and tells whether there was one.
func (tx *Tx) Delete(ref Ref) bool {
	old := tx.path(ref)
	if old == 0 {
		return false
	}
	tx.root = tx.take(tx.root, key{old, ref})
	tx.points--
	tx.setPath(key{0, ref})
	return true
}

func (tx *Tx) path(ref Ref) path {
	if int(ref) < len(tx.x.paths) {
		return tx.x.paths[ref]
	}
	return 0
}

func (tx *Tx) setPath(k key) {
	x := tx.x
	if n := int(k.ref) + 1; n > len(x.paths) {
		x.paths = append(x.paths, make([]path, n-len(x.paths))...)
	}
	x.undo = append(x.undo, formerly{k.ref, x.paths[k.ref]})
	x.paths[k.ref] = k.path
}

func (tx *Tx) commit() {
	t := tx.tree
	t.slots = cap(tx.x.paths)
	tx.x.tree.Store(&t)
	tx.committed = true
}

// end undoes what is not committed. The nodes that were made are seen by nobody.
func (tx *Tx) end() {
	x := tx.x
	if !tx.committed {
		for i := len(x.undo) - 1; i >= 0; i-- {
			x.paths[x.undo[i].ref] = x.undo[i].path
		}
	}
	if cap(x.undo) > maxScratch {
		x.undo = nil
	}
	x.undo = x.undo[:0]
	tx.x = nil
}

// maxScratch is the greatest capacity that a scratch slice keeps between transactions.
const maxScratch = 1 << 14
