package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// library is a Details whose stores are of any rev, and whose names tell it.
type library struct {
	mu   sync.Mutex
	revs map[shortline.StoreID]uint64 // guarded by mu
}

func (l *library) set(id shortline.StoreID, rev uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revs[id] = rev
}

func (l *library) Rows(_ context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows []replication.Row
	for _, id := range ids {
		if rev, ok := l.revs[id]; ok {
			rows = append(rows, replication.Row{Store: storeAt(id, rev), Rev: rev})
		}
	}
	return rows, nil
}

func storeAt(id shortline.StoreID, rev uint64) shortline.Store {
	return shortline.Store{ID: id, Name: fmt.Sprintf("%s at %d", id, rev), Lat: 1, Lng: 2, Address: &shortline.Address{Street: strings.Repeat("x", 300)}}
}

// checkDetails holds the sum of the blocks against what is there, reads the details of every slot, and returns how many
// stores have some.
func checkDetails(t *testing.T, st *state) (stores int) {
	t.Helper()
	sum := int64(0)
	if w := st.details.window.Load(); w != nil {
		for _, b := range w.blocks {
			sum += int64(len(b))
		}
	}
	if got := st.details.bytes.Load(); got != sum {
		t.Errorf("the blocks are said to have %d bytes, and have %d", got, sum)
	}
	for ref := range geo.Ref(st.used) {
		sl := st.slot(ref)
		d := st.details.text(sl)
		if d == "" {
			continue
		}
		stores++
		if id := sl.record.Load().id; !strings.HasPrefix(d[detailsHead:], `{"id":"`+string(id)+`"`) {
			t.Errorf("the details of %s are %q", id, d[detailsHead:])
		}
	}
	return stores
}

const roomy = 1 << 20

