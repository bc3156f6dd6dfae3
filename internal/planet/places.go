package planet

import (
	"slices"
	"time"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// DefaultRegions are the regions of a planet for which none are named; the first takes writes.
func DefaultRegions() []regions.ID { return []regions.ID{"us-east", "eu-west", "ap-southeast"} }

// place is where a region with that name usually is.
type place struct {
	id regions.ID
	at geo.Point
}

// places are known by name. A region with another name gets one of them that is free, the last first.
func places() []place {
	return []place{
		{"us-east", geo.Point{Lat: 39.0438, Lng: -77.4874}},      // Ashburn
		{"eu-west", geo.Point{Lat: 53.3498, Lng: -6.2603}},       // Dublin
		{"ap-southeast", geo.Point{Lat: 1.3521, Lng: 103.8198}},  // Singapore
		{"us-west", geo.Point{Lat: 45.8399, Lng: -119.7006}},     // Boardman
		{"eu-central", geo.Point{Lat: 50.1109, Lng: 8.6821}},     // Frankfurt
		{"ap-northeast", geo.Point{Lat: 35.6762, Lng: 139.6503}}, // Tokyo
		{"sa-east", geo.Point{Lat: -23.5505, Lng: -46.6333}},     // São Paulo
		{"ap-south", geo.Point{Lat: 19.076, Lng: 72.8777}},       // Mumbai
		{"au-east", geo.Point{Lat: -33.8688, Lng: 151.2093}},     // Sydney
		{"af-south", geo.Point{Lat: -33.9249, Lng: 18.4241}},     // Cape Town
		{"me-central", geo.Point{Lat: 25.2048, Lng: 55.2708}},    // Dubai
		{"us-central", geo.Point{Lat: 41.2619, Lng: -95.8608}},   // Council Bluffs
	}
}

// maxRegions is how many regions a planet may have: one for each place.
const maxRegions = 12

// locate gives each region its place.
func locate(ids []regions.ID) map[regions.ID]geo.Point {
	at := map[regions.ID]geo.Point{}
	free := slices.DeleteFunc(places(), func(p place) bool {
		known := slices.Contains(ids, p.id)
		if known {
			at[p.id] = p.at
		}
		return known
	})
	for _, id := range ids {
		if _, known := at[id]; !known {
			last := len(free) - 1
			at[id] = free[last].at
			free = free[:last]
		}
	}
	return at
}

// roundTrip is how long a packet takes there and back: as measured between the three regions of the default, and at about
// their pace elsewhere.
func roundTrip(a, b place) time.Duration {
	if a.id > b.id {
		a, b = b, a
	}
	switch [2]regions.ID{a.id, b.id} {
	case [2]regions.ID{"eu-west", "us-east"}:
		return 82 * time.Millisecond
	case [2]regions.ID{"ap-southeast", "eu-west"}:
		return 164 * time.Millisecond
	case [2]regions.ID{"ap-southeast", "us-east"}:
		return 246 * time.Millisecond
	}
	const perMetre = 15 * time.Millisecond / 1_000_000
	return time.Duration(geo.Distance(a.at, b.at)) * perMetre
}
