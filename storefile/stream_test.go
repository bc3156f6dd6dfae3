package storefile

import (
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
)

// endless repeats a text for ever after a beginning.
type endless struct {
	begin, again string
	at           int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.begin)
	e.begin = e.begin[n:]
	for n < len(p) {
		m := copy(p[n:], e.again[e.at:])
		n += m
		e.at = (e.at + m) % len(e.again)
	}
	return n, nil
}

// allocated runs f and returns how many bytes it allocated, used or not: what grows with the input would show.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// An input without an end is given up after maxSkipBytes, and all allocations together stay below 2 MiB.
func TestEndlessInputEndsInBoundedMemory(t *testing.T) {
	for _, c := range []struct {
		name         string
		f            Format
		begin, again string
		bad          int
	}{
		{"line", CSV, "id,name,lat,lng\n", "x", 1},
		{"line of quotes", CSV, "id,name,lat,lng\n", "\"", 1},
		{"line of commas", CSV, "id,name,lat,lng\n", ",", 1},
		{"line", NDJSON, "", "x", 1},
		{"line of blanks", NDJSON, "", " ", 1},
		{"feature", GeoJSON, `{"features":[`, "[", 0},
		{"string in a feature", GeoJSON, `{"features":[{"a":"`, "x", 0},
		{"name of a member", GeoJSON, `{"`, "x", 0},
		{"foreign member", GeoJSON, `{"a":{"`, "x", 0},
		{"foreign member after", GeoJSON, `{"features":[],"a":`, "7", 0},
		{"blanks", GeoJSON, `{`, " ", 0},
	} {
		t.Run(string(c.f)+" "+c.name, func(t *testing.T) {
			t.Parallel()
			in := &countingReader{r: &endless{begin: c.begin, again: c.again}}
			r, err := NewReader(in, Options{Format: c.f})
			if err != nil {
				t.Fatal(err)
			}
			bad := 0
			for {
				_, err := r.Next()
				var row *RowError
				if errors.As(err, &row) {
					bad++
					continue
				}
				if err == nil || err == io.EOF || !strings.Contains(err.Error(), "16 MiB") {
					t.Errorf("ended with %v", err)
				}
				break
			}
			if bad != c.bad {
				t.Errorf("%d bad rows, want %d", bad, c.bad)
			}
			if in.n > 2*maxSkipBytes {
				t.Errorf("read %d MiB", in.n>>20)
			}
		})
	}
	n := allocated(func() {
		for _, again := range []string{"x", "\"", ","} {
			r, _ := NewReader(&endless{begin: "id,name,lat,lng\n", again: again}, Options{Format: CSV})
			for err := error(nil); err == nil || errors.As(err, new(*RowError)); {
				_, err = r.Next()
			}
		}
		r, _ := NewReader(&endless{begin: `{"features":[{"a":"`, again: "x"}, Options{Format: GeoJSON})
		for err := error(nil); err == nil; {
			_, err = r.Next()
		}
	})
	if n > 2<<20 {
		t.Errorf("four endless inputs allocated %d KiB", n>>10)
	}
}

func TestEndlessHeader(t *testing.T) {
	for _, again := range []string{"x", ",", "\"", "\"\n"} {
		if _, err := NewReader(&endless{again: again}, Options{Format: CSV}); err == nil {
			t.Errorf("a header of %q without end was accepted", again)
		}
	}
}

// generated gives n rows of a file one by one.
type generated struct {
	n, i        int
	row         func(i int) string
	first, last string
	buf         string
}

func (g *generated) Read(p []byte) (int, error) {
	if g.buf == "" {
		switch {
		case g.i == 0 && g.first != "":
			g.buf, g.first = g.first, ""
		case g.i < g.n:
			g.buf = g.row(g.i)
			g.i++
		case g.last != "":
			g.buf, g.last = g.last, ""
		default:
			return 0, io.EOF
		}
	}
	n := copy(p, g.buf)
	g.buf = g.buf[n:]
	return n, nil
}

// generate has n rows; with a zone, reading is dominated by loading it.
func generate(f Format, n int, zone string) io.Reader {
	switch f {
	case CSV:
		return &generated{n: n, first: "id,name,brand,lat,lng,street,city,postcode,country,timezone\n", row: func(i int) string {
			return fmt.Sprintf("s-%d,Store %d,Chain,%.4f,%.4f,\"%d, Main Street\",Town,%05d,US,%s\n", i, i, float64(i%180)-89.5, float64(i%360)-179.5, i, i%99999, zone)
		}}
	case NDJSON:
		return &generated{n: n, row: func(i int) string {
			return fmt.Sprintf(`{"id":"s-%d","name":"Store %d","brand":"Chain","lat":%.4f,"lng":%.4f,"address":{"street":"%d, Main Street","city":"Town"},"timezone":%q}`+"\n", i, i, float64(i%180)-89.5, float64(i%360)-179.5, i, zone)
		}}
	}
	return &generated{n: n, first: `{"type":"FeatureCollection","features":[`, last: `{"type":"Feature"}]}`, row: func(i int) string {
		return fmt.Sprintf(`{"type":"Feature","id":"s-%d","geometry":{"type":"Point","coordinates":[%.4f,%.4f]},"properties":{"name":"Store %d","addr:street":"Main Street","timezone":%q}},`+"\n", i, float64(i%360)-179.5, float64(i%180)-89.5, i, zone)
	}}
}

// The heap after many rows is no larger than after few. What is live is measured, so that the collector's timing does not
// matter.
func TestHeapDoesNotGrowWithTheFile(t *testing.T) {
	const n = 100_000
	for _, f := range []Format{CSV, NDJSON, GeoJSON} {
		r, err := NewReader(generate(f, n, ""), Options{Format: f})
		if err != nil {
			t.Fatal(err)
		}
		live := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		var early uint64
		for i := range n {
			if _, err := r.Next(); err != nil {
				t.Fatalf("%s row %d: %v", f, i, err)
			}
			if i == 1000 {
				early = live()
			}
		}
		if late := live(); late > early+1<<20 {
			t.Errorf("%s: %d KiB live after 1,000 rows, %d KiB after %d", f, early>>10, late>>10, n)
		}
		runtime.KeepAlive(r)
	}
}

func BenchmarkRead(b *testing.B) {
	for i, f := range []Format{CSV, NDJSON, GeoJSON, CSV, NDJSON, GeoJSON} {
		name, zone := string(f), ""
		if i >= 3 {
			name, zone = name+"+timezone", "America/New_York"
		}
		b.Run(name, func(b *testing.B) {
			in := &countingReader{r: generate(f, math.MaxInt, zone)}
			r, err := NewReader(in, Options{Format: f})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(in.n) / int64(b.N))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
