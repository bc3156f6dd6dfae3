package edge_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// ranked is a store as brute force ranks it.
type ranked struct {
	id            string
	key, distance float64
}

// Every store within the radius is measured, and sorted by the wait or by the time until one is served there.
func TestNearbyRankedEqualsBruteForce(t *testing.T) {
	n := newTestNode(t)
	random := rand.New(rand.NewPCG(5, 6))
	stores := someStores(400)
	n.load(t, stores)
	lengths := map[shortline.StoreID]int{}
	for _, s := range stores {
		if random.IntN(4) > 0 { // the others never report
			lengths[s.ID] = random.IntN(12)
			n.report(t, string(s.ID), fmt.Sprintf(`{"length":%d}`, lengths[s.ID]))
		}
	}
	for _, sort := range []string{"wait", "fastest"} {
		for _, radius := range []float64{500, 20_000, 500_000, 21_000_000} {
			for _, speed := range []float64{0.5, 1.4, 30} {
				if sort == "wait" && speed != 1.4 {
					continue
				}
				var want []ranked
				for _, s := range stores {
					r := ranked{string(s.ID), math.Inf(1), haversine(51.5, 0, s.Lat, s.Lng)}
					if length, known := lengths[s.ID]; known {
						r.key = float64(length * 60)
						if sort == "fastest" {
							r.key += r.distance / speed
						}
					}
					if r.distance <= radius {
						want = append(want, r)
					}
				}
				slices.SortFunc(want, func(a, b ranked) int {
					if math.Abs(a.key-b.key) > 1e-6 { // else +Inf on both sides, or the same
						return cmp.Compare(a.key, b.key)
					}
					if math.Abs(a.distance-b.distance) > 1e-6 {
						return cmp.Compare(a.distance, b.distance)
					}
					return cmp.Compare(a.id, b.id)
				})
				pairs := []string{"lat", "51.5", "lng", "0", "radius", fmt.Sprint(radius), "sort", sort, "fields", "id,queue"}
				if sort == "fastest" {
					pairs = append(pairs, "speed", fmt.Sprint(speed))
				}
				// In one answer, and page by page.
				for _, limit := range []int{100, 7} {
					var got []string
					for cursor := ""; ; {
						page := append(slices.Clone(pairs), "limit", fmt.Sprint(limit))
						if cursor != "" {
							page = append(page, "cursor", cursor)
						}
						a := n.nearby(t, page...)
						got = append(got, a.ids()...)
						if a.NextCursor == nil || len(got) >= 100 {
							break
						}
						cursor = *a.NextCursor
					}
					for i := range min(len(want), len(got)) {
						if got[i] != want[i].id {
							t.Fatalf("%s within %v m at %v m/s, %d a page: place %d is %s, want %+v", sort, radius, speed, limit, i, got[i], want[i])
						}
					}
					if len(got) < min(len(want), 100) {
						t.Errorf("%s within %v m, %d a page: %d stores, want %d", sort, radius, limit, len(got), len(want))
					}
				}
			}
		}
	}
}

func TestNearbyUsual(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", Lat: 10, Lng: 20, ServiceS: 60, Timezone: "America/New_York"})
	n.weeks(t, 2)
	n.clock.advance(5 * time.Hour) // nine o'clock in New York
	deadline := time.Now().Add(time.Minute)
	for {
		a := n.nearby(t, "lat", "10", "lng", "20")
		if usual := a.Stores[0].Queue.UsualLength; usual != nil {
			if *usual < 6 || *usual > 8 {
				t.Errorf("usual at nine is %v, want about 8", *usual)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("what is usual never came")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestNearbyAtAFutureTime(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", Lat: 10, Lng: 20, ServiceS: 60, Timezone: "America/New_York", Hours: "Mo-Su 07:00-12:00"})
	n.put(t, shortline.Store{ID: "b", Name: "B", Lat: 10, Lng: 20.001, ServiceS: 60, Timezone: "America/New_York", Hours: "Mo-Su 10:00-20:00"})
	n.weeks(t, 3) // Monday, 4 o'clock in New York
	at := func(hours time.Duration) string { return n.clock.Now().Add(hours * time.Hour).Format(time.RFC3339) }
	nine := n.nearby(t, "lat", "10", "lng", "20", "at", at(5))
	if len(nine.Stores) != 2 || !*nine.Stores[0].Open || *nine.Stores[1].Open || nine.Stores[1].Expected != nil {
		t.Fatalf("at nine: %+v", nine.Stores)
	}
	if e := nine.Stores[0].Expected; e == nil || e.Length < 7 || e.Length > 9 || math.Abs(float64(e.WaitS)-60*e.Length) > 5 || e.WaitHighS <= e.WaitS {
		t.Errorf("at nine: %+v", e)
	}
	eleven := n.nearby(t, "lat", "10", "lng", "20", "at", at(7), "open_now", "true", "max_wait", "200")
	if !slices.Equal(eleven.ids(), []string{"a"}) || eleven.Stores[0].Expected.Length > 3 {
		t.Errorf("at eleven: %+v", eleven.Stores)
	}
	if got := n.nearby(t, "lat", "10", "lng", "20", "at", at(5), "max_wait", "200"); len(got.Stores) != 0 {
		t.Errorf("nobody waits less than 200 s at nine, but: %+v", got.Stores)
	}
	// The one without a past comes last though it is nearer.
	if got := n.nearby(t, "lat", "10", "lng", "20.001", "at", at(7), "sort", "fastest"); !slices.Equal(got.ids(), []string{"a", "b"}) {
		t.Errorf("fastest at eleven: %v", got.ids())
	}
	if got := n.nearby(t, "lat", "10", "lng", "20"); got.Stores[0].Expected != nil {
		t.Error("something is expected of now")
	}
	n.store.rollups.set(broken)
	n.clock.advance(time.Hour)
	n.get(t, "/v1/nearby"+query("lat", "10", "lng", "20", "at", at(3))).wantProblem(t, http.StatusServiceUnavailable, "store-unavailable")
	n.get(t, "/v1/nearby"+query("lat", "10", "lng", "20")).want(t, 200)
}

func TestNearbyRankedBadInput(t *testing.T) {
	n := newTestNode(t)
	for _, c := range []struct {
		query, field string
		status       int
	}{
		{"sort=length", "sort", 400}, {"speed=2", "speed", 422}, {"sort=fastest&speed=0", "speed", 422}, {"sort=fastest&speed=NaN", "speed", 400}, {"sort=fastest&speed=101", "speed", 422},
		{"at=tomorrow", "at", 400}, {"at=2020-01-01T00:00:00Z", "at", 422}, {"at=2027-11-23T09:00:00Z", "at", 422}, {"at=2026-11-23T10:00:00Z&at=2026-11-23T10:00:00Z", "at", 400},
	} {
		rep := n.get(t, "/v1/nearby?lat=1&lng=2&"+c.query)
		kind := map[int]string{400: "malformed-request", 422: "invalid-request"}[c.status]
		if p := rep.wantProblem(t, c.status, kind); !slices.Equal(p.fields(), []string{c.field}) {
			t.Errorf("%s: the fields at fault are %v", c.query, p.fields())
		}
	}
}
