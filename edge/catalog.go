package edge

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/memory"
	"github.com/shortline/shortline/replication"
)

// Catalog is what a node serves from: every store's place, what filters need to know of it, its live queue, and the API
// keys, all in memory. The feed writes it, one goroutine; any number of readers read it without waiting for the writer.
// It is empty and not ready until the feed installs the first snapshot.
type Catalog struct {
	current atomic.Pointer[state]
	live    atomic.Pointer[liveHub] // is told of every change that was applied to the state in service; nil: nobody is
}

// Begin makes an empty state beside the one in service; part of replication.Target.
func (c *Catalog) Begin() replication.View {
	s := newState()
	s.catalog = c
	return s
}

// Install puts a state that Begin made in service; part of replication.Target.
func (c *Catalog) Install(v replication.View) {
	c.current.Store(v.(*state))
	if hub := c.live.Load(); hub != nil {
		hub.replaced()
	}
}

// state is one generation of the catalog; a full resync makes another.
//
// A store has a slot for as long as the state lives, found by its geo.Ref. The slot of a deleted store stays behind as a
// tombstone that remembers the revs, so that an older change arriving later does not bring the store back.
type state struct {
	index  *geo.Index
	pages  atomic.Pointer[[]*page] // grows by copying the directory; pages never move
	shards [64]shard
	keys   atomic.Pointer[map[shortline.KeyID]*shortline.Key]

	details detailBlocks
	stores  atomic.Int64 // that exist
	queues  atomic.Int64 // of those, that have reported

	// The rest belongs to the writer.
	catalog   *Catalog
	changed   liveChanges // by the call of Apply under way
	used      int         // slots given out
	arranged  bool
	attrs     map[string]*attrs
	schedules map[string]*schedule
	hours     map[string]*shortline.Hours // of schedules, nil: cannot be read
}

const pageSize = 1024

type page [pageSize]slot

// slot is one store. record is never nil once the slot can be found.
type slot struct {
	record   atomic.Pointer[record]
	details  atomic.Uint64 // the place of encoded details, or 0; see details_blocks.go
	queue    atomic.Uint64 // a packedQueue
	queueRev uint64        // the writer's
	usual    atomic.Uint64 // a usual; see outlook.go
	learned  atomic.Uint32 // hundredths of a second that serving one person takes, as its reports tell; 0: not known
	asked    atomic.Uint32 // 1 if the details were asked for since the details cache last looked
}

// record is immutable; a change of the store replaces it.
type record struct {
	id       shortline.StoreID
	lat, lng float64
	rev      uint64
	attrs    *attrs   // nil: no such store (a tombstone, or not heard of yet)
	cell     geo.Cell // of arrangeRes, that the store is in; 0 until the state is arranged
}

// attrs is what filters and waits need to know of a store; stores that are alike share one.
type attrs struct {
	brand    string // in lower case
	tags     []string
	serviceS float64
	schedule *schedule      // nil: not known
	loc      *time.Location // the store's clock; nil: not known
}

// schedule tells whether stores of the same hours and time zone are open; it remembers the answer for the minute.
type schedule struct {
	hours *shortline.Hours
	loc   *time.Location
	last  atomic.Uint64 // minutes since 1970 in the upper bits, 1 in the lowest if open
}

func (s *schedule) open(now time.Time) bool {
	minute := uint64(now.Unix()/60) << 1
	if last := s.last.Load(); last&^1 == minute {
		return last&1 == 1
	}
	open := s.hours.OpenAt(now.In(s.loc))
	if open {
		minute |= 1
	}
	s.last.Store(minute)
	return open
}

// packedQueue is a live queue in one word, so that readers see length and time together without a lock: the length in the
// upper 20 bits, milliseconds since 1970 in the lower 44; 0 stands for a store that has never reported.
type packedQueue uint64

const queueTimeBits = 44

func packQueue(q *shortline.Queue) packedQueue {
	ms := min(max(q.UpdatedAt.UnixMilli(), 1), 1<<queueTimeBits-1)
	return packedQueue(uint64(q.Length)<<queueTimeBits | uint64(ms))
}

// liveQueue is a live queue with what is learned of its pace.
type liveQueue struct {
	packedQueue
	learned uint32 // as in the slot
}

