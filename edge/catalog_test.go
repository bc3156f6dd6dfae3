package edge

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

var catalogEpoch = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func catalogStore(id shortline.StoreID, lat, lng float64) *shortline.Store {
	return &shortline.Store{ID: id, Name: "Store " + string(id), Lat: lat, Lng: lng}
}

func storePut(s *shortline.Store, rev uint64) shortline.Change {
	return shortline.Change{Kind: shortline.StorePut, Subject: string(s.ID), Rev: rev, Store: s}
}

// storeDeleted makes the change of a delete; queueRev is that of the queue's tombstone, 0 for a store that had none.
func storeDeleted(id shortline.StoreID, rev, queueRev uint64) shortline.Change {
	c := shortline.Change{Kind: shortline.StoreDeleted, Subject: string(id), Rev: rev}
	if queueRev > 0 {
		c.Queue = &shortline.Queue{Rev: queueRev}
	}
	return c
}

func queueSet(id shortline.StoreID, rev uint64, length int) shortline.Change {
	return shortline.Change{Kind: shortline.QueueSet, Subject: string(id), Rev: rev,
		Queue: &shortline.Queue{Length: length, Rev: rev, UpdatedAt: catalogEpoch.Add(time.Duration(length) * time.Second)}}
}

func keyPut(id shortline.KeyID, rev uint64, name string) shortline.Change {
	return shortline.Change{Kind: shortline.KeyPut, Subject: string(id), Rev: rev, Key: &shortline.Key{ID: id, Name: name, Rev: rev}}
}

// loaded makes a state as a snapshot of these rows leaves it.
func loaded(rows ...replication.Row) *state {
	s := newState()
	s.Load(rows)
	s.Built()
	return s
}

// seen is what readers see of a store.
type seen struct {
	Rev      uint64 // 0: no such store
	Lat, Lng float64
	Length   int // -1: it never reported
}

func (s *state) see(id shortline.StoreID) seen {
	sl, rec, ok := s.find(id)
	if !ok {
		return seen{Length: -1}
	}
	v := seen{Rev: rec.rev, Lat: rec.lat, Lng: rec.lng, Length: -1}
	if q := packedQueue(sl.queue.Load()); q.known() {
		v.Length = q.length()
	}
	return v
}

// around returns the ids of all stores that a search finds, in order of distance from the place.
func (s *state) around(p geo.Point) (ids []shortline.StoreID) {
	s.index.Nearby(p, geo.Search{Within: geo.MaxDistance}, func(h geo.Hit) bool {
		if rec := s.record(h.Ref); rec.attrs != nil {
			ids = append(ids, rec.id)
		}
		return true
	})
	return ids
}

