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

// discard is a ResponseWriter that keeps nothing but the status.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkNearbyHandler asks for what is near in 100,000 stores around 200 cities, each with name, address, hours and every
// second one with a queue; the details are in the cache.
func BenchmarkNearbyHandler(b *testing.B) {
	n := newTestNode(b, func(s *nodeSetup) { s.edge.RateAddress = 1e8 }) // counted, and never too many
	random := rand.New(rand.NewPCG(5, 6))
	type place struct{ lat, lng float64 }
	cities := make([]place, 200)
	for i := range cities {
		cities[i] = place{math.Asin(1.6*random.Float64()-0.8) * 180 / math.Pi, random.Float64()*340 - 170}
	}
	stores := make([]shortline.Store, 100_000)
	for i := range stores {
		c := cities[random.IntN(len(cities))]
		stores[i] = shortline.Store{ID: shortline.StoreID(fmt.Sprintf("store-%06d", i)), Name: fmt.Sprintf("Corner of %d", i), Brand: "Bean", Lat: c.lat + random.NormFloat64()/5, Lng: c.lng + random.NormFloat64()/5,
			Address: &shortline.Address{Street: "1 Way", City: "Town", Postcode: "10111", Country: "US"}, Timezone: "America/New_York", Hours: "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00", Tags: []string{"wifi"}}
	}
	n.load(b, stores)
	for _, c := range []struct{ name, more string }{{"5_within_5km", ""}, {"20_within_5km", "&limit=20"}, {"5_within_5km_open_now_wifi", "&open_now=true&tag=wifi"}, {"5_within_5km_ids_and_queues", "&fields=id,distance_m,queue"}} {
		b.Run(c.name, func(b *testing.B) {
			requests := make([]*http.Request, 1000)
			for i := range requests {
				at := cities[random.IntN(len(cities))]
				requests[i] = httptest.NewRequest(http.MethodGet, fmt.Sprintf("/v1/nearby?lat=%.5f&lng=%.5f%s", at.lat+random.NormFloat64()/10, at.lng+random.NormFloat64()/10, c.more), nil)
				requests[i].RemoteAddr = "127.0.0.1:1" // whose requests are not counted against a limit
			}
			handler, w := n.server.Handler(), &discard{header: http.Header{}}
			ask := func(i int) {
				clear(w.header)
				if handler.ServeHTTP(w, requests[i%len(requests)]); w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
			for i := range requests {
				ask(i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				ask(i)
			}
		})
	}
}