// live reads the queue. What is learned changes by a hair with each report, and is read after the rest: it may be that of the
// next report, which is about to be seen.
func (sl *slot) live() liveQueue {
	q := packedQueue(sl.queue.Load())
	return liveQueue{q, sl.learned.Load()}
}

// serviceS is the mean seconds to serve one person at a store: its own, else what is learned, else the default.
func (q liveQueue) serviceS(a *attrs) float64 {
	switch {
	case a.serviceS > 0:
		return a.serviceS
	case q.learned > 0:
		return q.learnedS()
	}
	return shortline.DefaultServiceS
}

// learns tells whether serviceS is what is learned.
func (q liveQueue) learns(a *attrs) bool { return a.serviceS == 0 && q.learned > 0 }

func (q liveQueue) learnedS() float64 { return float64(q.learned) / 100 }

// wait is shortline.Wait in the queue of a store.
func (q liveQueue) wait(a *attrs) (expected, high int) {
	return shortline.Wait(q.length(), q.serviceS(a))
}

func (q packedQueue) known() bool          { return q != 0 }
func (q packedQueue) length() int          { return int(q >> queueTimeBits) }
func (q packedQueue) unixMilli() int64     { return int64(q & (1<<queueTimeBits - 1)) }
func (q packedQueue) updatedAt() time.Time { return time.UnixMilli(q.unixMilli()).UTC() }

// shard is one part of the map from ids to slots.
type shard struct {
	mu   sync.RWMutex
	refs map[shortline.StoreID]geo.Ref // guarded by mu
}

var idSeed = maphash.MakeSeed()

func newState() *state {
	s := &state{attrs: map[string]*attrs{}, schedules: map[string]*schedule{}, hours: map[string]*shortline.Hours{}}
	s.pages.Store(&[]*page{})
	s.keys.Store(&map[shortline.KeyID]*shortline.Key{})
	for i := range s.shards {
		s.shards[i].refs = map[shortline.StoreID]geo.Ref{}
	}
	s.index = geo.New(func(a, b geo.Ref) bool { return s.record(a).id < s.record(b).id })
	return s
}

func (s *state) slot(ref geo.Ref) *slot {
	return &(*s.pages.Load())[ref/pageSize][ref%pageSize]
}

func (s *state) record(ref geo.Ref) *record { return s.slot(ref).record.Load() }

// find returns the slot of a store that exists.
func (s *state) find(id shortline.StoreID) (*slot, *record, bool) {
	ref, ok := s.lookup(id)
	if !ok {
		return nil, nil, false
	}
	sl := s.slot(ref)
	rec := sl.record.Load()
	return sl, rec, rec.attrs != nil
}

func (s *state) shardOf(id shortline.StoreID) *shard {
	return &s.shards[maphash.String(idSeed, string(id))%uint64(len(s.shards))]
}

func (s *state) lookup(id shortline.StoreID) (geo.Ref, bool) {
	sh := s.shardOf(id)
	sh.mu.RLock()
	ref, ok := sh.refs[id]
	sh.mu.RUnlock()
	return ref, ok
}

// key returns an API key, revoked ones too.
func (s *state) key(id shortline.KeyID) *shortline.Key { return (*s.keys.Load())[id] }

// Load takes rows of a snapshot; part of replication.View.
func (s *state) Load(rows []replication.Row) {
	for i := range rows {
		row := &rows[i]
		_, sl := s.own(row.Store.ID)
		if row.Deleted {
			s.bury(sl, row.Rev)
		} else {
			s.putRecord(sl, &row.Store, row.Rev)
		}
		if row.Queue != nil {
			s.setQueue(sl, row.Queue)
		} else {
			s.buryQueue(sl, row.QueueRev)
		}
	}
}

// Built indexes all that was loaded; part of replication.View.
func (s *state) Built() {
	s.arrange()
	err := s.index.Build(func(yield func(geo.Ref, geo.Point) bool) {
		for ref := range geo.Ref(s.used) {
			if rec := s.record(ref); rec.attrs != nil && !yield(ref, geo.Point{Lat: rec.lat, Lng: rec.lng}) {
				return
			}
		}
	})
	if err != nil { // putRecord lets no other points in
		panic(fmt.Sprintf("edge: index a snapshot: %v", err))
	}
}

