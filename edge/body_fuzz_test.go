package edge_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

// serve sends a JSON body straight to the public handler, and wants an answer below 500 that is JSON.
func (n *testNode) serve(t *testing.T, method, path, body string) reply {
	t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+n.key)
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.server.Handler().ServeHTTP(w, req)
	rep := reply{"local", w.Code, w.Header(), w.Body.Bytes()}
	if rep.status >= 500 || !json.Valid(rep.body) {
		t.Fatalf("%s %s with %q answers %d %s", method, path, body, rep.status, rep.body)
	}
	if kind := rep.header.Get("Content-Type"); rep.status >= 400 && kind != "application/problem+json" || rep.status < 400 && kind != "application/json" {
		t.Errorf("%s %s with %q answers %d with the type %q", method, path, body, rep.status, kind)
	}
	return rep
}

// FuzzQueueBody wants of every body a queue within its bounds, or a refusal; and that it says the same in a request of many.
func FuzzQueueBody(f *testing.F) {
	for _, body := range []string{
		`{"length":7}`, `{"delta":-1}`, `{"length":1,"delta":1}`, `{}`, `null`, `[]`, `{"length":1.5}`, `{"length":1e3}`, `{"length":"7"}`, `{"LENGTH":7}`, `{"length":7,"length":8}`,
		`{"length":3,"observed_at":"2026-11-23T09:00:00Z"}`, `{"length":3,"observed_at":"0001-01-01T00:00:00Z"}`, `{"delta":1,"observed_at":"2026-11-23T09:00:00.123456789+14:00"}`,
		`{"length":7}x`, `{"length":7,"x":1}`, "\xff", `{"delta":-9223372036854775808}`, `{"length":null,"delta":2}`,
	} {
		f.Add(body)
	}
	n := newTestNode(f)
	n.put(f, shortline.Store{ID: "a", Name: "A"})
	f.Fuzz(func(t *testing.T, body string) {
		rep := n.serve(t, http.MethodPost, "/v1/stores/a/queue", body)
		if rep.status == http.StatusOK {
			var a queueAnswer
			if rep.json(t, &a); a.ID != "a" || a.Length != nil && (*a.Length < 0 || *a.Length > shortline.MaxQueueLength) || a.Applied == (a.Reason != "") || a.Applied && a.Length == nil {
				t.Errorf("%q answers %s", body, rep.body)
			}
		}
		n.serve(t, http.MethodPost, "/v1/queues", `{"updates":[`+body+`]}`)
		n.serve(t, http.MethodPost, "/v1/queues", body)
	})
}

// FuzzPutStore wants of every body a refusal, or a store that is served just as it was answered and stays as it is when it is
// sent again.
func FuzzPutStore(f *testing.F) {
	for _, body := range []string{
		`{"name":"x","lat":1,"lng":2}`, `{"id":"a","name":"x","lat":-0,"lng":180,"brand":"B","address":{"city":"C"},"timezone":"Europe/Berlin","hours":"Mo-Fr 08:00-18:00; PH off","tags":["b","a","b"],"phone":"1","service_s":45.5}`,
		`{"id":"b","name":"x","lat":1,"lng":2}`, `{"name":"x"}`, `{"name":"","lat":91,"lng":181}`, `{"name":"\u0000","lat":1,"lng":2}`, `{"name":"\ud800","lat":1,"lng":2}`, `{"name":"x","lat":1e-320,"lng":5e-324}`,
		`{"name":" x\u00a0","lat":1,"lng":2,"address":{},"tags":[" "]}`, `null`, `[]`, `{"name":"x","lat":1,"lng":2}}`, `{"name":"x","lat":1,"lng":2,"timezone":"../x"}`, `{"name":"x","lat":1,"lng":2,"hours":"24/7","service_s":1e-9}`,
	} {
		f.Add(body)
	}
	n := newTestNode(f)
	f.Fuzz(func(t *testing.T, body string) {
		rep := n.serve(t, http.MethodPut, "/v1/stores/a", body)
		if rep.status >= 400 {
			return
		}
		read := n.serve(t, http.MethodGet, "/v1/stores/a", "")
		if read.status != http.StatusOK || string(read.body) != string(rep.body) || read.header.Get("ETag") != rep.header.Get("ETag") {
			t.Errorf("%q answers %s, then GET %s", body, rep.body, read.body)
		}
		if again := n.serve(t, http.MethodPut, "/v1/stores/a", string(read.body)); again.status != http.StatusOK || again.header.Get("ETag") != rep.header.Get("ETag") || string(again.body) != string(rep.body) {
			t.Errorf("%q answers %s; that, sent again, %d %s", body, rep.body, again.status, again.body)
		}
		var s shortline.Store
		if err := json.Unmarshal(rep.body, &s); err != nil {
			t.Fatal(err)
		}
		near := n.serve(t, http.MethodGet, "/v1/nearby"+query("lat", number(s.Lat), "lng", number(s.Lng), "radius", "1m", "open_now", "false"), "")
		var a nearbyAnswer
		if near.json(t, &a); len(a.Stores) != 1 || *a.Stores[0].Name != s.Name || a.Stores[0].Lat != s.Lat || a.Stores[0].Lng != s.Lng || a.Stores[0].DistanceM != 0 {
			t.Errorf("%q: nearby has %s", body, near.body)
		}
	})
}

func number(v float64) string {
	text, _ := json.Marshal(v)
	return string(text)
}
