package storefile

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	_ "time/tzdata"

	"github.com/shortline/shortline"
)

// outcome is everything that a file gives.
type outcome struct {
	rows []Row
	bad  []string // RowError.Error of each
	end  error    // nil for io.EOF
}

func read(t testing.TB, in io.Reader, o Options) outcome {
	t.Helper()
	r, err := NewReader(in, o)
	if err != nil {
		t.Fatalf("NewReader: %v", err)
	}
	return drain(t, r)
}

func drain(t testing.TB, r *Reader) (out outcome) {
	t.Helper()
	line := 0
	for {
		row, err := r.Next()
		var bad *RowError
		switch {
		case errors.As(err, &bad):
			out.bad = append(out.bad, bad.Error())
			if len(bad.Faults) == 0 {
				t.Errorf("a RowError without a fault: %+v", bad)
			}
			row.Line = bad.Line
		case err != nil:
			if _, again := r.Next(); again != err {
				t.Errorf("after %v came %v", err, again)
			}
			if err != io.EOF {
				out.end = err
			}
			return out
		default:
			out.rows = append(out.rows, row)
			if err := row.Store.Validate(); err != nil {
				t.Errorf("line %d: a Row that is not valid: %v", row.Line, err)
			}
			again := row.Store
			again.Normalize()
			if !again.Equal(&row.Store) {
				t.Errorf("line %d: a Row that is not normalised: %+v", row.Line, row.Store)
			}
		}
		if row.Line < line || row.Line < 1 {
			t.Errorf("line %d after line %d", row.Line, line)
		}
		line = row.Line
	}
}

// brief is a row in a few characters: line, id, name, place.
func (o outcome) brief() []string {
	var out []string
	for _, r := range o.rows {
		out = append(out, fmt.Sprintf("%d %s %s %v,%v", r.Line, r.Store.ID, r.Store.Name, r.Store.Lat, r.Store.Lng))
	}
	return out
}

// rowsCase is an input and what comes of it. The bad rows are compared by how they begin, the end by what it contains.
type rowsCase struct {
	name string
	in   string
	o    Options
	rows []string
	bad  []string
	end  string
}

func runRows(t *testing.T, f Format, cases []rowsCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.o.Format = f
			got := read(t, strings.NewReader(c.in), c.o)
			if b := got.brief(); !slices.Equal(b, c.rows) {
				t.Errorf("rows\n got %q\nwant %q", b, c.rows)
			}
			if !slices.EqualFunc(got.bad, c.bad, strings.HasPrefix) {
				t.Errorf("bad rows\n got %q\nwant %q", got.bad, c.bad)
			}
			if (got.end == nil) != (c.end == "") || got.end != nil && !strings.Contains(got.end.Error(), c.end) {
				t.Errorf("ended with %v, want %q", got.end, c.end)
			}
			bytewise := read(t, iotest.OneByteReader(strings.NewReader(c.in)), c.o)
			if !reflect.DeepEqual(got.rows, bytewise.rows) || !slices.Equal(got.bad, bytewise.bad) {
				t.Errorf("read byte by byte it gives %q %q", bytewise.brief(), bytewise.bad)
			}
		})
	}
}

