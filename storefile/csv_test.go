package storefile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

const head = "id,name,lat,lng\n"

func TestCSVRows(t *testing.T) {
	long := strings.Repeat("x", 300)
	runRows(t, CSV, []rowsCase{
		{name: "plain", in: head + "a,A,1.5,-2\n", rows: []string{"2 a A 1.5,-2"}},
		{name: "no row", in: head},
		{name: "no line end", in: head + "a,A,1,2", rows: []string{"2 a A 1,2"}},
		{name: "CRLF and BOM", in: "\xef\xbb\xbfid,name,lat,lng\r\na,A,1,2\r\nb,B,1,2\r\n", rows: []string{"2 a A 1,2", "3 b B 1,2"}},
		{name: "blank lines and empty rows", in: "\n \n" + head + "\na,A,1,2\n,,,\n  \n\nb,B,1,2\n\n", rows: []string{"5 a A 1,2", "9 b B 1,2"}},
		{name: "semicolons", in: "id;name;lat;lng\na;A, B;1;2\n", rows: []string{"2 a A, B 1,2"}},
		{name: "tabs", in: "id\tname\tlat\tlng\na\tA;,\t1\t2\n", rows: []string{"2 a A;, 1,2"}},
		{name: "delimiters in a quoted name", in: "\"id;;;;;\",id,name,lat,lng\n,a,A,1,2\n", rows: []string{"2 a A 1,2"}},
		{name: "header over two lines", in: "id,\"store\nname\",lat,lng\na,A,1,2\n", rows: []string{"3 a A 1,2"}},
		{name: "quotes", in: head + `a,"A ""x"", B","1", "2" ` + "\n", rows: []string{`2 a A "x", B 1,2`}},
		{name: "line breaks in quotes", in: head + "a,\"A\n\n B\r\n\",1,2\nb,B,1,2\n", rows: []string{"2 a A B 1,2", "6 b B 1,2"}},
		{name: "tabs and Windows-1252 traces", in: head + "a,A\t\u0096 B,1,2\n", rows: []string{"2 a A – B 1,2"}},
		{name: "minus zero, plus, exponent", in: head + "a,A,-0,+1e1\n", rows: []string{"2 a A 0,10"}},
		{name: "OpenStreetMap id", in: head + "node/12,A,1,2\nnode/x,A,1,2\n", rows: []string{"2 node-12 A 1,2"}, bad: []string{`line 3 (store "node/x"): id: contains '/'`}},
		{
			name: "required values", in: head + ",,,\na,,,\n,A,1,2\n",
			bad: []string{"line 3 (store a): lat: is required; lng: is required; name: is required", "line 4: id: is required"},
		},
		{name: "the same id again", in: head + "a,A,,\na,A,1,2\n", rows: []string{"3 a A 1,2"}, bad: []string{"line 2 (store a): lat: is required"}},
		{
			name: "numbers", in: "id;name;lat;lng\na;A;48,85;2,35\nb;B;NaN;Inf\nc;C;0x1p2;1_0\nd;D;40.7N;1e999\n",
			bad: []string{
				`line 2 (store a): lat: "48,85" has a decimal comma; write 48.85; lng: "2,35" has a decimal comma; write 2.35`,
				`line 3 (store b): lat: "NaN" is not a decimal number such as 48.8566; lng: "Inf" is not`,
				`line 4 (store c): lat: "0x1p2" is not a decimal number such as 48.8566; lng: "1_0" is not`,
				`line 5 (store d): lat: "40.7N" is not a decimal number such as 48.8566; lng: "1e999" is not`,
			},
		},
		{name: "out of range", in: head + "a,A,91,181\nb,B,139.7,35.6\n", bad: []string{"line 2 (store a): lat: 91 is not", "line 3 (store b): lat: 139.7 is not between -90 and 90; latitude and longitude look swapped"}},
		{name: "odd ids", in: head + "a b,A,1,2\nä,A,1,2\n" + long + ",A,1,2\n", bad: []string{`line 2 (store "a b"): id: contains ' '`, `line 3 (store "ä"): id: contains 'ä'`, `line 4 (store "xxx`}},
		{name: "long name", in: head + "a," + long + ",1,2\n", bad: []string{"line 2 (store a): name: is 300 bytes long, at most 200 are allowed"}},
		{name: "control characters", in: head + "a,A\x07,1,2\n", bad: []string{"line 2 (store a): name: contains control characters"}},
		{name: "invalid UTF-8", in: head + "a,Caf\xe9,1,2\nb,B,1,2\n", rows: []string{"3 b B 1,2"}, bad: []string{`line 2 (store a): name: column "name" is not valid UTF-8; save the file as UTF-8`}},
		{name: "invalid UTF-8 in an ignored column", in: "id,name,lat,lng,x-note\na,A,1,2,\xe9\n", rows: []string{"2 a A 1,2"}},
		{
			name: "number of fields", in: head + "a,A,1\nb,B,1,2,\nc,C,1,2\n", rows: []string{"4 c C 1,2"},
			bad: []string{`line 2: has 3 fields, but the header has 4; a text with a "," in it must be in quotes`, "line 3: has 5 fields"},
		},
		{
			name: "bad quotes", in: head + "a,A \"x\",1,2\nb,\"B\" x,1,2\nc,C,1,2\n", rows: []string{"4 c C 1,2"},
			bad: []string{"line 2: field 2 has a quote in the middle", "line 3: field 2 goes on after its closing quote"},
		},
		{name: "an open quote costs one row", in: head + "a,\"A,1,2\nb,B,1,2\nc,\"C\",1,2\n", rows: []string{"3 b B 1,2", "4 c C 1,2"}, bad: []string{"line 2: field 2 goes on after its closing quote"}},
		{name: "an open quote to the end", in: head + "a,\"A,1,2\nb,B,1,2\n", rows: []string{"3 b B 1,2"}, bad: []string{"line 2: a quote opens in this line and is not closed"}},
		{
			name: "an open quote beyond the bound", in: head + "a,\"A,1,2\n" + strings.Repeat("b,B,1,2\n", 10), o: Options{MaxRowBytes: 64},
			rows: []string{"3 b B 1,2", "4 b B 1,2", "5 b B 1,2", "6 b B 1,2", "7 b B 1,2", "8 b B 1,2", "9 b B 1,2", "10 b B 1,2", "11 b B 1,2", "12 b B 1,2"},
			bad:  []string{"line 2: a quote opens in this line and is not closed within 64 bytes"},
		},
		{name: "a long line", in: head + "a," + long + ",1,2\nb,B,1,2\n", o: Options{MaxRowBytes: 64}, rows: []string{"3 b B 1,2"}, bad: []string{"line 2: is longer than 64 bytes"}},
		{name: "a long last line", in: head + "a," + long, o: Options{MaxRowBytes: 64}, bad: []string{"line 2: is longer than 64 bytes"}},
		{name: "a line of exactly the bound", in: head + "a,123456789,1,2\r\nb,123456789x,1,2\r\n", o: Options{MaxRowBytes: 15}, rows: []string{"2 a 123456789 1,2"}, bad: []string{"line 3: is longer than 15 bytes"}},
		{name: "time zones", in: "id,name,lat,lng,tz\na,A,1,2,GMT+05:30\nb,B,1,2,Mars/Base\n", bad: []string{`line 2 (store a): timezone: "GMT+05:30" is an offset`, `line 3 (store b): timezone: "Mars/Base" is not an IANA time zone`}},
		{name: "service time", in: "id,name,lat,lng,service_s,Services\na,A,1,2,soon,wifi\nb,B,1,2,-1,wifi\nc,C,1,2,45,wifi\n", rows: []string{"4 c C 1,2"}, bad: []string{`line 2 (store a): service_s: "soon" is not`, "line 3 (store b): service_s: must be between"}},
	})
}

