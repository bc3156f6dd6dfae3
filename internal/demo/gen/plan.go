package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/shortline/shortline"
)

const (
	// minPopulation is what a city needs to be considered, unless it is the largest of its country.
	minPopulation = 100_000
	// growth makes the number of stores grow slower than the city.
	growth = 0.8
	// seed turns the dice for all stores; another one gives another chain.
	seed = 0x5ca1ab1e
)

// plan places n stores, in order of their city's population, and tells how many of them are off the mapped land.
func plan(places []place, mask *land, n int) (stores []shortline.Store, wet int) {
	g := newGrid(places)
	cities := citiesOf(places)
	names := signs{}
	for i, quota := range allot(cities, n) {
		if quota == 0 {
			continue
		}
		city := cities[i]
		r := rand.New(rand.NewPCG(city.id, seed))
		a := newArea(city, g)
		for range quota {
			site, lat, lng, dry := a.pick(r, mask)
			if !dry {
				wet++
			}
			t := drawTraits(r, city)
			stores = append(stores, shortline.Store{
				ID:       shortline.StoreID(fmt.Sprintf("kc-%05d", len(stores)+1)),
				Name:     names.next(r, site),
				Lat:      round5(lat),
				Lng:      round5(lng),
				Address:  &shortline.Address{City: cityFor(site, city), State: site.state, Country: city.country},
				Timezone: site.zone,
				Hours:    t.hours,
				Tags:     t.tags,
				ServiceS: t.serviceS,
			})
		}
	}
	return stores, wet
}

// cityFor is the city in the address of a store at site: a neighbouring city or state counts, a quarter does not.
func cityFor(site, city *place) string {
	if site.code != "PPLX" && (site.state != city.state || site.population >= minPopulation) {
		return site.name
	}
	return city.name
}

func round5(v float64) float64 { return math.Round(v*1e5) / 1e5 }

// citiesOf picks the places that get stores of their own: no quarters of cities, but the largest place of each country.
func citiesOf(places []place) []*place {
	var out []*place
	seen := map[string]bool{}
	for i := range places {
		p := &places[i]
		first := !seen[p.country]
		seen[p.country] = true
		if first || p.code != "PPLX" && p.population >= minPopulation {
			out = append(out, p)
		}
	}
	return out
}

// home lists the countries where the chain is at home and has twice as many stores.
const home = " AT AU BE BR CA CH DE DK ES FI FR GB IE IT JP NL NO NZ PL PT SE US "

func weight(city *place) float64 {
	w := math.Pow(city.population, growth)
	if strings.Contains(home, " "+city.country+" ") {
		w *= 2
	}
	return w
}

// allot shares n stores out by weight with the method of the largest remainder; the first city of every
// country gets at least one.
func allot(cities []*place, n int) []int {
	quota := make([]int, len(cities))
	rest := make([]float64, len(cities))
	seen := map[string]bool{}
	left, total := n, 0.0
	for i, c := range cities {
		if !seen[c.country] {
			seen[c.country] = true
			quota[i] = 1
			left--
		}
		total += weight(c)
	}
	free := float64(left)
	for i, c := range cities {
		share := free * weight(c) / total
		whole := math.Floor(share)
		quota[i] += int(whole)
		left -= int(whole)
		rest[i] = share - whole
	}
	order := make([]int, len(cities))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rest[b], rest[a]) })
	for _, i := range order[:left] {
		quota[i]++
	}
	return quota
}

// area is a city with its quarters and suburbs. Most stores are thrown around those rather than around the centre: people
// live there, so it is hardly ever a lake, a river or a mountain. The rest fills the gaps between them.
type area struct {
	city   *place
	sites  []*place
	weight []float64 // running sums
	spread float64   // km, standard deviation around the centre
	jitter float64   // km, the same around a quarter
}

// inGaps is the share of the stores that are thrown around the centre of the city.
const inGaps = 0.3

func newArea(city *place, g grid) *area {
	spread := 1.2 + 2.2*math.Pow(city.population/1e6, 0.4)
	a := &area{city: city, spread: spread, sites: g.near(city, 2.5*spread)}
	sum := 0.0
	for _, s := range a.sites {
		d := kmBetween(city.lat, city.lng, s.lat, s.lng) / spread
		w := math.Exp(-d * d / 2)
		if s == city {
			w *= 2.5
		}
		sum += w
		a.weight = append(a.weight, sum)
	}
	a.jitter = min(max(spread/math.Sqrt(float64(len(a.sites))), 0.4), 0.4*spread)
	return a
}

// pick draws a point, on dry land unless that fails many times, and the site that gives it its name.
func (a *area) pick(r *rand.Rand, mask *land) (site *place, lat, lng float64, dry bool) {
	at, _ := slices.BinarySearch(a.weight, r.Float64()*a.weight[len(a.weight)-1])
	around, sigma := a.sites[at], a.jitter
	if r.Float64() < inGaps {
		around, sigma = a.city, 0.8*a.spread
	} else if around == a.city {
		sigma = 0.4 * a.spread
	}
	for try := range 40 {
		s := sigma
		if try >= 20 {
			s = 0.3 // a small island, or a coast drawn too coarsely: stay close
		}
		lat = around.lat + r.NormFloat64()*s/kmPerDegree
		lng = around.lng + r.NormFloat64()*s/kmPerDegree/math.Cos(around.lat*math.Pi/180)
		if dry = mask.has(lat, lng); dry {
			break
		}
	}
	return a.nearest(lat, lng), lat, lng, dry
}

func (a *area) nearest(lat, lng float64) *place {
	return slices.MinFunc(a.sites, func(p, q *place) int {
		return cmp.Compare(kmBetween(lat, lng, p.lat, p.lng), kmBetween(lat, lng, q.lat, q.lng))
	})
}
