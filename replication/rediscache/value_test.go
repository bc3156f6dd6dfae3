package rediscache

import (
	"math"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

const fuzzOwner = "prod/db1"

func FuzzDecode(f *testing.F) {
	w := newWorld()
	w.put(0)
	row, _ := w.latest(storeID(0))
	good, err := encodeValue(fuzzOwner, storeID(0), value{version{3, 4}, &row.Store})
	if err != nil {
		f.Fatal(err)
	}
	gone, err := encodeValue(fuzzOwner, storeID(0), value{version: version{3, math.MaxUint64}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, gone, "", "SL1:", good[:60], good + "x", strings.Repeat("9", 60)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := decodeValue(fuzzOwner, storeID(0), text)
		if err != nil {
			return
		}
		if v.store == nil {
			if again, err := encodeValue(fuzzOwner, storeID(0), v); err != nil || again != text {
				t.Fatalf("%q comes back as %q, %v", text, again, err)
			}
			return
		}
		if v.store.ID != storeID(0) {
			t.Fatalf("another store: %q", v.store.ID)
		}
		if err := v.store.Validate(); err != nil {
			t.Fatalf("not valid: %v", err)
		}
		again, err := encodeValue(fuzzOwner, storeID(0), v)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := decodeValue(fuzzOwner, storeID(0), again)
		if err != nil || back.version != v.version || !back.store.Equal(v.store) {
			t.Fatalf("%+v comes back as %+v, %v", v, back, err)
		}
		// What Redis compares as text is in the order of the numbers.
		if text[:versionEnd] != again[:versionEnd] {
			t.Fatalf("the version %q comes back as %q", text[:versionEnd], again[:versionEnd])
		}
		if _, err := decodeValue(fuzzOwner, "store-1", text); err == nil {
			t.Fatal("it passes for another store")
		}
		if _, err := decodeValue("prod/db2", storeID(0), text); err == nil {
			t.Fatal("it passes for another database")
		}
	})
}

// Versions as text are in the order of their numbers, also those that floating-point numbers cannot tell apart.
func TestVersionsCompareAsText(t *testing.T) {
	w := newWorld()
	w.put(0)
	row, _ := w.latest(storeID(0))
	ordered := []version{{0, 0}, {0, 9}, {0, 10}, {0, 1 << 53}, {0, 1<<53 + 1}, {0, math.MaxUint64}, {1, 0}, {1, 1}, {10, 0}, {math.MaxUint64, 0}}
	last := ""
	for _, v := range ordered {
		text, err := encodeValue(fuzzOwner, storeID(0), value{v, &row.Store})
		must(t, err)
		if text[:versionEnd] <= last {
			t.Errorf("%v is not after the one before", v)
		}
		last = text[:versionEnd]
		if back, err := decodeValue(fuzzOwner, storeID(0), text); err != nil || back.version != v {
			t.Errorf("%v comes back as %v, %v", v, back.version, err)
		}
	}
}

func TestEncodeRefusesWhatWouldComeBackDifferent(t *testing.T) {
	for name, spoil := range map[string]func(*shortline.Store){
		"tags out of order":  func(s *shortline.Store) { s.Tags = []string{"b", "a"} },
		"not UTF-8":          func(s *shortline.Store) { s.Name = "\xff" },
		"no such place":      func(s *shortline.Store) { s.Lat = 91 },
		"not a number":       func(s *shortline.Store) { s.Lng = math.NaN() },
		"an id of another":   func(s *shortline.Store) { s.ID = "other" },
		"an address of none": func(s *shortline.Store) { s.Address = &shortline.Address{} },
	} {
		w := newWorld()
		w.put(0)
		row, _ := w.latest(storeID(0))
		spoil(&row.Store)
		if text, err := encodeValue(fuzzOwner, storeID(0), value{version{1, 1}, &row.Store}); err == nil {
			t.Errorf("%s: %q", name, text)
		}
	}
}