func TestCatalogApply(t *testing.T) {
	at := func(lat float64) *shortline.Store { return catalogStore("a", lat, 10) }
	gone := seen{Length: -1}
	for _, c := range []struct {
		name    string
		changes []shortline.Change
		want    seen
	}{
		{"a put", []shortline.Change{storePut(at(1), 1)}, seen{1, 1, 10, -1}},
		{"a newer put", []shortline.Change{storePut(at(1), 1), storePut(at(2), 2)}, seen{2, 2, 10, -1}},
		{"an older put", []shortline.Change{storePut(at(2), 2), storePut(at(1), 1)}, seen{2, 2, 10, -1}},
		{"the same rev again", []shortline.Change{storePut(at(2), 2), storePut(at(3), 2)}, seen{2, 2, 10, -1}},
		{"a queue", []shortline.Change{storePut(at(1), 1), queueSet("a", 1, 5)}, seen{1, 1, 10, 5}},
		{"an empty queue", []shortline.Change{storePut(at(1), 1), queueSet("a", 1, 0)}, seen{1, 1, 10, 0}},
		{"an older queue", []shortline.Change{storePut(at(1), 1), queueSet("a", 4, 5), queueSet("a", 3, 7)}, seen{1, 1, 10, 5}},
		{"a queue before its store", []shortline.Change{queueSet("a", 1, 5), storePut(at(1), 1)}, seen{1, 1, 10, 5}},
		{"a queue without its store", []shortline.Change{queueSet("a", 1, 5)}, gone},
		{"a newer put leaves the queue", []shortline.Change{storePut(at(1), 1), queueSet("a", 1, 5), storePut(at(2), 2)}, seen{2, 2, 10, 5}},
		{"a delete", []shortline.Change{storePut(at(1), 1), queueSet("a", 1, 5), storeDeleted("a", 2, 2)}, gone},
		{"a delete of what was never heard of", []shortline.Change{storeDeleted("a", 2, 0)}, gone},
		{"an older put after a delete", []shortline.Change{storeDeleted("a", 2, 0), storePut(at(1), 1)}, gone},
		{"an older delete after a put", []shortline.Change{storePut(at(3), 3), storeDeleted("a", 2, 0)}, seen{3, 3, 10, -1}},
		{"a delete of the same rev", []shortline.Change{storePut(at(3), 3), storeDeleted("a", 3, 0)}, seen{3, 3, 10, -1}},
		{"back again", []shortline.Change{storePut(at(1), 1), storeDeleted("a", 2, 0), storePut(at(3), 3)}, seen{3, 3, 10, -1}},
		{"the queue does not come back",
			[]shortline.Change{storePut(at(1), 1), queueSet("a", 1, 5), storeDeleted("a", 2, 2), storePut(at(3), 3)}, seen{3, 3, 10, -1}},
		{"an older queue after a delete does not come back",
			[]shortline.Change{storePut(at(1), 1), storeDeleted("a", 2, 2), queueSet("a", 1, 5), storePut(at(3), 3)}, seen{3, 3, 10, -1}},
		{"the queue of the store that came after",
			[]shortline.Change{storePut(at(1), 1), queueSet("a", 1, 5), storeDeleted("a", 2, 2), storePut(at(3), 3), queueSet("a", 3, 7)}, seen{3, 3, 10, 7}},
		{"the queue of the store that came after, first",
			[]shortline.Change{queueSet("a", 3, 7), storeDeleted("a", 2, 2), storePut(at(3), 3)}, seen{3, 3, 10, 7}},
		{"a late delete takes the old queue of a newer store",
			[]shortline.Change{storePut(at(1), 1), queueSet("a", 1, 5), storePut(at(3), 3), storeDeleted("a", 2, 2)}, seen{3, 3, 10, -1}},
		{"an epoch", []shortline.Change{storePut(at(1), 1), {Kind: shortline.EpochBegun, Rev: 9}}, seen{1, 1, 10, -1}},
		{"a kind from the future", []shortline.Change{storePut(at(1), 1), {Kind: 200, Subject: "a", Rev: 9}}, seen{1, 1, 10, -1}},
		{"nowhere on Earth", []shortline.Change{storePut(at(1), 1), storePut(at(math.NaN()), 2), storePut(at(91), 3)}, seen{1, 1, 10, -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			together, apart := loaded(), loaded()
			together.Apply(c.changes)
			for _, change := range c.changes {
				apart.Apply([]shortline.Change{change})
			}
			for pages, s := range map[string]*state{"in one page": together, "each in a page of its own": apart} {
				if got := s.see("a"); got != c.want {
					t.Errorf("%s: %+v, want %+v", pages, got, c.want)
				}
				found := s.around(geo.Point{Lat: c.want.Lat, Lng: c.want.Lng})
				if there := slices.Equal(found, []shortline.StoreID{"a"}); there != (c.want.Rev > 0) {
					t.Errorf("%s: a search finds %v", pages, found)
				}
				checkCounters(t, s)
			}
		})
	}
}

// checkCounters compares the counters with the slots.
func checkCounters(t *testing.T, s *state) {
	t.Helper()
	var stores, queues int64
	for ref := range geo.Ref(s.used) {
		if s.record(ref).attrs == nil {
			continue
		}
		stores++
		if packedQueue(s.slot(ref).queue.Load()).known() {
			queues++
		}
	}
	if got := s.stores.Load(); got != stores {
		t.Errorf("%d stores are counted, there are %d", got, stores)
	}
	if got := s.queues.Load(); got != queues {
		t.Errorf("%d queues are counted, there are %d", got, queues)
	}
	if got := s.index.Len(); got != int(stores) {
		t.Errorf("%d stores are in the index, there are %d", got, stores)
	}
}

// catalogModel is what a database knows: a map, changed one operation at a time, and the changes it told of.
type catalogModel struct {
	stores  map[shortline.StoreID]*modelStore
	changes []shortline.Change
}

type modelStore struct {
	seen
	exists        bool
	rev, queueRev uint64
}