// arrange gives the slots new places, in the order of the cells that the stores are in, and puts their records and ids side
// by side in the same order: stores that are found together are then fetched together. Snapshots come in the order of ids,
// which has stores of one town all over the memory. It is called before the state is in service.
func (s *state) arrange() {
	type placed struct {
		cell geo.Cell
		ref  geo.Ref
	}
	order := make([]placed, s.used)
	var workers sync.WaitGroup
	size := len(order)/runtime.GOMAXPROCS(0) + 1
	for from := 0; from < len(order); from += size {
		workers.Go(func() {
			for i := from; i < min(from+size, len(order)); i++ {
				order[i].ref = geo.Ref(i)
				if rec := s.record(geo.Ref(i)); rec.attrs != nil {
					order[i].cell = geo.CellAt(geo.Point{Lat: rec.lat, Lng: rec.lng}, arrangeRes)
				}
			}
		})
	}
	workers.Wait()
	slices.SortFunc(order, func(a, b placed) int { return cmp.Or(cmp.Compare(a.cell, b.cell), cmp.Compare(a.ref, b.ref)) })

	// One piece of memory for all things of a kind: what lies alone between what the snapshot left behind would keep a whole
	// page of memory from being given back, and full huge pages stay huge.
	slots, records := make([]page, (len(order)+pageSize-1)/pageSize), make([]record, len(order))
	pages, ids, attrs := make([]*page, len(slots)), s.idsOf(len(order), func(i int) geo.Ref { return order[i].ref }), s.gatherAttrs()
	for i := range pages {
		pages[i] = &slots[i]
	}
	for i := range s.shards {
		s.shards[i].refs = make(map[shortline.StoreID]geo.Ref, len(s.shards[i].refs))
	}
	for i, o := range order {
		from, rec, to := s.slot(o.ref), &records[i], &slots[i/pageSize][i%pageSize]
		*rec = *from.record.Load()
		rec.id, ids = ids[:len(rec.id)], ids[len(rec.id):]
		rec.cell, rec.attrs = o.cell, attrs[rec.attrs]
		to.record.Store(rec)
		to.queue.Store(from.queue.Load())
		to.learned.Store(from.learned.Load())
		to.queueRev = from.queueRev
		s.shardOf(rec.id).refs[rec.id] = geo.Ref(i)
	}
	if len(order) > 0 {
		var huge memory.Huge
		huge.Add(unsafe.Pointer(&slots[0]), len(slots)*int(unsafe.Sizeof(slots[0])))
		huge.Add(unsafe.Pointer(&records[0]), len(records)*int(unsafe.Sizeof(records[0])))
		huge.Advise()
	}
	s.pages.Store(&pages)
	s.arranged = true
}

// idsOf is the ids of n slots, one after the other.
func (s *state) idsOf(n int, ref func(int) geo.Ref) shortline.StoreID {
	size := 0
	for i := range n {
		size += len(s.record(ref(i)).id)
	}
	var all strings.Builder
	all.Grow(size)
	for i := range n {
		all.WriteString(string(s.record(ref(i)).id))
	}
	return shortline.StoreID(all.String())
}

// gatherAttrs moves all attrs together and tells where each one went; nil went nowhere.
func (s *state) gatherAttrs() map[*attrs]*attrs {
	together, moved := make([]attrs, 0, len(s.attrs)), make(map[*attrs]*attrs, len(s.attrs))
	for key, a := range s.attrs {
		together = append(together, *a)
		moved[a] = &together[len(together)-1]
		s.attrs[key] = moved[a]
	}
	return moved
}

// arrangeRes is a resolution whose cells are some blocks of a town.
const arrangeRes = 9

// LoadKeys takes the API keys; part of replication.View.
func (s *state) LoadKeys(keys []shortline.Key) {
	all := maps.Clone(*s.keys.Load())
	for i := range keys {
		k := keys[i]
		if old := all[k.ID]; old == nil || old.Rev < k.Rev {
			all[k.ID] = &k
		}
	}
	s.keys.Store(&all)
}

