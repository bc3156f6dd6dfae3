package storefile

import (
	"bytes"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// holds reads in with a small bound and checks what must always be: it ends, lines never decrease and stay within the
// file, every Row is valid and normalised, every error is one printable line, and the size of the reads changes nothing.
func holds(t *testing.T, in []byte, o Options) {
	o.MaxRowBytes = 256
	open := func(in io.Reader) (outcome, *Reader, error) {
		r, err := NewReader(in, o)
		if err != nil {
			return outcome{}, nil, err
		}
		return drain(t, r), r, nil
	}
	got, r, err := open(bytes.NewReader(in))
	again, _, errAgain := open(iotest.HalfReader(bytes.NewReader(in)))
	if (err == nil) != (errAgain == nil) || !reflect.DeepEqual(got.rows, again.rows) || !slices.Equal(got.bad, again.bad) || (got.end == nil) != (again.end == nil) {
		t.Fatalf("in one read %+v %q %v, in several %+v %q %v", got.rows, got.bad, err, again.rows, again.bad, errAgain)
	}
	if err != nil {
		return
	}
	for _, e := range got.bad {
		if strings.ContainsFunc(e, func(r rune) bool { return printable(r) != r }) {
			t.Errorf("the error %q is not one printable line", e)
		}
	}
	if len(got.rows)+len(got.bad) > len(in) {
		t.Errorf("%d rows and %d bad rows of %d bytes", len(got.rows), len(got.bad), len(in))
	}
	lines := 1 + bytes.Count(in, []byte("\n"))
	for _, row := range got.rows {
		if row.Line > lines {
			t.Errorf("line %d of %d", row.Line, lines)
		}
	}
	if o.Format == CSV {
		mapIsIdempotent(t, string(in), r, o)
	}
}

func FuzzCSV(f *testing.F) {
	for _, s := range []string{
		head + "a,A,1,2\n", "id;name;lat;lng;tags;hours\na;\"A\n\";1,5;2;x|y;Mo 08:00-09:00\n", "\xef\xbb\xbfX\tY\tTitle\tUUID\r\n1\t2\t\"q\"\"\"\t3\r\n", head + "a,\"A,1,2\nb,B,1,2\nc,\"C\",1,2\n",
		"id,name,lat,lng,tz,addr:street,house number\nnode/1,A,-0,1e1,GMT+000000 Asia/Beijing,\u0096S,5\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		holds(t, in, Options{Format: CSV})
		holds(t, append([]byte(head), in...), Options{Format: CSV})
		asEncodingCSV(t, in)
	})
}

func FuzzNDJSON(f *testing.F) {
	for _, s := range []string{
		`{"id":"a","name":"A","lat":1,"lng":2}` + "\n\n{}\nnull\n[1]\n", `{"id":"a","name":"A","lat":1,"lng":2,"address":{"city":"x"},"timezone":"UTC","hours":"24/7","tags":["b","a"],"service_s":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { holds(t, in, Options{Format: NDJSON}) })
}

func FuzzGeoJSON(f *testing.F) {
	a := feature("a", `"name":"A","address":{"city":"x"},"tags":["b","a"],"ref":7`)
	for _, s := range []string{collection(a, a), "\x1e" + a + "\n\x1e" + a, `{"x":[{}],"features":[` + a + `,null],"y":"\"]"}`, a + "{}", `[1]`, `{"features":[{"type":"Feature","geometry":{"type":"Polygon"}}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		holds(t, in, Options{Format: GeoJSON})
		holds(t, slices.Concat([]byte(`{"features":[{"type":"Feature","id":1,"geometry":{"type":"Point","coordinates":[2,1]},"properties":{"name":1,`), in), Options{Format: GeoJSON})
	})
}