func TestCSVEveryField(t *testing.T) {
	in := "Store Number,Store_Name,BRAND,latitude,Longitude,Street Address,House-Number,Town,State/Province,Zip Code,Country Code,tz,Opening Hours,Tags,Telephone,service_s,Extra,\n" +
		"7-1, A ,B,1,2,Main St,5,C,S,0123,DE,GMT+01:00 Europe/Berlin,Mo-Fr 08:00-18:00,wifi; drive-thru|wifi;,0123,30,e,f\n"
	r, err := NewReader(strings.NewReader(in), Options{Format: CSV})
	if err != nil {
		t.Fatal(err)
	}
	row, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	want := shortline.Store{
		ID: "7-1", Name: "A", Brand: "B", Lat: 1, Lng: 2, Timezone: "Europe/Berlin", Hours: "Mo-Fr 08:00-18:00", Tags: []string{"drive-thru", "wifi"}, Phone: "0123", ServiceS: 30,
		Address: &shortline.Address{Street: "5 Main St", City: "C", State: "S", Postcode: "0123", Country: "DE"},
	}
	if !reflect.DeepEqual(row.Store, want) || row.Line != 2 || row.Notes != nil {
		t.Errorf("got %+v %+v", row, row.Store.Address)
	}
	if got := r.Ignored(); !slices.Equal(got, []string{"Extra", "(column 18)"}) {
		t.Errorf("ignored %q", got)
	}
	mapIsIdempotent(t, in, r, Options{Format: CSV})
}

