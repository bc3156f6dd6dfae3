package edge

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

var fuzzNow = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// FuzzParseNearby wants of every query either a search that may be run, or a refusal that names a field.
func FuzzParseNearby(f *testing.F) {
	for _, raw := range []string{
		"", "lat=1&lng=2", "lat=40.7580&lng=-73.9855&radius=2km&limit=10", "lat=1&lng=2&radius=1.5mi&tag=a&tag=b&brand=X&open_now=true&max_wait=60&fields=id,queue&consistency=strong",
		"lat=NaN&lng=Inf", "lat=1e999&lng=0x1", "lat=91&lng=181&radius=-1&limit=0", "lat=-122.3&lng=47.6", "lat=1&lat=1", "&&=&lat", "%zz=%ff", "lat=1&lng=2&radius=1e308km",
		"lat=1&lng=2&radius=4.9e-324", "lat=-0&lng=-0", "lat=1&lng=2&cursor=AQAAAAAAAAAAAAAAAAAAAABh", "lat=1&lng=2&sort=wait", "lat=1&lng=2&at=x", "lat=1&lng=2&at=2026-11-24T09:00:00%2B01:00&sort=fastest&speed=9.5", "lat=1&lng=2&speed=1e9&at=0001-01-01T00:00:00Z", "lat=1&lng=2&brand=%C4%B0",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseNearby(raw, fuzzNow)
		if err != nil {
			problem := asAPIError(err)
			if s := problem.kind.status; s != 400 && s != 422 || len(problem.errors) == 0 {
				t.Fatalf("%q is refused with %d %v", raw, s, err)
			}
			for _, e := range problem.errors {
				if !utf8.ValidString(e.Field) || !utf8.ValidString(e.Detail) || len(e.Field)+len(e.Detail) > 1000 {
					t.Errorf("%q is refused with %q", raw, e)
				}
			}
			return
		}
		if !q.at.Valid() || math.Signbit(q.at.Lat) && q.at.Lat == 0 || math.Signbit(q.at.Lng) && q.at.Lng == 0 {
			t.Errorf("%q is at %v", raw, q.at)
		}
		if !(q.radius > 0 && q.radius <= maxRadius) || q.limit < 1 || q.limit > maxLimit || q.maxWait < -1 || len(q.tags) > maxTagFilters || !(q.speed >= minSpeed && q.speed <= maxSpeed) || q.future.After(fuzzNow.Add(farthestAt)) || q.fields == 0 || q.fields > allFields {
			t.Errorf("%q is %+v", raw, q)
		}
		if slices.Contains(q.tags, "") || !utf8.ValidString(q.brand+strings.Join(q.tags, "")) {
			t.Errorf("%q filters by %q and %q", raw, q.brand, q.tags)
		}
		if again, err := parseNearby(raw, fuzzNow); err != nil || !reflect.DeepEqual(again, q) || again.fingerprint() != q.fingerprint() {
			t.Errorf("%q again is %+v %v, before %+v", raw, again, err, q)
		}
	})
}

// FuzzCursor wants that a text which is a cursor is the text of that cursor, and that every cursor survives its text.
func FuzzCursor(f *testing.F) {
	for _, c := range []cursor{{id: "a"}, {query: 1, key: 90.5, mark: geo.Mark(math.Float64bits(0.5)), id: "x.1_-Z"}, {query: math.MaxUint64, mark: math.MaxUint64, id: shortline.StoreID(strings.Repeat("x", 64))}} {
		f.Add(c.String(), c.query, c.key, uint64(c.mark), string(c.id))
	}
	for _, text := range []string{"", "AQ", "!!", "AQAAAAAAAAAAAAAAAAAAAAA", "AgAAAAAAAAAAAAAAAAAAAABh", "AQAAAAAAAAAAAAAAAAAAAABh=", "AQAAAAAAAA\nAAAAAAAAAAAAAABh"} {
		f.Add(text, uint64(0), -1.0, uint64(0), "a b")
	}
	f.Fuzz(func(t *testing.T, text string, query uint64, key float64, mark uint64, id string) {
		c, err := parseCursor(text)
		var known *apiError
		if err != nil && (!errors.As(err, &known) || known.kind.status != 400) {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil && c.String() != text {
			t.Errorf("%q is read as %+v, which is written %q", text, c, c.String())
		}
		made := cursor{query: query, key: key, mark: geo.Mark(mark), id: shortline.StoreID(id)}
		_, idErr := shortline.ParseStoreID(id)
		read, err := parseCursor(made.String())
		if (err == nil) != (idErr == nil && key >= 0) || err == nil && read != made {
			t.Errorf("%+v comes back as %+v, %v", made, read, err)
		}
	})
}
