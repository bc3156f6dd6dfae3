package storefile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

// feature is a Feature whose place is 1,2.
func feature(id, properties string) string {
	return fmt.Sprintf(`{"type":"Feature","id":%q,"geometry":{"type":"Point","coordinates":[2,1]},"properties":{%s}}`, id, properties)
}

func collection(features ...string) string {
	return `{"type":"FeatureCollection","features":[` + strings.Join(features, ",\n") + `]}`
}

func TestGeoJSONRows(t *testing.T) {
	a, b := feature("a", `"name":"A"`), feature("b", `"name":"B"`)
	long := strings.Repeat("x", 500)
	at := func(geometry string) string {
		return `{"type":"Feature","id":"g","properties":{"name":"G"},"geometry":` + geometry + `}`
	}
	runRows(t, GeoJSON, []rowsCase{
		{name: "collection", in: collection(a, b), rows: []string{"1 a A 1,2", "2 b B 1,2"}},
		{name: "empty collection", in: collection()},
		{name: "BOM and blanks", in: "\xef\xbb\xbf\n{ \"type\" : \"FeatureCollection\" ,\n\"features\" :\r\n[ \n" + a + " ,\n\n" + b + "\n] } \n", rows: []string{"5 a A 1,2", "7 b B 1,2"}},
		{
			name: "foreign members before and after, larger than a row", o: Options{MaxRowBytes: 400},
			in:   `{"crs":{"x":["` + long + `\"]}"]},` + "\n" + `"n":1,"t":true,"e":[],"type":"FeatureCollection","features":[` + a + `],` + "\n" + `"bbox":[1,2],"y":"` + long + `"}` + "\n" + collection(b),
			rows: []string{"2 a A 1,2", "4 b B 1,2"},
		},
		{name: "one feature a line", in: a + "\n" + b + "\n", rows: []string{"1 a A 1,2", "2 b B 1,2"}},
		{name: "record separators", in: "\x1e" + a + "\n\x1e" + b + "\n", rows: []string{"1 a A 1,2", "2 b B 1,2"}},
		{name: "a feature over several lines", in: "{\"type\":\"Feature\",\n\"id\":\"a\",\n\"geometry\":{\"type\":\"Point\",\n\"coordinates\":[2,1,99]},\n\"properties\":{\"name\":\"A\"}}\n" + b, rows: []string{"1 a A 1,2", "6 b B 1,2"}},
		{
			name: "bad features", in: collection("null", "1", "{}", `{"type":"Feature"`+"}", feature("x y", `"name":"A"`), feature("c", `"name":1,`), "\"\xff\"", b),
			rows: []string{"8 b B 1,2"},
			bad: []string{
				`line 1: its type is ""`, "line 2: is not a GeoJSON Feature: found a number where an object", `line 3: its type is ""`, "line 4: geometry: is missing; a store is a Point; id: is required; name: is required",
				`line 5 (store "x y"): id: contains ' '`, "line 6: is not a GeoJSON Feature: invalid character", "line 7: is not valid UTF-8",
			},
			end: "",
		},
		{
			name: "geometries", in: collection(at("null"), at(`{"type":"Polygon","coordinates":[[[1,2]]]}`), at(`{"type":"Point","coordinates":[1]}`), at(`{"type":"Point","coordinates":[null,1]}`), at(`{"type":"Point"}`), at(`{"type":"Point","coordinates":[35,139.7]}`), at(`{"type":"Point","coordinates":"1,2"}`)),
			bad: []string{
				"line 1 (store g): geometry: is missing", `line 2 (store g): geometry: is a "Polygon", but a store is a Point`, "line 3 (store g): geometry: its coordinates must be [longitude, latitude]",
				"line 4 (store g): geometry: its", "line 5 (store g): geometry: its", "line 6 (store g): lat: 139.7 is not between -90 and 90; latitude and longitude look swapped", "line 7 (store g): geometry: its",
			},
		},
		{name: "a large feature", in: collection(a, feature("l", `"name":"`+long+`"`), b), o: Options{MaxRowBytes: 400}, rows: []string{"1 a A 1,2", "3 b B 1,2"}, bad: []string{"line 2: the feature is larger than 400 bytes"}},
		{name: "a large feature at the top", in: feature("l", `"name":"`+long+`"`) + "\n" + b, o: Options{MaxRowBytes: 400}, rows: []string{"2 b B 1,2"}, bad: []string{"line 1: the feature is larger than 400 bytes"}},
		{name: "empty", in: " \n", end: "the file is empty"},
		{name: "a geometry", in: `{"type":"Point","coordinates":[1,2]}`, bad: []string{`line 1: its type is "Point", but must be "Feature"`}},
		{name: "an array", in: "\n[" + a + "]", end: "line 2: the file is a JSON array"},
		{name: "not JSON", in: "id,name\n", end: "line 1: found 'i' where a GeoJSON object must start"},
		{name: "cut off in the features", in: collection(a, b)[:len(collection(a, b))-20], rows: []string{"1 a A 1,2"}, end: "line 2: the file ends in the middle of a value"},
		{name: "cut off after the features", in: `{"features":[` + a + `]`, rows: []string{"1 a A 1,2"}, end: "line 1: the file ends"},
		{name: "no comma", in: `{"features":[` + a + "\n" + b + `]}`, rows: []string{"1 a A 1,2"}, end: "line 2: found '{' where ',' must stand"},
		{name: "two commas", in: `{"features":[` + a + ",\n," + b + `]}`, rows: []string{"1 a A 1,2"}, end: "line 2: found ',' where a value must start"},
		{name: "garbage after", in: collection(a) + "\nx", rows: []string{"1 a A 1,2"}, end: "line 2: found 'x'"},
		{name: "no name", in: `{1:2}`, end: "found '1' where the name of a member must start"},
	})
}

