package replication_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// database is a Source in memory that behaves like PostgreSQL where that is awkward: a transaction gets its XID when it
// begins but locks, changes and shows its rows when it commits, so that commits come in another order than XIDs, and one
// that stays open holds the horizon back.
type database struct {
	// The mutants, which show what is there for what: the horizon is switched off, snapshots have no tombstones of stores, or
	// none of queues of stores that are there.
	careless, noTombstones, noQueueRev bool

	mu sync.Mutex // guards the rest
	// before, if set, is called at the start of each read with its name ("head", "snapshot", "keys", "changes"), without
	// the lock; its error is the read's.
	before  func(ctx context.Context, read string) error
	epoch   uint64
	next    uint64 // the XID that the next transaction gets
	lsn     uint64
	server  uint64 // the run of it; 0: it does not tell
	open    map[uint64]bool
	stores  map[shortline.StoreID]*storeRow
	keys    map[shortline.KeyID]shortline.Key
	changes []shortline.Change // in order of commit
	pruned  replication.Cursor
	reads   map[string]int
	lineage replication.Lineage // what the control plane says
	splits  []shortline.StoreID
	ahead   time.Duration // its writers' clocks
}

// storeRow is a store with its queue; the tombstones of both keep their revs.
type storeRow struct {
	exists, queued bool
	length         int
	name           string
	rev, queueRev  uint64
}

func newDatabase() *database {
	return &database{epoch: 1, next: 2, open: map[uint64]bool{}, stores: map[shortline.StoreID]*storeRow{},
		keys: map[shortline.KeyID]shortline.Key{}, reads: map[string]int{}}
}

// transaction collects operations; nothing is seen of them before commit.
type transaction struct {
	db  *database
	xid uint64
	ops []func()
}

func (db *database) begin() *transaction {
	db.mu.Lock()
	defer db.mu.Unlock()
	tx := &transaction{db: db, xid: db.next}
	db.next++
	db.open[tx.xid] = true
	return tx
}

func (tx *transaction) put(id shortline.StoreID, name string) *transaction {
	tx.ops = append(tx.ops, func() {
		r := tx.row(id)
		r.exists, r.name, r.rev = true, name, r.rev+1
		tx.change(shortline.Change{Kind: shortline.StorePut, Rev: r.rev, Subject: string(id), Store: &shortline.Store{ID: id, Name: name}})
	})
	return tx
}

func (tx *transaction) queue(id shortline.StoreID, length int) *transaction {
	tx.ops = append(tx.ops, func() {
		r := tx.row(id)
		if !r.exists {
			return
		}
		r.queued, r.length, r.queueRev = true, length, r.queueRev+1
		q := &shortline.Queue{Length: length, Rev: r.queueRev, UpdatedAt: time.Now()}
		tx.change(shortline.Change{Kind: shortline.QueueSet, Rev: q.Rev, Subject: string(id), Queue: q})
	})
	return tx
}

// remove deletes a store.
func (tx *transaction) remove(id shortline.StoreID) *transaction {
	tx.ops = append(tx.ops, func() { tx.delete(id) })
	return tx
}

func (tx *transaction) delete(id shortline.StoreID) {
	r := tx.row(id)
	if !r.exists {
		return
	}
	r.exists, r.rev = false, r.rev+1
	c := shortline.Change{Kind: shortline.StoreDeleted, Rev: r.rev, Subject: string(id)}
	if r.queued {
		r.queued, r.queueRev = false, r.queueRev+1
	}
	if r.queueRev > 0 {
		c.Queue = &shortline.Queue{Rev: r.queueRev}
	}
	tx.change(c)
}

func (tx *transaction) key(id shortline.KeyID, name string) *transaction {
	tx.ops = append(tx.ops, func() {
		k := shortline.Key{ID: id, Name: name, Rev: tx.db.keys[id].Rev + 1}
		tx.db.keys[id] = k
		tx.change(shortline.Change{Kind: shortline.KeyPut, Rev: k.Rev, Subject: string(id), Key: &k})
	})
	return tx
}

// beginEpoch is the first transaction of the next epoch.
func (tx *transaction) beginEpoch() *transaction {
	tx.ops = append(tx.ops, func() {
		tx.db.epoch++
		tx.change(shortline.Change{Kind: shortline.EpochBegun, Rev: tx.db.epoch})
	})
	return tx
}

