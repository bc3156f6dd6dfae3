package plan

import (
	"errors"
	"fmt"
	"math"
)

// Input is what is to be planned for. The zero value is not valid; begin with a Preset.
type Input struct {
	Stores         float64 // how many there are
	People         float64 // connected at once at the busiest, each by one live connection
	Follows        float64 // stores that one of them follows
	SearchesPerH   float64 // nearby searches an hour of one connected person
	UpdateEveryS   float64 // mean seconds between two updates of a store; 0: EventsPerDay counts
	EventsPerDay   float64 // updates of queues a day, all stores together; 0: UpdateEveryS counts
	ReadsPerWrite  float64 // reads a write, beside those of connected people
	Peak           float64 // the busiest hour over the mean
	Regions        float64
	RegionsLost    float64 // that may be gone while the others bear everything
	KeptYears      float64 // of hourly history
	ArchiveEvents  bool    // keep every single update that long too, in a bucket
	RoundTripS     float64 // seconds between the primary region and the nearest standby
	Availability   float64 // of one region, in per cent
	OutagesPerYear float64 // of one region
}

// Presets are the names that Preset knows.
func Presets() []string { return []string{"small", "large"} }

// Preset returns a starting point. Small is day one: 10,000 stores and 1,000,000 people connected. Large is 500 M events a day
// at 100 reads a write, kept 5 years.
func Preset(name string) (Input, error) {
	in := Input{Stores: 10_000, People: 1_000_000, Follows: 5, SearchesPerH: 6, UpdateEveryS: 60, Peak: 2, Regions: 3, RegionsLost: 1,
		KeptYears: 2, RoundTripS: 0.082, Availability: 99.9, OutagesPerYear: 2}
	switch name {
	case "small":
		return in, nil
	case "large":
		in.Stores, in.People, in.UpdateEveryS, in.EventsPerDay = 10_000_000, 0, 0, 500e6
		in.ReadsPerWrite, in.Peak, in.KeptYears, in.ArchiveEvents = 100, 3, 5, true
		return in, nil
	}
	return Input{}, fmt.Errorf("there is no preset %q; there are small and large", name)
}

// Validate reports every fault at once.
func (in Input) Validate() error {
	var faults []error
	bound := func(flag string, v, lo, hi float64, what string) {
		if math.IsNaN(v) || v < lo || v > hi {
			faults = append(faults, fmt.Errorf("--%s %g: %s, from %g to %g", flag, v, what, lo, hi))
		}
	}
	whole := func(flag string, v, lo, hi float64, what string) {
		if bound(flag, v, lo, hi, what); v != math.Trunc(v) {
			faults = append(faults, fmt.Errorf("--%s %g: must be a whole number", flag, v))
		}
	}
	whole("stores", in.Stores, 1, 1e9, "how many stores there are")
	whole("people", in.People, 0, 1e10, "how many people are connected at once")
	bound("follows", in.Follows, 0, 1000, "stores that one person follows")
	bound("searches-per-hour", in.SearchesPerH, 0, 3600, "searches of one person")
	bound("reads-per-write", in.ReadsPerWrite, 0, 1e6, "reads a write")
	bound("peak", in.Peak, 1, 100, "the busiest hour over the mean")
	whole("regions", in.Regions, 1, 16, "how many regions there are")
	whole("regions-lost", in.RegionsLost, 0, 15, "how many regions may be gone")
	bound("keep-years", in.KeptYears, 0, 100, "years of history")
	bound("round-trip-ms", in.RoundTripS*1000, 0, 1000, "milliseconds to the nearest standby")
	bound("events-per-day", in.EventsPerDay, 0, 1e12, "updates a day of all stores together")
	bound("outages-per-year", in.OutagesPerYear, 0, 1000, "outages of one region")
	if !(in.Availability > 0 && in.Availability < 100) {
		faults = append(faults, fmt.Errorf("--region-availability %g: per cent, more than 0 and less than 100, such as 99.9", in.Availability))
	}
	switch {
	case in.EventsPerDay > 0 && in.UpdateEveryS > 0:
		faults = append(faults, errors.New("give --update-every or --events-per-day, not both: each says how many updates there are"))
	case in.EventsPerDay == 0:
		bound("update-every", in.UpdateEveryS, 0.1, 30*86400, "seconds between two updates of one store")
	}
	if in.RegionsLost >= in.Regions && in.Regions >= 1 && in.RegionsLost <= 15 {
		faults = append(faults, fmt.Errorf("--regions-lost %g of %g: one region has to stay", in.RegionsLost, in.Regions))
	}
	return errors.Join(faults...)
}
