package insight

import (
	"math"
	"slices"
	"time"

	"github.com/shortline/shortline"
)

// MaxHorizon is how many hours ahead a forecast reaches.
const MaxHorizon = 48

// scored is up to which horizon errors are kept; farther ones take the errors of the last.
const scored = 12

// Prior beliefs, in hours of evidence: an hour of the week is believed to be as that hour on all working days (or weekends)
// are until it was seen itself, that as the hour on all days, and that as the store's mean.
const (
	priorSlot, priorDayHour, priorHour = 0.5, 1, 2
	// A deviation from the usual is believed to keep priorPersistence of itself an hour later; priorPersistenceWeight is in hours.
	priorPersistence, priorPersistenceWeight = 0.7, 48
	// newest is how much of the deviation is that of the newest hour; the rest is what was expected of the hours before.
	newest = 0.65
	// priorSpread is the half width of the band, in roots of the expected length plus one, until errors are known; it moves by slowest of
	// its width an error, and more at first.
	priorSpread = 1.6
	slowest     = 0.05
	leastBand   = 0.1
)

// Forecast is what is expected of one hour.
type Forecast struct {
	// At is the beginning of the hour.
	At time.Time
	// Length is the expected mean length; it lies between Low and High, which four of five hours are to fall between.
	Length, Low, High float64
	// Hours is how often this hour of the week was seen: 0 says that the forecast rests on other hours.
	Hours int
}

// Model is what is known of one store's queue after the hours that it has observed. The zero value is of no use: see NewModel.
//
// The expected length of an hour is the weekly profile, by hour of the week, drawn towards the hour of the day while little is known,
// plus how the last hours differ from it, which decays from hour to hour as it did before (a first-order autoregression of
// the residuals with a shrunk coefficient). The band is around that as the model's own past errors at that horizon were,
// each of a forecast made before the hour was seen, in units of the root of the expected length plus one, since counts vary by about the root
// of their mean.
type Model struct {
	loc  *time.Location
	base time.Time // weights are those of this time; see growth

	slots    [HoursPerWeek]level
	dayHours [2][24]level // working days, weekends
	hours    [24]level
	all      level

	last      time.Time // the newest hour observed; zero: none
	deviation float64   // how the queue differs from the usual at last
	lag       struct{ product, square float64 }

	ahead   [scored]span               // of the hours after last
	pending [scored][scored]prediction // pending[k-1][i]: made k hours ahead, for the hour i+1 hours after last
	bands   [scored]band
}

// level is a mean. Instead of letting old weights shrink, new ones grow with time.
type level struct {
	weight, sum float64
	hours       int
}

func (l *level) add(y, w float64) {
	l.weight += w
	l.sum += w * y
	l.hours++
}

// towards is the level drawn to prior, which has the weight strength.
func (l *level) towards(prior, strength float64) float64 {
	return (l.sum + strength*prior) / (l.weight + strength)
}

// growth is the weight of an hour that is observed at t.
func (m *Model) growth(t time.Time) float64 {
	return math.Exp2(float64(t.Sub(m.base)) / float64(HalfLife))
}

// prediction of an hour's length; scale is the root that errors are measured in.
type prediction struct {
	length, scale float64
	ok            bool
}

// band is around a prediction, in units of its scale: the 10 % and the 90 % quantile of its errors, tracked as they come. After an
// error each bound moves by a step of the pinball loss's subgradient, so that in the long run one error of ten is beyond
// either, however they are distributed and though that changes (Gibbs and Candès, Adaptive Conformal Inference, 2021).
type band struct {
	low, high float64
	n         int
}

func newBand(k int) band {
	half := priorSpread * math.Sqrt(1+0.1*float64(k))
	return band{low: -half, high: half}
}

func (b *band) add(e float64) {
	b.n++
	step := (b.high - b.low) * max(slowest, 1/float64(b.n+10))
	if e > b.high {
		b.high += step * 0.9
	} else {
		b.high -= step * 0.1
	}
	if e < b.low {
		b.low -= step * 0.9
	} else {
		b.low += step * 0.1
	}
	b.low, b.high = min(b.low, -leastBand), max(b.high, leastBand) // a queue that never moved may move yet
}

// NewModel makes a model that has observed the rollups before the hour of now, in order of their hours; rollups such as no store
// can have do not count.
func NewModel(rollups []shortline.Rollup, loc *time.Location, now time.Time) *Model {
	m := newModel(loc, now)
	for _, r := range inOrder(rollups, now) {
		m.observe(r.Hour, float64(r.Sum)/float64(r.Samples))
	}
	return m
}

func newModel(loc *time.Location, now time.Time) *Model {
	m := &Model{loc: loc, base: now}
	for k := range m.bands {
		m.bands[k] = newBand(k)
	}
	return m
}

// inOrder are the sound rollups of whole hours before that of now, one for each hour.
func inOrder(rollups []shortline.Rollup, now time.Time) []shortline.Rollup {
	current := now.Truncate(time.Hour)
	out := make([]shortline.Rollup, 0, len(rollups))
	for _, r := range rollups {
		if sound(r) && r.Hour.Before(current) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b shortline.Rollup) int { return a.Hour.Compare(b.Hour) })
	return slices.CompactFunc(out, func(a, b shortline.Rollup) bool { return a.Hour.Equal(b.Hour) })
}