func (m *catalogModel) step(rng *rand.Rand) {
	id := shortline.StoreID(fmt.Sprintf("s%d", rng.IntN(12)))
	s := m.stores[id]
	if s == nil {
		s = &modelStore{seen: seen{Length: -1}}
		m.stores[id] = s
	}
	switch op := rng.IntN(10); {
	case op < 3 || !s.exists && op < 6:
		s.exists, s.rev = true, s.rev+1
		s.Rev, s.Lat, s.Lng = s.rev, float64(rng.IntN(181)-90), float64(rng.IntN(361)-180)
		m.changes = append(m.changes, storePut(catalogStore(id, s.Lat, s.Lng), s.rev))
	case !s.exists:
	case op == 3:
		s.exists, s.rev = false, s.rev+1
		if s.Length >= 0 {
			s.queueRev++
		}
		s.seen = seen{Length: -1}
		m.changes = append(m.changes, storeDeleted(id, s.rev, s.queueRev))
	default:
		s.queueRev++
		s.Length = rng.IntN(shortline.MaxQueueLength + 1)
		m.changes = append(m.changes, queueSet(id, s.queueRev, s.Length))
	}
}

// rows is a snapshot.
func (m *catalogModel) rows() (rows []replication.Row) {
	for id, s := range m.stores {
		if !s.exists {
			continue
		}
		row := replication.Row{Store: *catalogStore(id, s.Lat, s.Lng), Rev: s.rev}
		if s.Length >= 0 {
			row.Queue = queueSet(id, s.queueRev, s.Length).Queue
		}
		rows = append(rows, row)
	}
	return rows
}

// TestCatalogAgainstModel applies random histories, in any order, with repetitions, in pages of any size, over an empty
// state or over the snapshot of the beginning: by rev alone it must end with what the model has.
func TestCatalogAgainstModel(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 11))
		m := &catalogModel{stores: map[shortline.StoreID]*modelStore{}}
		s := newState()
		if rng.IntN(2) == 0 {
			for range rng.IntN(100) {
				m.step(rng)
			}
			s.Load(m.rows())
			m.changes = nil // those before the snapshot are not told again
		}
		s.Built()
		for range rng.IntN(200) {
			m.step(rng)
		}
		changes := slices.Clone(m.changes)
		for range min(len(changes), 20) { // an overlap
			changes = append(changes, changes[rng.IntN(len(changes))])
		}
		if rng.IntN(3) > 0 {
			rng.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
		}
		for len(changes) > 0 {
			n := 1 + rng.IntN(min(len(changes), 30))
			s.Apply(changes[:n])
			changes = changes[n:]
			checkCounters(t, s)
		}
		for id, want := range m.stores {
			if got := s.see(id); got != want.seen {
				t.Errorf("seed %d: store %s is %+v, want %+v", seed, id, got, want.seen)
			}
		}
		if t.Failed() {
			return
		}
	}
}

func TestPackedQueue(t *testing.T) {
	const lastMilli = 1<<queueTimeBits - 1
	check := func(length int, ms, wantMs int64) {
		t.Helper()
		q := packQueue(&shortline.Queue{Length: length, UpdatedAt: time.UnixMilli(ms)})
		if !q.known() || q.length() != length || q.updatedAt().UnixMilli() != wantMs || q.updatedAt().Location() != time.UTC {
			t.Errorf("%d at %d ms comes back as %d at %v (known: %v)", length, ms, q.length(), q.updatedAt(), q.known())
		}
	}
	for _, length := range []int{0, 1, shortline.MaxQueueLength} {
		check(length, 1, 1)
		check(length, catalogEpoch.UnixMilli(), catalogEpoch.UnixMilli())
		check(length, lastMilli, lastMilli)
		// Out of range, it is as near as can be, and the length is right.
		check(length, 0, 1)
		check(length, -5, 1)
		check(length, lastMilli+1, lastMilli)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		ms := 1 + rng.Int64N(lastMilli)
		check(rng.IntN(shortline.MaxQueueLength+1), ms, ms)
	}
	if packedQueue(0).known() {
		t.Error("a store that never reported has a known queue")
	}
	if time.UnixMilli(lastMilli).Year() < 2500 {
		t.Error("the time wraps in our lifetimes")
	}
}