func TestDetailsText(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	store := shortline.Store{ID: "a.b-c_1", Name: `Bob's "Café" <&>`, Lat: -1e-9, Lng: 179.123456789, Address: &shortline.Address{City: "Zürich"}}
	st := newState()
	st.Load([]replication.Row{{Store: store, Rev: 3}})
	sl, rec, _ := st.find(store.ID)
	st.keepDetails(&replication.Row{Store: store, Rev: 3}, roomy)
	full := st.detailsFor(sl, rec)
	for _, c := range []struct {
		name    string
		details string
		fields  fieldMask
		want    string
	}{
		{"all", full, allFields, `{"id":"a.b-c_1","name":"Bob's \"Café\" \u003c\u0026\u003e","lat":-1e-9,"lng":179.123456789,"distance_m":1234.5,"address":{"city":"Zürich"},"open":null,"queue":null}`},
		{"all without details", "", allFields, `{"id":"a.b-c_1","name":null,"lat":-1e-9,"lng":179.123456789,"distance_m":1234.5,"address":null,"open":null,"queue":null}`},
		{"some", full, fieldName | fieldLng | fieldAddress, `{"name":"Bob's \"Café\" \u003c\u0026\u003e","lng":179.123456789,"address":{"city":"Zürich"}}`},
		{"one", full, fieldOpen, `{"open":null}`},
	} {
		got := string((&Server{}).appendFound(nil, &found{record: rec, details: c.details, distance: 1234.5}, &nearbyQuery{fields: c.fields}, now))
		if got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// A read that comes back late finds a newer record, and does not touch it.
func TestDetailsGoWithTheirRev(t *testing.T) {
	st := newState()
	old, fresh := replication.Row{Store: storeAt("a", 1), Rev: 1}, replication.Row{Store: storeAt("a", 2), Rev: 2}
	st.Load([]replication.Row{old})
	st.Built()
	st.keepDetails(&old, roomy)
	if checkDetails(t, st) != 1 {
		t.Fatal("the details were not kept")
	}
	st.Apply([]shortline.Change{{Kind: shortline.StorePut, Subject: "a", Rev: 2, Store: &fresh.Store}})
	if sl, rec, _ := st.find("a"); st.detailsFor(sl, rec) != "" {
		t.Errorf("a new rev has the details %q", st.detailsFor(sl, rec))
	}
	st.keepDetails(&old, roomy)
	if checkDetails(t, st) != 0 {
		t.Error("details of an older rev were kept")
	}
	newer := replication.Row{Store: storeAt("a", 3), Rev: 3} // the database is ahead of the feed
	st.keepDetails(&newer, roomy)
	if sl, rec, _ := st.find("a"); !strings.Contains(st.detailsFor(sl, rec), "a at 3") {
		t.Errorf("the details are %q", st.detailsFor(sl, rec))
	}
	sl, rec, _ := st.find("a")
	late := encodeDetails(&old.Store, 1, 0) // of a read that looked at the record before it changed
	if st.details.keep(sl, late, roomy, st.slot); st.detailsFor(sl, rec) != "" {
		t.Error("details of an older rev are shown")
	}
	st.keepDetails(&newer, roomy)
	st.Apply([]shortline.Change{{Kind: shortline.StoreDeleted, Subject: "a", Rev: 4}})
	st.keepDetails(&newer, roomy)
	if checkDetails(t, st) != 0 {
		t.Error("a store that is gone has details")
	}
}

func TestDetailsAreBounded(t *testing.T) {
	const stores = 5000
	catalog, source := new(Catalog), &library{revs: map[shortline.StoreID]uint64{}}
	st := newState()
	for i := range stores {
		id := shortline.StoreID(fmt.Sprintf("s%d", i))
		source.set(id, 1)
		st.Load([]replication.Row{{Store: storeAt(id, 1), Rev: 1}})
	}
	catalog.Install(st)
	d := newDetailsCache(catalog, source, 500_000, prometheus.NewRegistry())
	favourite := shortline.StoreID("s7")
	kept := 0
	for i := range stores {
		sl, rec, _ := st.find(favourite)
		sl.asked.Store(1)
		if st.detailsFor(sl, rec) != "" {
			kept++
		}
		if err := d.load(t.Context(), []shortline.StoreID{shortline.StoreID(fmt.Sprintf("s%d", i)), favourite}); err != nil {
			t.Fatal(err)
		}
		if n := st.details.bytes.Load(); n > d.max {
			t.Fatalf("%d bytes after store %d, more than %d", n, i, d.max)
		}
	}
	if n := checkDetails(t, st); n < 500 {
		t.Errorf("only %d stores have details; there is room for more", n)
	}
	if kept < stores-2 {
		t.Errorf("the store that is always asked for had its details in %d of %d rounds", kept, stores)
	}
}

// Readers, changes and the cache's clock at the same time: no answer has a name older than the record's rev.
func TestDetailsRace(t *testing.T) {
	const stores = 50
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	catalog, source := new(Catalog), &library{revs: map[shortline.StoreID]uint64{}}
	st := newState()
	ids := make([]shortline.StoreID, stores)
	for i := range ids {
		ids[i] = shortline.StoreID(fmt.Sprintf("s%d", i))
		source.set(ids[i], 1)
		st.Load([]replication.Row{{Store: storeAt(ids[i], 1), Rev: 1}})
	}
	st.Built()
	catalog.Install(st)
	d := newDetailsCache(catalog, source, 10_000, prometheus.NewRegistry()) // room for some twenty
	var seen atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		for i := range rounds {
			id, rev := ids[i%stores], uint64(2+i/stores)
			source.set(id, rev)
			store := storeAt(id, rev)
			st.Apply([]shortline.Change{{Kind: shortline.StorePut, Subject: string(id), Rev: rev, Store: &store}})
		}
	})
	for r := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 3))
			for range rounds {
				id := ids[rng.IntN(stores)]
				if err := d.load(t.Context(), []shortline.StoreID{id}); err != nil {
					t.Error(err)
				}
				sl, rec, _ := st.find(id)
				d := st.detailsFor(sl, rec)
				if d == "" {
					continue
				}
				seen.Add(1)
				var rev uint64
				name := viewDetails(rec, d).name
				if _, err := fmt.Sscanf(name, `"`+string(id)+` at %d"`, &rev); err != nil || rev < rec.rev {
					t.Errorf("a record of rev %d says %s", rec.rev, name)
				}
			}
		})
	}
	all.Wait()
	if seen.Load() == 0 {
		t.Error("no details were ever seen: this shows nothing")
	}
	checkDetails(t, st)
}
