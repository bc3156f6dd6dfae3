package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// signs gives every store a name of its own in its country (in the USA: state): the place, and what is next door. The key
// is the place as people write it, for GeoNames has several places of one name.
type signs map[[3]string][]string

var corners = []string{
	"Station", "Market", "Square", "Old Town", "Park", "Arcade", "Row", "Gallery", "Gardens", "Corner", "Plaza",
	"Terrace", "Mill", "Exchange", "Library", "Court", "Foundry", "Observatory", "Theatre", "Junction", "Museum", "Hall",
}

// next returns the next unused name at the place; after all corners have had one, they are numbered.
func (s signs) next(r *rand.Rand, p *place) string {
	key := [3]string{p.country, p.state, p.name}
	used := s[key]
	free := slices.DeleteFunc(slices.Clone(corners), func(c string) bool {
		return slices.Contains(used, c) || strings.HasSuffix(p.name, c)
	})
	if len(free) == 0 {
		round := len(used)/len(corners) + 1
		name := fmt.Sprintf("%s %d", corners[len(used)%len(corners)], round)
		s[key] = append(used, name)
		return p.name + " " + name
	}
	// The product of two draws prefers the head of the list.
	name := free[int(float64(len(free))*r.Float64()*r.Float64())]
	s[key] = append(used, name)
	return p.name + " " + name
}

type traits struct {
	hours    string
	tags     []string
	serviceS float64
}

// choice is an entry of a weighted list.
type choice struct {
	weight int
	value  string
}

var (
	usualHours = []choice{
		{22, "Mo-Fr 06:30-20:00; Sa-Su 07:30-20:00"},
		{18, "Mo-Su 07:00-21:00"},
		{14, "Mo-Fr 06:00-21:00; Sa-Su 07:00-20:00"},
		{12, "Mo-Sa 07:00-20:00; Su 08:00-18:00"},
		{9, "Mo-Fr 07:00-19:00; Sa 08:00-17:00"},
		{8, "Mo-Su 06:00-23:00"},
		{6, "Mo-Fr 06:30-18:30"},
		{4, "Mo-Th 07:00-23:00; Fr-Sa 07:00-02:00; Su 08:00-22:00"},
		{3, "Mo-Su 10:00-02:00"},
		{4, "24/7"},
	}
	siestaHours = []choice{
		{30, "Mo-Sa 07:00-14:00,16:30-21:00"},
		{20, "Mo-Fr 07:30-13:30,16:00-20:30; Sa 08:00-14:00"},
		{40, "Mo-Su 07:00-22:00"},
		{10, "Mo-Th 07:00-23:00; Fr-Sa 07:00-02:00; Su 08:00-22:00"},
	}
	fridayHours = []choice{
		{40, "Su-Th 07:00-22:00; Fr-Sa 09:00-23:30"},
		{30, "Mo-Su 07:00-23:00"},
		{15, "Sa-Th 06:30-21:00; Fr 13:00-22:00"},
		{10, "Mo-Su 10:00-02:00"},
		{5, "24/7"},
	}
)

func drawTraits(r *rand.Rand, city *place) traits {
	var t traits
	switch {
	case strings.Contains(" ES IT GR CY MT ", " "+city.country+" "):
		t.hours = draw(r, siestaHours)
	case strings.Contains(" AE BH DZ EG IQ JO KW LY OM PS QA SA SD SY YE ", " "+city.country+" "):
		t.hours = draw(r, fridayHours)
	default:
		t.hours = draw(r, usualHours)
	}
	tag := func(name string, chance float64) {
		if r.Float64() < chance {
			t.tags = append(t.tags, name)
		}
	}
	driveThru := 0.02
	if city.population < 1e6 && strings.Contains(" US CA AU NZ MX ZA SA AE KW ", " "+city.country+" ") {
		driveThru = 0.35
	}
	tag("wifi", 0.85)
	tag("takeaway", 0.7)
	tag("wheelchair", 0.6)
	tag("terrace", 0.35)
	tag("bakery", 0.3)
	tag("mobile-order", 0.4)
	tag("drive-thru", driveThru)
	if t.hours == "24/7" || strings.Contains(t.hours, "-02:00") {
		t.tags = append(t.tags, "late-night")
	}
	t.serviceS = math.Round(25 + 65*r.Float64()*(0.5+0.5*r.Float64())) // 25 to 90, more of the quick ones
	return t
}

func draw(r *rand.Rand, list []choice) string {
	sum := 0
	for _, c := range list {
		sum += c.weight
	}
	n := r.IntN(sum)
	for _, c := range list {
		if n -= c.weight; n < 0 {
			return c.value
		}
	}
	return "" // not reached: n is below the sum of the weights
}
