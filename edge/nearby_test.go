package edge_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// nearbyAnswer is what a client makes of the answer to GET /v1/nearby.
type nearbyAnswer struct {
	Stores []struct {
		ID        string
		Name      *string
		Lat, Lng  float64
		DistanceM float64 `json:"distance_m"`
		Address   *shortline.Address
		Open      *bool
		Queue     *struct {
			Length      int
			WaitS       int       `json:"wait_s"`
			WaitHighS   int       `json:"wait_high_s"`
			UsualLength *float64  `json:"usual_length"`
			UpdatedAt   time.Time `json:"updated_at"`
			AgeS        int       `json:"age_s"`
		}
		Expected *struct {
			Length    float64
			WaitS     int `json:"wait_s"`
			WaitHighS int `json:"wait_high_s"`
		}
	}
	Region     string
	AsOf       time.Time `json:"as_of"`
	LagS       float64   `json:"lag_s"`
	NextCursor *string   `json:"next_cursor"`
}

func (a *nearbyAnswer) ids() []string {
	ids := []string{}
	for _, s := range a.Stores {
		ids = append(ids, s.ID)
	}
	return ids
}

func (n *testNode) nearby(t testing.TB, pairs ...string) nearbyAnswer {
	t.Helper()
	var a nearbyAnswer
	n.get(t, "/v1/nearby"+query(pairs...)).want(t, http.StatusOK).json(t, &a)
	return a
}

// haversine is the distance by the textbook, for comparison.
func haversine(lat1, lng1, lat2, lng2 float64) float64 {
	rad := func(d float64) float64 { return d * math.Pi / 180 }
	sin2 := func(x float64) float64 { return math.Sin(x/2) * math.Sin(x/2) }
	h := sin2(rad(lat2-lat1)) + math.Cos(rad(lat1))*math.Cos(rad(lat2))*sin2(rad(lng2-lng1))
	return 2 * 6_371_008.8 * math.Asin(math.Min(1, math.Sqrt(h)))
}

// someStores are count stores near and far, some at the very same place.
func someStores(count int) []shortline.Store {
	random := rand.New(rand.NewPCG(1, 2))
	stores := make([]shortline.Store, count)
	for i := range stores {
		s := shortline.Store{ID: shortline.StoreID(fmt.Sprintf("s-%04d", random.IntN(9000)*10+i%10)), Name: fmt.Sprintf("Store %d", i)}
		switch i % 4 {
		case 0:
			s.Lat, s.Lng = 51.5+random.NormFloat64()/10, random.NormFloat64()/10
		case 1:
			s.Lat, s.Lng = math.Asin(2*random.Float64()-1)*180/math.Pi, random.Float64()*360-180
		case 2:
			s.Lat, s.Lng = 51.5+random.NormFloat64()/1000, 180-math.Abs(random.NormFloat64())/100
		default:
			s.Lat, s.Lng = 51.5, 0.25
		}
		stores[i] = s
	}
	return slices.CompactFunc(slices.SortedFunc(slices.Values(stores), func(a, b shortline.Store) int { return cmp.Compare(a.ID, b.ID) }),
		func(a, b shortline.Store) bool { return a.ID == b.ID })
}

// around sorts stores as an answer must have them and leaves out those beyond the radius.
func around(stores []shortline.Store, lat, lng, radius float64) []shortline.Store {
	d := func(s shortline.Store) float64 { return haversine(lat, lng, s.Lat, s.Lng) }
	in := slices.DeleteFunc(slices.Clone(stores), func(s shortline.Store) bool { return d(s) > radius })
	slices.SortFunc(in, func(a, b shortline.Store) int { return cmp.Or(cmp.Compare(d(a), d(b)), cmp.Compare(a.ID, b.ID)) })
	return in
}

func storeIDs(stores []shortline.Store) []string {
	ids := []string{}
	for _, s := range stores {
		ids = append(ids, string(s.ID))
	}
	return ids
}