// row returns the row of the store, locked as it were.
func (tx *transaction) row(id shortline.StoreID) *storeRow {
	r := tx.db.stores[id]
	if r == nil {
		r = &storeRow{}
		tx.db.stores[id] = r
	}
	return r
}

func (tx *transaction) change(c shortline.Change) {
	c.XID, c.ID, c.Epoch, c.At = tx.xid, uint64(len(tx.db.changes)+1), tx.db.epoch, time.Now().Add(tx.db.ahead)
	tx.db.changes = append(tx.db.changes, c)
}

// commit returns the token of the transaction.
func (tx *transaction) commit() replication.Token {
	tx.db.mu.Lock()
	defer tx.db.mu.Unlock()
	for _, op := range tx.ops {
		op()
	}
	tx.db.lsn += 10
	delete(tx.db.open, tx.xid)
	return replication.Token{Epoch: tx.db.epoch, XID: tx.xid, LSN: tx.db.lsn}
}

func (tx *transaction) rollback() {
	tx.db.mu.Lock()
	defer tx.db.mu.Unlock()
	delete(tx.db.open, tx.xid)
}

// prune drops every change below the horizon.
func (db *database) prune() {
	db.mu.Lock()
	defer db.mu.Unlock()
	horizon := db.head().Horizon
	db.changes = slices.DeleteFunc(db.changes, func(c shortline.Change) bool {
		gone := c.XID < horizon
		if at := (replication.Cursor{XID: c.XID, ID: c.ID}); gone && before(db.pruned, at) {
			db.pruned = at
		}
		return gone
	})
}

// saved is what a database was at some time: a standby that had come no further, or a backup.
type saved struct {
	epoch, next, lsn uint64
	stores           map[shortline.StoreID]*storeRow
	keys             map[shortline.KeyID]shortline.Key
	changes          []shortline.Change
	pruned           replication.Cursor
}

func (db *database) save() *saved {
	db.mu.Lock()
	defer db.mu.Unlock()
	return &saved{db.epoch, db.next, db.lsn, copyStores(db.stores), maps.Clone(db.keys), slices.Clone(db.changes), db.pruned}
}

// rewind makes the database what it was. What was open is gone; numbers given out since are given out again.
func (db *database) rewind(s *saved) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.epoch, db.next, db.lsn, db.pruned = s.epoch, s.next, s.lsn, s.pruned
	db.stores, db.keys, db.changes = copyStores(s.stores), maps.Clone(s.keys), slices.Clone(s.changes)
	db.open = map[uint64]bool{}
	if db.server > 0 {
		db.server++
	}
}

// promote begins the next epoch where the database is. What was open is gone.
func (db *database) promote() {
	db.mu.Lock()
	db.open = map[uint64]bool{}
	db.mu.Unlock()
	db.begin().beginEpoch().commit()
}

func copyStores(from map[shortline.StoreID]*storeRow) map[shortline.StoreID]*storeRow {
	to := map[shortline.StoreID]*storeRow{}
	for id, r := range from {
		row := *r
		to[id] = &row
	}
	return to
}

func (db *database) setLineage(l replication.Lineage) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.lineage = l
}

func (db *database) Lineage() replication.Lineage {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.lineage
}

func before(a, b replication.Cursor) bool { return a.XID < b.XID || a.XID == b.XID && a.ID < b.ID }

// read counts a read and lets the test interfere with it.
func (db *database) read(ctx context.Context, name string) error {
	db.mu.Lock()
	db.reads[name]++
	before := db.before
	db.mu.Unlock()
	if before != nil {
		return before(ctx, name)
	}
	return nil
}

func (db *database) setBefore(fn func(ctx context.Context, read string) error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.before = fn
}

// count tells how many reads of the name there have been.
func (db *database) count(name string) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.reads[name]
}

func (db *database) head() replication.Head {
	h := replication.Head{Epoch: db.epoch, Horizon: db.next, XMax: db.next, LSN: db.lsn, Server: db.server}
	for xid := range db.open {
		if !db.careless {
			h.Horizon = min(h.Horizon, xid)
		}
	}
	return h
}

