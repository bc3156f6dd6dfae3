package main

import (
	"bufio"
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// place is a populated place of GeoNames: a city, or a quarter of one.
type place struct {
	id         uint64
	name       string
	lat, lng   float64
	code       string // GeoNames feature code
	country    string // ISO 3166-1 alpha-2
	state      string // US states only: elsewhere GeoNames has numbers, which no address shows
	population float64
	zone       string
}

// readPlaces reads a GeoNames table (tab separated, 19 columns), the most populous first, ties by id. Places that are gone
// and those whose names are not fit for a shop sign are left out.
func readPlaces(path string) ([]place, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []place
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for line := 1; sc.Scan(); line++ {
		col := strings.Split(sc.Text(), "\t")
		if len(col) != 19 {
			return nil, fmt.Errorf("%s, line %d: %d columns, not the 19 of a GeoNames table", path, line, len(col))
		}
		p := place{name: col[1], code: col[7], country: col[8], zone: col[17]}
		var errs [4]error
		p.id, errs[0] = strconv.ParseUint(col[0], 10, 64)
		p.lat, errs[1] = strconv.ParseFloat(col[4], 64)
		p.lng, errs[2] = strconv.ParseFloat(col[5], 64)
		p.population, errs[3] = strconv.ParseFloat(col[14], 64)
		for _, err := range errs {
			if err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", path, line, err)
			}
		}
		if p.country == "US" {
			p.state = col[10]
		}
		if p.code == "PPLH" || p.code == "PPLQ" || p.code == "PPLW" || p.code == "" || p.zone == "" || !signable(p.name) {
			continue
		}
		out = append(out, p)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	slices.SortFunc(out, func(a, b place) int {
		return cmp.Or(cmp.Compare(b.population, a.population), cmp.Compare(a.id, b.id))
	})
	return out, nil
}

// signable tells whether a name is short and made of Latin letters, spaces, hyphens, apostrophes and full stops.
func signable(name string) bool {
	for _, r := range name {
		if !unicode.Is(unicode.Latin, r) && !strings.ContainsRune(" -'’‘.", r) {
			return false
		}
	}
	return name != "" && len(name) <= 40
}

const kmPerDegree = 111.195

// kmBetween is good for the few dozen kilometres that it is asked for.
func kmBetween(lat1, lng1, lat2, lng2 float64) float64 {
	dx := math.Remainder(lng2-lng1, 360) * math.Cos((lat1+lat2)/2*math.Pi/180)
	return kmPerDegree * math.Hypot(lat2-lat1, dx)
}

// grid finds places near a point; its cells are one degree square.
type grid map[[2]int][]*place

func newGrid(places []place) grid {
	g := grid{}
	for i := range places {
		c := cellOf(places[i].lat, places[i].lng)
		g[c] = append(g[c], &places[i])
	}
	return g
}

func cellOf(lat, lng float64) [2]int { return [2]int{int(math.Floor(lat)), int(math.Floor(lng))} }

// near returns the places of p's country within km of it, p too, in a fixed order.
func (g grid) near(p *place, km float64) []*place {
	dLat := km / kmPerDegree
	dLng := min(dLat/max(math.Cos(p.lat*math.Pi/180), 0.05), 20)
	lo, hi := cellOf(p.lat-dLat, p.lng-dLng), cellOf(p.lat+dLat, p.lng+dLng)
	var out []*place
	for y := lo[0]; y <= hi[0]; y++ {
		for x := lo[1]; x <= hi[1]; x++ {
			for _, q := range g[[2]int{y, (x+540)%360 - 180}] {
				if q.country == p.country && kmBetween(p.lat, p.lng, q.lat, q.lng) <= km {
					out = append(out, q)
				}
			}
		}
	}
	return out
}