func TestCSVMapping(t *testing.T) {
	for _, c := range []struct {
		header  string
		columns map[string]string
		want    string // some pairs of the mapping, or what the error contains
		fails   bool
	}{
		{header: "id,name,lat,lng", want: "id=id name=name lat=lat lng=lng"},
		{header: "X,Y,Title,UUID", want: "id=UUID name=Title lat=Y lng=X"},
		{header: "ref,Store.ID,ID,x,lon,lng,name,y,lat", want: "id=ID lng=lng lat=lat"},
		{header: "ref,Store.ID,x,name,y", want: "id=Store.ID lng=x lat=y"},
		{header: "ID,id,name,lat,lng", want: "id=ID"},
		{header: "ID,id,name,lat,lng", columns: map[string]string{"id": "id"}, want: "id=id"},
		{header: "id,city,lat,lng", columns: map[string]string{"name": "city"}, want: "name=city city=city"},
		{header: "id,name,City,lat,lng", columns: map[string]string{"address.city": "city"}, want: "city=City"},
		{header: "id,name,lat,lng,hours", columns: map[string]string{"hours": ""}, want: "hours="},
		{header: "id,name,lat,lng,Services", want: "service_s="},
		{header: "id,name,lat,lng,_", columns: map[string]string{"brand": "_"}, want: "brand=_"},
		{header: "id,city,lat,lng", want: `no column for name; the columns are "id", "city", "lat", "lng"; name one with --map name=city`, fails: true},
		{header: "id,home town,town,lat", columns: map[string]string{"city": "home town"}, want: `no column for name, lng; the columns are "id", "home town", "town", "lat"; name one with --map "name=home town"`, fails: true},
		{header: "a,b", want: "no column for id, name, lat, lng", fails: true},
		{header: "id,name,lat,lng", columns: map[string]string{"lat": ""}, want: "no column for lat", fails: true},
		{header: "id,name,lat,lng", columns: map[string]string{"brand": "Marke"}, want: `there is no column "Marke" for brand; the columns are "id", "name", "lat", "lng"`, fails: true},
		{header: "id,name,lat,lng", columns: map[string]string{"colour": "id"}, want: `there is no field "colour" to name a column for; the fields are id, name,`, fails: true},
		{header: "id,name,lat,lng", columns: map[string]string{"city": "id", "address.city": "id"}, want: "named twice", fails: true},
		{header: "", want: "the file is empty", fails: true},
		{header: "\n\n", want: "the file is empty", fails: true},
		{header: "id,\"name,lat\n", want: "the header cannot be read: line 1: a quote opens in this line and is not closed", fails: true},
		{header: strings.Repeat("x", shortline.MaxStoreJSON+1), want: "the header in line 1 is longer than", fails: true},
		{header: "id,name,lat,lng,Stra\xdfe", want: "the header is not valid UTF-8", fails: true},
		{header: "id,name,lat,lng\ra,A,1,2\r", want: "carriage returns", fails: true},
		{header: strings.Repeat("c,", 1000), want: "and 951 more", fails: true},
	} {
		r, err := NewReader(strings.NewReader(c.header), Options{Format: CSV, Columns: c.columns})
		if c.fails {
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.40q %q: got %v, want %s", c.header, c.columns, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q %q: %v", c.header, c.columns, err)
			continue
		}
		for _, pair := range strings.Fields(c.want) {
			f, column, _ := strings.Cut(pair, "=")
			if got := r.Mapping()[f]; got != column {
				t.Errorf("%q %q: %s is read from %q, want %q", c.header, c.columns, f, got, column)
			}
		}
		mapIsIdempotent(t, c.header, r, Options{Format: CSV})
		m := r.Mapping()
		m["id"] = "changed"
		if maps.Equal(m, r.Mapping()) {
			t.Error("Mapping gives its own map away")
		}
	}
}