func (db *database) Head(ctx context.Context) (replication.Head, error) {
	if err := db.read(ctx, "head"); err != nil {
		return replication.Head{}, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.head(), nil
}

func (db *database) Snapshot(ctx context.Context, after shortline.StoreID, limit int) ([]replication.Row, error) {
	if err := db.read(ctx, "snapshot"); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	var rows []replication.Row
	for id, r := range db.stores {
		if r.rev == 0 || !r.exists && db.noTombstones || id <= after { // rev 0: it was looked for and never was
			continue
		}
		row := replication.Row{Store: shortline.Store{ID: id, Name: r.name}, Rev: r.rev, QueueRev: r.queueRev}
		if !r.exists {
			row.Store, row.Deleted = shortline.Store{ID: id}, true
		}
		if r.queued {
			row.Queue = &shortline.Queue{Length: r.length, Rev: r.queueRev}
		}
		if db.noQueueRev && r.exists {
			row.QueueRev = 0
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b replication.Row) int { return cmp.Compare(a.Store.ID, b.Store.ID) })
	return rows[:min(limit, len(rows))], nil
}

func (db *database) Splits(_ context.Context, n int) ([]shortline.StoreID, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.splits[:min(n-1, len(db.splits))], nil
}

func (db *database) Keys(ctx context.Context) ([]shortline.Key, error) {
	if err := db.read(ctx, "keys"); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	var keys []shortline.Key
	for _, k := range db.keys {
		keys = append(keys, k)
	}
	return keys, nil
}

func (db *database) Changes(ctx context.Context, after replication.Cursor, limit int) (replication.Page, error) {
	if err := db.read(ctx, "changes"); err != nil {
		return replication.Page{}, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if before(after, db.pruned) {
		return replication.Page{}, fmt.Errorf("changes after %+v: %w", after, replication.ErrPruned)
	}
	page := replication.Page{Head: db.head()}
	for _, c := range db.changes {
		if before(after, replication.Cursor{XID: c.XID, ID: c.ID}) && c.XID < page.Head.Horizon {
			page.Changes = append(page.Changes, c)
		}
	}
	slices.SortFunc(page.Changes, func(a, b shortline.Change) int {
		return cmp.Or(cmp.Compare(a.XID, b.XID), cmp.Compare(a.ID, b.ID))
	})
	if len(page.Changes) > limit {
		page.Changes, page.More = page.Changes[:limit], true
	}
	return page, nil
}

// memory is a View. A slot that says neither exists nor queued is a tombstone.
type memory struct {
	// careless switches the comparison of revs off: the mutant that shows what they are for.
	careless bool
	loading  atomic.Bool

	mu     sync.Mutex // guards the rest
	loaded int        // rows
	stores map[shortline.StoreID]storeRow
	keys   map[shortline.KeyID]shortline.Key
	built  bool
}

func (m *memory) Load(rows []replication.Row) {
	if !m.loading.CompareAndSwap(false, true) {
		panic("Load during Load")
	}
	defer m.loading.Store(false)
	runtime.Gosched() // to whoever would do that
	m.mu.Lock()
	m.loaded += len(rows)
	defer m.mu.Unlock()
	if m.built {
		panic("Load after Built")
	}
	for _, row := range rows {
		s := m.stores[row.Store.ID]
		if row.Rev > s.rev {
			s.exists, s.name, s.rev = !row.Deleted, row.Store.Name, row.Rev
		}
		if q := row.Queue; q != nil && q.Rev > s.queueRev {
			s.queued, s.length, s.queueRev = true, q.Length, q.Rev
		} else if q == nil && row.QueueRev > s.queueRev {
			s.queued, s.length, s.queueRev = false, 0, row.QueueRev
		}
		m.stores[row.Store.ID] = s
	}
}

func (m *memory) LoadKeys(keys []shortline.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		m.keys[k.ID] = k
	}
}

func (m *memory) Built() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.built = true
}