func TestFormats(t *testing.T) {
	for in, want := range map[string]Format{"csv": CSV, "TSV": CSV, " ndjson ": NDJSON, "jsonl": NDJSON, "geojson": GeoJSON, "geojsonl": GeoJSON, "json": "", "xlsx": "", "": ""} {
		if got, err := ParseFormat(in); got != want || (err == nil) != (want != "") {
			t.Errorf("ParseFormat(%q) = %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]Format{
		"stores.csv": CSV, "a.b/STORES.CSV": CSV, "stores.tsv": CSV, "stores.csv.gz": CSV, "x.jsonl": NDJSON, "x.ndjson.gz": NDJSON, "x.json": GeoJSON,
		"x.geojson": GeoJSON, "csv": "", "x.txt": "", "-": "", "": "", "dir.csv/x": "", ".gz": "",
	} {
		if got, ok := FormatOf(in); got != want || ok != (want != "") {
			t.Errorf("FormatOf(%q) = %q, %v", in, got, ok)
		}
	}
	if _, err := NewReader(strings.NewReader(""), Options{Format: "xml"}); err == nil {
		t.Error("an unknown format was accepted")
	}
}

func TestNotText(t *testing.T) {
	for in, want := range map[string]string{"\x1f\x8b\x08\x00": "gzip", "PK\x03\x04": "Excel", "\xff\xfei\x00": "UTF-16", "\xfe\xff\x00i": "UTF-16", "i\x00d\x00": "UTF-16"} {
		for _, f := range []Format{CSV, NDJSON, GeoJSON} {
			if _, err := NewReader(strings.NewReader(in), Options{Format: f}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %q: %v, want %q", f, in, err, want)
			}
		}
	}
}

func TestReadErrorEndsTheFile(t *testing.T) {
	broken := errors.New("connection reset")
	inputs := map[Format]string{
		CSV:     "id,name,lat,lng\na,A,1,2\nb,B,1",
		NDJSON:  `{"id":"a","name":"A","lat":1,"lng":2}` + "\n" + `{"id":"b"`,
		GeoJSON: `{"features":[{"type":"Feature","id":"a","properties":{"name":"A"},"geometry":{"type":"Point","coordinates":[2,1]}},{"ty`,
	}
	for f, in := range inputs {
		got := read(t, io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)), Options{Format: f})
		if len(got.rows) != 1 || len(got.bad) != 0 || !errors.Is(got.end, broken) || !strings.Contains(got.end.Error(), "line ") {
			t.Errorf("%s: %q %q, ended with %v", f, got.brief(), got.bad, got.end)
		}
	}
	if _, err := NewReader(iotest.ErrReader(broken), Options{Format: CSV}); !errors.Is(err, broken) {
		t.Errorf("NewReader on a broken reader: %v", err)
	}
}

func TestRowErrorIsOneBoundedPrintableLine(t *testing.T) {
	in := "id,name,lat,lng,timezone,tags\n" + "\"a\x1b[31m\nb\",\"\x07\",\"" + strings.Repeat("9", 9000) + "\",x,\"" + strings.Repeat("\x01z", 5000) + "\"," + strings.Repeat("\x02|", 500) + "\n"
	r, err := NewReader(strings.NewReader(in), Options{Format: CSV})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Next()
	var bad *RowError
	if !errors.As(err, &bad) {
		t.Fatalf("got %v", err)
	}
	text := bad.Error()
	if len(text) > (maxFaults+1)*(maxDetailBytes+40) || strings.ContainsFunc(text, func(r rune) bool { return printable(r) != r }) {
		t.Errorf("%d bytes: %q", len(text), text)
	}
	if !strings.HasPrefix(text, `line 2 (store "a\x1b[31m b"): `) {
		t.Errorf("got %q", text)
	}
}

func TestUsualNamesAreFoldedAndDistinct(t *testing.T) {
	of := map[string]string{}
	for f := range numFields {
		for _, n := range fields[f].usual {
			if fold(n) != n {
				t.Errorf("%s: the usual name %q is not folded", fields[f].name, n)
			}
			if o, ok := of[n]; ok {
				t.Errorf("%q belongs to %s and %s", n, o, fields[f].name)
			}
			of[n] = fields[f].name
		}
		if got, ok := parseField(fields[f].name); !ok || got != f {
			t.Errorf("parseField(%q) = %v, %v", fields[f].name, got, ok)
		}
	}
	if len(Fields()) != int(numFields) {
		t.Errorf("Fields() = %q", Fields())
	}
}

