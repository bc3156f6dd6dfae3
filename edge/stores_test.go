package edge_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

func TestStoreLife(t *testing.T) {
	n := newTestNode(t)
	full := shortline.Store{ID: "1001-100019", Name: "Rockefeller Center", Brand: "Starbucks", Lat: 40.7587, Lng: -73.9787,
		Address:  &shortline.Address{Street: "30 Rockefeller Plaza", City: "New York", State: "NY", Postcode: "10111", Country: "US"},
		Timezone: "America/New_York", Hours: "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00", Tags: []string{"mobile", "wifi"}, Phone: "+1 212", ServiceS: 45}
	const path = "/v1/stores/1001-100019"
	n.get(t, path).wantProblem(t, 404, "not-found")

	made := n.put(t, full).want(t, 201)
	if got := made.header.Get("Location"); got != path {
		t.Errorf("Location is %q", got)
	}
	token, tag := made.token(t), made.header.Get("ETag")
	var got shortline.Store
	read := n.get(t, path).want(t, 200)
	read.json(t, &got)
	if !reflect.DeepEqual(got, full) {
		t.Errorf("the store is %+v, want %+v", got, full)
	}
	if read.token(t).Less(token) || read.header.Get("ETag") != tag || tag == "" || string(read.body) != string(made.body) {
		t.Errorf("GET has ETag %s and %s, PUT had %s and %s", read.header.Get("ETag"), read.body, tag, made.body)
	}
	if got := read.header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control is %q", got)
	}

	t.Run("conditional", func(t *testing.T) {
		for _, condition := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			rep := n.get(t, path, "If-None-Match: "+condition).want(t, 304)
			if len(rep.body) != 0 || rep.header.Get("ETag") != tag {
				t.Errorf("%s: body %q, ETag %s", condition, rep.body, rep.header.Get("ETag"))
			}
			rep.token(t)
		}
		n.get(t, path, `If-None-Match: "other"`).want(t, 200)
	})
	t.Run("again the same", func(t *testing.T) {
		if same := n.put(t, full).want(t, 200); same.header.Get("ETag") != tag {
			t.Errorf("the ETag changed from %s to %s", tag, same.header.Get("ETag"))
		}
	})
	t.Run("changed", func(t *testing.T) {
		changed := full
		changed.Name, changed.Lat = "Moved", 41
		if rep := n.put(t, changed).want(t, 200); rep.header.Get("ETag") == tag {
			t.Error("the ETag is the same")
		}
		n.get(t, path, "If-None-Match: "+tag).want(t, 200).json(t, &got)
		if got.Name != "Moved" {
			t.Errorf("the name is %q", got.Name)
		}
		if a := n.nearby(t, "lat", "41", "lng", "-73.9787"); len(a.Stores) != 1 || *a.Stores[0].Name != "Moved" {
			t.Errorf("nearby has %v", a.Stores)
		}
		if a := n.nearby(t, "lat", "40.7587", "lng", "-73.9787"); len(a.Stores) != 0 {
			t.Errorf("where it was there is %v", a.Stores)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		n.write(t, "POST", path+"/queue", `{"length":3}`).want(t, 200)
		rep := n.write(t, "DELETE", path, "").want(t, 204)
		rep.token(t)
		if len(rep.body) != 0 {
			t.Errorf("the body is %s", rep.body)
		}
		n.get(t, path).wantProblem(t, 404, "not-found")
		n.get(t, path, "If-None-Match: *").wantProblem(t, 404, "not-found")
		n.get(t, path+"/queue").wantProblem(t, 404, "not-found")
		n.write(t, "DELETE", path, "").wantProblem(t, 404, "not-found")
		n.put(t, full).want(t, 201)
		var q queueAnswer
		n.get(t, path+"/queue").want(t, 200).json(t, &q)
		if q.Length != nil {
			t.Errorf("the queue came back as %+v", q)
		}
	})
}