func (m *memory) Apply(changes []shortline.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.built {
		panic("Apply before Built")
	}
	for _, c := range changes {
		s := m.stores[shortline.StoreID(c.Subject)]
		switch c.Kind {
		case shortline.StorePut:
			if c.Rev > s.rev || m.careless {
				s.exists, s.name, s.rev = true, c.Store.Name, c.Rev
			}
		case shortline.QueueSet:
			if c.Rev > s.queueRev || m.careless {
				s.queued, s.length, s.queueRev = true, c.Queue.Length, c.Rev
			}
		case shortline.StoreDeleted:
			if c.Rev > s.rev || m.careless {
				s.exists, s.name, s.rev = false, "", c.Rev
			}
			if q := c.Queue; q != nil && (q.Rev > s.queueRev || m.careless) {
				s.queued, s.length, s.queueRev = false, 0, q.Rev
			}
		case shortline.KeyPut:
			if c.Rev > m.keys[shortline.KeyID(c.Subject)].Rev || m.careless {
				m.keys[c.Key.ID] = *c.Key
			}
			continue
		default:
			continue
		}
		m.stores[shortline.StoreID(c.Subject)] = s
	}
}

// store returns what readers see of a store: name and length, or "" and -1 for what is not there.
func (m *memory) store(id shortline.StoreID) (name string, length int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stores[id]
	if !s.exists {
		return "", -1
	}
	if !s.queued {
		return s.name, -1
	}
	return s.name, s.length
}

// differences compares what readers would see with what is in the database.
func (db *database) differences(m *memory) []string {
	db.mu.Lock()
	defer db.mu.Unlock()
	var all []string
	for id, r := range db.stores {
		name, length := m.store(id)
		wantName, wantLength := "", -1
		if r.exists {
			wantName = r.name
			if r.queued {
				wantLength = r.length
			}
		}
		if name != wantName || length != wantLength {
			all = append(all, fmt.Sprintf("store %s is %q with %d waiting, want %q with %d", id, name, length, wantName, wantLength))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.stores {
		if db.stores[id] == nil {
			all = append(all, fmt.Sprintf("store %s never was", id))
		}
	}
	for id, k := range db.keys {
		if m.keys[id].Name != k.Name {
			all = append(all, fmt.Sprintf("key %s is %q, want %q", id, m.keys[id].Name, k.Name))
		}
	}
	slices.Sort(all)
	return all
}

// missing tells which of the changes that keep picks are not in memory, neither they nor anything newer.
func (db *database) missing(m *memory, keep func(shortline.Change) bool) []shortline.Change {
	db.mu.Lock()
	defer db.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []shortline.Change
	for _, c := range db.changes {
		s := m.stores[shortline.StoreID(c.Subject)]
		there := true
		switch c.Kind {
		case shortline.StorePut, shortline.StoreDeleted:
			there = s.rev >= c.Rev && (c.Queue == nil || s.queueRev >= c.Queue.Rev)
		case shortline.QueueSet:
			there = s.queueRev >= c.Rev
		case shortline.KeyPut:
			there = m.keys[shortline.KeyID(c.Subject)].Rev >= c.Rev
		}
		if !there && keep(c) {
			all = append(all, c)
		}
	}
	return all
}

// foreign tells which stores and keys memory holds in a state that the database never had at that rev, or not yet.
func (db *database) foreign(m *memory) []string {
	db.mu.Lock()
	defer db.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for id, s := range m.stores {
		r := db.stores[id]
		if r == nil {
			r = &storeRow{}
		}
		if s.rev > r.rev || s.queueRev > r.queueRev || s.rev == r.rev && (s.exists != r.exists || s.exists && s.name != r.name) ||
			s.queueRev == r.queueRev && (s.queued != r.queued || s.queued && s.length != r.length) {
			all = append(all, string(id))
		}
	}
	for id, k := range m.keys {
		if r := db.keys[id]; k.Rev > r.Rev || k.Rev == r.Rev && k.Name != r.Name {
			all = append(all, string(id))
		}
	}
	return all
}

func (db *database) epochNow() uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.epoch
}

// node is a Target.
type node struct {
	careless bool

	mu       sync.Mutex // guards the rest
	begun    int
	installs int
	current  *memory // nil before the first Install
}

func (n *node) Begin() replication.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.begun++
	return &memory{careless: n.careless, stores: map[shortline.StoreID]storeRow{}, keys: map[shortline.KeyID]shortline.Key{}}
}

func (n *node) Install(v replication.View) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.installs++
	n.current = v.(*memory)
	if !n.current.built {
		panic("Install of a view that is not built")
	}
}

func (n *node) counts() (begun, installs int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.begun, n.installs
}

func (n *node) inService() *memory {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current
}
