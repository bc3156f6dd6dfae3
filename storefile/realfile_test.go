package storefile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

// realFile returns a file of real stores; they are not part of the repository.
func realFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "shared", "data", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("SKIPPED, NOT TESTED: the real file %s is not there: %v", name, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStarbucks(t *testing.T) {
	data := realFile(t, "starbucks.csv")
	r, err := NewReader(bytes.NewReader(data), Options{Format: CSV})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("mapping %q, ignoring %q", r.Mapping(), r.Ignored())
	got := drain(t, r)
	if got.end != nil {
		t.Fatal(got.end)
	}
	lines := bytes.Split(data, []byte("\n"))
	distinct, zones, notes := map[shortline.StoreID]Row{}, map[string]int{}, 0
	for _, row := range got.rows {
		if old, ok := distinct[row.Store.ID]; ok {
			t.Errorf("lines %d and %d have both store %s", old.Line, row.Line, row.Store.ID)
		}
		if !bytes.Contains(lines[row.Line-1], []byte(","+string(row.Store.ID)+",")) {
			t.Errorf("line %d is said to have store %s: %s", row.Line, row.Store.ID, lines[row.Line-1])
		}
		distinct[row.Store.ID] = row
		zones[row.Store.Timezone]++
		for _, n := range row.Notes {
			notes++
			t.Logf("line %d: %s: %s", row.Line, n.Field, n.Detail)
		}
	}
	if len(distinct) != 25_599 || len(got.rows) != 25_599 {
		t.Errorf("%d rows of %d stores, want 25,599", len(got.rows), len(distinct))
	}
	if len(got.bad) != 1 || got.bad[0] != "line 8031 (store 19773-160973): lat: is required; lng: is required" {
		t.Errorf("bad rows %q", got.bad)
	}
	if !bytes.Contains(lines[8031-1], []byte("19773-160973")) {
		t.Errorf("line 8031 is %s", lines[8031-1])
	}
	if again := distinct["19773-160973"]; again.Store.Lat != 37.53 || again.Line < 8032 {
		t.Errorf("the second row of 19773-160973 is %+v", again)
	}
	if notes != 0 {
		t.Errorf("%d values were cut, want none", notes)
	}
	if len(zones) < 95 || zones[""] != 0 {
		t.Errorf("%d time zones, %d stores without", len(zones), zones[""])
	}
	first := distinct["47370-257954"].Store
	if first.Name != "Meritxell, 96" || first.Brand != "Starbucks" || first.Timezone != "Europe/Andorra" || *first.Address != (shortline.Address{Street: "Av. Meritxell, 96", City: "Andorra la Vella", State: "7", Postcode: "AD500", Country: "AD"}) {
		t.Errorf("the first store is %+v %+v", first, first.Address)
	}
	for _, row := range got.rows {
		if strings.HasPrefix(string(row.Store.Address.Street), `"Brent Civic`) && row.Store.Address.Street != `"Brent Civic Centre, Engineers Way, "` {
			t.Errorf("the line break became %q", row.Store.Address.Street)
		}
	}
}

func TestStarbucks2021(t *testing.T) {
	data := realFile(t, "starbucks-2021.csv")
	_, err := NewReader(bytes.NewReader(data), Options{Format: CSV})
	if err == nil || !strings.HasSuffix(err.Error(), "name one with --map name=city") {
		t.Fatalf("without a name: %v", err)
	}
	got := read(t, bytes.NewReader(data), Options{Format: CSV, Columns: map[string]string{"name": "city"}})
	if len(got.rows) != 28_289 || len(got.bad) != 0 || got.end != nil {
		t.Errorf("%d rows, bad %q, ended with %v", len(got.rows), got.bad, got.end)
	}
}

func BenchmarkStarbucks(b *testing.B) {
	data := realFile(b, "starbucks.csv")
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		rows += len(read(b, bytes.NewReader(data), Options{Format: CSV}).rows)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