func TestStoreForms(t *testing.T) {
	n := newTestNode(t)
	t.Run("the id may be left out", func(t *testing.T) {
		var got shortline.Store
		n.write(t, "PUT", "/v1/stores/x.1_-Z", `{"name":" trimmed ","lat":0,"lng":-0,"tags":["b","a","b"],"address":{"city":" "}}`).want(t, 201).json(t, &got)
		if want := (shortline.Store{ID: "x.1_-Z", Name: "trimmed", Tags: []string{"a", "b"}}); !reflect.DeepEqual(got, want) {
			t.Errorf("stored %+v, want %+v", got, want)
		}
	})
	t.Run("another id", func(t *testing.T) {
		p := n.write(t, "PUT", "/v1/stores/x", `{"id":"y","name":"n","lat":0,"lng":0}`).wantProblem(t, 422, "invalid-request")
		if !slices.Equal(p.fields(), []string{"id"}) {
			t.Errorf("the fields at fault are %v", p.fields())
		}
	})
	t.Run("every fault at once", func(t *testing.T) {
		p := n.write(t, "PUT", "/v1/stores/x", `{"name":"","lat":91,"lng":181,"timezone":"Mars/Base","hours":"whenever","service_s":-1,"tags":[""]}`).wantProblem(t, 422, "invalid-request")
		want := []string{"hours", "lat", "lng", "name", "service_s", "tags[0]", "timezone"}
		if got := slices.Sorted(slices.Values(p.fields())); !slices.Equal(got, want) {
			t.Errorf("the fields at fault are %v, want %v", got, want)
		}
	})
	t.Run("the longest id", func(t *testing.T) {
		long := strings.Repeat("x", 64)
		n.write(t, "PUT", "/v1/stores/"+long, `{"name":"n","lat":1,"lng":1}`).want(t, 201)
		n.get(t, "/v1/stores/"+long).want(t, 200)
		n.write(t, "PUT", "/v1/stores/"+long+"x", `{"name":"n","lat":1,"lng":1}`).wantProblem(t, 422, "invalid-request")
	})
}

type importAnswer struct {
	Imported, Created, Updated, Unchanged, Rejected int
	Errors                                          []struct {
		Line   int
		ID     string
		Errors []shortline.FieldError
	}
	ErrorsTruncated bool `json:"errors_truncated"`
}

func TestImport(t *testing.T) {
	forms := []struct {
		name, contentType, body, changed string
		badLine                          int
	}{
		{"CSV", "text/csv", "id,name,latitude,longitude,tags\nc1,One,1,1,wifi\nc2,Two,2,2,\nc3,Bad,91,3,\nc4,\"Fo\"\"ur\",4,4,\n",
			"id,name,latitude,longitude\nc1,One,1,1\nc2,Two again,2,2\n", 4},
		{"NDJSON", "application/x-ndjson; charset=utf-8", `{"id":"c1","name":"One","lat":1,"lng":1,"tags":["wifi"]}` + "\n" + `{"id":"c2","name":"Two","lat":2,"lng":2}` + "\n{oops\n" + `{"id":"c4","name":"Fo\"ur","lat":4,"lng":4}`,
			`{"id":"c1","name":"One","lat":1,"lng":1}` + "\n" + `{"id":"c2","name":"Two again","lat":2,"lng":2}`, 3},
		{"GeoJSON", "application/geo+json", `{"type":"FeatureCollection","features":[
{"type":"Feature","properties":{"id":"c1","name":"One","tags":["wifi"]},"geometry":{"type":"Point","coordinates":[1,1]}},
{"type":"Feature","properties":{"id":"c2","name":"Two"},"geometry":{"type":"Point","coordinates":[2,2]}},
{"type":"Feature","properties":{"id":"c3","name":"Bad"},"geometry":{"type":"Point","coordinates":[3,91]}},
{"type":"Feature","properties":{"id":"c4","name":"Fo\"ur"},"geometry":{"type":"Point","coordinates":[4,4]}}]}`,
			`{"type":"FeatureCollection","features":[
{"type":"Feature","properties":{"id":"c1","name":"One"},"geometry":{"type":"Point","coordinates":[1,1]}},
{"type":"Feature","properties":{"id":"c2","name":"Two again"},"geometry":{"type":"Point","coordinates":[2,2]}}]}`, 4},
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			n := newTestNode(t)
			load := func(body string) (a importAnswer, r reply) {
				r = n.write(t, "POST", "/v1/stores:import", body, "Content-Type: "+form.contentType).want(t, 200)
				r.json(t, &a)
				return a, r
			}
			first, rep := load(form.body)
			if first.Imported != 3 || first.Created != 3 || first.Updated != 0 || first.Unchanged != 0 || first.Rejected != 1 || first.ErrorsTruncated {
				t.Errorf("the first time: %+v", first)
			}
			if len(first.Errors) != 1 || first.Errors[0].Line != form.badLine || len(first.Errors[0].Errors) == 0 {
				t.Errorf("rejected are %+v, want line %d", first.Errors, form.badLine)
			}
			n.get(t, "/v1/stores/c4", "Shortline-Token: "+rep.token(t).String()).want(t, 200)
			again, _ := load(form.body)
			if again.Imported != 0 || again.Unchanged != 3 || again.Rejected != 1 {
				t.Errorf("the second time: %+v", again)
			}
			changed, _ := load(form.changed)
			if changed.Imported != 2 || changed.Updated != 2 || changed.Created != 0 {
				t.Errorf("with changes: %+v", changed)
			}
		})
	}
}