// TestCatalogUnderReaders moves, removes and reports stores while readers search: every search finds a store that moves
// exactly once, at one of its places, and a queue with the time it was seen at.
func TestCatalogUnderReaders(t *testing.T) {
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	places := []geo.Point{{Lat: 10, Lng: 10}, {Lat: -80, Lng: -170}}
	var rows []replication.Row
	for i := range 50 {
		rows = append(rows, replication.Row{Store: *catalogStore(shortline.StoreID(fmt.Sprintf("still-%02d", i)), 0, float64(i)), Rev: 1})
	}
	rows = append(rows, replication.Row{Store: *catalogStore("moving", places[0].Lat, places[0].Lng), Rev: 1})
	s := loaded(rows...)

	var searches atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				counts := map[shortline.StoreID]int{}
				s.index.Nearby(places[0], geo.Search{Within: geo.MaxDistance}, func(h geo.Hit) bool {
					rec := s.record(h.Ref)
					counts[rec.id]++
					if rec.id == "moving" && h.Distance != 0 && h.Distance != geo.Distance(places[0], places[1]) {
						t.Errorf("the store that moves is %v away", h.Distance)
					}
					return true
				})
				for i := range 50 {
					if id := shortline.StoreID(fmt.Sprintf("still-%02d", i)); counts[id] != 1 {
						t.Errorf("%s is found %d times", id, counts[id])
					}
				}
				if counts["moving"] != 1 {
					t.Errorf("the store that moves is found %d times", counts["moving"])
				}
				if counts["one"] != counts["other"] {
					t.Errorf("of two stores put and deleted together, one is found %d times, the other %d times", counts["one"], counts["other"])
				}
				sl, _, ok := s.find("still-00")
				if !ok {
					t.Error("a store that nobody touched is gone")
					return
				}
				if q := packedQueue(sl.queue.Load()); q.known() && !q.updatedAt().Equal(catalogEpoch.Add(time.Duration(q.length())*time.Second)) {
					t.Errorf("%d people at %v: parts of two reports", q.length(), q.updatedAt())
				}
				if k := s.key("k"); k != nil && k.Name != fmt.Sprint(k.Rev) {
					t.Errorf("key %+v", k)
				}
				if _, rec, ok := s.find("moving"); !ok || (geo.Point{Lat: rec.lat, Lng: rec.lng}) != places[(rec.rev-1)%2] {
					t.Errorf("the record of the store that moves: %+v, %v", rec, ok)
				}
				searches.Add(1)
			}
		})
	}
	for i := range rounds {
		rev := uint64(i + 2)
		to := places[(rev-1)%2]
		s.Apply([]shortline.Change{
			storePut(catalogStore("moving", to.Lat, to.Lng), rev),
			queueSet("still-00", rev, i),
			keyPut("k", rev, fmt.Sprint(rev)),
		})
		if i%2 == 0 {
			s.Apply([]shortline.Change{storePut(catalogStore("one", 5, 5), rev), storePut(catalogStore("other", -5, -5), rev)})
		} else {
			s.Apply([]shortline.Change{storeDeleted("one", rev, 0), storeDeleted("other", rev, 0)})
		}
		if i%10 == 0 { // the pages grow under the readers too
			s.Apply([]shortline.Change{queueSet(shortline.StoreID(fmt.Sprintf("grown-%d", i)), 1, 1)})
		}
	}
	for searches.Load() == 0 && !t.Failed() {
		s.Apply([]shortline.Change{queueSet("still-00", uint64(rounds)+10, 0)})
	}
	close(stop)
	readers.Wait()
	checkCounters(t, s)
}

func TestCatalogGrowsPastAPage(t *testing.T) {
	const n = 3*pageSize + 5
	var rows []replication.Row
	for i := range n {
		rows = append(rows, replication.Row{Store: *catalogStore(shortline.StoreID(fmt.Sprint(i)), float64(i%90), float64(i%180)), Rev: 1})
	}
	s := loaded(rows[:n/2]...)
	for i := range rows[n/2:] {
		s.Apply([]shortline.Change{storePut(&rows[n/2+i].Store, 1)})
	}
	for i := range n {
		id := shortline.StoreID(fmt.Sprint(i))
		if _, rec, ok := s.find(id); !ok || rec.id != id || rec.lat != float64(i%90) {
			t.Fatalf("store %d is %+v, %v", i, rec, ok)
		}
	}
	checkCounters(t, s)
	if found := s.around(geo.Point{}); len(found) != n {
		t.Errorf("a search finds %d of %d stores", len(found), n)
	}
}