// usual is the profile's value for a span; g is the weight of an hour there.
func (m *Model) usual(c *span, g float64) (length float64) {
	overall := m.all.towards(0, 1e-9*g)
	for i := range c.n {
		s := c.slots[i]
		hour := m.hours[s.Hour()].towards(overall, priorHour*g)
		dayHour := m.dayHours[weekend(s)][s.Hour()].towards(hour, priorDayHour*g)
		length += c.shares[i] * m.slots[s].towards(dayHour, priorSlot*g)
	}
	return length
}

func weekend(s Slot) int {
	if s.Day() >= 5 {
		return 1
	}
	return 0
}

// persistence is the share of a deviation that is left an hour later.
func (m *Model) persistence() float64 {
	unit := 1 + m.all.towards(0, 1e-9) // the size of a squared deviation that counts as an hour of evidence
	rho := (m.lag.product + priorPersistence*priorPersistenceWeight*unit) / (m.lag.square + priorPersistenceWeight*unit)
	return min(max(rho, 0), 0.97)
}

// observe takes the mean length y of the hour from at, which is after all those before.
func (m *Model) observe(at time.Time, y float64) {
	g := m.growth(at)
	gap, c := 1, spanOf(at, m.loc)
	if m.all.hours > 0 {
		gap = int(at.Sub(m.last) / time.Hour)
		m.note(gap, y)
		residual := y - m.usual(&c, g)
		if gap == 1 {
			const forget = 1 - 1.0/(8*7*24) // evidence of some eight weeks
			m.lag.product = m.lag.product*forget + residual*m.deviation
			m.lag.square = m.lag.square*forget + m.deviation*m.deviation
		}
		m.deviation = newest*residual + (1-newest)*m.deviation*math.Pow(m.persistence(), float64(gap))
	}
	for i := range c.n {
		s, w := c.slots[i], g*c.shares[i]
		m.slots[s].add(y, w)
		m.dayHours[weekend(s)][s.Hour()].add(y, w)
		m.hours[s.Hour()].add(y, w)
	}
	m.all.add(y, g)
	m.last = at
	m.expect(gap, g)
}

// note holds what was expected of an hour, gap hours after the last, against what it was.
func (m *Model) note(gap int, y float64) {
	for k := range scored {
		row := &m.pending[k]
		if i := gap - 1; i < scored && row[i].ok {
			m.bands[k].add((y - row[i].length) / row[i].scale)
		}
		n := copy(row[:], row[min(gap, scored):])
		clear(row[n:])
	}
}

// expect notes what is expected of the hours after last, to be held against them.
func (m *Model) expect(gap int, g float64) {
	n := 0
	if m.ahead[0].n > 0 {
		n = copy(m.ahead[:], m.ahead[min(gap, scored):])
	}
	for ; n < scored; n++ {
		m.ahead[n] = spanOf(m.last.Add(time.Duration(n+1)*time.Hour), m.loc)
	}
	rho, keep := m.persistence(), 1.0
	for k := range scored {
		keep *= rho
		length := max(0, m.usual(&m.ahead[k], g)+m.deviation*keep)
		m.pending[k][k] = prediction{length, math.Sqrt(length + 1), true}
	}
}

// Live is the newest that is known of a queue, within the current hour.
type Live struct {
	Length float64
	At     time.Time
}

// fresh tells whether l is of the hour around now.
func (l *Live) fresh(now time.Time) bool { return now.Sub(l.At).Abs() <= time.Hour }

// Forecast returns what is expected of the n hours that follow the one of now, n up to MaxHorizon. live, where it is not nil and not older than
// an hour, tells how today differs from the usual at this moment. ok is false where nothing was ever observed.
func (m *Model) Forecast(now time.Time, live *Live, n int) (out []Forecast, ok bool) {
	if m.all.hours == 0 {
		return nil, false
	}
	current := now.UTC().Truncate(time.Hour)
	g, rho := m.growth(current), m.persistence()
	base, deviation := m.last, m.deviation
	if live != nil && live.fresh(now) {
		c := spanOf(current, m.loc)
		gap := max(0, current.Sub(base).Hours())
		deviation = newest*(live.Length-m.usual(&c, g)) + (1-newest)*deviation*math.Pow(rho, gap)
		base = current
	}
	for i := 1; i <= min(n, MaxHorizon); i++ {
		at := current.Add(time.Duration(i) * time.Hour)
		k, c := max(1, int(at.Sub(base)/time.Hour)), spanOf(at, m.loc)
		f := Forecast{At: at, Length: max(0, m.usual(&c, g)+deviation*math.Pow(rho, float64(k))), Hours: m.slots[c.slots[0]].hours}
		band, scale := &m.bands[min(k, scored)-1], math.Sqrt(f.Length+1)
		f.Low, f.High = max(0, f.Length+band.low*scale), f.Length+band.high*scale
		out = append(out, f)
	}
	return out, true
}

// Observed is how many hours the model has seen.
func (m *Model) Observed() int { return m.all.hours }