func TestImportMany(t *testing.T) {
	n := newTestNode(t)
	var csv strings.Builder
	csv.WriteString("id,name,lat,lng\n")
	for i := range 1203 {
		fmt.Fprintf(&csv, "m%d,Name,%d.5,7\n", i, i%80)
	}
	for range 1001 {
		csv.WriteString("bad,,,\n")
	}
	var a importAnswer
	n.write(t, "POST", "/v1/stores:import", csv.String(), "Content-Type: text/csv", "Accept-Encoding: identity").want(t, 200).json(t, &a)
	if a.Created != 1203 || a.Rejected != 1001 || len(a.Errors) != 1000 || !a.ErrorsTruncated {
		t.Errorf("created %d, rejected %d, named %d, truncated %v", a.Created, a.Rejected, len(a.Errors), a.ErrorsTruncated)
	}
}

func TestImportRefused(t *testing.T) {
	n := newTestNode(t)
	for _, c := range []struct {
		name, contentType, body, kind string
		status                        int
	}{
		{"JSON", "application/json", `{}`, "unsupported-media-type", 415},
		{"no type", "", `id,name`, "unsupported-media-type", 415},
		{"no columns", "text/csv", "a,b\n1,2\n", "malformed-request", 400},
		{"an empty CSV", "text/csv", "\n", "malformed-request", 400},
		{"a JSON array", "application/x-ndjson", "[\n", "malformed-request", 400},
		{"no GeoJSON", "application/geo+json", "hello", "malformed-request", 400},
		{"GeoJSON that ends", "application/geo+json", `{"type":"FeatureCollection","features":[`, "malformed-request", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.write(t, "POST", "/v1/stores:import", c.body, "Content-Type: "+c.contentType).wantProblem(t, c.status, c.kind)
		})
	}
	n.write(t, "POST", "/v1/stores:import?x=1", "id", "Content-Type: text/csv").wantProblem(t, 400, "malformed-request")
	n.do(t, http.MethodPost, "/v1/stores:import", "id", "Content-Type: text/csv").wantProblem(t, 401, "unauthorized")
	t.Run("nothing but blank lines", func(t *testing.T) {
		var a importAnswer
		n.write(t, "POST", "/v1/stores:import", "\n\n", "Content-Type: application/x-ndjson").want(t, 200).json(t, &a)
		if a.Imported+a.Unchanged+a.Rejected != 0 {
			t.Errorf("%+v", a)
		}
	})
}
