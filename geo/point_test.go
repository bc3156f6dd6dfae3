package geo

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestDistance(t *testing.T) {
	quarter := float64(MaxDistance) / 2
	for _, c := range []struct {
		name string
		a, b Point
		want float64
	}{
		{"same", Point{47.6, -122.3}, Point{47.6, -122.3}, 0},
		{"a degree along the equator", Point{0, 0}, Point{0, 1}, 6371008.8 * math.Pi / 180},
		{"a degree along a meridian", Point{89.5, 12}, Point{88.5, 12}, 6371008.8 * math.Pi / 180},
		{"over the pole", Point{89.5, 12}, Point{89.5, -168}, 6371008.8 * math.Pi / 180},
		{"over the antimeridian", Point{0, 179.5}, Point{0, -179.5}, 6371008.8 * math.Pi / 180},
		{"both names of the antimeridian", Point{51, 180}, Point{51, -180}, 0},
		{"all longitudes of the pole", Point{90, 0}, Point{90, 77}, 0},
		{"pole to equator", Point{90, 0}, Point{0, 77}, quarter},
		{"pole to pole", Point{90, 0}, Point{-90, 0}, 2 * quarter},
		{"antipodes", Point{12.5, 45}, Point{-12.5, -135}, 2 * quarter},
		{"a metre from the antipode", Point{0, 0}, Point{1 / 111195.08, 180}, 2*quarter - 1},
		{"a millimetre", Point{10, 10}, Point{10 + 1/111195080.0, 10}, 0.001},
		{"Paris to New York", Point{48.8566, 2.3522}, Point{40.7128, -74.006}, 5_837_241},
	} {
		tolerance := 1e-4
		if c.name == "Paris to New York" {
			tolerance = 100
		}
		if got := float64(Distance(c.a, c.b)); math.Abs(got-c.want) > tolerance {
			t.Errorf("%s: %.6f m, want %.6f m", c.name, got, c.want)
		}
		if there, back := Distance(c.a, c.b), Distance(c.b, c.a); there != back {
			t.Errorf("%s: %v there, %v back", c.name, there, back)
		}
	}
}

func TestDistanceIsHaversine(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 100_000 {
		a := hardPoint(rng)
		b := hardPoint(rng)
		switch rng.IntN(4) {
		case 0:
			b = offset(a, rng.NormFloat64()*100, rng.NormFloat64()*100)
		case 1:
			b = offset(antipode(a), rng.NormFloat64()*100, rng.NormFloat64()*100)
		}
		if got, want := float64(Distance(a, b)), haversine(a, b); math.Abs(got-want) > 1e-4 {
			t.Fatalf("from %v to %v: %.9f m, want %.9f m", a, b, got, want)
		}
	}
}

func TestKeyAtInvertsDistance(t *testing.T) {
	for _, d := range []Metres{0, 1e-3, 1, 5000, 2e6, MaxDistance/2 - 1, MaxDistance / 2, MaxDistance/2 + 1, 1.9e7,
		MaxDistance - 1000, MaxDistance - 1, MaxDistance} {
		if got := keyAt(d).distance(); math.Abs(float64(got-d)) > 1e-6 {
			t.Errorf("the key of %.9f m stands for %.9f m", d, got)
		}
	}
	last := sepKey(-1)
	for i := range 100_000 {
		k := keyAt(MaxDistance * Metres(i) / 100_000)
		if k <= last {
			t.Fatalf("key %v of step %d is not greater than %v", k, i, last)
		}
		last = k
	}
}

func TestPointValid(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, p := range []Point{{0, 0}, {90, 180}, {-90, -180}} {
		if !p.Valid() {
			t.Errorf("%v is not valid", p)
		}
	}
	for _, p := range []Point{{nan, 0}, {0, nan}, {inf, 0}, {0, -inf}, {90.0001, 0}, {-91, 0}, {0, 180.0001}, {0, -181}} {
		if p.Valid() {
			t.Errorf("%v is valid", p)
		}
	}
}