// Apply takes changes of the feed, the newest rev of each row wins; part of replication.View. Searches see the stores of
// one call appear and move all at once; records and queues are new a moment before, so a search may meet a store that is
// gone by now.
func (s *state) Apply(changes []shortline.Change) {
	hub := s.watcher()
	if hub != nil {
		defer func() { // when all of it can be seen
			hub.changed(&s.changed)
			s.changed.reset()
		}()
	}
	var places []*shortline.Change
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case shortline.StorePut, shortline.StoreDeleted:
			places = append(places, c)
		case shortline.QueueSet:
			_, sl := s.own(shortline.StoreID(c.Subject))
			if s.setQueue(sl, c.Queue) && hub != nil {
				s.changed.stores = append(s.changed.stores, sl.record.Load().id)
			}
		case shortline.KeyPut:
			s.LoadKeys([]shortline.Key{*c.Key})
		}
	}
	if len(places) == 0 { // the usual case: queues move all the time, stores hardly ever
		return
	}
	err := s.index.Update(func(tx *geo.Tx) error {
		for _, c := range places {
			sl, before := s.before(c)
			if err := s.place(tx, c); err != nil {
				return err
			}
			if hub != nil {
				s.changed.add(before, sl.record.Load())
			}
		}
		return nil
	})
	if err != nil { // putRecord lets no other points in
		panic(fmt.Sprintf("edge: index changes: %v", err))
	}
}

// watcher is who is to be told of the changes that s applies; nil while s is not in service. Whether anybody follows a
// store is looked at after the changes, not before: somebody may begin to meanwhile.
func (s *state) watcher() *liveHub {
	if s.catalog == nil || s.catalog.current.Load() != s {
		return nil
	}
	return s.catalog.live.Load()
}

// before returns the slot that a change of a store is about, and the record that the change finds there.
func (s *state) before(c *shortline.Change) (*slot, *record) {
	id := shortline.StoreID(c.Subject)
	if c.Kind == shortline.StorePut {
		id = c.Store.ID
	}
	_, sl := s.own(id)
	return sl, sl.record.Load()
}

// place applies a change of a store itself.
func (s *state) place(tx *geo.Tx, c *shortline.Change) error {
	switch c.Kind {
	case shortline.StorePut:
		ref, sl := s.own(c.Store.ID)
		if s.putRecord(sl, c.Store, c.Rev) {
			return tx.Put(ref, geo.Point{Lat: c.Store.Lat, Lng: c.Store.Lng})
		}
	case shortline.StoreDeleted:
		ref, sl := s.own(shortline.StoreID(c.Subject))
		// The queue has a rev of its own: memory may know a newer store already and still hold the queue of the old one,
		// or hold the queue of the store that came after.
		if c.Queue != nil {
			s.buryQueue(sl, c.Queue.Rev)
		}
		if s.bury(sl, c.Rev) {
			tx.Delete(ref)
		}
	}
	return nil
}

// bury leaves a tombstone in place of the record, and tells whether that is news.
func (s *state) bury(sl *slot, rev uint64) bool {
	old := sl.record.Load()
	if old.rev >= rev {
		return false
	}
	s.setRecord(sl, &record{id: old.id, rev: rev})
	if old.attrs != nil {
		s.stores.Add(-1)
		if sl.queue.Load() != 0 { // that of the store that comes after
			s.queues.Add(-1)
		}
	}
	return true
}

// buryQueue leaves a tombstone in place of the queue.
func (s *state) buryQueue(sl *slot, rev uint64) {
	if rev <= sl.queueRev {
		return
	}
	sl.queueRev = rev
	sl.learned.Store(0)
	if sl.queue.Swap(0) != 0 && sl.record.Load().attrs != nil {
		s.queues.Add(-1)
	}
}

// own returns the slot of an id, a new one where it has none.
func (s *state) own(id shortline.StoreID) (geo.Ref, *slot) {
	if ref, ok := s.lookup(id); ok {
		return ref, s.slot(ref)
	}
	pages := *s.pages.Load()
	if s.used == len(pages)*pageSize {
		pages = append(pages[:len(pages):len(pages)], new(page))
		s.pages.Store(&pages)
	}
	ref := geo.Ref(s.used)
	s.used++
	sl := s.slot(ref)
	id = shortline.StoreID(strings.Clone(string(id))) // not a part of the buffer it was read from
	sl.record.Store(&record{id: id})
	sh := s.shardOf(id)
	sh.mu.Lock()
	sh.refs[id] = ref
	sh.mu.Unlock()
	return ref, sl
}