func TestFixTimezone(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "Europe/Berlin": "Europe/Berlin", "GMT+09:00 Asia/Seoul": "Asia/Seoul", "GMT+1:00 Europe/Andorra": "Europe/Andorra",
		"GMT+000000 America/Phoenix": "America/Phoenix", "GMT+000000 Etc/GMT+2": "Etc/GMT+2", "GMT-03:30 America/St_Johns": "America/St_Johns",
		"GMT+05:30 Asia/New_Delhi": "Asia/Kolkata", "Asia/Beijing": "Asia/Shanghai", "GMT-03:00 America/Argentina/Bu": "America/Argentina/Buenos_Aires",
		"UTC": "Etc/UTC", "gmt": "Etc/UTC", "Z": "Etc/UTC", "GMT+0": "Etc/UTC", "GMT+000000": "Etc/UTC", "UTC-00:00": "Etc/UTC",
		"GMT+03:00": "Etc/GMT-3", "UTC+3": "Etc/GMT-3", "+0300": "Etc/GMT-3", "-12": "Etc/GMT+12", "UTC+14:00": "Etc/GMT-14", "GMT-5": "Etc/GMT+5",
		"Etc/GMT+2": "Etc/GMT+2", "GMT0": "GMT0", "Zulu": "Zulu",
	} {
		got, detail := fixTimezone(in)
		if got != want || detail != "" {
			t.Errorf("fixTimezone(%q) = %q, %q; want %q", in, got, detail, want)
		}
		if got != "" {
			if _, err := shortline.LoadTimezone(got); err != nil {
				t.Errorf("%q: %v", in, err)
			}
		}
	}
	for _, in := range []string{"GMT+05:30", "UTC+15", "-13:00", "+123456789", "GMT+::"} {
		if got, detail := fixTimezone(in); detail == "" {
			if _, err := shortline.LoadTimezone(got); err == nil {
				t.Errorf("fixTimezone(%q) = %q", in, got)
			}
		}
	}
	for wrong, right := range zoneNames {
		if _, err := shortline.LoadTimezone(wrong); err == nil {
			t.Errorf("%q needs no correction", wrong)
		}
		if _, err := shortline.LoadTimezone(right); err != nil {
			t.Errorf("%q: %v", right, err)
		}
	}
}

func TestCleanText(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " a  b ": "a  b", "a\tb": "a b", "a \r\n b": "a b", "a\u2028b": "a b", "\u00a0a\u00a0": "a",
		"Borders \u0096 Mall": "Borders – Mall", "King\u0092s": "King’s", "a\u0081": "a", "\u0085": "", "nul\x00": "nul\x00", "bad\xffb\nc": "bad\xffb c",
	} {
		got := cleanText(in)
		if got != want || cleanText(got) != got {
			t.Errorf("cleanText(%q) = %q, again %q; want %q", in, got, cleanText(got), want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "…"}, {"abcdef", 5, "ab…"}, {"ab  cdef", 7, "ab…"}, {"ééé", 5, "é…"}, {"éééé", 6, "é…"}} {
		if got := cut(c.in, c.n); got != c.want || len(got) > c.n {
			t.Errorf("cut(%q, %d) = %q", c.in, c.n, got)
		}
	}
}

func TestAppendNDJSONReadsBack(t *testing.T) {
	s := shortline.Store{ID: "a", Name: "A <b> \"c\"", Lat: -0.5, Lng: 180, Address: &shortline.Address{City: "X"}, Timezone: "Europe/Berlin", Hours: "Mo-Fr 08:00-18:00", Tags: []string{"x", "y"}, ServiceS: 1.5}
	var file []byte
	for range 2 {
		var err error
		if file, err = AppendNDJSON(file, &s); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, strings.NewReader(string(file)), Options{Format: NDJSON})
	if len(got.rows) != 2 || !got.rows[1].Store.Equal(&s) || got.rows[1].Line != 2 {
		t.Errorf("%s came back as %+v %q", file, got.rows, got.bad)
	}
}

// mapIsIdempotent holds that what a reader found, asked for by name, is found again.
func mapIsIdempotent(t testing.TB, in string, r *Reader, o Options) {
	t.Helper()
	o.Columns = r.Mapping()
	again, err := NewReader(strings.NewReader(in), o)
	if err != nil {
		t.Fatalf("with its own mapping %q: %v", o.Columns, err)
	}
	if !maps.Equal(again.Mapping(), r.Mapping()) || !slices.Equal(again.Ignored(), r.Ignored()) {
		t.Errorf("mapping %q ignoring %q, then %q ignoring %q", r.Mapping(), r.Ignored(), again.Mapping(), again.Ignored())
	}
}
