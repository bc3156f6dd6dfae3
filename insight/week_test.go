package insight

import (
	"math"
	"testing"
	"time"
	_ "time/tzdata" // the zones tested must be there on every machine
)

// zones have changes by an hour and by half an hour, offsets of half and of three quarters of an hour, and both sides of the
// date line.
var zones = []string{"UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia",
	"Pacific/Chatham", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/St_Johns", "Africa/Casablanca"}

func load(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// Every hour of two years: shares add up to 1, and what the clock on the wall shows at each quarter is among the slots.
func TestSpansFollowTheClockOnTheWall(t *testing.T) {
	for _, zone := range zones {
		loc := load(t, zone)
		for at := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2027; at = at.Add(time.Hour) {
			c := spanOf(at, loc)
			total, want := 0.0, map[Slot]float64{}
			for q := range 4 {
				wall := at.Add(time.Duration(q) * 15 * time.Minute).In(loc)
				want[Slot((int(wall.Weekday())+6)%7*24+wall.Hour())] += 0.25
			}
			for i := range c.n {
				total += c.shares[i]
				if math.Abs(want[c.slots[i]]-c.shares[i]) > 1e-9 {
					t.Fatalf("%s %v: slot %d has share %v, want %v", zone, at, c.slots[i], c.shares[i], want[c.slots[i]])
				}
			}
			if math.Abs(total-1) > 1e-9 || c.n != len(want) {
				t.Fatalf("%s %v: %+v, want %v", zone, at, c, want)
			}
		}
	}
}

// A day of 23 hours has no hour from 2 to 3, one of 25 has it twice.
func TestDaysOfOtherLengths(t *testing.T) {
	loc := load(t, "Europe/Berlin")
	for _, test := range []struct {
		day   time.Time
		hours int
		twoes float64
	}{
		{time.Date(2026, 3, 29, 0, 0, 0, 0, loc), 23, 0},
		{time.Date(2026, 10, 25, 0, 0, 0, 0, loc), 25, 2},
		{time.Date(2026, 11, 1, 0, 0, 0, 0, loc), 24, 1},
	} {
		hours, twoes := 0, 0.0
		for at := test.day; at.In(loc).Day() == test.day.Day(); at = at.Add(time.Hour) {
			hours++
			for c, i := spanOf(at, loc), 0; i < c.n; i++ {
				if c.slots[i].Day() != 6 {
					t.Errorf("%v is on day %d of the week", at, c.slots[i].Day())
				}
				if c.slots[i].Hour() == 2 {
					twoes += c.shares[i]
				}
			}
		}
		if hours != test.hours || twoes != test.twoes {
			t.Errorf("%v: %d hours, %v of them from 2 to 3; want %d and %v", test.day, hours, twoes, test.hours, test.twoes)
		}
	}
}

func TestSlotsBefore1970(t *testing.T) {
	at := time.Date(1969, 12, 31, 23, 0, 0, 0, time.UTC) // a Wednesday
	if s := SlotAt(at, time.UTC); s.Day() != 2 || s.Hour() != 23 {
		t.Errorf("day %d, hour %d", s.Day(), s.Hour())
	}
}