func TestNearbyOrder(t *testing.T) {
	n := newTestNode(t)
	stores := someStores(800)
	n.load(t, stores)
	for _, c := range []struct {
		name     string
		lat, lng float64
		radius   string
		metres   float64
		limit    int
	}{
		{"default radius", 51.5, 0, "", 5000, 100},
		{"metres", 51.5, 0, "12000", 12000, 100},
		{"metres with unit", 51.5, 0, "12000m", 12000, 100},
		{"kilometres", 51.5, 0, "12.5km", 12500, 100},
		{"miles", 51.5, 0, "8mi", 8 * 1609.344, 100},
		{"a blank before the unit", 51.5, 0, "8 mi", 8 * 1609.344, 100},
		{"limit 1", 51.5, 0, "100km", 100_000, 1},
		{"limit 100", 51.5, 0, "100km", 100_000, 100},
		{"ties", 51.5, 0.25, "10m", 10, 100},
		{"antimeridian", 51.5, -179.999, "50km", 50_000, 100},
		{"a pole", 90, 0, "21000km", 21e6, 100},
		{"whole Earth", -33, 151, "21000km", 21e6, 100},
		{"nothing there", 0, -140, "1m", 1, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			pairs := []string{"lat", fmt.Sprint(c.lat), "lng", fmt.Sprint(c.lng), "limit", fmt.Sprint(c.limit)}
			if c.radius != "" {
				pairs = append(pairs, "radius", c.radius)
			}
			got := n.nearby(t, pairs...)
			want := around(stores, c.lat, c.lng, c.metres)
			if more := len(want) > c.limit; more != (got.NextCursor != nil) {
				t.Errorf("next_cursor is %v, with %d stores and the limit %d", got.NextCursor, len(want), c.limit)
			}
			want = want[:min(len(want), c.limit)]
			if !slices.Equal(got.ids(), storeIDs(want)) {
				t.Fatalf("the stores are\n%v, want\n%v", got.ids(), storeIDs(want))
			}
			for i, s := range got.Stores {
				if d := haversine(c.lat, c.lng, want[i].Lat, want[i].Lng); math.Abs(d-s.DistanceM) > 0.001 {
					t.Errorf("%s is %v m away, want %v", s.ID, s.DistanceM, d)
				}
				if s.Lat != want[i].Lat || s.Lng != want[i].Lng || *s.Name != want[i].Name {
					t.Errorf("%+v is not %+v", s, want[i])
				}
			}
		})
	}
	t.Run("the last millimetre", func(t *testing.T) {
		for i, s := range around(stores, 51.5, 0, 50_000)[:100] {
			if d := haversine(51.5, 0, s.Lat, s.Lng); d > 1 {
				for within, metres := range map[bool]float64{true: d + 0.001, false: d - 0.001} {
					got := n.nearby(t, "lat", "51.5", "lng", "0", "limit", "100", "fields", "id", "radius", fmt.Sprintf("%.6f", metres))
					if slices.Contains(got.ids(), string(s.ID)) != within {
						t.Errorf("store %d, %v m away, within %v m: %v", i, d, metres, !within)
					}
				}
			}
		}
	})
	t.Run("default limit", func(t *testing.T) {
		if got := n.nearby(t, "lat", "51.5", "lng", "0.25"); len(got.Stores) != 5 || got.Region != "local" {
			t.Errorf("%d stores of region %q, want 5 of local", len(got.Stores), got.Region)
		}
	})
}

// detailed makes three stores in a row that differ in what filters look at.
func detailed(t *testing.T, n *testNode) {
	n.put(t, shortline.Store{ID: "a", Name: "Ä \"quoted\" <b>\u2028x", Brand: "Bean & Co", Lat: 10, Lng: 20, Timezone: "Europe/London", Hours: "Mo-Fr 08:00-18:00",
		Tags: []string{"wifi", "drive"}, Address: &shortline.Address{Street: "1 Way", City: "Town"}, ServiceS: 30})
	n.put(t, shortline.Store{ID: "b", Name: "B", Brand: "bean & co", Lat: 10, Lng: 20.001, Timezone: "America/New_York", Hours: "Mo-Fr 08:00-18:00", Tags: []string{"wifi"}})
	n.put(t, shortline.Store{ID: "c", Name: "C", Brand: "Other", Lat: 10, Lng: 20.002, Hours: "Mo-Fr 08:00-18:00", Tags: []string{"drive"}})
	n.put(t, shortline.Store{ID: "d", Name: "D", Lat: 10, Lng: 20.003, Hours: "24/7"})
	n.write(t, http.MethodPost, "/v1/queues", `{"updates":[{"id":"a","length":10},{"id":"b","length":2},{"id":"c","length":0}]}`).want(t, http.StatusOK)
}

