package edge_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/shortline/shortline"
)

type mapAnswer struct {
	Complete bool
	IDs      []string
	Lat, Lng []float64
	WaitS    []*int `json:"wait_s"`
	Open     []*bool
}

// Whatever the box, the map has the stores that lie in it, and no other.
func TestMapHasTheStoresOfTheBox(t *testing.T) {
	n := newTestNode(t)
	stores := someStores(2000)
	stores = append(stores, shortline.Store{ID: "pole", Name: "P", Lat: 90, Lng: 12}, shortline.Store{ID: "south", Name: "S", Lat: -90, Lng: -40},
		shortline.Store{ID: "east", Name: "E", Lat: -18, Lng: 179.9}, shortline.Store{ID: "west", Name: "W", Lat: -18, Lng: -179.9})
	n.load(t, stores)
	byID := map[string]shortline.Store{}
	for _, s := range stores {
		byID[string(s.ID)] = s
	}
	for _, b := range [][4]float64{
		{-180, -90, 180, 90}, {0, 0, 10, 10}, {-10, 40, 30, 60}, {179, -19, -179, -17}, {170, -90, -100, 90}, {-180, 80, 180, 90}, {-100, -90, 100, -60}, {-90, -5, 90, 5}, {10, 10, -10, 20}, {5, 5, 5, 5},
		{-0.001, 0, 0.001, 90}, {-180, 0, 0, 0.5},
	} {
		var a mapAnswer
		n.get(t, fmt.Sprintf("/v1/map?bbox=%v,%v,%v,%v", b[0], b[1], b[2], b[3])).want(t, 200).json(t, &a)
		want := 0
		for _, s := range byID {
			if s.Lat >= b[1] && s.Lat <= b[3] && (b[0] <= b[2] && s.Lng >= b[0] && s.Lng <= b[2] || b[0] > b[2] && (s.Lng >= b[0] || s.Lng <= b[2])) {
				want++
			}
		}
		if !a.Complete || len(a.IDs) != want || len(a.Lat) != want || len(a.Lng) != want || len(a.WaitS) != want || len(a.Open) != want {
			t.Errorf("%v: %d stores (complete: %v), want %d", b, len(a.IDs), a.Complete, want)
			continue
		}
		for i, id := range a.IDs {
			s, ok := byID[id]
			if !ok || math.Abs(a.Lat[i]-s.Lat) > 6e-6 || math.Abs(a.Lng[i]-s.Lng) > 6e-6 {
				t.Errorf("%v: %s is at %v,%v, want %v,%v", b, id, a.Lat[i], a.Lng[i], s.Lat, s.Lng)
			}
			delete(byID, id) // none comes twice
			defer func() { byID[id] = s }()
		}
		for _, s := range stores {
			byID[string(s.ID)] = s
		}
	}
	var a mapAnswer
	n.get(t, "/v1/map?limit=3").want(t, 200).json(t, &a)
	if a.Complete || a.IDs == nil || len(a.IDs) != 0 {
		t.Errorf("more stores than the limit: %d, complete %v", len(a.IDs), a.Complete)
	}
	for path, status := range map[string]int{
		"/v1/map?limit=0": 422, "/v1/map?limit=x": 400, "/v1/map?limit=100001": 422, "/v1/map?bbox=1": 400, "/v1/map?bbox=0,0,1,91": 422, "/v1/map?limit=1&limit=1": 400, "/v1/map?zoom=1": 400,
	} {
		n.get(t, path).want(t, status)
	}
}

func TestMapShowsWaits(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", Lat: 1, Lng: 1, Hours: "24/7", Timezone: "Europe/Berlin", ServiceS: 30})
	n.put(t, shortline.Store{ID: "b", Name: "B", Lat: 1.5, Lng: 1.123456789})
	n.report(t, "a", `{"length":4}`)
	var a mapAnswer
	n.get(t, "/v1/map").want(t, 200).json(t, &a)
	at := map[string]int{}
	for i, id := range a.IDs {
		at[id] = i
	}
	i, j := at["a"], at["b"]
	if len(a.IDs) != 2 || a.WaitS[i] == nil || *a.WaitS[i] != 120 || a.Open[i] == nil || !*a.Open[i] || a.WaitS[j] != nil || a.Open[j] != nil || a.Lng[j] != 1.12346 {
		t.Errorf("%+v", a)
	}
	n.write(t, "DELETE", "/v1/stores/a", "").want(t, 204)
	n.get(t, "/v1/map").want(t, 200).json(t, &a)
	if len(a.IDs) != 1 || a.IDs[0] != "b" {
		t.Errorf("after it was deleted: %v", a.IDs)
	}
}

// BenchmarkMapHandler asks for all of 25,000 stores, as a map does.
func BenchmarkMapHandler(b *testing.B) {
	n := newTestNode(b, func(s *nodeSetup) { s.edge.RateAddress = 1e8 })
	random := rand.New(rand.NewPCG(7, 8))
	stores := make([]shortline.Store, 25_000)
	for i := range stores {
		stores[i] = shortline.Store{ID: shortline.StoreID(fmt.Sprintf("store-%06d", i)), Name: fmt.Sprintf("Corner of %d", i), Lat: math.Asin(2*random.Float64()-1) * 180 / math.Pi, Lng: random.Float64()*360 - 180,
			Timezone: "America/New_York", Hours: "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00"}
	}
	n.load(b, stores)
	handler, w := n.server.Handler(), &discard{header: http.Header{}}
	for name, path := range map[string]string{"world": "/v1/map", "city": "/v1/map?bbox=-74.3,40.4,-73.6,41"} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				if handler.ServeHTTP(w, r); w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
		})
	}
}