func TestCatalogKeys(t *testing.T) {
	s := loaded()
	if s.key("k") != nil {
		t.Error("a key that nobody made is there")
	}
	s.LoadKeys([]shortline.Key{{ID: "k", Name: "two", Rev: 2}, {ID: "l", Name: "l", Rev: 1}})
	held := s.key("k")
	for _, c := range []struct {
		rev  uint64
		name string
		want string
	}{{1, "one", "two"}, {2, "two again", "two"}, {3, "three", "three"}, {5, "five", "five"}, {4, "four", "five"}} {
		s.Apply([]shortline.Change{keyPut("k", c.rev, c.name)})
		if got := s.key("k").Name; got != c.want {
			t.Errorf("after rev %d the key is %q, want %q", c.rev, got, c.want)
		}
	}
	if held.Name != "two" {
		t.Errorf("a key that a reader holds has become %q", held.Name)
	}
	revoked := catalogEpoch
	s.Apply([]shortline.Change{{Kind: shortline.KeyPut, Subject: "k", Rev: 6, Key: &shortline.Key{ID: "k", Rev: 6, RevokedAt: &revoked}}})
	if k := s.key("k"); k == nil || k.RevokedAt == nil {
		t.Errorf("a revoked key is %+v; it must stay, revoked", k)
	}
	s.LoadKeys([]shortline.Key{{ID: "k", Name: "late", Rev: 3}})
	if k := s.key("k"); k.RevokedAt == nil {
		t.Error("an older row of a snapshot took the revocation back")
	}
	if s.key("l") == nil {
		t.Error("another key got lost")
	}
}

func TestCatalogInstall(t *testing.T) {
	var c Catalog
	if c.current.Load() != nil {
		t.Fatal("a new catalog is ready")
	}
	first := c.Begin()
	first.Load([]replication.Row{{Store: *catalogStore("a", 1, 1), Rev: 4, Queue: &shortline.Queue{Length: 3, Rev: 2, UpdatedAt: catalogEpoch}}, {Store: *catalogStore("b", 2, 2), Rev: 1}})
	first.LoadKeys([]shortline.Key{{ID: "k", Rev: 1}})
	first.Built()
	if c.current.Load() != nil {
		t.Fatal("a view that is not installed is in service")
	}
	c.Install(first)
	old := c.current.Load()
	if got := old.see("a"); got != (seen{4, 1, 1, 3}) {
		t.Errorf("a is %+v", got)
	}

	// A full resync after a rewind: the new state knows nothing of the old one, neither its stores nor its revs.
	second := c.Begin()
	second.Load([]replication.Row{{Store: *catalogStore("a", -1, -1), Rev: 2}})
	second.Built()
	second.Apply([]shortline.Change{storePut(catalogStore("c", 3, 3), 1)})
	if c.current.Load() != old || old.see("c").Rev != 0 || old.see("a").Rev != 4 {
		t.Error("the new view shows through the one in service")
	}
	c.Install(second)
	now := c.current.Load()
	if a, b, got := now.see("a"), now.see("b"), now.around(geo.Point{Lat: -1, Lng: -1}); a != (seen{2, -1, -1, -1}) || b.Rev != 0 || now.key("k") != nil || !slices.Equal(got, []shortline.StoreID{"a", "c"}) {
		t.Errorf("after the resync a is %+v, b %+v, and a search finds %v", a, b, got)
	}
	checkCounters(t, now)
	// A reader that began before goes on with the old one.
	if got := old.around(geo.Point{Lat: 1, Lng: 1}); !slices.Equal(got, []shortline.StoreID{"a", "b"}) || old.key("k") == nil {
		t.Errorf("the old state has become %v", got)
	}
}

func TestCatalogSharesAttrs(t *testing.T) {
	base := shortline.Store{Brand: "Ünïque", Hours: "Mo-Fr 09:00-17:00", Timezone: "Europe/Vienna", Tags: []string{"x", "y"}, ServiceS: 30}
	variant := func(change func(*shortline.Store)) *shortline.Store {
		s := base
		if change != nil {
			change(&s)
		}
		return &s
	}
	s := newState()
	a := s.internAttrs(variant(nil))
	if a.brand != "ünïque" || a.serviceS != 30 || a.schedule == nil {
		t.Errorf("attrs are %+v", a)
	}
	if s.internAttrs(variant(func(o *shortline.Store) { o.Name, o.Lat = "another", 5 })) != a {
		t.Error("stores that are alike do not share")
	}
	for name, change := range map[string]func(*shortline.Store){
		"brand":    func(o *shortline.Store) { o.Brand = "other" },
		"hours":    func(o *shortline.Store) { o.Hours = "24/7" },
		"timezone": func(o *shortline.Store) { o.Timezone = "Asia/Tokyo" },
		"tags":     func(o *shortline.Store) { o.Tags = []string{"x y"} },
		"no tags":  func(o *shortline.Store) { o.Tags = nil },
		"service":  func(o *shortline.Store) { o.ServiceS = 31 },
	} {
		if s.internAttrs(variant(change)) == a {
			t.Errorf("stores of different %s share", name)
		}
	}
	if b := s.internAttrs(variant(func(o *shortline.Store) { o.Brand = "other" })); b.schedule != a.schedule {
		t.Error("stores of the same hours do not share their schedule")
	}
}