func TestNearbyMembers(t *testing.T) {
	n := newTestNode(t)
	detailed(t, n)
	n.clock.advance(3500 * time.Millisecond)
	got := n.nearby(t, "lat", "10", "lng", "20")
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(got.ids(), want) {
		t.Fatalf("stores %v, want %v", got.ids(), want)
	}
	a, b, c, d := got.Stores[0], got.Stores[1], got.Stores[2], got.Stores[3]
	wait, high := shortline.Wait(10, 30)
	if q := a.Queue; q == nil || q.Length != 10 || q.WaitS != wait || q.WaitHighS != high || q.UsualLength != nil || !q.UpdatedAt.Equal(morning) || q.AgeS != 3 {
		t.Errorf("the queue of a is %+v", q)
	}
	if *a.Name != "Ä \"quoted\" <b>\u2028x" || *a.Address != (shortline.Address{Street: "1 Way", City: "Town"}) {
		t.Errorf("a is %q at %+v", *a.Name, a.Address)
	}
	if d.Queue != nil {
		t.Errorf("a store that never reported has the queue %+v", d.Queue)
	}
	if b.Address == nil || *b.Address != (shortline.Address{}) {
		t.Errorf("no address is %+v, want an empty object", b.Address)
	}
	if a.Open == nil || !*a.Open || b.Open == nil || *b.Open || c.Open != nil || d.Open == nil || !*d.Open {
		t.Errorf("open: %v %v %v %v, want true, false (04:00 there), null (no time zone), true (round the clock)", a.Open, b.Open, c.Open, d.Open)
	}
	if got.LagS < 0 || got.AsOf.IsZero() {
		t.Errorf("lag_s %v, as_of %v", got.LagS, got.AsOf)
	}
	t.Run("never reported is null, not absent", func(t *testing.T) {
		var raw struct{ Stores []map[string]json.RawMessage }
		n.get(t, "/v1/nearby?lat=10&lng=20").json(t, &raw)
		if got := string(raw.Stores[3]["queue"]); got != "null" {
			t.Errorf("queue is %q", got)
		}
		if got := string(raw.Stores[2]["open"]); got != "null" {
			t.Errorf("open is %q", got)
		}
	})
	t.Run("fields", func(t *testing.T) {
		for _, fields := range []string{"id", "name", "lat", "lng", "distance_m", "address", "open", "queue", "id,queue", "distance_m, id", "id,name,lat,lng,distance_m,address,open,queue"} {
			var raw struct{ Stores []map[string]json.RawMessage }
			n.get(t, "/v1/nearby"+query("lat", "10", "lng", "20", "fields", fields)).want(t, 200).json(t, &raw)
			want := strings.Split(strings.ReplaceAll(fields, " ", ""), ",")
			for _, s := range raw.Stores {
				if len(s) != len(want) {
					t.Errorf("fields=%s answers %v", fields, s)
				}
				for _, name := range want {
					if _, ok := s[name]; !ok {
						t.Errorf("fields=%s lacks %s", fields, name)
					}
				}
			}
		}
	})
}

func TestNearbyFilters(t *testing.T) {
	n := newTestNode(t)
	detailed(t, n)
	for _, c := range []struct {
		filters, want string
	}{
		{"open_now=true", "a d"}, {"open_now=false", "a b c d"},
		{"max_wait=0", "c"}, {"max_wait=120", "b c"}, {"max_wait=299", "b c"}, {"max_wait=300", "a b c"},
		{"tag=wifi", "a b"}, {"tag=wifi&tag=drive", "a"}, {"tag=none", ""},
		{"brand=BEAN+%26+CO", "a b"}, {"brand=other", "c"}, {"brand=bean", ""},
		{"brand=bean+%26+co&open_now=true&tag=wifi&max_wait=1000", "a"},
		{"tag=drive&limit=1", "a"},
	} {
		t.Run(c.filters, func(t *testing.T) {
			var got nearbyAnswer
			n.get(t, "/v1/nearby?lat=10&lng=20&"+c.filters).want(t, 200).json(t, &got)
			if ids := strings.Join(got.ids(), " "); ids != c.want {
				t.Errorf("answers %q, want %q", ids, c.want)
			}
		})
	}
	t.Run("a minute later it is still right", func(t *testing.T) {
		n.clock.advance(9 * time.Hour) // 18:00 in London, 13:00 in New York
		if got := n.nearby(t, "lat", "10", "lng", "20", "open_now", "true"); !slices.Equal(got.ids(), []string{"b", "d"}) {
			t.Errorf("open at 18:00 are %v", got.ids())
		}
	})
}

