package insight

import (
	"math"
	"time"
)

// Outlook is the essence of a Model in less than a kilobyte: what is usual in each hour of the week, and how the last hours
// differed. It is immutable.
type Outlook struct {
	loc   *time.Location
	week  [HoursPerWeek]float32 // expected mean length
	known [HoursPerWeek]bool    // whether the hour itself was seen

	last           time.Time
	deviation, rho float64
}

// Outlook is nil where the model has observed nothing.
func (m *Model) Outlook() *Outlook {
	if m.all.hours == 0 {
		return nil
	}
	o := &Outlook{loc: m.loc, last: m.last, deviation: m.deviation, rho: m.persistence()}
	g := m.growth(m.last)
	for s := range o.week {
		o.week[s] = float32(m.usual(&span{slots: [quarters]Slot{Slot(s)}, shares: [quarters]float64{1}, n: 1}, g))
		o.known[s] = m.slots[s].hours > 0
	}
	return o
}

// Usual is the mean length that is usual for the hour of the week that t is in; ok is false where that hour was never seen.
func (o *Outlook) Usual(t time.Time) (length float64, ok bool) {
	if o == nil {
		return 0, false
	}
	s := SlotAt(t, o.loc)
	return float64(o.week[s]), o.known[s]
}

// At is the length expected at t, as a Model forecasts it: what is usual, and what is left of today's deviation. live is as in
// Model.Forecast, with the time of now. ok is false without an Outlook.
func (o *Outlook) At(t, now time.Time, live *Live) (length float64, ok bool) {
	if o == nil {
		return 0, false
	}
	base, deviation := o.last.Add(time.Hour/2), o.deviation // an hour's mean is that of its middle
	if live != nil && live.fresh(now) {
		gap := max(0, now.Sub(base).Hours())
		deviation = newest*(live.Length-float64(o.week[SlotAt(now, o.loc)])) + (1-newest)*deviation*math.Pow(o.rho, gap)
		base = now
	}
	ahead := max(0, t.Sub(base).Hours())
	return max(0, float64(o.week[SlotAt(t, o.loc)])+deviation*math.Pow(o.rho, ahead)), true
}