func TestCatalogSchedule(t *testing.T) {
	s := newState()
	for _, c := range []struct {
		hours, timezone string
		known           bool
	}{
		{"", "", false}, {"", "UTC", false}, {"Mo-Fr 09:00-17:00", "", false}, {"Mo-Fr 09:00-17:00", "Nowhere/Else", false},
		{"what is this", "UTC", false}, {"24/7", "", true}, {"24/7", "UTC", true}, {"Mo-Fr 09:00-17:00", "UTC", true},
	} {
		sc := s.internSchedule(&shortline.Store{Hours: c.hours, Timezone: c.timezone})
		if (sc != nil) != c.known {
			t.Errorf("hours %q in time zone %q: known is %v", c.hours, c.timezone, sc != nil)
		}
		if c.hours == "24/7" && !sc.open(catalogEpoch) {
			t.Errorf("24/7 in time zone %q is closed", c.timezone)
		}
	}
}

// The answer is remembered for a minute and no longer.
func TestCatalogScheduleAcrossMinutes(t *testing.T) {
	s := newState()
	sc := s.internSchedule(&shortline.Store{Hours: "Mo-Su 09:00-17:00", Timezone: "America/New_York"})
	day := time.Date(2026, 3, 8, 0, 0, 0, 0, sc.loc) // the clocks go forward
	for _, c := range []struct {
		hour, minute, second int
		open                 bool
	}{
		{8, 58, 0, false}, {8, 59, 0, false}, {8, 59, 59, false}, {9, 0, 0, true}, {9, 0, 1, true}, {9, 0, 59, true}, {9, 1, 0, true},
		{16, 59, 59, true}, {17, 0, 0, false}, {17, 0, 59, false},
		{16, 59, 59, true}, {17, 0, 0, false}, // a clock set back
	} {
		now := time.Date(day.Year(), day.Month(), day.Day(), c.hour, c.minute, c.second, 999, sc.loc)
		for range 2 {
			if got := sc.open(now.UTC()); got != c.open {
				t.Errorf("at %v open is %v", now, got)
			}
		}
	}

	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 3))
			for range 20_000 {
				now := day.Add(9*time.Hour - 3*time.Minute + time.Duration(rng.IntN(300))*time.Second) // around 09:00, an hour having been skipped
				if got, want := sc.open(now), sc.hours.OpenAt(now.In(sc.loc)); got != want {
					t.Errorf("at %v open is %v, want %v", now, got, want)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestSnapshotTombstones: what a snapshot says is gone does not come back with an older change.
func TestSnapshotTombstones(t *testing.T) {
	s := loaded(
		replication.Row{Store: shortline.Store{ID: "gone"}, Rev: 4, Deleted: true, QueueRev: 3},
		replication.Row{Store: *catalogStore("here", 1, 1), Rev: 5, QueueRev: 3}, // it came back, and its queue did not
	)
	s.Apply([]shortline.Change{storePut(catalogStore("gone", 1, 1), 3), queueSet("gone", 2, 9), queueSet("here", 2, 9)})
	if got, want := s.see("gone"), (seen{Length: -1}); got != want {
		t.Errorf("an older put brings a deleted store back: %+v", got)
	}
	if got, want := s.see("here"), (seen{Rev: 5, Lat: 1, Lng: 1, Length: -1}); got != want {
		t.Errorf("after an older change of a queue that is gone there is %+v, want %+v", got, want)
	}
	if s.stores.Load() != 1 || s.queues.Load() != 0 || s.index.Len() != 1 {
		t.Errorf("%d stores, %d queues, %d in the index; want 1, 0, 1", s.stores.Load(), s.queues.Load(), s.index.Len())
	}
	s.Apply([]shortline.Change{storePut(catalogStore("gone", 2, 2), 5)})
	if got := s.see("gone"); got.Rev != 5 {
		t.Errorf("after a newer put there is %+v, want rev 5", got)
	}
}
