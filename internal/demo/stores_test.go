package demo

import (
	"bytes"
	"compress/gzip"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/shortline/shortline"
)

func TestStoresAreValidAndUnique(t *testing.T) {
	stores := mustStores(t)
	if len(stores) != 12000 {
		t.Errorf("%d stores, want 12000", len(stores))
	}
	seen := map[shortline.StoreID]bool{}
	for i := range stores {
		s := &stores[i]
		if seen[s.ID] {
			t.Errorf("%s: the id comes twice", s.ID)
		}
		seen[s.ID] = true
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", s.ID, err)
		}
		again := *s
		again.Normalize()
		if !reflect.DeepEqual(*s, again) {
			t.Errorf("%s: not normalised: %+v", s.ID, *s)
		}
		if s.Timezone == "" || s.Hours == "" || s.Brand != Brand || s.Address == nil || s.Address.City == "" || s.Address.Country == "" {
			t.Errorf("%s: something is missing: %+v", s.ID, *s)
		}
		if s.ServiceS < 25 || s.ServiceS > 90 {
			t.Errorf("%s: service_s is %v", s.ID, s.ServiceS)
		}
	}
}

func TestStoresCoverTheWorld(t *testing.T) {
	stores := mustStores(t)
	for _, c := range []struct {
		city     string
		lat, lng float64
	}{
		{"New York", 40.7580, -73.9855},
		{"London", 51.5074, -0.1278},
		{"Tokyo", 35.6812, 139.7671},
		{"São Paulo", -23.5505, -46.6333},
		{"Lagos", 6.4550, 3.3841},
		{"Berlin", 52.5200, 13.4050},
		{"Sydney", -33.8688, 151.2093},
	} {
		near := 0
		for _, s := range stores {
			if kilometres(c.lat, c.lng, s.Lat, s.Lng) <= 5 {
				near++
			}
		}
		if near < 5 {
			t.Errorf("%s has %d stores within 5 km of the centre, want 5", c.city, near)
		}
	}
	areas, countries := map[string]int{}, map[string]int{}
	for _, s := range stores {
		area, _, _ := strings.Cut(s.Timezone, "/")
		areas[area]++
		countries[s.Address.Country]++
	}
	for _, a := range []string{"Africa", "America", "Antarctica", "Asia", "Australia", "Europe", "Pacific"} {
		if areas[a] == 0 {
			t.Errorf("no store in %s", a)
		}
	}
	if len(countries) < 200 {
		t.Errorf("stores in %d countries only", len(countries))
	}
}

func TestDecodeNamesWhatIsWrong(t *testing.T) {
	head := strings.Join(columns, ",") + "\n"
	for _, c := range []struct{ table, want string }{
		{"id,name\n", "columns"},
		{head + "kc-1,A,x,2,C,,DE,Europe/Berlin,24/7,wifi,30\n", "line 2: lat"},
		{head + "kc-1,A,1,2,C,,DE,Europe/Berlin,24/7,wifi,30\nkc-2,B,1,2,C,,DE,Europe/Berlin,24/7,wifi,\n", "line 3: service_s"},
		{head + "kc-1,A\n", "wrong number of fields"},
		{"", "EOF"},
	} {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		if _, err := w.Write([]byte(c.table)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := decode(&buf); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.table, err, c.want)
		}
	}
	if _, err := decode(bytes.NewReader(table[:len(table)/2])); err == nil {
		t.Error("half a file decodes without an error")
	}
}

func BenchmarkStores(b *testing.B) {
	for b.Loop() {
		if _, err := Stores(); err != nil {
			b.Fatal(err)
		}
	}
}

func mustStores(t testing.TB) []shortline.Store {
	t.Helper()
	stores, err := Stores()
	if err != nil {
		t.Fatal(err)
	}
	return stores
}

func kilometres(lat1, lng1, lat2, lng2 float64) float64 {
	const rad = math.Pi / 180
	a, b := math.Sin((lat2-lat1)*rad/2), math.Sin((lng2-lng1)*rad/2)
	return 2 * 6371.0088 * math.Asin(math.Sqrt(a*a+math.Cos(lat1*rad)*math.Cos(lat2*rad)*b*b))
}