func TestCSVLongAddressIsCutAndNoted(t *testing.T) {
	in := "id,name,lat,lng,street,city\na,A,1,2," + strings.Repeat("é", 201) + ",C\n"
	got := read(t, strings.NewReader(in), Options{Format: CSV})
	if len(got.rows) != 1 || len(got.rows[0].Notes) != 1 {
		t.Fatalf("got %+v %q", got.rows, got.bad)
	}
	street := got.rows[0].Store.Address.Street
	if want := strings.Repeat("é", 198) + "…"; street != want || got.rows[0].Notes[0] != (shortline.FieldError{Field: "address.street", Detail: "is 402 bytes long and was cut to 400"}) {
		t.Errorf("%q %+v", street, got.rows[0].Notes)
	}
}

// records is what csvRecords makes of in, with its faults left out.
func records(in []byte, delim byte, maxBytes int) (out [][]string, faults int) {
	c := csvRecords{lines: newLines(bytes.NewReader(in), maxBytes), delim: delim}
	for {
		_, err := c.next()
		var bad *RowError
		if errors.As(err, &bad) {
			faults++
			continue
		}
		if err != nil {
			return out, faults
		}
		var r []string
		for i := range c.ends {
			r = append(r, strings.ReplaceAll(string(c.field(i)), "\r\n", "\n"))
		}
		out = append(out, r)
	}
}

// asEncodingCSV holds that whatever encoding/csv reads without an error is read the same here.
func asEncodingCSV(t testing.TB, in []byte) {
	t.Helper()
	std := csv.NewReader(bytes.NewReader(in))
	std.FieldsPerRecord = -1
	want, err := std.ReadAll()
	if err != nil {
		return
	}
	for _, r := range want {
		for i := range r {
			r[i] = strings.ReplaceAll(r[i], "\r\n", "\n")
		}
	}
	got, faults := records(in, ',', len(in)+1)
	if faults != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("%q is %q with %d faults; encoding/csv has %q", in, got, faults, want)
	}
}

func TestCSVRecordsAsEncodingCSV(t *testing.T) {
	for _, in := range []string{"", "\n", "a", "a\r", "a\r\n", "a,\n", ",\n,", "\"\"", "\"a\"\"\",b\n\nc", "\"a\r\nb\"", "\"a\n\n\nb\",\n", " a , b ", "\"\",\"\"\r\n\"\"", "\r\n\r\n", "\r", "a\rb"} {
		asEncodingCSV(t, []byte(in))
	}
}

// countingReader counts what was read through it.
type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// Bytes looked at must grow with the input, not with its square, whatever the quotes do.
func TestCSVOpenQuotesStayLinear(t *testing.T) {
	for _, line := range []string{"\"\n", "x,\"\n", "x,\"\"\"\n", "\",\n", "x\",\",\n", "\"\n" + strings.Repeat("y\n", 20), "\",\"\n"} {
		in := []byte(strings.Repeat(line, 200_000/len(line)))
		c := csvRecords{lines: newLines(bytes.NewReader(in), shortline.MaxStoreJSON), delim: ','}
		looked := 0
		for {
			_, err := c.next()
			looked += len(c.text)
			var bad *RowError
			if err != nil && !errors.As(err, &bad) {
				break
			}
		}
		if looked > 3*len(in)+shortline.MaxStoreJSON {
			t.Errorf("%q: looked at %d bytes of %d", line, looked, len(in))
		}
	}
}