func TestGeoJSONProperties(t *testing.T) {
	for _, c := range []struct {
		name, properties string
		columns          map[string]string
		want             shortline.Store
	}{
		{
			name: "OpenStreetMap",
			properties: `"@id":"node/123","name":"A","brand":"B","addr:street":"Main St","addr:housenumber":"5","addr:city":"C","addr:postcode":123,"addr:country":"DE",
				"opening_hours":"Mo-Fr 08:00-18:00","contact:phone":"1","ref":"77","amenity":"cafe"`,
			want: shortline.Store{ID: "node-123", Name: "A", Brand: "B", Phone: "1", Hours: "Mo-Fr 08:00-18:00", Address: &shortline.Address{Street: "5 Main St", City: "C", Postcode: "123", Country: "DE"}},
		},
		{
			name:       "nested address, list of tags",
			properties: `"id":17,"name":"A","address":{"street":"5 Main St","city":"C"},"tags":["b;c","a"," "],"timezone":"GMT+01:00 Europe/Berlin","service_s":4.5,"lat":"x"`,
			want:       shortline.Store{ID: "17", Name: "A", Tags: []string{"a", "b;c"}, Timezone: "Europe/Berlin", ServiceS: 4.5, Address: &shortline.Address{Street: "5 Main St", City: "C"}},
		},
		{name: "the Feature's id before a reference", properties: `"ref":"77","name":"A"`, want: shortline.Store{ID: "f", Name: "A"}},
		{name: "unless it is asked for", properties: `"id":"i","ref":"77","name":"A"`, columns: map[string]string{"id": "ref"}, want: shortline.Store{ID: "77", Name: "A"}},
		{name: "an empty value leaves the place to another", properties: `"name":"","title":"T","phone":null,"telephone":"1"`, want: shortline.Store{ID: "f", Name: "T", Phone: "1"}},
		{name: "of two alike the first in order of name", properties: `"name":"b","Name":"a"`, want: shortline.Store{ID: "f", Name: "a"}},
		{name: "left out", properties: `"name":"A","hours":"never ever"`, columns: map[string]string{"hours": ""}, want: shortline.Store{ID: "f", Name: "A"}},
		{name: "a nested one by name", properties: `"names":{"primary":"A"}`, columns: map[string]string{"name": "names.primary"}, want: shortline.Store{ID: "f", Name: "A"}},
		{name: "a bad value replaced by a better one", properties: `"addr:city":["x"],"city":"C","name":"A"`, want: shortline.Store{ID: "f", Name: "A", Address: &shortline.Address{City: "C"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := read(t, strings.NewReader(feature("f", c.properties)), Options{Format: GeoJSON, Columns: c.columns})
			c.want.Lat, c.want.Lng = 1, 2
			if len(got.rows) != 1 || !reflect.DeepEqual(got.rows[0].Store, c.want) {
				t.Errorf("got %+v %q, want %+v", got.rows, got.bad, c.want)
			}
		})
	}
	got := read(t, strings.NewReader(feature("f", `"name":["A"],"brand":{"a":{}}`)), Options{Format: GeoJSON})
	if len(got.bad) != 1 || !strings.HasPrefix(got.bad[0], "line 1 (store f): name: must be a text or a number") {
		t.Errorf("a list for a name: %+v %q", got.rows, got.bad)
	}
	for _, f := range []string{"lat", "lng", "colour"} {
		if _, err := NewReader(strings.NewReader(""), Options{Format: GeoJSON, Columns: map[string]string{f: "x"}}); err == nil {
			t.Errorf("a mapping of %s was accepted", f)
		}
	}
}

func TestGeoJSONMapping(t *testing.T) {
	r, err := NewReader(strings.NewReader(collection(feature("a", `"name":"A","lat":1,"amenity":"cafe"`), feature("b", `"Title":"B","amenity":"bar","shop":"x","ref":"7"`))), Options{Format: GeoJSON})
	if err != nil {
		t.Fatal(err)
	}
	drain(t, r)
	if got, want := r.Mapping(), map[string]string{"name": "name", "id": "ref"}; !reflect.DeepEqual(got, want) {
		t.Errorf("mapping %q", got)
	}
	if got, want := r.Ignored(), []string{"amenity", "lat", "shop"}; !slices.Equal(got, want) {
		t.Errorf("ignored %q, want %q", got, want)
	}
}

func TestGeoJSONRemembersBoundedlyManyProperties(t *testing.T) {
	var in strings.Builder
	for i := range 3 * maxKnown {
		in.WriteString(feature("a", fmt.Sprintf(`"name":"A","p%d":1,"%s":2`, i, strings.Repeat("x", maxKnownBytes+i))) + "\n")
	}
	r, err := NewReader(strings.NewReader(in.String()), Options{Format: GeoJSON})
	if err != nil {
		t.Fatal(err)
	}
	if got := drain(t, r); len(got.rows) != 3*maxKnown {
		t.Errorf("%d rows, bad %.200q", len(got.rows), got.bad)
	}
	if n := len(r.Ignored()); n == 0 || n > maxKnown || len(r.col.known) > maxKnown {
		t.Errorf("%d names ignored, %d known", n, len(r.col.known))
	}
}