// putRecord tells whether the store is newer than what the slot holds, and a place on Earth.
func (s *state) putRecord(sl *slot, store *shortline.Store, rev uint64) bool {
	old := sl.record.Load()
	if old.rev >= rev || !(geo.Point{Lat: store.Lat, Lng: store.Lng}).Valid() {
		return false
	}
	if old.attrs == nil {
		s.stores.Add(1)
		if sl.queue.Load() != 0 { // it came before its store
			s.queues.Add(1)
		}
	}
	rec := &record{id: old.id, lat: store.Lat, lng: store.Lng, rev: rev, attrs: s.internAttrs(store)}
	if s.arranged { // else arrange finds all cells at once
		rec.cell = geo.CellAt(geo.Point{Lat: store.Lat, Lng: store.Lng}, arrangeRes)
	}
	s.setRecord(sl, rec)
	return true
}

// setRecord replaces a record. The details of the former one are of no more use.
func (s *state) setRecord(sl *slot, rec *record) {
	sl.record.Store(rec)
	sl.usual.Store(0)
	sl.details.Store(0)
}

// setQueue tells whether the queue is newer than what the slot holds.
func (s *state) setQueue(sl *slot, q *shortline.Queue) bool {
	if q.Rev <= sl.queueRev {
		return false
	}
	sl.queueRev = q.Rev
	sl.learned.Store(uint32(math.Round(q.LearnedS * 100)))
	if sl.queue.Swap(uint64(packQueue(q))) == 0 && sl.record.Load().attrs != nil {
		s.queues.Add(1)
	}
	return true
}

func (s *state) internAttrs(store *shortline.Store) *attrs {
	key := fmt.Sprintf("%s\x00%s\x00%s\x00%v\x00%s", store.Brand, store.Hours, store.Timezone, store.ServiceS, strings.Join(store.Tags, "\x00"))
	if a := s.attrs[key]; a != nil {
		return a
	}
	a := &attrs{brand: strings.ToLower(store.Brand), tags: store.Tags, serviceS: store.ServiceS, schedule: s.internSchedule(store)}
	if loc, err := shortline.LoadTimezone(store.Timezone); err == nil && store.Timezone != "" {
		a.loc = loc
	}
	s.attrs[key] = a
	return a
}

// internHours returns nil for hours that are not known.
func (s *state) internHours(text string) *shortline.Hours {
	hours, ok := s.hours[text]
	if !ok {
		if parsed, err := shortline.ParseHours(text); err == nil && text != "" {
			hours = parsed
		}
		s.hours[strings.Clone(text)] = hours
	}
	return hours
}

// internSchedule returns nil where it cannot be told whether the store is open: no hours, or hours without a time zone
// unless they are round the clock.
func (s *state) internSchedule(store *shortline.Store) *schedule {
	key := store.Hours + "\x00" + store.Timezone
	if sc, ok := s.schedules[key]; ok {
		return sc
	}
	var sc *schedule
	if hours := s.internHours(store.Hours); hours != nil {
		loc, err := shortline.LoadTimezone(store.Timezone)
		switch {
		case err == nil:
			sc = &schedule{hours: hours, loc: loc}
		case store.Hours == "24/7":
			sc = &schedule{hours: hours, loc: time.UTC}
		}
	}
	s.schedules[key] = sc
	return sc
}

// cacheRes is the resolution of the cells by which details are kept together in a cache: a town, more or less.
const cacheRes = 6

// CellOf tells the cell of a store, for caches that keep neighbours together; false where there is no such store.
func (c *Catalog) CellOf(id shortline.StoreID) (geo.Cell, bool) {
	if st := c.current.Load(); st != nil {
		if _, rec, ok := st.find(id); ok {
			return geo.CellAt(geo.Point{Lat: rec.lat, Lng: rec.lng}, cacheRes), true
		}
	}
	return 0, false
}

// Rev tells the rev of a store; false where there is none.
func (c *Catalog) Rev(id shortline.StoreID) (uint64, bool) {
	if st := c.current.Load(); st != nil {
		if _, rec, ok := st.find(id); ok {
			return rec.rev, true
		}
	}
	return 0, false
}
