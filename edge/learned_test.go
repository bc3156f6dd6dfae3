package edge_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// What is learned of a store's pace is what every wait of it is computed with, wherever that is told; it is shown as learned, and
// does not become a given one by being sent back.
func TestLearnedServiceTime(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", Lat: 1, Lng: 1})
	n.put(t, shortline.Store{ID: "given", Name: "Given", Lat: 1, Lng: 1.001, ServiceS: 45})
	var store struct {
		ServiceS float64 `json:"service_s"`
		Learned  bool    `json:"service_learned"`
	}
	if rep := n.get(t, "/v1/stores/a").want(t, 200); bytes.Contains(rep.body, []byte("service")) {
		t.Errorf("before anything was reported: %s", rep.body)
	}
	live := dialLive(t, n.api)
	live.send(t, `{"op":"subscribe","stores":["a"]}`)
	live.next(t)

	var a queueAnswer
	for _, id := range []string{"a", "given"} { // in turns one more and one less, ten seconds apart: 20 seconds a person
		n.report(t, id, `{"length":9}`)
		for i := range 200 {
			n.clock.advance(10 * time.Second)
			got, _ := n.report(t, id, fmt.Sprintf(`{"delta":%d}`, 1-2*(i%2)))
			if id == "a" {
				a = got
			}
		}
	}
	const want = 240 // nine people at (200·10 + 20·60) / (100 + 20) s: drawn a little to the 60 s that is assumed at first
	if *a.WaitS != want {
		t.Errorf("the answer to a report says %d s, want %d", *a.WaitS, want)
	}
	if n.get(t, "/v1/stores/a/queue").want(t, 200).json(t, &a); *a.WaitS != want {
		t.Errorf("the queue says %d s, want %d", *a.WaitS, want)
	}
	for e := live.next(t); *e.WaitS != want || *e.Length != 9; e = live.next(t) { // the older values come first
	}
	rep := n.get(t, "/v1/stores/a").want(t, 200)
	if rep.json(t, &store); store.ServiceS != 26.67 || !store.Learned {
		t.Errorf("the store says %s", rep.body)
	}
	tag := rep.header.Get("ETag")
	n.get(t, "/v1/stores/a", "If-None-Match: "+tag).want(t, 304)
	n.report(t, "a", `{"delta":-1}`)
	n.get(t, "/v1/stores/a", "If-None-Match: "+tag).want(t, 200)
	n.write(t, http.MethodPut, "/v1/stores/a", string(rep.body)).want(t, 200)
	var back struct {
		ServiceS float64 `json:"service_s"`
		Learned  bool    `json:"service_learned"`
	}
	if n.get(t, "/v1/stores/a").want(t, 200).json(t, &back); !back.Learned {
		t.Errorf("after it was sent back as it came, the store has %+v", back)
	}
	store.ServiceS, store.Learned = 0, false
	if rep := n.get(t, "/v1/stores/given").want(t, 200); json.Unmarshal(rep.body, &store) != nil || store.ServiceS != 45 || store.Learned {
		t.Errorf("a store that gives its service time says %s", rep.body)
	}

	var stats statsAnswer
	if n.get(t, "/v1/stores/a/stats").want(t, 200).json(t, &stats); stats.ServiceS != back.ServiceS || !stats.Learned {
		t.Errorf("stats say %v s, learned: %v, want %v", stats.ServiceS, stats.Learned, back.ServiceS)
	}
	n.clock.advance(time.Hour)
	var forecast forecastAnswer
	n.get(t, "/v1/stores/a/forecast?hours=1").want(t, 200).json(t, &forecast)
	if h := forecast.Hours[0]; float64(h.WaitS) < h.Length*back.ServiceS-3 || float64(h.WaitS) > h.Length*back.ServiceS+3 {
		t.Errorf("the forecast is %+v, at %v s a person", h, back.ServiceS)
	}
	// 8 people at some 27 s are 213 s, at 45 s they would be 360: "given" has 9.
	for _, rank := range []string{"wait", "fastest"} {
		found := n.nearby(t, "lat", "1", "lng", "1.001", "sort", rank)
		if ids := found.ids(); len(ids) != 2 || ids[0] != "a" || found.Stores[0].Queue.WaitS >= 9*45 {
			t.Errorf("sort=%s finds %+v", rank, found.Stores)
		}
	}
	near := n.nearby(t, "lat", "1", "lng", "1", "max_wait", "250")
	if ids := near.ids(); len(ids) != 1 || ids[0] != "a" {
		t.Errorf("max_wait lets %v pass", ids)
	}
}
