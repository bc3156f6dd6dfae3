package edge

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// growing is a past in which the queue of every store was as long as the hour of the day in UTC, for four weeks.
type growing struct {
	mu    sync.Mutex
	reads int  // guarded by mu
	short bool // an hour
}

func (g *growing) Rollups(_ context.Context, _ shortline.StoreID, from, to time.Time) ([]shortline.Rollup, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reads++
	if g.short {
		from = to.Add(-time.Hour)
	}
	var all []shortline.Rollup
	for h := max(from.Unix(), to.Unix()-28*24*3600) / 3600 * 3600; h < to.Unix(); h += 3600 {
		length := int(h / 3600 % 24)
		all = append(all, shortline.Rollup{Hour: time.Unix(h, 0).UTC(), Samples: 60, Sum: int64(60 * length), Max: length})
	}
	return all, nil
}

func (g *growing) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reads
}

func TestUsualPacked(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		want := float64(r.IntN(10_000_000)) / 10
		u := packUsual(now.Add(time.Second), want, true)
		if got, ok := u.length(); !ok || got != want || !u.holds(now) || u.holds(now.Add(time.Second)) {
			t.Fatalf("%v comes back as %v, %v", want, got, ok)
		}
	}
	if _, ok := packUsual(now, 5, false).length(); ok || usual(0).holds(now) {
		t.Error("what is not known is known")
	}
}

// TestUsualOfTheHour follows a store through three days: answers say what an Outlook says at that moment, in a zone whose
// hours begin at a quarter, while the past is read no more often than it grows old.
func TestUsualOfTheHour(t *testing.T) {
	for _, zone := range []string{"", "Asia/Kathmandu", "America/St_Johns"} {
		t.Run(zone, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				past := new(growing)
				o, err := newOutlooks(past, time.Now)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- o.run(ctx, time.Second) }()
				st := newState()
				st.Load([]replication.Row{{Store: shortline.Store{ID: "a", Name: "A", Lat: 1, Lng: 2, Timezone: zone}, Rev: 1}})
				sl, rec, _ := st.find("a")
				if _, known := o.usual(sl, rec, time.Now()).length(); known {
					t.Error("it is known at once")
				}
				wrong, asked := 0, 0
				for end := time.Now().Add(72 * time.Hour); time.Now().Before(end); time.Sleep(97 * time.Second) {
					synctest.Wait()
					now := time.Now()
					got, known := o.usual(sl, rec, now).length()
					synctest.Wait() // a new outlook is told to the slot, but not to this answer
					kept, _ := o.cache.GetIfPresent("a")
					want, _ := kept.outlook.Usual(now)
					if !known {
						t.Fatalf("%v after the start it is not known", 72*time.Hour-end.Sub(now))
					}
					if asked++; math.Abs(got-want) > 0.06 && now.Sub(kept.made) > 0 {
						wrong++
					}
				}
				if wrong > 0 {
					t.Errorf("%d of %d answers say what is usual at another hour", wrong, asked)
				}
				if n, most := past.count(), int(72*time.Hour/outlookAge)+2; n > most {
					t.Errorf("the past was read %d times, more than %d", n, most)
				}
				st.Load([]replication.Row{{Store: shortline.Store{ID: "a", Name: "A", Lat: 1, Lng: 2, Timezone: "Asia/Tokyo"}, Rev: 2}})
				if sl.usual.Load() != 0 {
					t.Error("a store with another clock keeps what was usual by the former one")
				}
				if tell(sl, rec, packUsual(time.Now().Add(time.Hour), 3, true)); sl.usual.Load() != 0 {
					t.Error("a read that comes back late tells what is usual by the former clock")
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestOutlooksAreReadSlowly asks for more stores than can be remembered or read.
func TestOutlooksAreReadSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		past := &growing{short: true}
		o, err := newOutlooks(past, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.run(ctx, time.Second) }()
		st := newState()
		const stores = 5000
		var rows []replication.Row
		for i := range stores {
			id := shortline.StoreID("s" + string(rune('a'+i%26)) + time.Duration(i).String())
			rows = append(rows, replication.Row{Store: shortline.Store{ID: id, Name: "S", Lat: 1, Lng: 2}, Rev: 1})
		}
		st.Load(rows)
		for i := range rows {
			sl, rec, _ := st.find(rows[i].Store.ID)
			o.usual(sl, rec, time.Now())
		}
		time.Sleep(time.Second)
		if n := past.count(); n > 200+outlookLoaders || n < 150 {
			t.Errorf("%d pasts were read in a second", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
