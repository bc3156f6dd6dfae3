package shortline

import (
	"slices"
	"time"
)

// Hours is a parsed opening_hours value. It is immutable and safe to share.
//
// How a value is read, where OpenStreetMap's specification leaves a choice or this reader makes one:
//
//   - A time span belongs to the day on which it starts. "Fr 18:00-02:00" is open in the first two hours of a Saturday,
//     also where a later rule says "Sa off" or gives Saturday other hours.
//   - A rule after ";" replaces what earlier rules say about the days it matches. A rule after "," adds to it. An "off" rule
//     without times empties its days; with times it cuts just these out, past midnight too, whatever day they came from.
//   - The rules after "||" are asked only about the moments of which the rules before say nothing, neither open, off nor unknown.
//   - A rule without times means the whole day, 00:00 to 24:00. A span whose ends are equal lasts 24 hours.
//   - The open end "17:00+" is taken as 24:00; "17:00-23:00+" ends at 23:00.
//   - There is no calendar of holidays, so PH and SH match no day: "PH off" has no effect, "Mo-Fr,PH 09:00-18:00" is
//     "Mo-Fr 09:00-18:00".
//   - "unknown", and a bare comment such as "by appointment", count as not open.
type Hours struct {
	text   string
	weekly bool        // no rule looks at anything but the weekday: week says it all
	rules  []hoursRule // nil if weekly
	weeks  bool        // some rule looks at the week's number
	// week holds the minutes of the week, from Monday 00:00, at which the state changes: first to open, then to closed,
	// and so on, in ascending order.
	week []uint16
}

const (
	minutesPerDay  = 24 * 60
	minutesPerWeek = 7 * minutesPerDay
	secondsPerDay  = 24 * 60 * 60
)

// String returns the text from which h was parsed, unchanged.
func (h *Hours) String() string { return h.text }

// OpenAt tells whether the store is open at t, which must be in the store's time zone, for only its wall clock is looked
// at: an hour that a change of the clock repeats is judged twice alike, one that it skips never comes. A span is open
// from its first minute on, and closed from the minute that it ends with. OpenAt does not allocate.
func (h *Hours) OpenAt(t time.Time) bool {
	_, offset := t.Zone()
	wall := t.Unix() + int64(offset)
	if h.weekly {
		const monday = 3 * secondsPerDay // 1970-01-01 was a Thursday
		return h.openInWeek(uint16(floorMod(wall+monday, 7*secondsPerDay) / 60))
	}
	second := floorMod(wall, secondsPerDay)
	today := (wall - second) / secondsPerDay
	a, b := newHoursDay(today, h.weeks), newHoursDay(today-1, h.weeks)
	return h.stateAt(&a, &b, uint16(second/60)) == hoursOpen
}

