package shortline

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// contractStore is the example of the public API's contract.
const contractStore = `{"id":"1001-100019","name":"Rockefeller Center","brand":"Starbucks","lat":40.7587,"lng":-73.9787,
 "address":{"street":"…","city":"New York","state":"NY","postcode":"10111","country":"US"},
 "timezone":"America/New_York","hours":"Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00","tags":["wifi"],"phone":"…","service_s":45}`

func rockefeller() Store {
	return Store{
		ID: "1001-100019", Name: "Rockefeller Center", Brand: "Starbucks", Lat: 40.7587, Lng: -73.9787,
		Address:  &Address{Street: "…", City: "New York", State: "NY", Postcode: "10111", Country: "US"},
		Timezone: "America/New_York", Hours: "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00", Tags: []string{"wifi"}, Phone: "…", ServiceS: 45,
	}
}

// checkFaults compares the fields of an *InvalidError, in order, and looks for the details in its text. No want: no error.
func checkFaults(t *testing.T, err error, fields []string, details ...string) {
	t.Helper()
	if len(fields) == 0 {
		if err != nil {
			t.Errorf("error %v, want none", err)
		}
		return
	}
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		t.Errorf("error %v, want an *InvalidError for %v", err, fields)
		return
	}
	var got []string
	for _, f := range invalid.Faults {
		got = append(got, f.Field)
		if f.Detail == "" || strings.HasSuffix(f.Detail, ".") || strings.HasSuffix(f.Detail, "\n") {
			t.Errorf("detail %q is not a sentence without a full stop", f.Detail)
		}
	}
	if !slices.Equal(got, fields) {
		t.Errorf("faults in %v, want %v: %v", got, fields, err)
	}
	for _, d := range details {
		if !strings.Contains(err.Error(), d) {
			t.Errorf("error %v, want %q in it", err, d)
		}
	}
}