// TestNearbyPages pages through the whole Earth while stores come and go: each store that stays comes exactly once, in
// order, and none twice.
func TestNearbyPages(t *testing.T) {
	n := newTestNode(t)
	stay := someStores(120)
	n.load(t, stay)
	var moving []shortline.Store
	for i := range 40 {
		moving = append(moving, shortline.Store{ID: shortline.StoreID(fmt.Sprintf("moving-%02d", i)), Name: "M", Lat: 51.5, Lng: float64(i) / 40})
	}
	n.load(t, moving[:20])
	random := rand.New(rand.NewPCG(3, 4))
	seen := map[string]int{}
	var got []string
	cursor, last := "", -1.0
	for page := 0; ; page++ {
		if page > 200 {
			t.Fatal("the pages do not end")
		}
		pairs := []string{"lat", "51.5", "lng", "0.25", "radius", "21000km", "limit", fmt.Sprint(1 + page%7)}
		if cursor != "" {
			pairs = append(pairs, "cursor", cursor)
		}
		a := n.nearby(t, pairs...)
		for _, s := range a.Stores {
			if seen[s.ID]++; seen[s.ID] > 1 {
				t.Errorf("%s came again on page %d", s.ID, page)
			}
			if s.DistanceM < last {
				t.Errorf("%s at %v m comes after %v m", s.ID, s.DistanceM, last)
			}
			last = s.DistanceM
			if !strings.HasPrefix(s.ID, "moving") {
				got = append(got, s.ID)
			}
		}
		if a.NextCursor == nil {
			break
		}
		cursor = *a.NextCursor
		n.put(t, moving[random.IntN(len(moving))])
		n.write(t, http.MethodDelete, "/v1/stores/"+string(moving[random.IntN(len(moving))].ID), "")
		if page%3 == 0 { // the very store that the cursor stands at
			gone := a.Stores[len(a.Stores)-1]
			if strings.HasPrefix(gone.ID, "moving") {
				n.write(t, http.MethodDelete, "/v1/stores/"+gone.ID, "")
			}
		}
	}
	if want := storeIDs(around(stay, 51.5, 0.25, 21e6)); !slices.Equal(got, want) {
		t.Errorf("the stores that stay came as\n%v, want\n%v", got, want)
	}
}

func TestNearbyCursorOfAnotherQuery(t *testing.T) {
	n := newTestNode(t)
	n.load(t, someStores(50))
	first := n.nearby(t, "lat", "51.5", "lng", "0.25", "radius", "100km", "limit", "2")
	if first.NextCursor == nil {
		t.Fatal("there is no second page")
	}
	base := "/v1/nearby" + query("cursor", *first.NextCursor)
	for _, c := range []string{"lat=51.6&lng=0.25&radius=100km", "lat=51.5&lng=0.26&radius=100km", "lat=51.5&lng=0.25&radius=99km", "lat=51.5&lng=0.25&radius=100km&tag=x",
		"lat=51.5&lng=0.25&radius=100km&brand=x", "lat=51.5&lng=0.25&radius=100km&open_now=true", "lat=51.5&lng=0.25&radius=100km&max_wait=0"} {
		if p := n.get(t, base+"&"+c).wantProblem(t, 400, "malformed-request"); !slices.Equal(p.fields(), []string{"cursor"}) {
			t.Errorf("%s: the fields at fault are %v", c, p.fields())
		}
	}
	// What does not change the order may differ from page to page, and so may the way to write the same.
	n.get(t, base+"&lat=51.50&lng=.25&radius=100000&limit=7&fields=id&consistency=strong").want(t, 200)
}