// openInWeek looks the minute up among the changes of a week: after an odd number of them it is open.
func (h *Hours) openInWeek(minute uint16) bool {
	lo, hi := 0, len(h.week)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if h.week[mid] <= minute {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo&1 == 1
}

// compile fills in week, if the weekday is all that the rules look at.
func (h *Hours) compile() {
	minutes := []uint16{0}
	h.weekly = true
	for i := range h.rules {
		r := &h.rules[i]
		h.weeks = h.weeks || len(r.weeks) > 0
		if len(r.years)+len(r.dates)+len(r.weeks)+len(r.numbered) > 0 {
			h.weekly = false
		}
		for _, s := range r.spans {
			minutes = append(minutes, s.from, s.to%minutesPerDay)
		}
	}
	if !h.weekly {
		return
	}
	slices.Sort(minutes)
	minutes = slices.Compact(minutes) // between two of these nothing changes
	open := false
	for weekday := range uint8(7) {
		today, yesterday := hoursDay{weekday: weekday}, hoursDay{weekday: (weekday + 6) % 7}
		for _, m := range minutes {
			if now := h.stateAt(&today, &yesterday, m) == hoursOpen; now != open {
				open = now
				h.week = append(h.week, uint16(weekday)*minutesPerDay+m)
			}
		}
	}
	h.week = slices.Clip(h.week)
	h.rules = nil
}

// hoursState is what the rules say about a moment. The greater one prevails where two days speak of the same moment.
type hoursState uint8

const (
	hoursSilent hoursState = iota
	hoursClosed
	hoursUnknown
	hoursOpen
)

// hoursRule is one rule that can match at all. Its selectors all have to match; an empty one matches every day.
type hoursRule struct {
	group    int // the number of "||" before it
	adds     bool
	state    hoursState
	years    []hoursRange
	dates    []hoursDates
	weeks    []hoursRange
	weekdays uint8 // a bit for each weekday, Monday is bit 0
	numbered []hoursNumbered
	spans    []hoursSpan // empty: the whole day
}

// hoursRange is from, from+step and so on up to and with to.
type hoursRange struct{ from, to, step int }

// hoursDates is a range of dates. With years, from and to are year<<9 + month<<5 + day; without, month<<5 + day, and the
// range runs over the turn of the year if from is greater than to.
type hoursDates struct {
	dated    bool
	from, to int
}

// hoursNumbered is a weekday by its number in the month: bits 0 to 4 of in mean the first to the fifth, 5 to 9 the last
// to the fifth last.
type hoursNumbered struct {
	weekday uint8
	in      uint16
}

// hoursSpan is from one minute of the day on and before another, which may lie in the next day.
type hoursSpan struct{ from, to uint16 }

// hoursDay is what rules ask of a day. A week's rules ask for the weekday only.
type hoursDay struct {
	year, month, day int
	week             int    // ISO 8601; 0 if nobody asks
	weekday          uint8  // Monday is 0
	numbers          uint16 // as hoursNumbered.in
}

// newHoursDay describes the day that is the given number of days after 1970-01-01.
func newHoursDay(days int64, week bool) hoursDay {
	t := time.Unix(days*secondsPerDay, 0).UTC()
	year, month, day := t.Date()
	d := hoursDay{year: year, month: int(month), day: day, weekday: uint8(floorMod(days+3, 7))}
	d.numbers = 1<<((day-1)/7) | 1<<(5+(daysIn(year, int(month))-day)/7)
	if week {
		_, d.week = t.ISOWeek()
	}
	return d
}

// stateAt evaluates the rules for a minute of today. Spans of yesterday may reach into it.
func (h *Hours) stateAt(today, yesterday *hoursDay, minute uint16) hoursState {
	var a, b hoursState // what the spans say that started today, and those that started yesterday
	group := 0
	for i := range h.rules {
		r := &h.rules[i]
		if r.group != group {
			if max(a, b) != hoursSilent {
				break
			}
			group = r.group
		}
		onA, onB := r.matches(today), r.matches(yesterday)
		inA := onA && r.covers(minute)
		inB := onB && r.covers(minute+minutesPerDay)
		switch {
		case r.state == hoursClosed && len(r.spans) > 0:
			if inA || inB {
				a, b = hoursClosed, hoursClosed
			}
			continue
		case !r.adds || r.state == hoursClosed:
			if onA {
				a = hoursSilent
			}
			if onB {
				b = hoursSilent
			}
		}
		if inA {
			a = r.state
		}
		if inB {
			b = r.state
		}
	}
	return max(a, b)
}

// covers tells whether the rule's times hold a minute, which counts from the start of a day that the rule matches.
func (r *hoursRule) covers(minute uint16) bool {
	for _, s := range r.spans {
		if s.from <= minute && minute < s.to {
			return true
		}
	}
	return len(r.spans) == 0 && minute < minutesPerDay
}

func (r *hoursRule) matches(d *hoursDay) bool {
	return (r.weekdays == 0 && len(r.numbered) == 0 || r.weekdays&(1<<d.weekday) != 0 || r.matchesNumbered(d)) &&
		matchesRange(r.years, d.year) && matchesRange(r.weeks, d.week) && r.matchesDate(d)
}

func (r *hoursRule) matchesNumbered(d *hoursDay) bool {
	for _, n := range r.numbered {
		if n.weekday == d.weekday && n.in&d.numbers != 0 {
			return true
		}
	}
	return false
}

func (r *hoursRule) matchesDate(d *hoursDay) bool {
	for _, x := range r.dates {
		at := dateKey(0, d.month, d.day)
		if x.dated {
			at = dateKey(d.year, d.month, d.day)
		}
		if x.from <= at && at <= x.to || x.from > x.to && (at >= x.from || at <= x.to) {
			return true
		}
	}
	return len(r.dates) == 0
}

func matchesRange(ranges []hoursRange, n int) bool {
	for _, x := range ranges {
		if x.from <= n && n <= x.to && (n-x.from)%x.step == 0 {
			return true
		}
	}
	return len(ranges) == 0
}

func dateKey(year, month, day int) int { return year<<9 + month<<5 + day }

// daysIn returns the number of days of a month; year 0 stands for any year and is a leap year.
func daysIn(year, month int) int {
	switch {
	case month == 4 || month == 6 || month == 9 || month == 11:
		return 30
	case month != 2:
		return 31
	case year%4 == 0 && (year%100 != 0 || year%400 == 0):
		return 29
	}
	return 28
}

// floorMod returns the remainder of a/n that is not negative.
func floorMod(a, n int64) int64 {
	if a %= n; a < 0 {
		a += n
	}
	return a
}