func TestContractStoreRoundTrip(t *testing.T) {
	s, err := DecodeStore([]byte(contractStore))
	if err != nil {
		t.Fatal(err)
	}
	if want := rockefeller(); !reflect.DeepEqual(s, want) {
		t.Errorf("decoded %+v\nwant %+v", s, want)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := compactJSON(t, string(data)), compactJSON(t, contractStore); got != want {
		t.Errorf("encoded %s\nwant %s", got, want)
	}
}

func compactJSON(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMinimalStore(t *testing.T) {
	s, err := DecodeStore([]byte(`{"id":"a","name":"A","lat":0,"lng":0}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	data, err := json.Marshal(s)
	if want := `{"id":"a","name":"A","lat":0,"lng":0}`; err != nil || string(data) != want {
		t.Errorf("encoded %s, %v, want %s", data, err, want)
	}
}

func TestNormalize(t *testing.T) {
	address := &Address{City: " New York\u00a0"}
	s := Store{
		ID: " a ", Name: " A B\n", Brand: "\tb", Timezone: " UTC ", Hours: " 24/7 ", Phone: " 1 ", Lat: math.Copysign(0, -1), Lng: math.Copysign(0, -1),
		Address: address, Tags: []string{"wifi", " b", "wifi ", "a"}, ServiceS: math.Copysign(0, -1),
	}
	tags := s.Tags
	s.Normalize()
	want := Store{
		ID: " a ", Name: "A B", Brand: "b", Timezone: "UTC", Hours: "24/7", Phone: "1",
		Address: &Address{City: "New York"}, Tags: []string{"a", "b", "wifi"},
	}
	if !reflect.DeepEqual(s, want) || math.Signbit(s.Lat) || math.Signbit(s.Lng) || math.Signbit(s.ServiceS) {
		t.Errorf("normalised to %+v, want %+v", s, want)
	}
	if address.City != " New York\u00a0" || tags[0] != "wifi" {
		t.Error("Normalize changed what the caller shares")
	}
	again := s
	again.Normalize()
	if !reflect.DeepEqual(s, again) {
		t.Errorf("normalising twice gives %+v", again)
	}
	empty := Store{Address: &Address{Street: " "}, Tags: []string{}}
	empty.Normalize()
	if empty.Address != nil || empty.Tags != nil {
		t.Errorf("an empty address or list of tags is left: %+v", empty)
	}
}

func TestStoreValidate(t *testing.T) {
	long := strings.Repeat("x", MaxTextBytes+1)
	for _, c := range []struct {
		name   string
		change func(*Store)
		fields []string
		detail string
	}{
		{"as it is", func(*Store) {}, nil, ""},
		{"no id", func(s *Store) { s.ID = "" }, []string{"id"}, "is required"},
		{"longest id", func(s *Store) { s.ID = StoreID(long[:64]) }, nil, ""},
		{"long id", func(s *Store) { s.ID = StoreID(long[:65]) }, []string{"id"}, "is 65 bytes long, at most 64"},
		{"every character", func(s *Store) { s.ID = "AZaz09-_." }, nil, ""},
		{"dot", func(s *Store) { s.ID = "." }, []string{"id"}, "a folder in a URL"},
		{"dots", func(s *Store) { s.ID = ".." }, []string{"id"}, "a folder in a URL"},
		{"three dots", func(s *Store) { s.ID = "..." }, nil, ""},
		{"blank in id", func(s *Store) { s.ID = "a b" }, []string{"id"}, "contains ' '"},
		{"slash in id", func(s *Store) { s.ID = "a/b" }, []string{"id"}, "contains '/'"},
		{"letter with accent in id", func(s *Store) { s.ID = "é" }, []string{"id"}, "contains 'é'"},
		{"line break in id", func(s *Store) { s.ID = "a\n" }, []string{"id"}, `contains '\n'`},
		{"NUL in id", func(s *Store) { s.ID = "a\x00" }, []string{"id"}, `contains '\x00'`},
		{"invalid UTF-8 in id", func(s *Store) { s.ID = "\xff" }, []string{"id"}, "contains '\uFFFD'"},
		{"no name", func(s *Store) { s.Name = "" }, []string{"name"}, "is required"},
		{"long name", func(s *Store) { s.Name = long }, []string{"name"}, "is 401 bytes long, at most 200"},
		{"invalid UTF-8 in name", func(s *Store) { s.Name = "a\xc3" }, []string{"name"}, "is not valid UTF-8"},
		{"line break in name", func(s *Store) { s.Name = "a\nb" }, []string{"name"}, "contains control characters"},
		{"DEL in name", func(s *Store) { s.Name = "a\x7f" }, []string{"name"}, "contains control characters"},
		{"C1 control in name", func(s *Store) { s.Name = "a\u0085b" }, []string{"name"}, "contains control characters"},
		{"long brand", func(s *Store) { s.Brand = long }, []string{"brand"}, ""},
		{"long phone", func(s *Store) { s.Phone = long }, []string{"phone"}, ""},
		{"tab in phone", func(s *Store) { s.Phone = "1\t2" }, []string{"phone"}, ""},
		{"address", func(s *Store) { s.Address = &Address{long, "\x00", "\xff", "a\tb", long} },
			[]string{"address.street", "address.city", "address.state", "address.postcode", "address.country"}, ""},
		{"no address", func(s *Store) { s.Address = nil }, nil, ""},
		{"corners", func(s *Store) { s.Lat, s.Lng = -90, 180 }, nil, ""},
		{"latitude NaN", func(s *Store) { s.Lat = math.NaN() }, []string{"lat"}, "NaN is not a latitude"},
		{"longitude NaN", func(s *Store) { s.Lng = math.NaN() }, []string{"lng"}, "NaN is not a longitude"},
		{"infinite", func(s *Store) { s.Lat, s.Lng = math.Inf(1), math.Inf(-1) }, []string{"lat", "lng"}, ""},
		{"latitude", func(s *Store) { s.Lat, s.Lng = 90.001, 100 }, []string{"lat"}, "90.001 is not a latitude"},
		{"longitude", func(s *Store) { s.Lng = -180.001 }, []string{"lng"}, "-180.001 is not a longitude"},
		{"swapped", func(s *Store) { s.Lat, s.Lng = 139.69, 35.68 }, []string{"lat"},
			"139.69 is not between -90 and 90; latitude and longitude look swapped (did you mean lat=35.68, lng=139.69?)"},
		{"latitude beside NaN", func(s *Store) { s.Lat, s.Lng = 139.69, math.NaN() }, []string{"lat", "lng"}, ""},
		{"no time zone", func(s *Store) { s.Timezone = "" }, nil, ""},
		{"unknown time zone", func(s *Store) { s.Timezone = "America/New York" }, []string{"timezone"}, `"America/New York" is not an IANA time zone`},
		{"long time zone", func(s *Store) { s.Timezone = "A" + long }, []string{"timezone"}, ""},
		{"malformed hours", func(s *Store) { s.Hours = "9 to 5" }, []string{"hours"}, `cannot read "9 to 5"`},
		{"control character in hours", func(s *Store) { s.Hours = "24/7 \"\x00\"" }, []string{"hours"}, "control characters"},
		{"invalid UTF-8 in hours", func(s *Store) { s.Hours = "24/7 \"\xff\"" }, []string{"hours"}, "UTF-8"},
		{"long hours", func(s *Store) { s.Hours = strings.Repeat("Mo off;", 147) }, []string{"hours"}, "is 1029 bytes long, at most 1024"},
		{"most tags", func(s *Store) { s.Tags = slices.Repeat([]string{"a"}, MaxTags) }, nil, ""},
		{"many tags", func(s *Store) { s.Tags = slices.Repeat([]string{"a"}, MaxTags+1) }, []string{"tags"}, "has 33 entries, at most 32"},
		{"bad tags", func(s *Store) { s.Tags = []string{"a", "", long[:65], "\xff"} }, []string{"tags[1]", "tags[2]", "tags[3]"}, "is empty"},
		{"a day to serve", func(s *Store) { s.ServiceS = MaxServiceS }, nil, ""},
		{"more than a day to serve", func(s *Store) { s.ServiceS = MaxServiceS + 1 }, []string{"service_s"}, "between 0 and 86400"},
		{"negative time to serve", func(s *Store) { s.ServiceS = -1 }, []string{"service_s"}, ""},
		{"NaN to serve", func(s *Store) { s.ServiceS = math.NaN() }, []string{"service_s"}, ""},
		{"endless to serve", func(s *Store) { s.ServiceS = math.Inf(1) }, []string{"service_s"}, ""},
		{"all at once", func(s *Store) {
			*s = Store{Lat: 91, Lng: 181, Timezone: "?", Hours: "?", Tags: []string{""}, ServiceS: -1}
		},
			[]string{"id", "name", "lat", "lng", "timezone", "hours", "tags[0]", "service_s"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rockefeller()
			c.change(&s)
			checkFaults(t, s.Validate(), c.fields, c.detail)
		})
	}
}

func TestParseStoreID(t *testing.T) {
	if id, err := ParseStoreID("1001-100019"); err != nil || id != "1001-100019" {
		t.Errorf("%q, %v", id, err)
	}
	id, err := ParseStoreID("a b")
	if id != "" {
		t.Errorf("a bad id is returned: %q", id)
	}
	checkFaults(t, err, []string{"id"}, "id: contains ' '; allowed are")
}

func TestCheckCoordinates(t *testing.T) {
	checkFaults(t, CheckCoordinates("latitude", 40.7, "lon", -73.9), nil)
	checkFaults(t, CheckCoordinates("latitude", -173.9, "lon", 40.7), []string{"latitude"}, "did you mean latitude=40.7, lon=-173.9?")
	checkFaults(t, CheckCoordinates("latitude", 91, "lon", 181), []string{"latitude", "lon"})
}

func TestLoadTimezone(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"} {
		if loc, err := LoadTimezone(name); err != nil || loc.String() != name {
			t.Errorf("%s: %v, %v", name, loc, err)
		}
	}
	for _, name := range []string{
		"", "Local", "localtime", "posixrules", "Factory", "posix/UTC", "right/UTC", "Europe", "Europe/Berlin/", "../UTC", "Europe/../UTC",
		"/etc/localtime", `\UTC`, "UTC\x00", "Mars/Olympus", strings.Repeat("a", 65),
	} {
		if loc, err := LoadTimezone(name); err == nil || !strings.Contains(err.Error(), "is not an IANA time zone") {
			t.Errorf("%q: %v, %v", name, loc, err)
		}
	}
}

// Every field counts for Equal: changing any one makes a difference.
func TestStoreEqual(t *testing.T) {
	a, b := rockefeller(), rockefeller()
	if !a.Equal(&b) || !a.Equal(&a) {
		t.Error("equal stores are not Equal")
	}
	zero := Store{Tags: []string{}}
	if !zero.Equal(&Store{}) {
		t.Error("no tags and an empty list of tags are not Equal")
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[Store](), reflect.TypeFor[Address]()} {
		for i := range typ.NumField() {
			b := rockefeller()
			v := reflect.ValueOf(&b).Elem()
			if typ == reflect.TypeFor[Address]() {
				v = v.FieldByName("Address").Elem()
			}
			switch f := v.Field(i); f.Kind() {
			case reflect.String:
				f.SetString(f.String() + "x")
			case reflect.Float64:
				f.SetFloat(f.Float() + 1)
			case reflect.Bool:
				f.SetBool(!f.Bool())
			default:
				f.SetZero()
			}
			if a.Equal(&b) || b.Equal(&a) {
				t.Errorf("%s.%s does not count", typ.Name(), typ.Field(i).Name)
			}
		}
	}
	b.Tags = []string{"wifi", "z"}
	if a.Equal(&b) {
		t.Error("a further tag does not count")
	}
}

func TestDecodeStoreRefuses(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`{"id":"a","name":"A"}`, "lat: is required; lng: is required"},
		{`{"id":"a","name":"A","lat":1}`, "lng: is required"},
		{`{"id":"a","name":"A","lng":1}`, "lat: is required"},
		{`{"id":"a","name":"A","lat":null,"lng":1}`, "lat: is required"},
		{`null`, "lat: is required; lng: is required"},
		{`{"lat":1,"lng":1,"latitude":1}`, `not a store in JSON: unknown field "latitude"`},
		{`{"lat":1,"lng":1,"address":{"zip":"1"}}`, `not a store in JSON: unknown field "zip"`},
		{`{"lat":"1","lng":1}`, "lat: expected a JSON number, not string"},
		{`{"lat":1e999,"lng":1}`, "lat: number 1e999 is out of range"},
		{`{"lat":1,"lng":1,"id":1001}`, "id: expected a JSON string, not number"},
		{`{"lat":1,"lng":1,"tags":"wifi"}`, "tags: expected a JSON array, not string"},
		{`{"lat":1,"lng":1,"address":"here"}`, "address: expected a JSON object, not string"},
		{`{"lat":1,"lng":1,"address":{"city":5}}`, "address.city: expected a JSON string, not number"},
		{`[]`, "not a store in JSON: expected an object, not array"},
		{`"a"`, "not a store in JSON: expected an object, not string"},
		{``, "not a store in JSON: the text ends too early"},
		{` `, "not a store in JSON: the text ends too early"},
		{`{"lat":1`, "not a store in JSON: the text ends too early"},
		{`{"lat":NaN,"lng":1}`, "not a store in JSON: invalid character 'N'"},
		{`{"lat":1,"lng":1,}`, "not a store in JSON: invalid character '}'"},
		{`{"lat":1,"lng":1} {}`, "not a store in JSON: more data after the object"},
		{`{"lat":1,"lng":1}}`, "not a store in JSON: more data after the object"},
		{`{"lat":1,"lng":1}]`, "not a store in JSON: more data after the object"},
		{`{"lat":1,"lng":1},`, "not a store in JSON: more data after the object"},
		{"{\"lat\":1,\"lng\":1}\x00", "not a store in JSON: more data after the object"},
		{"{\"lat\":1,\"lng\":1,\"name\":\"\xff\"}", "body: is not valid UTF-8"},
	} {
		s, err := DecodeStore([]byte(c.json))
		if err == nil {
			t.Errorf("DecodeStore(%s) = %+v, want %s", c.json, s, c.want)
		} else if !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("DecodeStore(%s): %v\nwant %s", c.json, err, c.want)
		}
	}
}

func TestDecodeStoreAccepts(t *testing.T) {
	for _, c := range []struct {
		json string
		want Store
	}{
		{"{\"lat\":1,\"lng\":2}\r\n \t", Store{Lat: 1, Lng: 2}},
		{`{"lat":-0.0,"lng":-0}`, Store{}},
		{`{"lat":1,"lng":2,"address":{},"tags":[],"name":" \u00e9\t","phone":null}`, Store{Lat: 1, Lng: 2, Name: "é"}},
		{`{"lat":1,"lng":2,"tags":["b","a","b"]}`, Store{Lat: 1, Lng: 2, Tags: []string{"a", "b"}}},
		{`{"lat":1,"lng":2,"lat":3}`, Store{Lat: 3, Lng: 2}}, // as everywhere in JSON: the last one counts
	} {
		if got, err := DecodeStore([]byte(c.json)); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("DecodeStore(%s) = %+v, %v, want %+v", c.json, got, err, c.want)
		}
	}
}

// What decodes and validates survives encoding and decoding, and is not changed by normalising it again.
func FuzzDecodeStore(f *testing.F) {
	for _, s := range []string{
		contractStore, `{"id":"a","name":"A","lat":0,"lng":0}`, `{"id":"a","name":" <&>\u2028\ud800 ","lat":-0.0,"lng":1e-320,"tags":["b ","a","b",null]}`,
		`{"id":"a","name":"A","lat":1,"lng":1,"address":{"city":" "}}`, `{"id":"a","name":"A","lat":90,"lng":-180,"service_s":0.1}}`, `null`, `[]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeStore(data)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without text")
			}
			return
		}
		if s.Validate() != nil {
			return
		}
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeStore(encoded)
		if err != nil {
			t.Fatalf("%s does not decode: %v", encoded, err)
		}
		if !s.Equal(&again) || !reflect.DeepEqual(s, again) {
			t.Fatalf("%+v became %+v", s, again)
		}
		if err := again.Validate(); err != nil {
			t.Fatalf("%s is not valid any more: %v", encoded, err)
		}
	})
}
