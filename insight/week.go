// Package insight tells from the past of a store's queue what it usually is and what it will be: the profile of the 168
// hours of a week, forecasts with a band, and how good such forecasts have been.
//
// It promises that nothing is computed over all stores at once: everything here is a function of one store's hourly rollups, and
// costs well under a millisecond. Hours of the week are those of the store's own clock, also over changes of daylight saving and in zones
// that are off by half an hour. It knows no database and no HTTP.
package insight

import "time"

// HoursPerWeek is the number of slots of a profile: 0 is Monday from 00:00 to 01:00 on the store's clock.
const HoursPerWeek = 7 * 24

// Slot is an hour of the week, 0 to HoursPerWeek-1.
type Slot uint8

// SlotAt is the hour of the week that the clock on the wall in loc shows at t.
func SlotAt(t time.Time, loc *time.Location) Slot {
	_, offset := t.In(loc).Zone()
	const monday = 4 * 24 * 3600 // the first one of Unix time
	s := (t.Unix() + int64(offset) - monday) / 3600 % HoursPerWeek
	if t.Unix()+int64(offset) < monday { // dates before it: division rounds towards 0
		t = t.In(loc)
		return Slot((int(t.Weekday())+6)%7*24 + t.Hour())
	}
	return Slot(s)
}

// Day is 0 for Monday to 6 for Sunday.
func (s Slot) Day() int { return int(s) / 24 }

// Hour is 0 to 23.
func (s Slot) Hour() int { return int(s) % 24 }

// quarters is in how many parts an hour in UTC is cut to find the slots that it covers: all zones in use are off UTC by a
// multiple of 15 minutes, and change by one.
const quarters = 4

// span is what of the week an hour in UTC covers: n slots, in order, with shares that add up to 1. Most hours cover one slot; in
// zones off by half an hour, and where the clock is moved, there are two.
type span struct {
	slots  [quarters]Slot
	shares [quarters]float64
	n      int
}

// spanOf is the span of the hour from t.
func spanOf(t time.Time, loc *time.Location) (c span) {
	for i := range quarters {
		s := SlotAt(t.Add(time.Duration(i)*time.Hour/quarters), loc)
		if c.n == 0 || c.slots[c.n-1] != s {
			c.slots[c.n] = s
			c.n++
		}
		c.shares[c.n-1] += 1.0 / quarters
	}
	return c
}
