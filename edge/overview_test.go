package edge_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

type heatmap struct {
	Type     string
	Res      int
	Features []struct {
		ID       string
		Geometry struct {
			Type        string
			Coordinates [][][2]float64
		}
		Properties struct {
			Stores, Reporting int
			People            int64
			MeanLength        *float64 `json:"mean_length"`
			MeanWaitS         *int     `json:"mean_wait_s"`
		}
	}
}

// Whatever the resolution, each store is in one cell, and the sums are those over the stores; also after stores came, went and moved.
func TestHeatmapSumsUpAllStores(t *testing.T) {
	n := newTestNode(t)
	stores := someStores(300)
	n.load(t, stores)
	unique := map[shortline.StoreID]bool{}
	for _, s := range stores {
		unique[s.ID] = true
	}
	for i, s := range stores[:100] {
		n.report(t, string(s.ID), fmt.Sprintf(`{"length":%d}`, i%7))
	}
	n.put(t, shortline.Store{ID: "pole", Name: "P", Lat: 90, Lng: 0})
	n.put(t, shortline.Store{ID: "moved", Name: "M", Lat: 1, Lng: 1})
	n.put(t, shortline.Store{ID: "moved", Name: "M", Lat: -18, Lng: 179.99})
	n.report(t, "moved", `{"length":5}`)
	for res := range 8 {
		n.clock.advance(2 * time.Second)
		var a heatmap
		n.get(t, fmt.Sprintf("/v1/heatmap?res=%d", res)).want(t, 200).json(t, &a)
		stores, people := 0, int64(0)
		for _, f := range a.Features {
			stores += f.Properties.Stores
			people += f.Properties.People
			ring := f.Geometry.Coordinates[0]
			if ring[0] != ring[len(ring)-1] || len(ring) < 6 {
				t.Fatalf("the outline of %s is not closed: %v", f.ID, ring)
			}
			for i := 1; i < len(ring); i++ {
				if math.Abs(ring[i][0]-ring[i-1][0]) > 180 && math.Abs(ring[i][1]) < 80 {
					t.Errorf("the outline of %s jumps from %v to %v", f.ID, ring[i-1], ring[i])
				}
			}
		}
		if a.Type != "FeatureCollection" || a.Res != res || stores != len(unique)+2 || people < 5 {
			t.Errorf("resolution %d: %d stores in %d cells, want %d; %d people", res, stores, len(a.Features), len(unique)+2, people)
		}
	}
	// Across the antimeridian.
	var a heatmap
	n.get(t, "/v1/heatmap?res=5&bbox=179,-19,-179,-17").want(t, 200).json(t, &a)
	if len(a.Features) != 1 || a.Features[0].Properties.People != 5 || *a.Features[0].Properties.MeanLength != 5 || *a.Features[0].Properties.MeanWaitS != 300 {
		t.Errorf("%+v", a)
	}
	for path, status := range map[string]int{
		"/v1/heatmap?res=8": 422, "/v1/heatmap?res=x": 400, "/v1/heatmap?bbox=1,2,3": 400, "/v1/heatmap?bbox=1,2,3,1": 422, "/v1/heatmap?bbox=1,2,3,NaN": 400,
		"/v1/heatmap?bbox=-181,0,0,1": 422, "/v1/heatmap?res=1&res=1": 400, "/v1/heatmap?zoom=3": 400, "/v1/analytics/overview?top=3": 400,
	} {
		n.get(t, path).want(t, status)
	}
}

func TestOverview(t *testing.T) {
	n := newTestNode(t)
	var a struct {
		Stores, Reporting int
		People            int64
		MeanWaitS         *int `json:"mean_wait_s"`
		Busiest           []struct {
			ID     string
			Length int
			WaitS  int `json:"wait_s"`
		}
		Cells []struct {
			Cell   string
			People int64
		}
	}
	n.get(t, "/v1/analytics/overview").want(t, 200).json(t, &a)
	if a.Stores != 0 || a.MeanWaitS != nil || a.Busiest == nil || a.Cells == nil {
		t.Errorf("of nothing: %+v", a)
	}
	var token string
	for i := range 25 {
		id := fmt.Sprintf("s%02d", i)
		n.put(t, shortline.Store{ID: shortline.StoreID(id), Name: id, Lat: float64(i), Lng: 10, ServiceS: 30})
		if i < 20 {
			_, rep := n.report(t, id, fmt.Sprintf(`{"length":%d}`, i*3%20))
			token = rep.header.Get("Shortline-Token")
		}
	}
	// A token is honoured though a sum of a moment ago is kept.
	n.get(t, "/v1/analytics/overview", "Shortline-Token: "+token).want(t, 200).json(t, &a)
	if a.Stores != 25 || a.Reporting != 20 || a.People != 190 || *a.MeanWaitS != 285 || len(a.Busiest) != 10 || len(a.Cells) != 10 {
		t.Fatalf("%+v, mean wait %v", a, *a.MeanWaitS)
	}
	for i, b := range a.Busiest {
		if b.Length != 19-i || b.WaitS != 30*b.Length {
			t.Errorf("busiest %d: %+v", i, b)
		}
	}
	if a.Cells[0].People != 19 || a.Cells[9].People != 10 {
		t.Errorf("cells: %+v", a.Cells)
	}
}
